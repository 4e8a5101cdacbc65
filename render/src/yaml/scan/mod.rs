//! YAML text to tokens, by the grammar that Go's YAML library follows: YAML 1.1, with what that library takes
//! beyond it and what it refuses of it.
//!
//! A token borrows from the text wherever its value stands there as it is. What may be a key of a mapping is known
//! only when its colon comes, so tokens wait in a queue until that is settled.

mod block;
mod cursor;
mod flow;
mod tags;

use super::parse::YamlError;
use cursor::Cursor;
use std::{borrow::Cow, collections::VecDeque};

/// A key without `?` ends at most this many characters behind its start.
const LONGEST_KEY: usize = 1024;

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Plain,
    Single,
    Double,
    Literal,
    Folded,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    StreamEnd,
    /// `%YAML` with its version.
    Version(u32, u32),
    /// `%TAG` with handle and prefix.
    TagPrefix(&'a str, Cow<'a, str>),
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(&'a str),
    Anchor(&'a str),
    /// Handle and rest.
    Tag(&'a str, Cow<'a, str>),
    Scalar(Cow<'a, str>, Written),
}

/// Where a key without `?` may have begun.
#[derive(Debug, Clone, Copy, Default)]
struct SimpleKey {
    possible: bool,
    /// Nothing else may stand here, so that a missing colon is an error.
    required: bool,
    /// The number of its first token.
    token: usize,
    at: usize,
    line: usize,
    column: isize,
}

pub(super) struct Scanner<'a> {
    cursor: Cursor<'a>,
    /// Tokens with their lines.
    queue: VecDeque<(Token<'a>, usize)>,
    /// How many tokens were given out.
    taken: usize,
    /// One for each open bracket, and one for the block around them.
    keys: Vec<SimpleKey>,
    /// Column of the current block; -1 outside of any.
    indent: isize,
    outer_indents: Vec<isize>,
    key_allowed: bool,
    ended: bool,
}

type Scanned<T> = Result<T, YamlError>;

impl<'a> Scanner<'a> {
    /// Begins with a text whose first line has the given number.
    pub fn new(text: &'a str, line: usize) -> Self {
        Self {
            cursor: Cursor::new(text, line),
            queue: VecDeque::with_capacity(8),
            taken: 0,
            keys: vec![SimpleKey::default()],
            indent: -1,
            outer_indents: Vec::new(),
            key_allowed: true,
            ended: false,
        }
    }

    /// The next token, which stays.
    pub fn peek(&mut self) -> Scanned<&Token<'a>> {
        self.fill()?;
        Ok(self.queue.front().map_or(&Token::StreamEnd, |(token, _)| token))
    }

    /// The line of the next token, from 1.
    pub fn line(&mut self) -> Scanned<usize> {
        self.fill()?;
        Ok(self.queue.front().map_or(self.cursor.line, |(_, line)| *line))
    }

    /// Takes the next token.
    pub fn take(&mut self) -> Scanned<Token<'a>> {
        self.fill()?;
        self.taken += 1;
        Ok(self
            .queue
            .pop_front()
            .map_or(Token::StreamEnd, |(token, _)| token))
    }

    fn in_flow(&self) -> bool {
        self.keys.len() > 1
    }

    /// Reads on until what the first token is cannot change any more.
    fn fill(&mut self) -> Scanned<()> {
        while !self.ended {
            if !self.queue.is_empty() {
                let first = self.taken;
                let key = self
                    .keys
                    .iter()
                    .position(|key| key.possible && key.token == first);
                if !matches!(key, Some(key) if self.is_open(key)?) {
                    break;
                }
            }
            self.read_token()?;
        }
        Ok(())
    }

    /// Whether what began there may still become a key.
    fn is_open(&mut self, at: usize) -> Scanned<bool> {
        let key = self.keys[at];
        if !key.possible {
            return Ok(false);
        }
        if key.line == self.cursor.line && self.cursor.distance(key.at) <= LONGEST_KEY {
            return Ok(true);
        }
        if key.required {
            return Err(error(key.line, "a ':' is missing behind a key"));
        }
        self.keys[at].possible = false;
        Ok(false)
    }

    fn innermost(&self) -> usize {
        self.keys.len() - 1
    }

    /// Here may be the start of a key.
    fn save_key(&mut self) -> Scanned<()> {
        if !self.key_allowed {
            return Ok(());
        }
        self.drop_key()?;
        let column = self.cursor.column();
        let key = SimpleKey {
            possible: true,
            required: !self.in_flow() && self.indent == column,
            token: self.taken + self.queue.len(),
            at: self.cursor.at,
            line: self.cursor.line,
            column,
        };
        let innermost = self.innermost();
        self.keys[innermost] = key;
        Ok(())
    }

    fn drop_key(&mut self) -> Scanned<()> {
        let innermost = self.innermost();
        let key = &mut self.keys[innermost];
        if key.possible && key.required {
            return Err(error(key.line, "a ':' is missing behind a key"));
        }
        key.possible = false;
        Ok(())
    }

    fn push(&mut self, token: Token<'a>) {
        self.queue.push_back((token, self.cursor.line));
    }

    /// Opens a block at a column, where none is open there; its token goes before the token of number `before`.
    fn open_block(&mut self, column: isize, start: Token<'a>, before: Option<usize>) {
        if self.in_flow() || self.indent >= column {
            return;
        }
        self.outer_indents.push(self.indent);
        self.indent = column;
        let at = before.map_or(self.queue.len(), |number| number - self.taken);
        let line = self.queue.get(at).map_or(self.cursor.line, |(_, line)| *line);
        self.queue.insert(at, (start, line));
    }

    /// Closes the blocks that are indented more than `column`.
    fn close_blocks(&mut self, column: isize) {
        if self.in_flow() {
            return;
        }
        while self.indent > column {
            self.push(Token::BlockEnd);
            self.indent = self.outer_indents.pop().unwrap_or(-1);
        }
    }

    fn read_token(&mut self) -> Scanned<()> {
        self.skip_to_token();
        self.close_blocks(self.cursor.column());
        let first = self.cursor.byte(0);
        if self.cursor.is_end(0) {
            return self.end_stream();
        }
        if self.cursor.column() == 0 {
            if first == b'%' {
                return self.directive();
            }
            if let Some(token) = self.cursor.document_mark() {
                self.close_blocks(-1);
                self.drop_key()?;
                self.key_allowed = false;
                self.push(token);
                self.cursor.skip(3);
                return Ok(());
            }
        }
        let blank_next = self.cursor.is_blank_or_end(1);
        match first {
            b'[' => self.open_flow(Token::FlowSequenceStart),
            b'{' => self.open_flow(Token::FlowMappingStart),
            b']' => self.close_flow(Token::FlowSequenceEnd),
            b'}' => self.close_flow(Token::FlowMappingEnd),
            b',' => {
                self.drop_key()?;
                self.key_allowed = true;
                self.indicator(Token::FlowEntry);
                Ok(())
            }
            b'-' if blank_next => self.block_entry(),
            b'?' if self.in_flow() || blank_next => self.complex_key(),
            b':' if self.in_flow() || blank_next => self.value(),
            b'*' => self.reference(true),
            b'&' => self.reference(false),
            b'!' => self.tag(),
            b'|' if !self.in_flow() => self.block_scalar(true),
            b'>' if !self.in_flow() => self.block_scalar(false),
            b'\'' | b'"' => {
                self.save_key()?;
                self.key_allowed = false;
                let line = self.cursor.line;
                let token = self.quoted(first == b'\'')?;
                self.queue.push_back((token, line));
                Ok(())
            }
            b'-' if !self.cursor.is_blank(1) => self.plain(),
            b'?' | b':' if !self.in_flow() && !blank_next => self.plain(),
            b'-' | b'?' | b':' | b'#' | b'|' | b'>' | b'%' | b'@' | b'`' | b' ' | b'\t' => {
                Err(self.error(&format!(
                    "{:?} cannot begin a value; put the text in quotes",
                    char::from(first)
                )))
            }
            _ => self.plain(),
        }
    }

    fn indicator(&mut self, token: Token<'a>) {
        self.push(token);
        self.cursor.skip(1);
    }

    fn end_stream(&mut self) -> Scanned<()> {
        self.close_blocks(-1);
        self.drop_key()?;
        self.key_allowed = false;
        self.push(Token::StreamEnd);
        self.ended = true;
        Ok(())
    }

    fn open_flow(&mut self, token: Token<'a>) -> Scanned<()> {
        self.save_key()?;
        self.keys.push(SimpleKey::default());
        self.key_allowed = true;
        self.indicator(token);
        Ok(())
    }

    fn close_flow(&mut self, token: Token<'a>) -> Scanned<()> {
        self.drop_key()?;
        if self.in_flow() {
            self.keys.pop();
        }
        self.key_allowed = false;
        self.indicator(token);
        Ok(())
    }

    /// Something of a block begins here; within brackets there are none.
    fn begin_in_block(&mut self, start: Token<'a>, otherwise: &str) -> Scanned<()> {
        if !self.in_flow() {
            if !self.key_allowed {
                return Err(self.error(otherwise));
            }
            self.open_block(self.cursor.column(), start, None);
        }
        Ok(())
    }

    fn block_entry(&mut self) -> Scanned<()> {
        self.begin_in_block(
            Token::BlockSequenceStart,
            "a list item ('- ') cannot stand here; start it on a line of its own",
        )?;
        self.drop_key()?;
        self.key_allowed = true;
        self.indicator(Token::BlockEntry);
        Ok(())
    }

    fn complex_key(&mut self) -> Scanned<()> {
        self.begin_in_block(
            Token::BlockMappingStart,
            "a key cannot stand here; start it on a line of its own",
        )?;
        self.drop_key()?;
        self.key_allowed = !self.in_flow();
        self.indicator(Token::Key);
        Ok(())
    }

    fn value(&mut self) -> Scanned<()> {
        let innermost = self.innermost();
        if self.is_open(innermost)? {
            let key = self.keys[innermost];
            self.queue.insert(key.token - self.taken, (Token::Key, key.line));
            self.open_block(key.column, Token::BlockMappingStart, Some(key.token));
            self.keys[innermost].possible = false;
            self.key_allowed = false;
        } else {
            self.begin_in_block(
                Token::BlockMappingStart,
                "a ': ' cannot stand here; put a text with a colon in quotes",
            )?;
            self.key_allowed = !self.in_flow();
        }
        self.indicator(Token::Value);
        Ok(())
    }

    /// An anchor or an alias.
    fn reference(&mut self, alias: bool) -> Scanned<()> {
        self.save_key()?;
        self.key_allowed = false;
        let line = self.cursor.line;
        self.cursor.skip(1);
        let name = self.cursor.take_while(is_word);
        let ends = self.cursor.is_blank_or_end(0)
            || matches!(
                self.cursor.byte(0),
                b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`'
            );
        if name.is_empty() || !ends {
            return Err(self.error("names of anchors have letters, digits, '-' and '_' only"));
        }
        let token = if alias {
            Token::Alias(name)
        } else {
            Token::Anchor(name)
        };
        self.queue.push_back((token, line));
        Ok(())
    }

    /// Goes over blanks, comments and line breaks.
    fn skip_to_token(&mut self) {
        loop {
            if self.cursor.column() == 0 && self.cursor.rest().starts_with('\u{feff}') {
                self.cursor.skip('\u{feff}'.len_utf8());
            }
            let tabs = self.in_flow() || !self.key_allowed;
            while self.cursor.byte(0) == b' ' || tabs && self.cursor.byte(0) == b'\t' {
                self.cursor.skip(1);
            }
            if self.cursor.byte(0) == b'#' {
                self.cursor.skip_line_content();
            }
            if self.cursor.line_break().is_none() {
                return;
            }
            if !self.in_flow() {
                self.key_allowed = true;
            }
        }
    }

    fn error(&self, message: &str) -> YamlError {
        error(self.cursor.line, message)
    }
}

fn error(line: usize, message: &str) -> YamlError {
    YamlError {
        line,
        message: message.to_owned(),
    }
}

/// What names of anchors, handles and directives consist of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
