//! YAML text to nodes: a parser's events, with aliases expanded and everything bounded.

use super::{
    node::{Map, Node, Scalar, Style},
    scalar::{self, Plain},
};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use std::{borrow::Cow, collections::HashMap};

/// Deeper nesting than this is refused: no manifest comes near it, and every walk over a tree recurses.
const MAX_DEPTH: usize = 200;
/// Nodes that aliases may add to a stream on top of ten times what is written in it.
const MAX_ALIASED: usize = 200_000;
/// Size of one file, in bytes.
pub(crate) const MAX_FILE: usize = 64 << 20;

/// Why a text is no YAML that kustomize would read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    /// From 1; 0 where unknown.
    pub line: usize,
    pub message: String,
}

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// Where it starts, from 1.
    pub line: usize,
    pub root: Node,
}

/// Reads all documents of a stream; empty ones are left out.
pub(crate) fn parse_documents(text: &str) -> Result<Vec<Document>, YamlError> {
    parse(text, false)
}

/// As [`parse_documents`], for kustomize's own files: of a key that occurs twice the last value counts, and a
/// key may be a boolean or a number.
pub(crate) fn parse_lenient(text: &str) -> Result<Vec<Document>, YamlError> {
    parse(text, true)
}

fn parse(text: &str, lenient: bool) -> Result<Vec<Document>, YamlError> {
    if text.len() > MAX_FILE {
        return Err(YamlError {
            line: 0,
            message: format!("the file has {} bytes; the limit is {MAX_FILE}", text.len()),
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(line) = control_character(text) {
        return Err(YamlError {
            line,
            message: "control characters are not allowed".to_owned(),
        });
    }
    let text: Cow<str> = if text.contains("\r\n") {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Borrowed(text)
    };
    match read(&text, lenient) {
        Ok(documents) => Ok(documents),
        Err(error) => repaired(&text, lenient, &error).ok_or(error),
    }
}

fn read(text: &str, lenient: bool) -> Result<Vec<Document>, YamlError> {
    let unfinished = !text.ends_with('\n');
    Builder {
        parser: Parser::new_from_str(text),
        end: if unfinished {
            text.chars().count()
        } else {
            usize::MAX
        },
        anchors: HashMap::new(),
        written: 0,
        aliased: 0,
        depth: 0,
        lenient,
    }
    .documents()
}

/// Reads what Go's parser takes and this one does not: a tab behind a colon, and lines within brackets or quotes
/// that are indented too little. The line that is complained of is changed so that it means the same.
fn repaired(text: &str, lenient: bool, first: &YamlError) -> Option<Vec<Document>> {
    const MAX_REPAIRS: usize = 500;
    let mut lines: Vec<Cow<str>> = text.split('\n').map(Cow::Borrowed).collect();
    let mut error = first.clone();
    // How many lines of a quoted text that starts at the line are indented already.
    let mut quoted = (0, 0);
    for _ in 0..MAX_REPAIRS {
        let mut at = error.line.checked_sub(1)?;
        let is_quoted = error.message.contains("in quoted scalar");
        if is_quoted {
            quoted = if quoted.0 == at {
                (at, quoted.1 + 1)
            } else {
                (at, 1)
            };
            at += quoted.1;
        }
        let line = lines.get_mut(at)?;
        if error
            .message
            .contains("must be followed by a valid YAML whitespace")
        {
            *line = Cow::Owned(line.replacen(":\t", ": ", 1));
        } else if is_quoted || error.message.contains("invalid indentation") {
            *line = Cow::Owned(format!("{:40}{line}", ""));
        } else {
            return None;
        }
        match read(&lines.join("\n"), lenient) {
            Ok(documents) => return Some(documents),
            Err(next) if next == error && !is_quoted => return None,
            Err(next) => error = next,
        }
    }
    None
}

/// The line of the first character that YAML does not allow.
fn control_character(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let at = bytes.iter().enumerate().position(|(at, byte)| match byte {
        b'\t' | b'\n' | b'\r' => false,
        0..0x20 | 0x7f => true,
        0xc2 => matches!(bytes.get(at + 1), Some(0x80..0xa0)) && bytes.get(at + 1) != Some(&0x85),
        _ => false,
    })?;
    Some(1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count())
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Where the text ends, in characters, if it does so in the middle of a line.
    end: usize,
    anchors: HashMap<usize, (Node, usize)>,
    written: usize,
    aliased: usize,
    depth: usize,
    lenient: bool,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(YamlError {
                line: error.marker().line(),
                message: error.info().to_owned(),
            }),
            None => Err(YamlError {
                line: 0,
                message: "the text ends in the middle of a document".to_owned(),
            }),
        }
    }

    fn documents(mut self) -> Result<Vec<Document>, YamlError> {
        let mut documents = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    let line = span.start.line();
                    let root = self.node(event, span)?;
                    self.anchors.clear();
                    if !root.is_null() {
                        documents.push(Document { line, root });
                    }
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, YamlError> {
        let before = self.written + self.aliased;
        self.written += 1;
        let (anchor, node) = match event {
            Event::Scalar(mut text, style, anchor, tag) => {
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if block && span.end.index() >= self.end && text.ends_with('\n') {
                    text.to_mut().pop();
                }
                (anchor, scalar_node(text, style, tag.as_deref()))
            }
            Event::SequenceStart(anchor, _) => (anchor, self.nested(span, Self::sequence)?),
            Event::MappingStart(anchor, _) => (anchor, self.nested(span, Self::mapping)?),
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(at(span, "unexpected YAML structure")),
        };
        if anchor > 0 {
            let size = self.written + self.aliased - before;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, YamlError> {
        let (node, size) = self.anchors.get(&anchor).ok_or_else(|| {
            at(
                span,
                "the alias refers to an anchor that is not finished or not there",
            )
        })?;
        self.aliased += size;
        if self.aliased > MAX_ALIASED + 10 * self.written {
            return Err(at(span, "aliases repeat too much; write the values out"));
        }
        Ok(node.clone())
    }

    fn nested(
        &mut self,
        span: Span,
        read: impl FnOnce(&mut Self) -> Result<Node, YamlError>,
    ) -> Result<Node, YamlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(at(span, &format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let node = read(self);
        self.depth -= 1;
        node
    }

    fn sequence(&mut self) -> Result<Node, YamlError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                items.shrink_to_fit();
                return Ok(Node::Seq(items));
            }
            items.push(self.node(event, span)?);
        }
    }

    fn mapping(&mut self) -> Result<Node, YamlError> {
        let mut map = Map::default();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(event, span)?;
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span)?;
            if is_merge {
                merges.push((value, value_span));
            } else if self.lenient {
                map.set(&key, value);
            } else if map.get(&key).is_some() {
                return Err(at(span, &format!("the key {key:?} occurs twice in one mapping")));
            } else {
                map.0.push((key, value));
            }
        }
        for (value, span) in merges {
            merge(&mut map, value, span)?;
        }
        map.0.shrink_to_fit();
        Ok(Node::Map(map))
    }

    fn key(&mut self, event: Event<'a>, span: Span) -> Result<String, YamlError> {
        match self.node(event, span)? {
            Node::Scalar(key) if self.lenient && key.style == Style::Plain => {
                Ok(match scalar::resolve_yaml11(&key.text) {
                    Plain::Bool(value) => value.to_string(),
                    Plain::Int(value) => value.to_string(),
                    _ => key.text,
                })
            }
            Node::Scalar(key) if key.is_text() => Ok(key.text),
            Node::Scalar(key) => Err(at(
                span,
                &format!("the key {} is not a text; put it in quotes", key.text),
            )),
            _ => Err(at(span, "a key must be a text")),
        }
    }
}

