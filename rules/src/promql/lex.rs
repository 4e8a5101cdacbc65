//! PromQL's words.

use super::PromqlError;

/// A word with its place in the text, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub at: usize,
    pub word: Word,
}

/// What a word is. Keywords are names: whether one is meant depends on where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Name(String),
    Number(f64),
    /// Milliseconds.
    Duration(i64),
    Text(String),
    /// An operator, bracket or comma.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "=~", "!~", "!=", "==", ">=", "<=", "(", ")", "{", "}", "[", "]", ",", "=", "+", "-", "*", "/", "%", "^",
    ">", "<", ":", "@",
];

/// Units of a duration from the longest, in milliseconds.
const UNITS: &[(&str, i64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

pub(super) fn words(text: &str) -> Result<Vec<Token>, PromqlError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let word = lexer.next()?;
        let done = word == Word::End;
        tokens.push(Token { at, word });
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            self.at += blanks;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Takes as long as characters are of a kind.
    fn take(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c: char| !of(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn next(&mut self) -> Result<Word, PromqlError> {
        let Some(first) = self.rest().chars().next() else {
            return Ok(Word::End);
        };
        let at = self.at;
        let digit_next = self.rest()[1..].starts_with(|c: char| c.is_ascii_digit());
        match first {
            '"' | '\'' | '`' => self.string(first),
            '0'..='9' => self.number(),
            '.' if first == '.' && digit_next => self.number(),
            'a'..='z' | 'A'..='Z' | '_' => {
                let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                Ok(match name.to_ascii_lowercase().as_str() {
                    "inf" => Word::Number(f64::INFINITY),
                    "nan" => Word::Number(f64::NAN),
                    _ => Word::Name(name.to_owned()),
                })
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| self.rest().starts_with(**sign));
                let Some(sign) = sign else {
                    return Err(PromqlError::syntax(at, format!("unexpected character {first:?}")));
                };
                self.at += sign.len();
                Ok(Word::Sign(sign))
            }
        }
    }

    /// A number, or a duration where a unit follows.
    fn number(&mut self) -> Result<Word, PromqlError> {
        let start = self.at;
        let bad = |end: usize| {
            let shown = &self.text[start..end];
            PromqlError::syntax(start, format!("{shown:?} is neither a number nor a duration"))
        };
        let rest = self.rest();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            self.at += 2;
            let digits = self.take(|c| c.is_ascii_alphanumeric());
            let number = u64::from_str_radix(digits, 16).map_err(|_| bad(self.at))?;
            // As floating point has it.
            return Ok(Word::Number(number as f64));
        }
        self.take(|c| c.is_ascii_digit());
        if self.rest().starts_with(|c: char| "ywdhms".contains(c)) {
            self.at = start;
            let text = self.take(|c| c.is_ascii_alphanumeric());
            return duration(text).map(Word::Duration).ok_or_else(|| bad(self.at));
        }
        self.take(|c| c.is_ascii_digit() || c == '.');
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
        }
        self.take(|c| c.is_ascii_alphanumeric() || c == '_');
        let text = &self.text[start..self.at];
        text.parse().map(Word::Number).map_err(|_| bad(self.at))
    }

    fn string(&mut self, quote: char) -> Result<Word, PromqlError> {
        let start = self.at;
        let open = || PromqlError::syntax(start, format!("the text that begins with {quote} has no end"));
        self.at += 1;
        let mut out = String::new();
        loop {
            let at = self.at;
            let c = self.rest().chars().next().ok_or_else(open)?;
            self.at += c.len_utf8();
            match c {
                _ if c == quote => return Ok(Word::Text(out)),
                '\\' if quote != '`' => out.push(self.escape(at)?),
                '\n' if quote != '`' => return Err(open()),
                _ => out.push(c),
            }
        }
    }

    /// As in Go.
    fn escape(&mut self, at: usize) -> Result<char, PromqlError> {
        let bad = || {
            PromqlError::syntax(
                at,
                "no escape that PromQL knows; write \\\\ for a backslash".to_owned(),
            )
        };
        let c = self.rest().chars().next().ok_or_else(bad)?;
        self.at += c.len_utf8();
        let digits = match c {
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            '\\' | '\'' | '"' => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(bad()),
        };
        let code = self.rest().get(..digits).ok_or_else(bad)?;
        self.at += digits;
        let code = u32::from_str_radix(code, 16).map_err(|_| bad())?;
        char::from_u32(code).ok_or_else(bad)
    }
}

/// Milliseconds of a duration as Prometheus writes it: units from long to short, each once.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    let mut next = 0;
    if text == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..letters])?;
        if unit < next {
            return None;
        }
        next = unit + 1;
        total = total.checked_add(count.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}
