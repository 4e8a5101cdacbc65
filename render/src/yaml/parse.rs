//! YAML text to nodes: tokens put together, with aliases expanded and everything bounded.

use super::{
    node::{Map, Node, Scalar, Style},
    scalar::{self, Plain},
    scan::{Scanner, Token, Written},
};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

/// Deeper nesting than this is refused: no manifest comes near it, and every walk over a tree recurses.
const MAX_DEPTH: usize = 200;
/// Nodes that aliases may add to a stream on top of ten times what is written in it.
const MAX_ALIASED: usize = 200_000;
/// From this many keys on, a mapping's keys are looked up by their hashes.
const MANY: usize = 16;
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
    if lenient {
        return Ok(Builder::new(text, 1, true).document()?.into_iter().collect());
    }
    let mut documents = Vec::new();
    for (part, line) in split(text)? {
        documents.extend(Builder::new(part, line, false).document()?);
    }
    Ok(documents)
}

/// Takes a stream of manifests apart as kustomize does, before anything of it is read: at each line that begins with
/// `---` and has nothing more than a comment. Gives each part with the number of its first line.
fn split(text: &str) -> Result<Vec<(&str, usize)>, YamlError> {
    const MARK: &str = "\n---";
    let mut parts = Vec::new();
    let (mut start, mut line, mut from) = (0, 1, 0);
    while let Some(found) = text[from..].find(MARK) {
        let mark = from + found;
        let behind = mark + MARK.len();
        let Some(length) = text[behind..].find('\n') else {
            break;
        };
        let rest = text[behind..behind + length].trim();
        let lines = text[start..=mark].bytes().filter(|byte| *byte == b'\n').count();
        if !(rest.is_empty() || rest.starts_with('#')) {
            return Err(at(
                line + lines,
                "behind '---' there is more than a comment; start it on the next line",
            ));
        }
        parts.push((&text[start..=mark], line));
        line += lines + 1;
        start = behind + length + 1;
        // The line break behind one mark cannot be the one in front of the next.
        from = start;
    }
    parts.push((&text[start..], line));
    Ok(parts)
}

/// The line of the first character that YAML does not allow.
fn control_character(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let at = bytes.iter().enumerate().position(|(at, byte)| match byte {
        b'\t' | b'\n' | b'\r' => false,
        0..0x20 | 0x7f => true,
        0xc2 => matches!(bytes.get(at + 1), Some(0x80..0xa0)) && bytes.get(at + 1) != Some(&0x85),
        0xef => bytes.get(at + 1) == Some(&0xbf) && matches!(bytes.get(at + 2), Some(0xbe | 0xbf)),
        _ => false,
    })?;
    Some(1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count())
}

/// What is written in front of a node.
#[derive(Default)]
struct Properties<'a> {
    anchor: Option<&'a str>,
    tag: Option<String>,
}

