//! Small pieces that several pages show.

use crate::store::Health;
use jiff::Timestamp;
use maud::{Markup, html};
use model::{PodPhase, Severity, WorkloadState};

/// How something stands: the class that colours it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Unknown,
    Quiet,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "is-good",
            Self::Busy => "is-busy",
            Self::Warn => "is-warn",
            Self::Bad => "is-bad",
            Self::Unknown => "is-unknown",
            Self::Quiet => "is-quiet",
        }
    }
}

/// Colour of a health; never the only sign of it.
pub(super) fn tone(health: Health) -> Tone {
    match health {
        Health::Ready => Tone::Good,
        Health::Progressing => Tone::Busy,
        Health::Waiting | Health::Paused | Health::Revoked => Tone::Quiet,
        Health::RolledBack => Tone::Warn,
        Health::Degraded => Tone::Bad,
        Health::Unknown => Tone::Unknown,
    }
}

/// The word for people.
pub(super) fn health_word(health: Health) -> &'static str {
    match health {
        Health::RolledBack => "Rolled back",
        other => other.word(),
    }
}

/// A shape for each tone, so that colour is never alone.
pub(super) fn icon(tone: Tone) -> Markup {
    html! {
        svg .icon viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" {
            @match tone {
                Tone::Good => {
                    circle cx="8" cy="8" r="7" fill="currentColor" {}
                    path .cut d="M4.6 8.3l2.3 2.3 4.5-4.9" fill="none" stroke-width="1.8" {}
                }
                Tone::Busy => {
                    circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2" opacity=".3" {}
                    path d="M8 2a6 6 0 0 1 6 6" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" {}
                }
                Tone::Warn => {
                    path d="M8 1.8l6.6 12H1.4z" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" {}
                    path d="M8 6v3.8" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" {}
                    circle cx="8" cy="11.8" r=".8" fill="currentColor" {}
                }
                Tone::Bad => {
                    path d="M8 1.2l7.3 13.3H.7z" fill="currentColor" stroke="currentColor" stroke-linejoin="round" {}
                    path .cut d="M8 6v4" stroke-width="1.8" stroke-linecap="round" {}
                    circle .cut-dot cx="8" cy="12.3" r="1" {}
                }
                Tone::Unknown => {
                    circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2.6 2" {}
                    path d="M6.2 6.3c.1-1.1.9-1.7 1.9-1.7 1.1 0 1.9.7 1.9 1.6 0 1.5-2 1.5-2 3" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" {}
                    circle cx="8" cy="11.4" r=".9" fill="currentColor" {}
                }
                Tone::Quiet => { circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6" {} }
            }
        }
    }
}

/// The shape of a health; going back has its own.
pub(super) fn health_icon(health: Health) -> Markup {
    if health != Health::RolledBack {
        return icon(tone(health));
    }
    html! {
        svg .icon viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" {
            g fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" {
                path d="M2.5 6.5h7a4 4 0 0 1 0 8H6" {}
                path d="M5.8 2.8L2.2 6.5l3.6 3.7" {}
            }
        }
    }
}

/// A health as word, shape and colour.
pub(super) fn health_badge(health: Health) -> Markup {
    html! { span class=(format!("badge {}", tone(health).class())) { (health_icon(health)) span { (health_word(health)) } } }
}

/// A word with its shape and colour.
pub(super) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class=(format!("badge {}", tone.class())) { (icon(tone)) span { (word) } } }
}

/// A moment: written in full, and turned into an age by the page's script.
pub(super) fn when(time: Timestamp) -> Markup {
    let full = time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let iso = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(iso) title=(full) data-age { (full) } }
}

/// Bytes in binary units, three digits.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && amount < 100.0);
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// A length of time in its two largest units.
pub(super) fn length(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A share as a bar with its number; `high` is where it begins to worry.
pub(super) fn share(percent: f64, high: f64, title: &str) -> Markup {
    let percent = percent.clamp(0.0, 100.0);
    let tone = if percent >= high { "is-high" } else { "" };
    html! {
        span class=(format!("share {tone}")) title=(title) {
            svg .track viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                rect .rail width="100" height="8" {}
                rect .fill width=(format!("{percent:.1}")) height="8" {}
            }
            span .number { (format!("{percent:.0}")) "\u{202f}%" }
        }
    }
}

/// Of a whole, in percent; nothing where the whole is not known.
pub(super) fn percent(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a percentage is shown without digits")]
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// Nothing to show in a cell.
pub(super) fn none() -> Markup {
    html! { span .muted title="not known" { "–" } }
}

/// A sha or id, set apart.
pub(super) fn code(text: &str) -> Markup {
    html! { code { (text) } }
}

pub(super) fn workload_tone(state: WorkloadState) -> (Tone, &'static str) {
    match state {
        WorkloadState::Current => (Tone::Good, "Current"),
        WorkloadState::InProgress => (Tone::Busy, "In progress"),
        WorkloadState::Failed => (Tone::Bad, "Failed"),
        WorkloadState::Terminating => (Tone::Quiet, "Terminating"),
    }
}

pub(super) fn pod_word(phase: PodPhase) -> &'static str {
    match phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    }
}

pub(super) fn severity_tone(severity: Severity) -> (Tone, &'static str) {
    match severity {
        Severity::Normal => (Tone::Quiet, "Normal"),
        Severity::Warning => (Tone::Warn, "Warning"),
        Severity::Critical => (Tone::Bad, "Critical"),
    }
}

/// A table that scrolls by itself where the page is narrow, reachable by keyboard.
pub(super) fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div .scroll role="region" aria-label=(label) tabindex="0" { (table) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(16_543_182_848), "15.4 GiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!(length(42), "42 s");
        assert_eq!(length(3_600 * 5 + 120), "5 h 2 min");
        assert_eq!(length(86_400 * 3 + 7_200), "3 d 2 h");
        assert_eq!(percent(1, 0), None);
    }
}
