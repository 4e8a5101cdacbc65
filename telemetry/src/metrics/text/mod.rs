//! Prometheus' text format 0.0.4 and OpenMetrics 1.0, read line by line out of one body.
//!
//! Nothing is allocated per sample: a line hands out the text that names its series as it stands, which a scraper
//! knows from the scrape before, and takes apart only where it is new ([`labels`]).
//!
//! What Prometheus 2 and 3 take is taken, quoted UTF-8 names included. One thing is stricter: labels must have commas
//! between them, as both formats say.

mod cursor;
mod number;
mod series;
#[cfg(test)]
mod tests;

use super::Kind;
use cursor::{Cursor, is_name, is_name_start};
use std::borrow::Cow;
use thiserror::Error;

pub use series::labels;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text`.
    OpenMetrics,
}

/// What a scraper asks for: OpenMetrics first, as its end can be seen to be missing.
pub const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
    application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";

impl Format {
    /// The format that a `Content-Type` names; without one, or with another one, text, as Prometheus 2 takes it.
    pub fn of(content_type: Option<&str>) -> Self {
        let kind = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        if kind.trim().eq_ignore_ascii_case("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }
}

/// Why a body cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {fault}: {near:?}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
    /// The text from where it is wrong.
    pub near: String,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message says what each one is")]
pub enum Fault {
    #[error("not UTF-8")]
    NotUtf8,
    #[error("a metric's name or a comment is expected")]
    NoName,
    #[error("a label's name is expected")]
    NoLabelName,
    #[error("`=` is expected after a label's name")]
    NoEquals,
    #[error("a label's value in double quotes is expected")]
    NoLabelValue,
    #[error("the quotes are not closed")]
    OpenQuotes,
    #[error("`,` or `}}` is expected after a label")]
    NoComma,
    #[error("a space and a value are expected")]
    NoValue,
    #[error("the value is no number")]
    BadValue,
    #[error("the time is no number, or too large")]
    BadTime,
    #[error("the line should end here")]
    TooMuch,
    #[error("there is no such type of metrics")]
    BadType,
    #[error("the metric's name does not end in its unit")]
    BadUnit,
    #[error("an exemplar needs labels in braces and a value")]
    BadExemplar,
    #[error("empty lines are not allowed")]
    EmptyLine,
    #[error("`# EOF` is missing, so the text may be torn")]
    NoEof,
    #[error("there is text after `# EOF`")]
    AfterEof,
}

/// One line with something in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    /// `# TYPE`.
    Type(Cow<'a, str>, Kind),
    /// `# HELP`, unescaped.
    Help(Cow<'a, str>, Cow<'a, str>),
    /// `# UNIT`.
    Unit(Cow<'a, str>, &'a str),
    /// A sample.
    Sample(Line<'a>),
}

/// A sample's line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line<'a> {
    /// Name and labels as they stand; see [`labels`].
    pub series: &'a str,
    /// The value; a NaN always has the same bits, which are not those of [`super::STALE`].
    pub value: f64,
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    /// OpenMetrics only.
    pub exemplar: Option<ExemplarText<'a>>,
}

/// An exemplar's part of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExemplarText<'a> {
    /// Labels as they stand, with their braces; see [`labels`].
    pub labels: &'a str,
    /// The value that was observed.
    pub value: f64,
    /// Milliseconds since 1970.
    pub time: Option<i64>,
}

/// Reads a body.
#[derive(Debug)]
pub struct Parser<'a> {
    cursor: Cursor<'a>,
    format: Format,
    ended: bool,
}

impl<'a> Parser<'a> {
    /// # Errors
    /// If it is not UTF-8.
    pub fn new(body: &'a [u8], format: Format) -> Result<Self, ParseError> {
        let text = std::str::from_utf8(body).map_err(|err| {
            let (good, bad) = body.split_at(err.valid_up_to());
            ParseError {
                line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
                fault: Fault::NotUtf8,
                near: String::from_utf8_lossy(&bad[..bad.len().min(20)]).into_owned(),
            }
        })?;
        Ok(Self {
            cursor: Cursor::new(text),
            format,
            ended: false,
        })
    }