struct Builder<'a> {
    scanner: Scanner<'a>,
    /// What each anchor stands for, with its number of nodes; nothing while that is read.
    anchors: HashMap<&'a str, Option<(Node, usize)>>,
    tags: Vec<(&'a str, String)>,
    written: usize,
    aliased: usize,
    depth: usize,
    /// How many brackets are open.
    flow: usize,
    lenient: bool,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, line: usize, lenient: bool) -> Self {
        Self {
            scanner: Scanner::new(text, line),
            anchors: HashMap::new(),
            tags: Vec::new(),
            written: 0,
            aliased: 0,
            depth: 0,
            flow: 0,
            lenient,
        }
    }

    /// The first document; none where there is nothing in it.
    fn document(mut self) -> Result<Option<Document>, YamlError> {
        let explicit = self.directives()?;
        let line = self.scanner.line()?;
        let root = match self.scanner.peek()? {
            Token::StreamEnd => return Ok(None),
            Token::Version(..) | Token::TagPrefix(..) | Token::DocumentStart | Token::DocumentEnd
                if explicit =>
            {
                return Ok(None);
            }
            _ => self.node(true, false)?,
        };
        // What comes next decides whether the document was whole.
        self.scanner.peek()?;
        Ok((!root.is_null()).then_some(Document { line, root }))
    }

    /// Takes directives and the document's start, if there are any.
    fn directives(&mut self) -> Result<bool, YamlError> {
        let mut versions = 0;
        loop {
            let line = self.scanner.line()?;
            match self.scanner.peek()? {
                Token::Version(major, minor) => {
                    if (*major, *minor) != (1, 1) || versions > 0 {
                        return Err(at(line, "a %YAML directive says 1.1, once"));
                    }
                    versions += 1;
                    self.scanner.take()?;
                }
                Token::TagPrefix(..) => {
                    if let Token::TagPrefix(handle, prefix) = self.scanner.take()? {
                        if self.tags.iter().any(|(known, _)| *known == handle) {
                            return Err(at(line, "a %TAG directive of this handle is there already"));
                        }
                        self.tags.push((handle, prefix.into_owned()));
                    }
                }
                Token::DocumentStart => {
                    self.scanner.take()?;
                    return Ok(true);
                }
                _ if versions > 0 || !self.tags.is_empty() => {
                    return Err(at(line, "behind directives '---' is missing"));
                }
                _ => return Ok(false),
            }
        }
    }

    fn node(&mut self, block: bool, indentless: bool) -> Result<Node, YamlError> {
        let line = self.scanner.line()?;
        if let Token::Alias(name) = self.scanner.peek()? {
            let name = *name;
            self.scanner.take()?;
            return self.alias(name, line);
        }
        let before = self.written + self.aliased;
        self.written += 1;
        let properties = self.properties()?;
        if let Some(anchor) = properties.anchor {
            self.anchors.insert(anchor, None);
        }
        let tag = properties.tag.as_deref().unwrap_or("");
        let node = match self.scanner.peek()? {
            Token::BlockEntry if indentless => self.nested(line, |own| own.sequence(false))?,
            Token::BlockSequenceStart if block => self.nested(line, |own| {
                own.scanner.take()?;
                own.sequence(true)
            })?,
            Token::BlockMappingStart if block => self.nested(line, Self::mapping)?,
            Token::FlowSequenceStart => self.nested(line, Self::flow_sequence)?,
            Token::FlowMappingStart => self.nested(line, Self::flow_mapping)?,
            Token::Scalar(..) => match self.scanner.take()? {
                Token::Scalar(text, written) => scalar_node(text, written, tag),
                _ => self.empty(),
            },
            _ if properties.anchor.is_some() || properties.tag.is_some() => {
                scalar_node(Cow::Borrowed(""), Written::Plain, tag)
            }
            _ => {
                let line = self.scanner.line()?;
                return Err(at(line, "a value is expected here"));
            }
        };
        if let Some(anchor) = properties.anchor {
            let size = self.written + self.aliased - before;
            self.anchors.insert(anchor, Some((node.clone(), size)));
        }
        Ok(node)
    }

    /// Anchor and tag, in either order.
    fn properties(&mut self) -> Result<Properties<'a>, YamlError> {
        let mut found = Properties::default();
        loop {
            match self.scanner.peek()? {
                Token::Anchor(name) if found.anchor.is_none() => {
                    found.anchor = Some(*name);
                    self.scanner.take()?;
                }
                Token::Tag(..) if found.tag.is_none() => {
                    let line = self.scanner.line()?;
                    if let Token::Tag(handle, rest) = self.scanner.take()? {
                        found.tag = Some(self.whole_tag(handle, &rest, line)?);
                    }
                }
                _ => return Ok(found),
            }
        }
    }

    /// A tag with the prefix that its handle stands for.
    fn whole_tag(&self, handle: &str, rest: &str, line: usize) -> Result<String, YamlError> {
        let declared = self.tags.iter().find(|(known, _)| *known == handle);
        let prefix = match (handle, declared) {
            (_, Some((_, prefix))) => prefix,
            ("", None) => "",
            ("!", None) => "!",
            ("!!", None) => CORE,
            _ => return Err(at(line, &format!("no %TAG directive says what {handle} means"))),
        };
        Ok(format!("{prefix}{rest}"))
    }

    fn alias(&mut self, name: &str, line: usize) -> Result<Node, YamlError> {
        let Some(Some((node, size))) = self.anchors.get(name) else {
            return Err(at(
                line,
                "the alias refers to an anchor that is not finished or not there",
            ));
        };
        self.aliased += size;
        if self.aliased > MAX_ALIASED + 10 * self.written {
            return Err(at(line, "aliases repeat too much; write the values out"));
        }
        Ok(node.clone())
    }

    fn nested(
        &mut self,
        line: usize,
        read: impl FnOnce(&mut Self) -> Result<Node, YamlError>,
    ) -> Result<Node, YamlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(at(line, &format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let node = read(self);
        self.depth -= 1;
        node
    }

    /// A value that is not written. In brackets kustomize writes it as an empty text before it reads it again.
    fn empty(&mut self) -> Node {
        self.written += 1;
        let style = if self.flow > 0 && !self.lenient {
            Style::FlowEmpty
        } else {
            Style::Plain
        };
        Node::Scalar(Scalar::new("", style))
    }

    /// The items of a list; one without indentation of its own has no end but the next key.
    fn sequence(&mut self, indented: bool) -> Result<Node, YamlError> {
        let mut items = Vec::new();
        while *self.scanner.peek()? == Token::BlockEntry {
            self.scanner.take()?;
            let item = match self.scanner.peek()? {
                Token::BlockEntry | Token::BlockEnd => self.empty(),
                Token::Key | Token::Value if !indented => self.empty(),
                _ => self.node(true, false)?,
            };
            items.push(item);
        }
        if indented {
            self.expect(
                &Token::BlockEnd,
                "a list item ('- ') or the end of the list is expected here",
            )?;
        }
        items.shrink_to_fit();
        Ok(Node::Seq(items))
    }

    fn expect(&mut self, token: &Token<'_>, otherwise: &str) -> Result<(), YamlError> {
        let line = self.scanner.line()?;
        if self.scanner.peek()? != token {
            return Err(at(line, otherwise));
        }
        self.scanner.take()?;
        Ok(())
    }

    fn mapping(&mut self) -> Result<Node, YamlError> {
        self.scanner.take()?;
        let mut fields = Fields::new(self.lenient);
        while *self.scanner.peek()? == Token::Key {
            let line = self.scanner.line()?;
            self.scanner.take()?;
            let key = match self.scanner.peek()? {
                Token::Key | Token::Value | Token::BlockEnd => no_key(),
                _ => self.node(true, true)?,
            };
            let value = if *self.scanner.peek()? == Token::Value {
                self.scanner.take()?;
                match self.scanner.peek()? {
                    Token::Key | Token::Value | Token::BlockEnd => self.empty(),
                    _ => self.node(true, true)?,
                }
            } else {
                self.empty()
            };
            fields.add(key, value, line)?;
        }
        self.expect(
            &Token::BlockEnd,
            "a key or the end of the mapping is expected here",
        )?;
        fields.done()
    }

    fn flow_sequence(&mut self) -> Result<Node, YamlError> {
        self.scanner.take()?;
        self.flow += 1;
        let mut items = Vec::new();
        while *self.scanner.peek()? != Token::FlowSequenceEnd {
            if !items.is_empty() {
                self.expect(&Token::FlowEntry, "',' or ']' is expected here")?;
            }
            match self.scanner.peek()? {
                Token::FlowSequenceEnd => break,
                Token::Key => items.push(self.pair()?),
                _ => items.push(self.node(false, false)?),
            }
        }
        self.scanner.take()?;
        self.flow -= 1;
        items.shrink_to_fit();
        Ok(Node::Seq(items))
    }

    /// A mapping of one field, as an item of a list in brackets.
    fn pair(&mut self) -> Result<Node, YamlError> {
        let line = self.scanner.line()?;
        let (key, value) = self.flow_field()?;
        let mut fields = Fields::new(self.lenient);
        fields.add(key, value, line)?;
        fields.done()
    }

    fn flow_mapping(&mut self) -> Result<Node, YamlError> {
        self.scanner.take()?;
        self.flow += 1;
        let mut fields = Fields::new(self.lenient);
        let mut first = true;
        while *self.scanner.peek()? != Token::FlowMappingEnd {
            if !first {
                self.expect(&Token::FlowEntry, "',' or '}' is expected here")?;
            }
            first = false;
            let line = self.scanner.line()?;
            let (key, value) = match self.scanner.peek()? {
                Token::FlowMappingEnd => break,
                Token::Key => self.flow_field()?,
                _ => (self.node(false, false)?, self.empty()),
            };
            fields.add(key, value, line)?;
        }
        self.scanner.take()?;
        self.flow -= 1;
        fields.done()
    }

    /// A key in brackets with its value, behind the token that says that it is one.
    fn flow_field(&mut self) -> Result<(Node, Node), YamlError> {
        self.scanner.take()?;
        let key = match self.scanner.peek()? {
            Token::Value | Token::FlowEntry | Token::FlowMappingEnd | Token::FlowSequenceEnd => no_key(),
            _ => self.node(false, false)?,
        };
        Ok((key, self.flow_value()?))
    }

    /// What follows a key in brackets.
    fn flow_value(&mut self) -> Result<Node, YamlError> {
        if *self.scanner.peek()? != Token::Value {
            return Ok(self.empty());
        }
        self.scanner.take()?;
        match self.scanner.peek()? {
            Token::FlowEntry | Token::FlowMappingEnd | Token::FlowSequenceEnd => Ok(self.empty()),
            _ => self.node(false, false),
        }
    }
}

