//! A place in a text, with its line and column.

use super::Token;

pub(super) struct Cursor<'a> {
    pub text: &'a str,
    /// In bytes.
    pub at: usize,
    /// From 1.
    pub line: usize,
    /// Where the line begins.
    start: usize,
    /// Bytes of the line up to here that do not begin a character.
    wide: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str, line: usize) -> Self {
        Self {
            text,
            at: 0,
            line,
            start: 0,
            wide: 0,
        }
    }

    /// In characters, from 0.
    pub fn column(&self) -> isize {
        // A text is shorter than half of memory.
        (self.at - self.start - self.wide).cast_signed()
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// What lies between a place and this one.
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// The byte at a distance; 0 behind the end.
    pub fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    pub fn is_end(&self, ahead: usize) -> bool {
        self.at + ahead >= self.text.len()
    }

    /// A space or a tab.
    pub fn is_blank(&self, ahead: usize) -> bool {
        matches!(self.byte(ahead), b' ' | b'\t')
    }

    /// The length of the line break at a distance; 0 where there is none.
    pub fn break_length(&self, ahead: usize) -> usize {
        match self.byte(ahead) {
            b'\n' => 1,
            b'\r' if self.byte(ahead + 1) == b'\n' => 2,
            b'\r' => 1,
            0xc2 if self.byte(ahead + 1) == 0x85 => 2,
            0xe2 if self.byte(ahead + 1) == 0x80 && matches!(self.byte(ahead + 2), 0xa8 | 0xa9) => 3,
            _ => 0,
        }
    }

    pub fn is_break_or_end(&self, ahead: usize) -> bool {
        self.is_end(ahead) || self.break_length(ahead) > 0
    }

    pub fn is_blank_or_end(&self, ahead: usize) -> bool {
        self.is_blank(ahead) || self.is_break_or_end(ahead)
    }

    /// Characters between a place on this line and here.
    pub fn distance(&self, from: usize) -> usize {
        let passed = self.since(from);
        if passed.len() <= super::LONGEST_KEY {
            passed.len()
        } else {
            passed.chars().count()
        }
    }

    /// Goes on by some bytes of the line.
    pub fn skip(&mut self, bytes: usize) {
        let passed = &self.text.as_bytes()[self.at..self.at + bytes];
        self.wide += passed.iter().filter(|byte| **byte & 0xc0 == 0x80).count();
        self.at += bytes;
    }

    /// Goes to the end of the line, and gives what was there.
    pub fn skip_line_content(&mut self) -> &'a str {
        let rest = self.text.as_bytes();
        let start = self.at;
        let mut end = self.at;
        loop {
            let plain = rest[end..]
                .iter()
                .take_while(|byte| !matches!(byte, b'\n' | b'\r' | 0xc2 | 0xe2))
                .count();
            end += plain;
            if self.is_break_or_end(end - start) {
                break;
            }
            end += 1;
        }
        self.skip(end - start);
        self.since(start)
    }

    /// Goes over a line break, and gives what it means in a scalar.
    pub fn line_break(&mut self) -> Option<&'a str> {
        let length = self.break_length(0);
        if length == 0 {
            return None;
        }
        let from = self.at;
        self.at += length;
        self.line += 1;
        self.start = self.at;
        self.wide = 0;
        Some(if length == 3 { self.since(from) } else { "\n" })
    }

    /// Takes bytes, all of ASCII.
    pub fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while !self.is_end(0) && fits(self.byte(0)) {
            self.at += 1;
        }
        self.since(start)
    }

    /// `---` or `...` here, with nothing directly behind it.
    pub fn document_mark<'t>(&self) -> Option<Token<'t>> {
        let token = match self.rest().as_bytes() {
            [b'-', b'-', b'-', ..] => Token::DocumentStart,
            [b'.', b'.', b'.', ..] => Token::DocumentEnd,
            _ => return None,
        };
        self.is_blank_or_end(3).then_some(token)
    }

    /// As [`Cursor::document_mark`], at the start of a line.
    pub fn is_at_document_mark(&self) -> bool {
        self.column() == 0 && self.document_mark().is_some()
    }
}
