//! Nodes to YAML text, byte for byte as kustomize prints: sorted keys, YAML 1.1 quoting, lines folded at
//! 80 columns, lists not indented below their key.

use super::{
    node::{Map, Node},
    scalar::{self, Plain},
};
use std::{borrow::Cow, cmp::Ordering, fmt::Write};

const WIDTH: usize = 80;

/// Appends one document, without `---`. A number that JSON does not have is the error.
pub(crate) fn emit_document(root: &Node, out: &mut String) -> Result<(), String> {
    let mut emitter = Emitter {
        out,
        column: 0,
        whitespace: true,
        indention: true,
    };
    match root {
        Node::Map(map) if !map.is_empty() => emitter.mapping(map, 0)?,
        Node::Seq(items) if !items.is_empty() => emitter.sequence(items, 0)?,
        other => emitter.value(other, 0, false)?,
    }
    emitter.line_break_if_needed();
    Ok(())
}

/// The state that decides where blanks and line breaks go, as libyaml keeps it.
struct Emitter<'a> {
    out: &'a mut String,
    /// In characters.
    column: usize,
    /// The last character was a blank, or the line is empty.
    whitespace: bool,
    /// Only indentation and indicators on this line so far.
    indention: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Emitter<'_> {
    fn mapping(&mut self, map: &Map, indent: usize) -> Result<(), String> {
        let mut entries: Vec<&(String, Node)> = map.0.iter().collect();
        entries.sort_by(|a, b| natural_order(&a.0, &b.0));
        for (key, value) in entries {
            self.indent(indent);
            if is_simple_key(key) {
                self.text(key, indent + 2, true);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.text(key, indent + 2, false);
                self.indent(indent);
                self.indicator(":", true, false, true);
            }
            self.value(value, indent, true)?;
        }
        Ok(())
    }

    fn sequence(&mut self, items: &[Node], indent: usize) -> Result<(), String> {
        for item in items {
            self.indent(indent);
            self.indicator("-", true, false, true);
            self.value(item, indent, false)?;
        }
        Ok(())
    }

    fn value(&mut self, node: &Node, indent: usize, in_mapping: bool) -> Result<(), String> {
        match node {
            Node::Map(map) if map.is_empty() => self.write_all(&["{", "}"]),
            Node::Seq(items) if items.is_empty() => self.write_all(&["[", "]"]),
            Node::Map(map) => self.mapping(map, indent + 2)?,
            Node::Seq(items) if in_mapping && !self.indention => self.sequence(items, indent)?,
            Node::Seq(items) => self.sequence(items, indent + 2)?,
            Node::Scalar(scalar) => match scalar.plain() {
                Plain::Null => self.word("null"),
                Plain::Bool(true) => self.word("true"),
                Plain::Bool(false) => self.word("false"),
                Plain::Int(value) => self.word(&value.to_string()),
                Plain::UInt(value) => self.word(&value.to_string()),
                Plain::Float(value) => {
                    let text = float_text(value).ok_or_else(|| scalar.text.clone())?;
                    self.word(&text);
                }
                Plain::Time(text) => self.text(&text, indent + 2, false),
                Plain::Str(text) => self.text(&through_json(&text), indent + 2, false),
            },
        }
        Ok(())
    }

    fn write_all(&mut self, brackets: &[&str; 2]) {
        self.indicator(brackets[0], true, true, false);
        self.indicator(brackets[1], false, false, false);
    }

    /// A text, in the style that its content allows. `indent` is that of continuation lines.
    fn text(&mut self, text: &str, indent: usize, simple_key: bool) {
        let content = Content::of(text);
        let wanted = if text.contains('\n') {
            Style::Literal
        } else if scalar::needs_quotes(text) {
            Style::Double
        } else {
            Style::Plain
        };
        let folds = !simple_key;
        match content.style(wanted, text, simple_key) {
            Style::Plain => self.plain(text, indent, folds),
            Style::Single => self.single(text, indent, folds),
            Style::Double => self.double(text, indent, folds),
            Style::Literal => self.literal(text, indent),
        }
    }

    fn word(&mut self, word: &str) {
        self.space_before();
        self.put_str(word);
        self.whitespace = false;
        self.indention = false;
    }

    fn plain(&mut self, text: &str, indent: usize, folds: bool) {
        if !text.is_empty() {
            self.space_before();
        }
        let mut spaces = false;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == ' ' {
                if folds && !spaces && self.column > WIDTH && rest.peek() != Some(&' ') {
                    self.indent(indent);
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                self.indention = false;
                spaces = false;
            }
        }
        self.whitespace = false;
        self.indention = false;
    }

    fn single(&mut self, text: &str, indent: usize, folds: bool) {
        self.indicator("'", true, false, false);
        let mut spaces = false;
        let mut breaks = false;
        let mut rest = text.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            let next = rest.peek().map(|(_, c)| *c);
            if c == ' ' {
                if folds && !spaces && self.column > WIDTH && at > 0 && next.is_some() && next != Some(' ') {
                    self.indent(indent);
                } else {
                    self.put(c);
                }
                spaces = true;
            } else if is_break(c) {
                if !breaks && c == '\n' {
                    self.line_break();
                }
                self.put_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.indent(indent);
                }
                if c == '\'' {
                    self.put(c);
                }
                self.put(c);
                self.indention = false;
                spaces = false;
                breaks = false;
            }
        }
        self.indicator("'", false, false, false);
    }

    fn double(&mut self, text: &str, indent: usize, folds: bool) {
        self.indicator("\"", true, false, false);
        // Go's emitter looks for a byte order mark at the start of the text, whatever character it is at.
        let marked = text.starts_with('\u{feff}');
        let mut spaces = false;
        let mut rest = text.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            if marked || !is_printable(c) || is_break(c) || c == '"' || c == '\\' {
                self.escape(c);
                spaces = false;
            } else if c == ' ' {
                let next = rest.peek().map(|(_, c)| *c);
                if folds && !spaces && self.column > WIDTH && at > 0 && next.is_some() {
                    self.indent(indent);
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false, false);
    }

    fn escape(&mut self, c: char) {
        let short = match c {
            '\0' => '0',
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '\x1b' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{a0}' => '_',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            _ => {
                let code = u32::from(c);
                let start = self.out.len();
                // Writing to a String cannot fail.
                let _ = match code {
                    0..=0xff => write!(self.out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(self.out, "\\u{code:04X}"),
                    _ => write!(self.out, "\\U{code:08X}"),
                };
                self.column += self.out.len() - start;
                return;
            }
        };
        self.put('\\');
        self.put(short);
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.indicator("|", true, false, false);
        if text.starts_with([' ', '\n', '\u{85}', '\u{2028}', '\u{2029}']) {
            self.indicator("2", false, false, false);
        }
        match text.strip_suffix(is_break) {
            None => self.indicator("-", false, false, false),
            Some(head) if head.is_empty() || head.ends_with(is_break) => {
                self.indicator("+", false, false, false);
            }
            Some(_) => {}
        }
        self.line_break();
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                self.put_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.indent(indent);
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }

    fn indicator(&mut self, text: &str, need_space: bool, is_space: bool, is_indention: bool) {
        if need_space {
            self.space_before();
        }
        self.put_str(text);
        self.whitespace = is_space;
        self.indention = self.indention && is_indention;
    }

    fn space_before(&mut self) {
        if !self.whitespace {
            self.put(' ');
        }
    }

    /// Moves to column `indent`, on a new line unless this one is still free up to there.
    fn indent(&mut self, indent: usize) {
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.line_break();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn line_break_if_needed(&mut self) {
        if self.column > 0 {
            self.line_break();
        }
    }

    fn line_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn put_break(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn put_str(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }
}

/// Whether a text is printed without quotes.
pub(super) fn is_plain(text: &str) -> bool {
    !text.contains('\n') && !scalar::needs_quotes(text) && Content::of(text).plain
}

/// What in a text rules out which style.
struct Content {
    plain: bool,
    single: bool,
    block: bool,
}

impl Content {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self {
                plain: true,
                single: true,
                block: false,
            };
        }
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut breaks, mut special) = (false, false);
        let (mut break_space, mut space_break) = (false, false);
        let mut previous = '\0';
        let mut after_blank = true;
        let mut rest = text.chars().peekable();
        let mut first = true;
        while let Some(c) = rest.next() {
            let before_blank = rest
                .peek()
                .is_none_or(|next| matches!(next, ' ' | '\t') || is_break(*next));
            indicators |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`'
                    if first =>
                {
                    true
                }
                '?' | '-' if first => before_blank,
                ':' => before_blank,
                '#' => after_blank,
                _ => false,
            };
            special |= !is_printable(c);
            let is_break = is_break(c);
            breaks |= is_break;
            break_space |= c == ' ' && self::is_break(previous);
            space_break |= is_break && previous == ' ';
            after_blank = c == ' ' || c == '\t' || is_break;
            previous = c;
            first = false;
        }
        let blank_edge = |c: Option<char>| c.is_some_and(|c| c == ' ' || self::is_break(c));
        let edges = blank_edge(text.chars().next()) || blank_edge(text.chars().next_back());
        let odd = break_space || space_break || special;
        Self {
            plain: !(indicators || edges || odd || breaks),
            single: !odd,
            block: !(text.ends_with(' ') || space_break || special),
        }
    }

    fn style(&self, wanted: Style, text: &str, simple_key: bool) -> Style {
        let mut style = wanted;
        if simple_key && text.contains(is_break) {
            style = Style::Double;
        }
        if style == Style::Plain && (!self.plain || (text.is_empty() && simple_key)) {
            style = Style::Single;
        }
        if style == Style::Single && !self.single || style == Style::Literal && (!self.block || simple_key) {
            style = Style::Double;
        }
        style
    }
}

fn is_simple_key(key: &str) -> bool {
    key.len() <= 128 && !key.contains(is_break)
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// Text passes through a JSON string that is read back as YAML, which takes U+0085 for a line break.
fn through_json(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{85}') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('\u{85}').peekable();
    while let Some(part) = parts.next() {
        out.push_str(part.trim_matches([' ', '\t']));
        if let Some(next) = parts.peek() {
            out.push(if next.trim_matches([' ', '\t']).is_empty() {
                '\n'
            } else {
                ' '
            });
        }
    }
    Cow::Owned(out)
}

/// A float as Go prints it after a pass through JSON.
pub(super) fn float_text(value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    if value.fract() == 0.0 && value.abs() < 1e21 {
        let whole = format!("{value}");
        if whole.parse::<i64>().is_ok() || whole.parse::<u64>().is_ok() {
            return Some(if whole == "-0" { "0".to_owned() } else { whole });
        }
    }
    // Shortest digits, then Go's choice of form: an exponent below 1e-4 or from 1e6 on.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if !(-4..21).contains(&exponent) || exponent >= 6 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{mantissa}e{sign}{:02}", exponent.abs()));
    }
    Some(format!("{value}"))
}

/// Letters after everything else, runs of digits by their value.
fn natural_order(a: &str, b: &str) -> Ordering {
    let same = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    if same == a.len() || same == b.len() {
        return a.len().cmp(&b.len());
    }
    if a.as_bytes()[same].is_ascii_alphabetic() && b.as_bytes()[same].is_ascii_alphabetic() {
        return a.as_bytes()[same].cmp(&b.as_bytes()[same]);
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y) else {
        return a.len().cmp(&b.len());
    };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero after a non-zero digit is part of that number.
    let mut start = 0;
    if x == '0' || y == '0' {
        let digits = a[..at].iter().rev().take_while(|c| c.is_numeric());
        if digits.into_iter().any(|c| *c != '0') {
            start = 1;
        }
    }
    let run = |chars: &[char]| {
        chars[at..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .fold((start, 0usize), |(value, length), c| {
                let digit = i64::from(u32::from(*c) - u32::from('0'));
                (i64::wrapping_add(i64::wrapping_mul(value, 10), digit), length + 1)
            })
    };
    let ((xn, xl), (yn, yl)) = (run(&a), run(&b));
    xn.cmp(&yn).then(xl.cmp(&yl)).then(x.cmp(&y))
}