/// The fields of a mapping while it is read.
struct Fields {
    map: Map,
    /// The keys, once there are many.
    keys: HashSet<String>,
    merges: Vec<(Node, usize)>,
    lenient: bool,
}

impl Fields {
    fn new(lenient: bool) -> Self {
        Self {
            map: Map::default(),
            keys: HashSet::new(),
            merges: Vec::new(),
            lenient,
        }
    }

    fn add(&mut self, key: Node, value: Node, line: usize) -> Result<(), YamlError> {
        if matches!(&key, Node::Scalar(key) if key.style == Style::Plain && key.text == "<<") {
            self.merges.push((value, line));
            return Ok(());
        }
        let key = self.key(key, line)?;
        if self.lenient {
            self.map.set(&key, value);
        } else if self.is_known(&key) {
            return Err(at(line, &format!("the key {key:?} occurs twice in one mapping")));
        } else {
            self.map.0.push((key, value));
        }
        Ok(())
    }

    fn is_known(&mut self, key: &str) -> bool {
        if self.map.0.len() < MANY {
            return self.map.get(key).is_some();
        }
        if self.keys.is_empty() {
            self.keys = self.map.0.iter().map(|(key, _)| key.clone()).collect();
        }
        !self.keys.insert(key.to_owned())
    }

