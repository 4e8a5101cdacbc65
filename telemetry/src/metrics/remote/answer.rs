//! What a receiver's answer means (remote write 1.0 and 2.0, "Required receiver behaviour").

use super::Version;
use jiff::Timestamp;
use std::time::Duration;

/// What the receiver says that it has stored (2.0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Samples.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has everything.
    Done,
    /// It has so much of it, and will never take the rest; why.
    Partial(Written, String),
    /// It cannot take anything now; when it says to come back, and why.
    Later(Option<Duration>, String),
    /// The request is too large.
    TooLarge,
    /// Something in the request will never be taken; what it says.
    Bad(String),
    /// It does not speak this form.
    OtherVersion,
}

/// Refusals that have nothing to do with what was sent (a wrong password, a wrong path) are worth waiting for whoever
/// can set them right.
const MISCONFIGURED: Duration = Duration::from_secs(60);
/// Most of a refusal's text that is told.
const MOST_TEXT: usize = 300;

impl Answer {
    /// Reads an answer; `header` gives a header's value by its name.
    pub fn read<'a>(
        version: Version,
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &str,
        now: Timestamp,
    ) -> Self {
        let count = |name: &str| header(name).and_then(|text| text.trim().parse::<u64>().ok());
        let samples = count("x-prometheus-remote-write-samples-written");
        let histograms = count("x-prometheus-remote-write-histograms-written");
        let exemplars = count("x-prometheus-remote-write-exemplars-written");
        let counted = samples.or(histograms).or(exemplars).is_some();
        let written = Written {
            samples: samples.unwrap_or(0),
            histograms: histograms.unwrap_or(0),
            exemplars: exemplars.unwrap_or(0),
        };
        let why = || {
            format!(
                "{status}: {}",
                body.trim().chars().take(MOST_TEXT).collect::<String>()
            )
        };
        let retry_after = || header("retry-after").and_then(|text| wait(text, now));
        match status {
            // A receiver of 1.0 that does not look at the type finds nothing in a request of 2.0.
            200..=299 if version == Version::V2 && !counted => Answer::OtherVersion,
            200..=299 => Answer::Done,
            415 if version == Version::V2 => Answer::OtherVersion,
            413 => Answer::TooLarge,
            400..=499 if version == Version::V2 && counted && written != Written::default() => {
                Answer::Partial(written, why())
            }
            408 | 429 | 500..=599 => Answer::Later(retry_after(), why()),
            401 | 403 | 404 | 405 | 407 | 300..=399 => {
                Answer::Later(Some(retry_after().unwrap_or(MISCONFIGURED)), why())
            }
            _ => Answer::Bad(why()),
        }
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}
