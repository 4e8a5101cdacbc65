//! YAML, rewritten in place: layout and comments stay as they are, sealed values become what they are in plain.

use crate::{
    Format, Keys, SopsError,
    cipher::Plain,
    json::has,
    metadata::Metadata,
    walk::Walk,
    yaml_text::{resolve, written},
};
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde::Deserialize;
use std::collections::BTreeSet;

const MAX_DEPTH: usize = 128;

pub(crate) fn is_encrypted(data: &[u8]) -> bool {
    has(data, b"mac: ENC[")
        && data
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"sops:"))
}

#[derive(Deserialize)]
struct Holder {
    sops: Metadata,
}

fn unreadable(why: impl ToString) -> SopsError {
    SopsError::Unreadable {
        format: Format::Yaml,
        why: why.to_string(),
    }
}

pub(crate) fn decrypt(text: &str, keys: &Keys) -> Result<Vec<u8>, SopsError> {
    let text = text.replace("\r\n", "\n");
    let block = metadata_block(&text).ok_or(SopsError::NoMetadata)?;
    let holder: Holder =
        serde_saphyr::from_str(block).map_err(|error| SopsError::Metadata(error.to_string()))?;
    let mut reader = Reader {
        parser: Parser::new_from_str(&text),
        path: Vec::new(),
        walk: Walk::start(&holder.sops, keys)?,
        depth: 0,
        changes: Vec::new(),
        paths: BTreeSet::new(),
    };
    reader.stream()?;
    let Reader {
        walk, changes, paths, ..
    } = reader;
    let out = rewrite(&text, &changes, &walk, &paths);
    walk.finish()?;
    Ok(out.into_bytes())
}

/// The first document's `sops:`, which SOPS writes in block style at the root.
fn metadata_block(text: &str) -> Option<&str> {
    let start = match text.strip_prefix("sops:") {
        Some(_) => 0,
        None => text.find("\nsops:")? + 1,
    };
    let block = &text[start..];
    Some(&block[..block_length(block)])
}

/// How long a key at the root is, with what lies below it.
fn block_length(block: &str) -> usize {
    let mut length = 0;
    for (at, line) in block.split_inclusive('\n').enumerate() {
        if at > 0 && !line.trim().is_empty() && !line.starts_with([' ', '\t', '-']) || line.starts_with("---")
        {
            break;
        }
        length += line.len();
    }
    length
}

/// A sealed text, and what stands in its place.
struct Change {
    sealed: String,
    plain: Plain,
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    path: Vec<String>,
    walk: Walk,
    depth: usize,
    changes: Vec<Change>,
    /// Where comments may stand.
    paths: BTreeSet<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, SopsError> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(unreadable(format!(
                "line {}: {}",
                error.marker().line(),
                error.info()
            ))),
            None => Err(unreadable("it ends in the middle of a document")),
        }
    }

    fn stream(&mut self) -> Result<(), SopsError> {
        loop {
            match self.next()? {
                Event::StreamEnd => return Ok(()),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => self.value(event)?,
            }
        }
    }

    fn value(&mut self, event: Event<'a>) -> Result<(), SopsError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unreadable(format!("it is nested more than {MAX_DEPTH} deep")));
        }
        match event {
            Event::Scalar(text, style, _, tag) => {
                let typed = style == ScalarStyle::Plain && tag.is_none();
                match typed.then(|| resolve(&text)) {
                    Some(None) => {}
                    Some(Some(Plain::Text(_))) | None => self.text(&text)?,
                    Some(Some(value)) => self.walk.other(&self.path, &value)?,
                }
            }
            Event::SequenceStart(..) => loop {
                match self.next()? {
                    Event::SequenceEnd => break,
                    event => self.value(event)?,
                }
            },
            Event::MappingStart(..) => self.mapping()?,
            Event::Alias(_) => return Err(unreadable("it has aliases, which SOPS does not write")),
            _ => return Err(unreadable("its structure is not as expected")),
        }
        self.depth -= 1;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), SopsError> {
        if let Some(plain) = self.walk.text(&self.path, text)? {
            self.changes.push(Change {
                sealed: text.to_owned(),
                plain,
            });
        }
        Ok(())
    }

    fn mapping(&mut self) -> Result<(), SopsError> {
        self.paths.insert(self.path.clone());
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(unreadable("a key is no text")),
            };
            let event = self.next()?;
            if self.depth == 1 && key == "sops" {
                self.skip(event)?;
                continue;
            }
            self.path.push(key);
            self.value(event)?;
            self.path.pop();
        }
    }

    /// Passes a value over.
    fn skip(&mut self, first: Event<'a>) -> Result<(), SopsError> {
        let mut open = 0usize;
        let mut event = first;
        loop {
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => open += 1,
                Event::SequenceEnd | Event::MappingEnd => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
            event = self.next()?;
        }
    }
}

/// Puts the plain values in, in their order, and takes the metadata out. Sealed texts have no white space and hold a
/// random number each, so that each is found where it was read.
fn rewrite(text: &str, changes: &[Change], walk: &Walk, paths: &BTreeSet<Vec<String>>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut changes = changes.iter().peekable();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with("sops:") {
            rest = &rest[block_length(rest)..];
            continue;
        }
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let (mut line, after) = rest.split_at(end);
        rest = after;
        let whole = line;
        while let Some((change, at)) = changes
            .peek()
            .and_then(|change| Some((*change, line.find(&change.sealed)?)))
        {
            let (mut before, mut behind) = (&line[..at], &line[at + change.sealed.len()..]);
            for quote in ['"', '\''] {
                if let (Some(b), Some(a)) = (before.strip_suffix(quote), behind.strip_prefix(quote)) {
                    (before, behind) = (b, a);
                }
            }
            out.push_str(before);
            let flow = !behind.trim().is_empty();
            out.push_str(&written(&change.plain, indent(whole), flow));
            line = behind;
            changes.next();
        }
        match opened_comment(line, walk, paths) {
            Some(opened) => out.push_str(&opened),
            None => out.push_str(line),
        }
    }
    out
}

/// The column of a line's key, behind the dashes of lists.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '-']).len()
}

/// A comment's path is not known: it opens under one only.
fn opened_comment(line: &str, walk: &Walk, paths: &BTreeSet<Vec<String>>) -> Option<String> {
    let at = line.find("#ENC[")? + 1;
    let sealed = line[at..].trim_end();
    let plain = paths.iter().find_map(|path| walk.comment(path, sealed))?;
    Some(format!("{}{plain}{}", &line[..at], &line[at + sealed.len()..]))
}
