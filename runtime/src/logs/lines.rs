//! Lines of a log, chosen and written as they were asked for.

use crate::LogQuery;
use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use model::PodId;
use model::cri::{self, Stream};
use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;
use std::borrow::Cow;
use std::io::Write as _;

/// Bytes that a compiled expression may have: it comes from afar.
const MOST_EXPRESSION: usize = 1 << 20;
/// Parts of one line are joined up to this size.
const MOST_LINE: usize = 1 << 20;

/// A regular expression that lines must match.
#[derive(Debug, Clone)]
pub struct Grep(Regex);

impl Grep {
    /// Reads an expression; `(?i)` in front of it ignores case.
    ///
    /// # Errors
    /// What is wrong with it, in words for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expression = RegexBuilder::new(text).size_limit(MOST_EXPRESSION).build();
        expression.map(Self).map_err(|err| match err {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_owned(),
            err => err.to_string(),
        })
    }

    /// Whether it is found in `text`.
    pub fn finds(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Grep {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Grep {}

/// Whose output it is; for JSON.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) pod: PodId,
    pub(crate) container: String,
    pub(crate) run: u32,
}

/// A line as JSON.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    stream: &'static str,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    run: u32,
    message: Cow<'a, str>,
}

/// Turns CRI lines into what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    query: LogQuery,
    about: About,
    /// Of standard output and of standard error: parts of a line that has not ended, and when it began.
    held: [(String, BytesMut); 2],
    /// So many of the lines to come are not wanted: they are before the last ones.
    skip: usize,
}

impl Lines {
    pub(crate) fn new(query: &LogQuery, container: &str, run: u32) -> Self {
        Self {
            query: query.clone(),
            about: About {
                pod: query.pod.clone(),
                container: container.to_owned(),
                run,
            },
            held: Default::default(),
            skip: 0,
        }
    }

    /// The lines to come are those of another run.
    pub(crate) fn of_run(&mut self, run: u32) {
        self.about.run = run;
        self.held = Default::default();
    }

    /// Leaves out as many of the lines to come.
    pub(super) fn skip(&mut self, lines: usize) {
        self.skip = lines;
    }

    /// From when on.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.query.since
    }

    /// Only the last so many.
    pub(super) fn tail(&self) -> Option<usize> {
        self.query.tail
    }

    /// Takes one line of the file, without its end; gives what is to be shown.
    pub(crate) fn take(&mut self, line: &[u8]) -> Option<Bytes> {
        let parsed = cri::parse(line)?;
        let (began, text) = &mut self.held[usize::from(parsed.stream == Stream::Err)];
        if text.is_empty() {
            parsed.time.clone_into(began);
        }
        text.put_slice(parsed.text);
        if parsed.partial && text.len() < MOST_LINE {
            return None;
        }
        let text = text.split();
        let time = std::mem::take(began);
        if !wanted(&self.query, &time, &text) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.written(parsed.stream, &time, &text))
    }

    fn written(&self, stream: Stream, time: &str, text: &[u8]) -> Bytes {
        write_line(&self.query, &self.about, stream, time, text)
    }
}

/// Whether a line of this time and text is asked for.
pub(crate) fn wanted(query: &LogQuery, time: &str, text: &[u8]) -> bool {
    if query.since.is_some() || query.until.is_some() {
        // A line without a time is of all times.
        if let Ok(time) = time.parse::<Timestamp>()
            && (query.since.is_some_and(|since| time < since)
                || query.until.is_some_and(|until| time > until))
        {
            return false;
        }
    }
    query.grep.as_ref().is_none_or(|grep| grep.finds(text))
}

/// A line as it is shown.
pub(crate) fn write_line(query: &LogQuery, about: &About, stream: Stream, time: &str, text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 40);
    if query.json {
        let line = JsonLine {
            time,
            stream: stream.word(),
            namespace: &about.pod.namespace,
            pod: &about.pod.name,
            container: &about.container,
            run: about.run,
            message: String::from_utf8_lossy(text),
        };
        // Serialising plain data to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, &line);
    } else {
        if query.timestamps {
            let _ = write!(out, "{time} ");
        }
        out.extend_from_slice(text);
    }
    out.push(b'\n');
    Bytes::from(out)
}