    fn key(&self, key: Node, line: usize) -> Result<String, YamlError> {
        match key {
            Node::Scalar(key) if self.lenient && key.style == Style::Plain => {
                Ok(match scalar::resolve_yaml11(&key.text) {
                    Plain::Bool(value) => value.to_string(),
                    Plain::Int(value) => value.to_string(),
                    _ => key.text,
                })
            }
            Node::Scalar(key) if key.is_text() => Ok(key.text),
            Node::Scalar(key) => Err(at(
                line,
                &format!("the key {} is not a text; put it in quotes", key.text),
            )),
            _ => Err(at(line, "a key must be a text")),
        }
    }

    fn done(mut self) -> Result<Node, YamlError> {
        for (value, line) in self.merges {
            merge(&mut self.map, value, line)?;
        }
        self.map.0.shrink_to_fit();
        Ok(Node::Map(self.map))
    }
}

/// Adds what `<<` brings, without replacing what the mapping has.
fn merge(map: &mut Map, value: Node, line: usize) -> Result<(), YamlError> {
    match value {
        Node::Map(other) => {
            for (key, value) in other.0 {
                if map.get(&key).is_none() {
                    map.0.push((key, value));
                }
            }
            Ok(())
        }
        Node::Seq(items) => items.into_iter().try_for_each(|item| merge(map, item, line)),
        Node::Scalar(_) => Err(at(line, "'<<' needs a mapping or a list of mappings")),
    }
}

/// A key that is not written, which kustomize writes as an empty text.
fn no_key() -> Node {
    Node::text("")
}

/// What the tags of YAML itself begin with.
const CORE: &str = "tag:yaml.org,2002:";

fn scalar_node(text: Cow<str>, written: Written, tag: &str) -> Node {
    let style = match (tag.strip_prefix(CORE).unwrap_or_default(), written) {
        ("str", _) => Style::Text,
        ("binary", _) => Style::Binary,
        ("int" | "float" | "bool" | "null" | "timestamp", _) | (_, Written::Plain) => Style::Plain,
        (_, Written::Folded) if text.trim_end_matches('\n').contains('\n') || text.ends_with("\n\n") => {
            Style::Folded
        }
        _ => Style::Quoted,
    };
    Node::Scalar(Scalar::new(text, style))
}

fn at(line: usize, message: &str) -> YamlError {
    YamlError {
        line,
        message: message.to_owned(),
    }
}
