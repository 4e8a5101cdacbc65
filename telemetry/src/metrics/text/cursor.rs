//! A place in the text, and what can stand there.

use super::series::unescape;
use super::{Fault, ParseError};
use std::borrow::Cow;

/// Most bytes of the text that an error shows.
const NEAR: usize = 40;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A metric's name may begin so; a label's too, but for the colon.
pub(super) fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}

/// A metric's name may go on so.
pub(super) fn is_name(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit()
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn error(&self, fault: Fault) -> ParseError {
        let before = &self.text.as_bytes()[..self.at];
        let rest = self.text.get(self.at..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        ParseError {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            fault,
            near: line.chars().take(NEAR).collect(),
        }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn since(&self, start: usize) -> &'a str {
        // Both ends are at ASCII bytes.
        &self.text[start..self.at]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn second(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at + 1).copied()
    }

    pub(super) fn advance(&mut self, by: usize) {
        self.at += by;
    }

    /// Goes on over one byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    pub(super) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes over the end of the line, if that is here.
    pub(super) fn line_ends(&mut self) -> bool {
        self.peek().is_none() || self.take(b'\n')
    }

    pub(super) fn rest_of_line(&self) -> &'a str {
        let rest = &self.text[self.at..];
        match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(end) => &rest[..end],
            None => rest,
        }
    }

    /// What stands up to the next blank.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
            .unwrap_or(rest.len());
        let start = self.at;
        self.at += len;
        (len > 0).then(|| self.since(start))
    }

    /// A name as it stands, or in quotes.
    pub(super) fn metric_name(&mut self) -> Result<Cow<'a, str>, Fault> {
        if self.peek() == Some(b'"') {
            return Ok(unescape(self.quoted(true)?));
        }
        let start = self.at;
        self.plain_name(true).ok_or(Fault::NoName)?;
        Ok(Cow::Borrowed(self.since(start)))
    }

    fn plain_name(&mut self, colons: bool) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let fits = |byte: u8| is_name(byte) && (colons || byte != b':');
        let len = rest.iter().position(|byte| !fits(*byte)).unwrap_or(rest.len());
        let starts = rest.first().is_some_and(|first| !first.is_ascii_digit());
        self.at += len;
        (len > 0 && starts).then_some(())
    }

    /// A name, labels in braces, or both.
    pub(super) fn series(&mut self, strict: bool) -> Result<(), Fault> {
        let named = self.peek() != Some(b'{');
        if named {
            self.plain_name(true).ok_or(Fault::NoName)?;
        }
        if !strict {
            let name_end = self.at;
            self.skip_blanks();
            if self.peek() != Some(b'{') {
                self.at = name_end;
                return Ok(());
            }
        }
        if self.peek() == Some(b'{') {
            self.braces(strict, !named)?;
        }
        Ok(())
    }

    /// `{name="value",...}`; a metric's name in quotes may be the first, where there was none before.
    pub(super) fn braces(&mut self, strict: bool, name_inside: bool) -> Result<(), Fault> {
        self.at += 1;
        let mut named = !name_inside;
        let mut after_comma = false;
        loop {
            self.blanks_unless(strict);
            match self.peek() {
                Some(b'}') if !(strict && after_comma) => {
                    self.at += 1;
                    return if named { Ok(()) } else { Err(Fault::NoName) };
                }
                Some(b'"') => {
                    self.quoted(strict)?;
                    self.blanks_unless(strict);
                    if self.peek() == Some(b'=') {
                        self.label_value(strict)?;
                    } else if named {
                        return Err(Fault::NoEquals);
                    } else {
                        named = true;
                    }
                }
                _ => {
                    self.plain_name(false).ok_or(Fault::NoLabelName)?;
                    self.blanks_unless(strict);
                    self.label_value(strict)?;
                }
            }
            self.blanks_unless(strict);
            after_comma = self.take(b',');
            if !after_comma && self.peek() != Some(b'}') {
                return Err(Fault::NoComma);
            }
        }
    }

    fn blanks_unless(&mut self, strict: bool) {
        if !strict {
            self.skip_blanks();
        }
    }

    fn label_value(&mut self, strict: bool) -> Result<(), Fault> {
        if !self.take(b'=') {
            return Err(Fault::NoEquals);
        }
        self.blanks_unless(strict);
        if self.peek() != Some(b'"') {
            return Err(Fault::NoLabelValue);
        }
        self.quoted(strict).map(|_| ())
    }

    /// What stands between quotes, still escaped. OpenMetrics has no line break there; the older format's parsers
    /// take one.
    fn quoted(&mut self, strict: bool) -> Result<&'a str, Fault> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            let found = memchr::memchr3(b'"', b'\\', b'\n', bytes.get(at..).unwrap_or_default());
            let Some(found) = found else {
                return Err(Fault::OpenQuotes);
            };
            at += found;
            match bytes[at] {
                b'"' => break,
                b'\\' if bytes.get(at + 1).is_none_or(|next| *next == b'\n') => {
                    return Err(Fault::OpenQuotes);
                }
                b'\\' => at += 2,
                _ if strict => return Err(Fault::OpenQuotes),
                _ => at += 1,
            }
        }
        self.at = at + 1;
        Ok(&self.text[start..at])
    }
}
