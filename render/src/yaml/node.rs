//! A YAML tree whose scalars keep their text.

use super::{
    scalar::{self, Plain},
    shared,
};
use std::borrow::Cow;

/// How a scalar was written, which decides how its text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: the text decides the type.
    Plain,
    /// In quotes or in a block: a text. What is written over it stays in quotes.
    Quoted,
    /// In a folded block (`>`): as quoted, but kustomize's pass through YAML changes some line breaks.
    Folded,
    /// A text without quotes, by a tag or made by a transformer.
    Text,
    /// Set by a transformer without a tag: as plain, but never taken for "no value".
    Bare,
    /// Tagged `!!binary`: base64 of a text.
    Binary,
    /// Not written at all, within brackets: nothing, until kustomize writes it as an empty text.
    FlowEmpty,
}

impl Style {
    /// Whether what is written over the value becomes a text.
    pub fn is_quoted(self) -> bool {
        matches!(self, Self::Quoted | Self::Folded)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub text: String,
    pub style: Style,
    /// Not 0 where kustomize keeps one value for several fields; see [`super::shared`].
    pub shared: u32,
}

impl Scalar {
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
            shared: 0,
        }
    }

    /// Overwrites the value in place.
    pub fn write(&mut self, text: impl Into<String>, style: Style) {
        self.text = text.into();
        self.style = style;
        if self.shared != 0 {
            self.shared |= shared::WRITTEN;
        }
    }

    /// The value with its type.
    pub fn plain(&self) -> Plain<'_> {
        match self.style {
            Style::Folded => Plain::Str(scalar::refold(&self.text)),
            Style::Quoted | Style::Text | Style::FlowEmpty => Plain::Str(Cow::Borrowed(&self.text)),
            Style::Plain | Style::Bare => scalar::resolve(&self.text),
            Style::Binary => Plain::Str(decode_binary(&self.text)),
        }
    }

    /// A value that stands for "nothing": a plain empty, `~` or `null`.
    pub fn is_null(&self) -> bool {
        match self.style {
            Style::Plain => matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Style::FlowEmpty => true,
            _ => false,
        }
    }

    /// Whether the value is a text, to the eyes of kustomize's filters.
    pub fn is_text(&self) -> bool {
        matches!(self.plain(), Plain::Str(_))
    }

    /// Replaces the text by a value of unknown type, keeping quotes where there were some.
    pub fn set_bare(&mut self, text: &str) {
        let style = if self.style.is_quoted() {
            self.style
        } else {
            Style::Bare
        };
        self.write(text, style);
    }
}

fn decode_binary(text: &str) -> Cow<'_, str> {
    use base64::Engine;
    let compact: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    match base64::engine::general_purpose::STANDARD.decode(&compact) {
        Ok(bytes) => Cow::Owned(through_json(&bytes)),
        Err(_) => Cow::Borrowed(text),
    }
}

/// Bytes as Go's JSON writes them: each one that is no part of a character becomes U+FFFD.
fn through_json(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// A mapping in the order it was written; keys are texts and occur once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Map(pub Vec<(String, Node)>);

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets a field, replacing the value it had.
    pub fn set(&mut self, key: &str, value: Node) {
        match self.get_mut(key) {
            Some(old) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// The field's value, made by `make` where it is absent.
    pub fn entry(&mut self, key: &str, make: impl FnOnce() -> Node) -> &mut Node {
        let at = match self.0.iter().position(|(k, _)| k == key) {
            Some(at) => at,
            None => {
                self.0.push((key.to_owned(), make()));
                self.0.len() - 1
            }
        };
        &mut self.0[at].1
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Map),
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        let style = if text.contains('\n') {
            Style::Quoted
        } else {
            Style::Text
        };
        Self::Scalar(Scalar::new(text, style))
    }

    /// A value whose text decides its type.
    pub fn bare(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar::new(text, Style::Bare))
    }

    pub fn null() -> Self {
        Self::Scalar(Scalar::new("null", Style::Plain))
    }

    pub fn empty_map() -> Self {
        Self::Map(Map::default())
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.is_null())
    }

    /// Null, `{}`, `[]` or an empty text.
    pub fn is_nil_or_empty(&self) -> bool {
        match self {
            Self::Scalar(scalar) => scalar.is_null() || scalar.text.is_empty() && scalar.style == Style::Bare,
            Self::Seq(items) => items.is_empty(),
            Self::Map(map) => map.is_empty(),
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_seq(&self) -> Option<&[Node]> {
        match self {
            Self::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_seq_mut(&mut self) -> Option<&mut Vec<Node>> {
        match self {
            Self::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_scalar(&self) -> Option<&Scalar> {
        match self {
            Self::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A scalar's text; nothing for null, lists and mappings.
    pub fn value(&self) -> &str {
        match self {
            Self::Scalar(scalar) if !scalar.is_null() => &scalar.text,
            _ => "",
        }
    }

    /// A scalar's text as written, null included; nothing for lists and mappings.
    pub fn raw(&self) -> &str {
        match self {
            Self::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key)
    }

    /// Follows field names.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Node> {
        path.into_iter().try_fold(self, |node, key| node.get(key))
    }

    /// What the node is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(scalar) if scalar.is_null() => "empty",
            Self::Scalar(_) => "a scalar",
            Self::Seq(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}
