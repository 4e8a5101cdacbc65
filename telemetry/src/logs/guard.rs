//! What must not leave the device, and how much may.

use regex::Regex;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// A pattern and what stands in its place.
#[derive(Debug, Clone)]
pub struct Redaction {
    pattern: Regex,
    instead: String,
}

/// A redaction that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BadRedaction {
    /// The expression does not parse.
    #[error("redaction {pattern:?} is no regular expression")]
    Pattern {
        /// As given.
        pattern: String,
        /// Where it goes wrong.
        #[source]
        source: Box<regex::Error>,
    },
    /// A name that begins with `:` is one of ours.
    #[error("there is no redaction {name:?}; there are {}", NAMED.map(|(name, _, _)| name).join(", "))]
    Unknown {
        /// As given.
        name: String,
    },
}

/// Redactions that are asked for by name.
const NAMED: [(&str, &str, &str); 4] = [
    (
        ":bearer",
        r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
        "$1 [redacted]",
    ),
    (
        ":password",
        r#"(?i)\b(passw(?:or)?d|secret|token|api[_-]?key)("?\s*[=:]\s*)("[^"]*"|[^\s,;&"]+)"#,
        "$1$2[redacted]",
    ),
    (":userinfo", r"([a-z][a-z0-9+.-]*://)[^\s/@]+@", "$1[redacted]@"),
    (
        ":email",
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
        "[redacted]",
    ),
];

impl Redaction {
    /// A named one (`:bearer`, `:password`, `:userinfo`, `:email`), or a regular expression whose matches are replaced
    /// by `[redacted]`.
    ///
    /// # Errors
    /// Where there is no such name, or the expression does not parse.
    pub fn parse(text: &str) -> Result<Self, BadRedaction> {
        let (pattern, instead) = if text.starts_with(':') {
            let found = NAMED.iter().find(|(name, _, _)| *name == text);
            let (_, pattern, instead) = found.ok_or_else(|| BadRedaction::Unknown {
                name: text.to_owned(),
            })?;
            (*pattern, *instead)
        } else {
            (text, "[redacted]")
        };
        let pattern = Regex::new(pattern).map_err(|source| BadRedaction::Pattern {
            pattern: text.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            pattern,
            instead: instead.to_owned(),
        })
    }
}

/// Applies all of them, one after the other.
pub fn redact<'a>(text: &'a str, redactions: &[Redaction]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for redaction in redactions {
        if let Cow::Owned(replaced) = redaction.pattern.replace_all(&text, redaction.instead.as_str()) {
            text = Cow::Owned(replaced);
        }
    }
    text
}

/// Buckets of a source with many writers, one for each: a writer may have a burst of ten seconds' worth, and then so
/// many entries a second. What is over is counted.
#[derive(Debug)]
pub(super) struct Limits {
    per_second: u32,
    of: BTreeMap<String, Limit>,
}

/// Writers whose limits are held; they may name themselves as they like.
const MOST_WRITERS: usize = 512;

#[derive(Debug)]
struct Limit {
    left: f64,
    at: Duration,
    dropped: u64,
}

impl Limits {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            of: BTreeMap::new(),
        }
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second
    }

    fn burst(&self) -> f64 {
        f64::from(self.per_second) * 10.0
    }

    /// Whether one more may pass at `now`, a time that only rises. Beyond a number of writers that nobody has, the
    /// further ones share one bucket.
    pub(super) fn admits(&mut self, whose: &str, now: Duration) -> bool {
        let whose = if self.of.len() < MOST_WRITERS || self.of.contains_key(whose) {
            whose
        } else {
            "others"
        };
        let rate = f64::from(self.per_second);
        let new = Limit {
            left: self.burst(),
            at: now,
            dropped: 0,
        };
        if !self.of.contains_key(whose) {
            self.of.insert(whose.to_owned(), new);
        }
        self.of
            .get_mut(whose)
            .is_some_and(|limit| limit.admits(now, rate))
    }

    /// To be called whenever the source was looked at, whether something was new or not: what is read after a pause of
    /// the reader has had the pause to be written in.
    pub(super) fn looked(&mut self, now: Duration) {
        let (rate, burst) = (f64::from(self.per_second), self.burst());
        self.of.retain(|_, limit| {
            limit.refill(now, rate);
            limit.left = limit.left.min(burst);
            // Who has not been near the limit is forgotten.
            limit.dropped > 0 || limit.left < burst
        });
    }

    /// Who had how many turned away since this was asked last.
    pub(super) fn dropped(&mut self) -> Vec<(String, u64)> {
        let dropped = self.of.iter_mut().filter(|(_, limit)| limit.dropped > 0);
        dropped
            .map(|(whose, limit)| (whose.clone(), std::mem::take(&mut limit.dropped)))
            .collect()
    }
}

impl Limit {
    fn admits(&mut self, now: Duration, rate: f64) -> bool {
        self.refill(now, rate);
        if self.left < 1.0 {
            self.dropped += 1;
            return false;
        }
        self.left -= 1.0;
        true
    }

    fn refill(&mut self, now: Duration, rate: f64) {
        self.left += now.saturating_sub(self.at).as_secs_f64() * rate;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(names: &[&str], text: &str) -> String {
        let redactions: Vec<_> = names.iter().map(|name| Redaction::parse(name).unwrap()).collect();
        redact(text, &redactions).into_owned()
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let all = [":bearer", ":password", ":userinfo", ":email", r"\b\d{16}\b"];
        for (text, want) in [
            (
                "Authorization: Bearer abcdef123456",
                "Authorization: Bearer [redacted]",
            ),
            (r#"{"password":"x y","a":1}"#, r#"{"password":[redacted],"a":1}"#),
            ("token=abc next", "token=[redacted] next"),
            ("GET https://me:pw@host/x", "GET https://[redacted]@host/x"),
            ("mail to a@b.example now", "mail to [redacted] now"),
            ("card 4111111111111111.", "card [redacted]."),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(by(&all, text), want);
        }
        assert!(
            Redaction::parse(":mail")
                .unwrap_err()
                .to_string()
                .contains(":email")
        );
        assert!(Redaction::parse("(").is_err());
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut limits = Limits::new(10);
        let passed = |limits: &mut Limits, whose: &str, at| {
            (0..1000)
                .filter(|_| limits.admits(whose, Duration::from_secs(at)))
                .count()
        };
        assert_eq!(passed(&mut limits, "a", 0), 100);
        assert_eq!(passed(&mut limits, "b", 0), 100, "each writer has its own");
        assert_eq!(passed(&mut limits, "a", 2), 20);
        assert_eq!(limits.dropped(), [("a".to_owned(), 1880), ("b".to_owned(), 900)]);
        assert_eq!(limits.dropped(), []);
    }

    #[test]
    fn what_was_written_while_nobody_looked_is_no_flood() {
        let mut limits = Limits::new(10);
        let passed = |limits: &mut Limits, at| {
            (0..1000)
                .filter(|_| limits.admits("", Duration::from_secs(at)))
                .count()
        };
        assert_eq!(passed(&mut limits, 0), 100);
        assert_eq!(passed(&mut limits, 50), 500, "the reader had to wait");
        limits.looked(Duration::from_secs(50));
        (51..=100).for_each(|at| limits.looked(Duration::from_secs(at)));
        assert_eq!(passed(&mut limits, 100), 100, "the source was quiet");
    }
}
