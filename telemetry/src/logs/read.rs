//! What an entry says: its severity, its message, its fields.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// How bad it is, with the ranges of OpenTelemetry's log data model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace = 1,
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
    Fatal = 21,
}

impl Level {
    /// Reads the words that loggers use, in any case; syslog's and Python's among them.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.trim();
        let known = [
            (Self::Trace, &["trace", "trc", "finest"][..]),
            (Self::Debug, &["debug", "dbg", "debg", "fine"]),
            (
                Self::Info,
                &["info", "inf", "information", "informational", "notice", "log"],
            ),
            (Self::Warn, &["warn", "warning", "wrn"]),
            (Self::Error, &["error", "err", "eror", "severe"]),
            (
                Self::Fatal,
                &[
                    "fatal",
                    "critical",
                    "crit",
                    "panic",
                    "alert",
                    "emerg",
                    "emergency",
                    "ftl",
                ],
            ),
        ];
        let (level, _) = known
            .into_iter()
            .find(|(_, words)| words.iter().any(|known| known.eq_ignore_ascii_case(word)))?;
        Some(level)
    }

    /// Of syslog's severities, 0 to 7 (RFC 5424, 6.2.1; the same in journald).
    pub fn of_priority(priority: u8) -> Option<Self> {
        Some(match priority {
            0..=2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            7 => Self::Debug,
            _ => return None,
        })
    }

    /// In OpenTelemetry's short form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// An entry taken apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Where it says how bad it is.
    pub level: Option<Level>,
    /// The message; the whole text where it has no form that is known.
    pub message: String,
    /// What else it says.
    pub fields: Map<String, Value>,
    /// When it was written, where its fields say so.
    pub time: Option<Timestamp>,
}

/// Reads JSON objects, logfmt, and the level that other lines begin with.
pub fn read(text: &str) -> Reading {
    json(text).or_else(|| logfmt(text)).unwrap_or_else(|| Reading {
        level: leading_level(text),
        message: text.to_owned(),
        ..Reading::default()
    })
}

/// Under the names that loggers give it: RFC 3339, or seconds or milliseconds since 1970 as a number.
fn time(fields: &Map<String, Value>) -> Option<Timestamp> {
    ["time", "timestamp", "ts", "@timestamp"]
        .iter()
        .find_map(|name| match fields.get(*name)? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => {
                let number = number.as_f64()?;
                // From 2001 on, for the next centuries.
                let seconds = match number {
                    1e9..1e10 => number,
                    1e12..1e13 => number / 1e3,
                    _ => return None,
                };
                Timestamp::from_microsecond((seconds * 1e6) as i64).ok()
            }
            _ => None,
        })
}

fn json(text: &str) -> Option<Reading> {
    let trimmed = text.trim();
    if !(trimmed.starts_with('{') && trimmed.ends_with('}')) {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(trimmed) else {
        return None;
    };
    Some(named(fields, text))
}

/// Takes level and message out of the fields, under the names that loggers give them.
fn named(mut fields: Map<String, Value>, text: &str) -> Reading {
    let level = ["level", "lvl", "severity", "levelname", "log.level"]
        .into_iter()
        .find_map(|name| {
            let level = match fields.get(name)? {
                Value::String(word) => Level::parse(word)?,
                Value::Number(number) => numbered(number.as_u64()?)?,
                _ => return None,
            };
            fields.remove(name);
            Some(level)
        });
    let message = ["msg", "message", "log", "event"].into_iter().find_map(|name| {
        if !fields.get(name)?.is_string() {
            return None;
        }
        fields
            .remove(name)
            .and_then(|value| value.as_str().map(str::to_owned))
    });
    Reading {
        level,
        message: message.unwrap_or_else(|| text.to_owned()),
        time: time(&fields),
        fields,
    }
}

/// Levels of bunyan and pino.
fn numbered(number: u64) -> Option<Level> {
    Some(match number {
        10 => Level::Trace,
        20 => Level::Debug,
        30 => Level::Info,
        40 => Level::Warn,
        50 => Level::Error,
        60 => Level::Fatal,
        _ => return None,
    })
}

/// `key=value key="other value"`: taken as such only where the whole line is, and has a level or a message.
fn logfmt(text: &str) -> Option<Reading> {
    let mut fields = Map::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let sound = |c: char| c.is_ascii_alphanumeric() || "_.-/@".contains(c);
        if key.is_empty() || !key.chars().all(sound) {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => until_quote(quoted)?,
            None => {
                let (value, after) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), after)
            }
        };
        fields.insert(key.to_owned(), Value::String(value));
        rest = after.trim_start();
    }
    let told = ["level", "lvl", "severity", "msg", "message"];
    told.iter()
        .any(|name| fields.contains_key(*name))
        .then(|| named(fields, text))
}

fn until_quote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// `ERROR ...`, `[warn] ...`, `2026-01-01T00:00:00Z INFO ...`, `level: ...`, and klog's `E0102 15:04:05.678 ...`.
fn leading_level(text: &str) -> Option<Level> {
    let line = text.lines().next()?;
    if let Some(level) = klog(line) {
        return Some(level);
    }
    let word = |word: &str| {
        let bare = word.trim_matches(['[', ']', '(', ')', '<', '>', ':', '|']);
        let level = Level::parse(bare)?;
        // `log` and `error` are ordinary words too: only shouted or marked ones count.
        let marked = bare.len() < word.len() || bare.chars().all(|c| c.is_ascii_uppercase());
        marked.then_some(level)
    };
    line.split_whitespace().take(4).find_map(word)
}

fn klog(line: &str) -> Option<Level> {
    let (first, rest) = line.split_at_checked(1)?;
    let day = rest.get(..5)?;
    if !(day.ends_with(' ') && day[..4].bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    Some(match first {
        "I" => Level::Info,
        "W" => Level::Warn,
        "E" => Level::Error,
        "F" => Level::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_gives_level_message_and_fields() {
        let reading = read(r#"{"level":"warn","msg":"slow","ms":1200,"at":{"a":1}}"#);
        assert_eq!(reading.level, Some(Level::Warn));
        assert_eq!(reading.message, "slow");
        assert_eq!(Value::Object(reading.fields), json!({"ms": 1200, "at": {"a": 1}}));
        assert_eq!(read(r#"{"level":50,"x":1}"#).level, Some(Level::Error));
        // A level of another meaning stays a field.
        assert_eq!(read(r#"{"level":"7","msg":"x"}"#).fields["level"], "7");
    }

    #[test]
    fn logfmt_must_be_the_whole_line() {
        let reading = read(r#"ts=1 level=error msg="a \"b\" c" path=/x"#);
        assert_eq!(
            (reading.level, reading.message.as_str()),
            (Some(Level::Error), r#"a "b" c"#)
        );
        assert_eq!(Value::Object(reading.fields), json!({"ts": "1", "path": "/x"}));
        for text in [
            "a=b",
            "hello level=info",
            "level=info msg=\"open",
            "=x level=info",
        ] {
            assert_eq!(read(text).message, text);
            assert!(read(text).fields.is_empty(), "{text}");
        }
    }

    #[test]
    fn levels_of_other_lines() {
        for (text, level) in [
            ("ERROR: no disk", Some(Level::Error)),
            ("2026-01-01 10:00:00 [warn] hot", Some(Level::Warn)),
            ("E0102 15:04:05.678901 1 main.go:1] x", Some(Level::Error)),
            ("an error occurred", None),
            ("log it", None),
            ("", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(read(text).level, level, "{text}");
        }
    }
}
