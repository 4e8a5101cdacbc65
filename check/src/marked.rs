//! YAML with the place of each key and value, for pointing at them. What does not parse has no places.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::{collections::HashMap, rc::Rc};

/// As in the renderer, which refuses deeper documents.
const MAX_DEPTH: usize = 200;

/// Where a word is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters; 0 for what is longer than a line.
    pub width: usize,
}

impl Spot {
    fn of(span: Span) -> Self {
        let one_line = span.start.line() == span.end.line();
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
            width: if one_line {
                span.end.col().saturating_sub(span.start.col())
            } else {
                0
            },
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Marked {
    pub spot: Spot,
    pub value: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// A text; block scalars say where their first line is.
    Scalar {
        text: String,
        block: bool,
    },
    Seq(Vec<Rc<Marked>>),
    Map(Vec<(String, Spot, Rc<Marked>)>),
}

impl Marked {
    pub fn get(&self, key: &str) -> Option<(Spot, &Rc<Marked>)> {
        match &self.value {
            Shape::Map(entries) => entries
                .iter()
                .find(|(k, ..)| k == key)
                .map(|(_, spot, value)| (*spot, value)),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Shape::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Where it starts: at its first key, for a mapping.
    pub fn start(&self) -> Spot {
        match &self.value {
            Shape::Map(entries) => entries.first().map_or(self.spot, |(_, spot, _)| *spot),
            _ => self.spot,
        }
    }
}

/// The documents of a file, as far as they parse.
pub(crate) fn documents(text: &str) -> Vec<Rc<Marked>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        depth: 0,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next() {
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => match reader.node(event, span) {
                Some(root) => {
                    reader.anchors.clear();
                    documents.push(root);
                }
                None => break,
            },
        }
    }
    documents
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Marked>>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.parser.next_event()?.ok()
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Option<Rc<Marked>> {
        let spot = Spot::of(span);
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let text = text.into_owned();
                (anchor, Shape::Scalar { text, block })
            }
            Event::SequenceStart(anchor, _) => (anchor, self.nested(Self::sequence)?),
            Event::MappingStart(anchor, _) => (anchor, self.nested(Self::mapping)?),
            Event::Alias(anchor) => return self.anchors.get(&anchor).cloned(),
            _ => return None,
        };
        let node = Rc::new(Marked { spot, value });
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Some(node)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Shape>) -> Option<Shape> {
        self.depth += 1;
        let shape = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        shape
    }

    fn sequence(&mut self) -> Option<Shape> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Some(Shape::Seq(items));
            }
            items.push(self.node(event, span)?);
        }
    }

    fn mapping(&mut self) -> Option<Shape> {
        let mut entries: Vec<(String, Spot, Rc<Marked>)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Some(Shape::Map(entries));
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            let Some(name) = key.text() else { continue };
            match &value.value {
                Shape::Map(merged) if name == "<<" => entries.extend(merged.iter().cloned()),
                _ => entries.push((name.to_owned(), key.spot, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_places() {
        let docs = documents("a: 1\n---\nb:\n  - name: x\n    ün: {c: \"two\"}\n");
        assert_eq!(docs.len(), 2);
        let (key, list) = docs[1].get("b").unwrap();
        assert_eq!((key.line, key.column, key.width), (3, 1, 1));
        let Shape::Seq(items) = &list.value else {
            panic!("a list")
        };
        let (key, inner) = items[0].get("ün").unwrap();
        assert_eq!((key.line, key.column, key.width), (5, 5, 2));
        let (_, value) = inner.get("c").unwrap();
        assert_eq!((value.spot.line, value.spot.column, value.spot.width), (5, 13, 5));
    }

    #[test]
    fn what_is_broken_has_no_places_and_bombs_do_not_grow() {
        assert!(documents("a: [").is_empty());
        assert!(documents(&"[".repeat(5000)).is_empty());
        let mut bomb = "a: &a [x, x]\n".to_owned();
        for at in 0..60 {
            bomb.push_str(&format!(
                "b{at}: &b{at} [*{p}, *{p}]\n",
                p = if at == 0 {
                    "a".to_owned()
                } else {
                    format!("b{}", at - 1)
                }
            ));
        }
        assert_eq!(documents(&bomb).len(), 1);
    }
}