/// Adds what `<<` brings, without replacing what the mapping has.
fn merge(map: &mut Map, value: Node, span: Span) -> Result<(), YamlError> {
    match value {
        Node::Map(other) => {
            for (key, value) in other.0 {
                if map.get(&key).is_none() {
                    map.0.push((key, value));
                }
            }
            Ok(())
        }
        Node::Seq(items) => items.into_iter().try_for_each(|item| merge(map, item, span)),
        Node::Scalar(_) => Err(at(span, "'<<' needs a mapping or a list of mappings")),
    }
}

fn scalar_node(text: Cow<str>, style: ScalarStyle, tag: Option<&Tag>) -> Node {
    let tag = tag
        .filter(|tag| tag.is_yaml_core_schema())
        .map_or("", |tag| tag.suffix.as_str());
    let style = match (tag, style) {
        ("str", _) => Style::Text,
        ("binary", _) => Style::Binary,
        ("int" | "float" | "bool" | "null" | "timestamp", _) | (_, ScalarStyle::Plain) => Style::Plain,
        (_, ScalarStyle::Folded) if text.trim_end_matches('\n').contains('\n') || text.ends_with("\n\n") => {
            Style::Folded
        }
        _ => Style::Quoted,
    };
    Node::Scalar(Scalar::new(text, style))
}

fn at(span: Span, message: &str) -> YamlError {
    YamlError {
        line: span.start.line(),
        message: message.to_owned(),
    }
}
