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

/// Buckets of a source with many writers, one for each.
#[derive(Debug)]
pub(super) struct Limits {
    per_second: u32,
    of: BTreeMap<String, Limit>,
}

/// Writers whose limits are held; they may name themselves as they like.
const MOST_WRITERS: usize = 512;

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

    /// See [`Limit::admits`]. Beyond a number of writers that nobody has, the further ones share one bucket.
    pub(super) fn admits(&mut self, whose: &str, now: Duration) -> bool {
        let whose = if self.of.len() < MOST_WRITERS || self.of.contains_key(whose) {
            whose
        } else {
            "others"
        };
        if let Some(limit) = self.of.get_mut(whose) {
            return limit.admits(now);
        }
        let mut limit = Limit::new(self.per_second);
        let admits = limit.admits(now);
        self.of.insert(whose.to_owned(), limit);
        admits
    }

    /// Who had how many turned away since this was asked last. Who has not been near the limit is forgotten.
    pub(super) fn dropped(&mut self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        self.of.retain(|whose, limit| {
            let dropped = limit.dropped();
            if dropped > 0 {
                all.push((whose.clone(), dropped));
            }
            dropped > 0 || limit.left + limit.per_second < limit.burst
        });
        all
    }
}

/// A bucket of entries: a source may have a burst, and then so many a second. What is over is counted.
#[derive(Debug)]
pub struct Limit {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Option<Duration>,
    dropped: u64,
}

impl Limit {
    /// `per_second` entries, and ten seconds' worth at once.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        let burst = per_second * 10.0;
        Self {
            per_second,
            burst,
            left: burst,
            at: None,
            dropped: 0,
        }
    }

    /// Whether one more may pass at `now`, a time that only rises.
    pub fn admits(&mut self, now: Duration) -> bool {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        self.at = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.left < 1.0 {
            self.dropped += 1;
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// How many were turned away since this was asked last.
    pub fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
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
        let mut limit = Limit::new(10);
        let passed = |limit: &mut Limit, at| {
            (0..1000)
                .filter(|_| limit.admits(Duration::from_secs(at)))
                .count()
        };
        assert_eq!(passed(&mut limit, 0), 100);
        assert_eq!(passed(&mut limit, 2), 20);
        assert_eq!(limit.dropped(), 1880);
        assert_eq!(limit.dropped(), 0);
    }
}