    /// The next line that says something; `None` at the end.
    ///
    /// # Errors
    /// At the first line that is not of the format; nothing is read after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results hides that the first error ends it"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.ended {
            return Ok(None);
        }
        let entry = match self.format {
            Format::Text => self.text(),
            Format::OpenMetrics => self.open_metrics(),
        };
        entry.map_err(|fault| {
            self.ended = true;
            self.cursor.error(fault)
        })
    }

    fn text(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        loop {
            self.cursor.skip_blanks();
            match self.cursor.peek() {
                None => {
                    self.ended = true;
                    return Ok(None);
                }
                Some(b'\n') => self.cursor.advance(1),
                Some(b'#') => {
                    if let Some(entry) = self.text_comment()? {
                        return Ok(Some(entry));
                    }
                }
                Some(_) => return self.text_sample().map(|line| Some(Entry::Sample(line))),
            }
        }
    }

    /// `# HELP name text` or `# TYPE name type`, with any blanks between; all else after `#` says nothing.
    fn text_comment(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        let line = self.cursor.rest_of_line();
        let after = &line[1..];
        let words = after.trim_start_matches([' ', '\t']);
        let keyword = ["HELP", "TYPE"].into_iter().find(|keyword| {
            words.len() < after.len()
                && words
                    .strip_prefix(keyword)
                    .is_some_and(|rest| rest.starts_with([' ', '\t']))
        });
        let Some(keyword) = keyword else {
            self.cursor.advance(line.len());
            return Ok(None);
        };
        self.cursor.advance(line.len() - words.len() + 4);
        self.cursor.skip_blanks();
        let name = self.cursor.metric_name()?;
        let rest = self.cursor.rest_of_line();
        self.cursor.advance(rest.len());
        // One blank belongs to the line, further ones to the text.
        let text = match rest.as_bytes().first() {
            None => "",
            Some(b' ' | b'\t') => &rest[1..],
            Some(_) => return Err(Fault::NoName),
        };
        match keyword {
            "HELP" => Ok(Some(Entry::Help(name, series::unescape_help(text, false)))),
            _ => Ok(Some(Entry::Type(name, self.kind(text)?))),
        }
    }

    fn kind(&self, text: &str) -> Result<Kind, Fault> {
        match (self.format, text) {
            (Format::Text, "untyped") => Ok(Kind::Unknown),
            _ => Kind::from_name(text).ok_or(Fault::BadType),
        }
    }

    fn text_sample(&mut self) -> Result<Line<'a>, Fault> {
        let start = self.cursor.at();
        self.cursor.series(false)?;
        let series = self.cursor.since(start);
        self.cursor.skip_blanks();
        let value = number::value(self.cursor.word().ok_or(Fault::NoValue)?).ok_or(Fault::BadValue)?;
        self.cursor.skip_blanks();
        let time = match self.cursor.word() {
            None => None,
            Some(word) => Some(word.parse().map_err(|_| Fault::BadTime)?),
        };
        self.cursor.skip_blanks();
        if !self.cursor.line_ends() {
            return Err(Fault::TooMuch);
        }
        Ok(Line {
            series,
            value,
            time,
            exemplar: None,
        })
    }

    fn open_metrics(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        match self.cursor.peek() {
            None => Err(Fault::NoEof),
            Some(b'\n') => Err(Fault::EmptyLine),
            Some(b'#') => self.open_metrics_comment(),
            Some(_) => {
                let line = self.open_metrics_sample()?;
                Ok(Some(Entry::Sample(line)))
            }
        }
    }

    fn open_metrics_comment(&mut self) -> Result<Option<Entry<'a>>, Fault> {
        let line = self.cursor.rest_of_line();
        if line == "# EOF" {
            self.cursor.advance(line.len());
            self.cursor.line_ends();
            self.ended = true;
            return match self.cursor.peek() {
                None => Ok(None),
                Some(_) => Err(Fault::AfterEof),
            };
        }
        let keyword = line
            .get(2..7)
            .filter(|_| line.starts_with("# "))
            .ok_or(Fault::NoName)?;
        if !["HELP ", "TYPE ", "UNIT "].contains(&keyword) {
            return Err(Fault::NoName);
        }
        self.cursor.advance(7);
        let name = self.cursor.metric_name()?;
        let text = self
            .cursor
            .rest_of_line()
            .strip_prefix(' ')
            .ok_or(Fault::NoName)?;
        self.cursor.advance(text.len() + 1);
        let entry = match keyword {
            "HELP " => Entry::Help(name, series::unescape_help(text, true)),
            "TYPE " => Entry::Type(name, self.kind(text)?),
            _ => {
                let ends = name.strip_suffix(text).is_some_and(|stem| stem.ends_with('_'));
                if !text.is_empty() && !ends {
                    return Err(Fault::BadUnit);
                }
                Entry::Unit(name, text)
            }
        };
        if !self.cursor.line_ends() {
            return Err(Fault::TooMuch);
        }
        Ok(Some(entry))
    }

    fn open_metrics_sample(&mut self) -> Result<Line<'a>, Fault> {
        let start = self.cursor.at();
        self.cursor.series(true)?;
        let series = self.cursor.since(start);
        if !self.cursor.take(b' ') {
            return Err(Fault::NoValue);
        }
        let value = number::value(self.cursor.word().ok_or(Fault::NoValue)?).ok_or(Fault::BadValue)?;
        let mut line = Line {
            series,
            value,
            time: None,
            exemplar: None,
        };
        if self.cursor.peek() == Some(b' ') && self.cursor.second() != Some(b'#') {
            self.cursor.advance(1);
            line.time = Some(self.seconds()?);
        }
        if self.cursor.take(b' ') {
            line.exemplar = Some(self.exemplar()?);
        }
        // The last line is `# EOF`.
        if self.cursor.peek() != Some(b'\n') {
            return Err(if self.cursor.peek().is_some() {
                Fault::TooMuch
            } else {
                Fault::NoEof
            });
        }
        self.cursor.advance(1);
        Ok(line)
    }

    fn seconds(&mut self) -> Result<i64, Fault> {
        let word = self.cursor.word().ok_or(Fault::BadTime)?;
        number::milliseconds(word).ok_or(Fault::BadTime)
    }

    fn exemplar(&mut self) -> Result<ExemplarText<'a>, Fault> {
        if !(self.cursor.take(b'#') && self.cursor.take(b' ')) {
            return Err(Fault::BadExemplar);
        }
        let start = self.cursor.at();
        if self.cursor.peek() != Some(b'{') {
            return Err(Fault::BadExemplar);
        }
        self.cursor.braces(true, false)?;
        let labels = self.cursor.since(start);
        if !self.cursor.take(b' ') {
            return Err(Fault::BadExemplar);
        }
        let word = self.cursor.word().ok_or(Fault::BadExemplar)?;
        let value = number::value(word).ok_or(Fault::BadValue)?;
        let time = if self.cursor.take(b' ') {
            Some(self.seconds()?)
        } else {
            None
        };
        Ok(ExemplarText { labels, value, time })
    }
}

/// Whether a name can stand without quotes.
pub fn is_plain_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|first| is_name_start(*first)) && bytes.iter().all(|byte| is_name(*byte))
}
