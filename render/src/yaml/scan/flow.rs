//! Scalars in quotes and without.

use super::{Scanned, Scanner, Token, Written};
use std::borrow::Cow;

/// A scalar's text so far: a piece of the file as long as that does, a text of its own behind the first change.
struct Piece<'a> {
    file: &'a str,
    own: Option<String>,
    start: usize,
    end: usize,
}

impl<'a> Piece<'a> {
    fn new(file: &'a str) -> Self {
        Self {
            file,
            own: None,
            start: 0,
            end: 0,
        }
    }

    /// Adds what stands in the file from `start` to `end`.
    fn push(&mut self, start: usize, end: usize) {
        match &mut self.own {
            Some(own) => own.push_str(&self.file[start..end]),
            None if self.start == self.end => (self.start, self.end) = (start, end),
            None if self.end == start => self.end = end,
            None => {
                let more = &self.file[start..end];
                self.changed().push_str(more);
            }
        }
    }

    fn changed(&mut self) -> &mut String {
        self.own
            .get_or_insert_with(|| self.file[self.start..self.end].to_owned())
    }

    fn done(self) -> Cow<'a, str> {
        match self.own {
            Some(own) => Cow::Owned(own),
            None => Cow::Borrowed(&self.file[self.start..self.end]),
        }
    }
}

/// Line breaks that a scalar goes over.
#[derive(Default)]
struct Breaks<'a> {
    first: &'a str,
    more: String,
}

impl<'a> Breaks<'a> {
    /// Adds a break to those that were there, if any.
    fn note(breaks: &mut Option<Self>, line_break: &'a str) {
        match breaks {
            Some(breaks) => breaks.more.push_str(line_break),
            None => {
                *breaks = Some(Self {
                    first: line_break,
                    more: String::new(),
                });
            }
        }
    }

    /// One break is a blank, more of them lose one.
    fn fold_into(&self, text: &mut String) {
        if self.first != "\n" {
            text.push_str(self.first);
        } else if self.more.is_empty() {
            text.push(' ');
        }
        text.push_str(&self.more);
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn plain(&mut self) -> Scanned<()> {
        self.save_key()?;
        self.key_allowed = false;
        let line = self.cursor.line;
        let least = self.indent + 1;
        let mut text = Piece::new(self.cursor.text);
        let mut folded: Option<Breaks<'a>> = None;
        loop {
            if self.cursor.is_at_document_mark() || self.cursor.byte(0) == b'#' {
                break;
            }
            let start = self.cursor.at;
            self.plain_line();
            if self.cursor.at > start {
                if let Some(breaks) = folded.take() {
                    breaks.fold_into(text.changed());
                }
                text.push(start, self.cursor.at);
            }
            if !(self.cursor.is_blank(0) || self.cursor.break_length(0) > 0) {
                break;
            }
            while self.cursor.is_blank(0) {
                self.cursor.skip(1);
            }
            self.plain_breaks(&mut folded, least)?;
            if !self.in_flow() && self.cursor.column() < least {
                break;
            }
        }
        if folded.is_some() {
            self.key_allowed = true;
        }
        self.queue
            .push_back((Token::Scalar(text.done(), Written::Plain), line));
        Ok(())
    }

    /// Goes over line breaks and what blanks surround them.
    fn plain_breaks(&mut self, folded: &mut Option<Breaks<'a>>, least: isize) -> Scanned<()> {
        loop {
            if folded.is_some() && self.cursor.column() < least && self.cursor.byte(0) == b'\t' {
                return Err(self.error("lines are indented by spaces, not by tabs"));
            }
            if let Some(line_break) = self.cursor.line_break() {
                Breaks::note(folded, line_break);
            } else if folded.is_some() && self.cursor.is_blank(0) {
                self.cursor.skip(1);
            } else {
                return Ok(());
            }
        }
    }

    /// Goes over what of the line belongs to a plain scalar, blanks at the end not included.
    fn plain_line(&mut self) {
        let in_flow = self.in_flow();
        let mut ahead = 0;
        let mut length = 0;
        loop {
            let byte = self.cursor.byte(ahead);
            match byte {
                b' ' | b'\t' => {
                    let mut blanks = 1;
                    while self.cursor.is_blank(ahead + blanks) {
                        blanks += 1;
                    }
                    ahead += blanks;
                    if self.cursor.is_break_or_end(ahead) || self.cursor.byte(ahead) == b'#' {
                        break;
                    }
                    continue;
                }
                b':' if self.cursor.is_blank_or_end(ahead + 1) => break,
                b',' | b'?' | b'[' | b']' | b'{' | b'}' if in_flow => break,
                b'\n' | b'\r' => break,
                0 if self.cursor.is_end(ahead) => break,
                0xc2 | 0xe2 if self.cursor.break_length(ahead) > 0 => break,
                _ => {}
            }
            ahead += 1;
            length = ahead;
        }
        self.cursor.skip(length);
    }

    pub(super) fn quoted(&mut self, single: bool) -> Scanned<Token<'a>> {
        let opened = self.cursor.line;
        let quote = if single { b'\'' } else { b'"' };
        self.cursor.skip(1);
        let mut text = Piece::new(self.cursor.text);
        loop {
            if self.cursor.is_at_document_mark() {
                return Err(self.error("a document ends within quotes; the closing one is missing"));
            }
            let mut broken: Option<Breaks<'a>> = None;
            loop {
                let start = self.cursor.at;
                self.quoted_run(quote);
                text.push(start, self.cursor.at);
                let byte = self.cursor.byte(0);
                if byte == b'\'' && single && self.cursor.byte(1) == b'\'' {
                    text.changed().push('\'');
                    self.cursor.skip(2);
                } else if byte == b'\\' && !single && self.cursor.break_length(1) > 0 {
                    self.cursor.skip(1);
                    self.cursor.line_break();
                    broken = Some(Breaks::default());
                    break;
                } else if byte == b'\\' && !single {
                    let c = self.escape()?;
                    text.changed().push(c);
                } else {
                    break;
                }
            }
            if self.cursor.is_end(0) {
                return Err(super::error(opened, "the closing quote is missing"));
            }
            if self.cursor.byte(0) == quote && broken.is_none() {
                break;
            }
            self.quoted_blanks(broken, &mut text);
            if self.cursor.is_end(0) {
                return Err(super::error(opened, "the closing quote is missing"));
            }
        }
        self.cursor.skip(1);
        let written = if single { Written::Single } else { Written::Double };
        Ok(Token::Scalar(text.done(), written))
    }

