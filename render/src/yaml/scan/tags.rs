//! Tags and directives.

use super::{Scanned, Scanner, Token, is_word};
use std::borrow::Cow;

impl<'a> Scanner<'a> {
    pub(super) fn tag(&mut self) -> Scanned<()> {
        self.save_key()?;
        self.key_allowed = false;
        let line = self.cursor.line;
        let token = if self.cursor.byte(1) == b'<' {
            self.cursor.skip(2);
            let uri = self.uri()?;
            if uri.is_empty() || self.cursor.byte(0) != b'>' {
                return Err(self.error("a tag's '>' is missing"));
            }
            self.cursor.skip(1);
            Token::Tag("", uri)
        } else {
            let start = self.cursor.at;
            let handle = self.handle();
            if handle.len() > 1 && handle.ends_with('!') {
                let suffix = self.uri()?;
                if suffix.is_empty() {
                    return Err(self.error("a tag's name is missing"));
                }
                Token::Tag(handle, suffix)
            } else {
                let rest = self.uri()?;
                let head = &handle[1..];
                let suffix = match rest {
                    Cow::Borrowed(_) => Cow::Borrowed(&self.cursor.since(start)[1..]),
                    Cow::Owned(rest) => Cow::Owned(format!("{head}{rest}")),
                };
                if suffix.is_empty() {
                    Token::Tag("", Cow::Borrowed("!"))
                } else {
                    Token::Tag("!", suffix)
                }
            }
        };
        if !self.cursor.is_blank_or_end(0) {
            return Err(self.error("behind a tag a blank is missing"));
        }
        self.queue.push_back((token, line));
        Ok(())
    }

    /// `!`, or `!word!`, or `!word` where it is no handle.
    fn handle(&mut self) -> &'a str {
        let start = self.cursor.at;
        self.cursor.skip(1);
        self.cursor.take_while(is_word);
        if self.cursor.byte(0) == b'!' {
            self.cursor.skip(1);
        }
        self.cursor.since(start)
    }

    fn uri(&mut self) -> Scanned<Cow<'a, str>> {
        let start = self.cursor.at;
        let mut own: Option<Vec<u8>> = None;
        loop {
            let byte = self.cursor.byte(0);
            if byte == b'%' {
                let hex = |at| {
                    char::from(self.cursor.byte(at))
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                let (Some(high), Some(low)) = (hex(1), hex(2)) else {
                    return Err(self.error("a '%' in a tag needs two hexadecimal digits"));
                };
                own.get_or_insert_with(|| self.cursor.since(start).into())
                    .push(high << 4 | low);
                self.cursor.skip(3);
            } else if is_word(byte) || b";/?:@&=+$,.!~*'()[]".contains(&byte) {
                if let Some(own) = &mut own {
                    own.push(byte);
                }
                self.cursor.skip(1);
            } else {
                break;
            }
        }
        match own {
            None => Ok(Cow::Borrowed(self.cursor.since(start))),
            Some(bytes) => String::from_utf8(bytes)
                .map(Cow::Owned)
                .map_err(|_| self.error("a tag is not UTF-8 text")),
        }
    }

    /// `%YAML` or `%TAG`.
    pub(super) fn directive(&mut self) -> Scanned<()> {
        self.close_blocks(-1);
        self.drop_key()?;
        self.key_allowed = false;
        let line = self.cursor.line;
        self.cursor.skip(1);
        let token = match self.cursor.take_while(is_word) {
            "YAML" => {
                self.skip_blanks();
                let major = self.number()?;
                if self.cursor.byte(0) != b'.' {
                    return Err(self.error("the version of YAML is written as 1.1"));
                }
                self.cursor.skip(1);
                Token::Version(major, self.number()?)
            }
            "TAG" => {
                self.skip_blanks();
                if self.cursor.byte(0) != b'!' {
                    return Err(self.error("a handle of tags begins with '!'"));
                }
                let handle = self.handle();
                if !handle.ends_with('!') || !self.cursor.is_blank(0) {
                    return Err(self.error("a handle of tags ends with '!' and a blank"));
                }
                self.skip_blanks();
                let prefix = self.uri()?;
                Token::TagPrefix(handle, prefix)
            }
            _ => return Err(self.error("a line that begins with '%' is a directive, and this is none")),
        };
        self.skip_blanks();
        if self.cursor.byte(0) == b'#' {
            self.cursor.skip_line_content();
        }
        if !self.cursor.is_break_or_end(0) {
            return Err(self.error("there is more than a directive on the line"));
        }
        self.cursor.line_break();
        self.queue.push_back((token, line));
        Ok(())
    }

    fn skip_blanks(&mut self) {
        while self.cursor.is_blank(0) {
            self.cursor.skip(1);
        }
    }

    fn number(&mut self) -> Scanned<u32> {
        let digits = self.cursor.take_while(|byte| byte.is_ascii_digit());
        digits
            .parse()
            .map_err(|_| self.error("the version of YAML is written as 1.1"))
    }
}
