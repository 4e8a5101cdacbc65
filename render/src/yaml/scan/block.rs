//! Scalars in blocks: `|` and `>`.

use super::{Scanned, Scanner, Token, Written};
use std::borrow::Cow;

/// What becomes of the line breaks at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chomp {
    Strip,
    Clip,
    Keep,
}

impl<'a> Scanner<'a> {
    pub(super) fn block_scalar(&mut self, literal: bool) -> Scanned<()> {
        self.drop_key()?;
        self.key_allowed = true;
        let line = self.cursor.line;
        self.cursor.skip(1);
        let (chomp, deeper) = self.block_header()?;
        let mut indent = deeper.map_or(0, |deeper| self.indent.max(0) + deeper);
        let text = self.block_content(literal, chomp, &mut indent)?;
        let written = if literal {
            Written::Literal
        } else {
            Written::Folded
        };
        self.queue
            .push_back((Token::Scalar(Cow::Owned(text), written), line));
        Ok(())
    }

    /// Chomping and indentation, in either order, and the rest of the line.
    fn block_header(&mut self) -> Scanned<(Chomp, Option<isize>)> {
        let mut chomp = self.chomping();
        let deeper = match self.cursor.byte(0) {
            b'0' => return Err(self.error("the indentation of a block is 1 to 9")),
            digit @ b'1'..=b'9' => {
                self.cursor.skip(1);
                Some(isize::from(digit - b'0'))
            }
            _ => None,
        };
        if chomp.is_none() && deeper.is_some() {
            chomp = self.chomping();
        }
        while self.cursor.is_blank(0) {
            self.cursor.skip(1);
        }
        if self.cursor.byte(0) == b'#' {
            self.cursor.skip_line_content();
        }
        if !self.cursor.is_break_or_end(0) {
            return Err(self.error("behind '|' or '>' the text begins on the next line"));
        }
        self.cursor.line_break();
        Ok((chomp.unwrap_or(Chomp::Clip), deeper))
    }

    fn chomping(&mut self) -> Option<Chomp> {
        let chomp = match self.cursor.byte(0) {
            b'+' => Chomp::Keep,
            b'-' => Chomp::Strip,
            _ => return None,
        };
        self.cursor.skip(1);
        Some(chomp)
    }

    fn block_content(&mut self, literal: bool, chomp: Chomp, indent: &mut isize) -> Scanned<String> {
        let mut text = String::new();
        let mut breaks = String::new();
        let mut last_break = "";
        let mut after_indented = false;
        self.block_breaks(indent, &mut breaks)?;
        while self.cursor.column() == *indent && !self.cursor.is_end(0) {
            let indented = self.cursor.is_blank(0);
            if !literal && !after_indented && !indented && last_break == "\n" {
                if breaks.is_empty() {
                    text.push(' ');
                }
            } else {
                text.push_str(last_break);
            }
            text.push_str(&breaks);
            breaks.clear();
            after_indented = indented;
            text.push_str(self.cursor.skip_line_content());
            last_break = self.cursor.line_break().unwrap_or("");
            self.block_breaks(indent, &mut breaks)?;
        }
        if chomp != Chomp::Strip {
            text.push_str(last_break);
        }
        if chomp == Chomp::Keep {
            text.push_str(&breaks);
        }
        Ok(text)
    }

    /// Goes over empty lines and the indentation of the next one; finds out how deep the block is, where that is not
    /// known (0).
    fn block_breaks(&mut self, indent: &mut isize, breaks: &mut String) -> Scanned<()> {
        let mut deepest = 0;
        loop {
            while (*indent == 0 || self.cursor.column() < *indent) && self.cursor.byte(0) == b' ' {
                self.cursor.skip(1);
            }
            let column = self.cursor.column();
            deepest = deepest.max(column);
            if (*indent == 0 || column < *indent) && self.cursor.byte(0) == b'\t' {
                return Err(self.error("blocks are indented by spaces, not by tabs"));
            }
            match self.cursor.line_break() {
                Some(line_break) => breaks.push_str(line_break),
                None => break,
            }
        }
        if *indent == 0 {
            *indent = deepest.max(self.indent + 1).max(1);
        }
        Ok(())
    }
}