    /// Goes over characters that stand for themselves.
    fn quoted_run(&mut self, quote: u8) {
        let mut ahead = 0;
        loop {
            match self.cursor.byte(ahead) {
                b' ' | b'\t' | b'\n' | b'\r' => break,
                b'\\' if quote == b'"' => break,
                byte if byte == quote => break,
                0 if self.cursor.is_end(ahead) => break,
                0xc2 | 0xe2 if self.cursor.break_length(ahead) > 0 => break,
                _ => ahead += 1,
            }
        }
        self.cursor.skip(ahead);
    }

    /// Blanks and line breaks within quotes: the breaks fold, and take the blanks around them away.
    fn quoted_blanks(&mut self, broken: Option<Breaks<'a>>, text: &mut Piece<'a>) {
        let mut breaks = broken;
        let start = self.cursor.at;
        let mut end = start;
        loop {
            if self.cursor.is_blank(0) {
                self.cursor.skip(1);
                if breaks.is_none() {
                    end = self.cursor.at;
                }
            } else if let Some(line_break) = self.cursor.line_break() {
                Breaks::note(&mut breaks, line_break);
            } else {
                break;
            }
        }
        match breaks {
            Some(breaks) => breaks.fold_into(text.changed()),
            None => text.push(start, end),
        }
    }

    fn escape(&mut self) -> Scanned<char> {
        let code = self.cursor.byte(1);
        let digits = match code {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => {
                let c = match code {
                    b'0' => '\0',
                    b'a' => '\x07',
                    b'b' => '\x08',
                    b't' | b'\t' => '\t',
                    b'n' => '\n',
                    b'v' => '\x0b',
                    b'f' => '\x0c',
                    b'r' => '\r',
                    b'e' => '\x1b',
                    b' ' | b'"' | b'\'' | b'\\' => char::from(code),
                    b'N' => '\u{85}',
                    b'_' => '\u{a0}',
                    b'L' => '\u{2028}',
                    b'P' => '\u{2029}',
                    _ => {
                        return Err(self.error(
                            "a backslash in double quotes begins an escape that YAML does not have; write \\\\, or use single quotes",
                        ));
                    }
                };
                self.cursor.skip(2);
                return Ok(c);
            }
        };
        let value = (0..digits).try_fold(0u32, |value, at| {
            let digit = char::from(self.cursor.byte(2 + at)).to_digit(16)?;
            value.checked_mul(16)?.checked_add(digit)
        });
        let Some(c) = value.and_then(char::from_u32) else {
            return Err(self.error("an escape in double quotes needs the hexadecimal number of a character"));
        };
        self.cursor.skip(2 + digits);
        Ok(c)
    }
}
