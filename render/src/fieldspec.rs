//! Walking an object along a field specification.

use crate::{
    config::FieldSpec,
    error::{Problem, RenderError, Result},
    resource::split_api_version,
    yaml::{Node, Scalar, Style},
};
use std::borrow::Cow;

/// What is made at the end of a path that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Create {
    Nothing,
    Scalar,
    Map,
}

/// Calls `set` on each node of the object that the specification names.
pub(crate) fn apply(
    node: &mut Node,
    spec: &FieldSpec,
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let api_version = node.get("apiVersion").map_or("", Node::value);
    let kind = node.get("kind").map_or("", Node::value);
    let (group, version) = split_api_version(api_version);
    if !spec.selects(group, version, kind) {
        return Ok(());
    }
    let path = split(&spec.path);
    let create = if spec.create { create } else { Create::Nothing };
    walk(node, &path, create, set).map_err(|error| error.field(spec.path.replace('/', ".")))
}

/// The parts of `a/b\/c/d`: a backslash keeps a slash in a part.
fn split(path: &str) -> Vec<Cow<'_, str>> {
    let mut parts: Vec<Cow<str>> = Vec::new();
    for part in path.split('/') {
        match parts.last_mut() {
            Some(last) if last.ends_with('\\') => {
                let last = last.to_mut();
                last.pop();
                last.push('/');
                last.push_str(part);
            }
            _ => parts.push(Cow::Borrowed(part)),
        }
    }
    parts
}

fn walk(
    node: &mut Node,
    path: &[Cow<'_, str>],
    create: Create,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<()> {
    let Some((part, rest)) = path.split_first() else {
        return set(node);
    };
    match node {
        Node::Scalar(scalar) if scalar.is_null() => Ok(()),
        Node::Scalar(_) => Err(RenderError::new(
            Problem::Configuration,
            format!("expected a list or a mapping at {part:?}, found a scalar"),
        )),
        Node::Seq(items) => items
            .iter_mut()
            .try_for_each(|item| walk(item, path, create, set)),
        Node::Map(map) => {
            let (name, is_list) = match part.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (part.as_ref(), false),
            };
            let make = match (create, rest.is_empty()) {
                (Create::Nothing, _) => None,
                _ if is_list => None,
                (Create::Scalar, true) => Some(empty_text()),
                _ => Some(Node::empty_map()),
            };
            let field = match make {
                Some(make) => {
                    let field = map.entry(name, || make.clone());
                    if field.is_null() {
                        *field = make;
                    }
                    field
                }
                None => match map.get_mut(name) {
                    Some(field) => field,
                    None => return Ok(()),
                },
            };
            if is_list && field.is_null() {
                *field = Node::Seq(Vec::new());
            }
            walk(field, rest, create, set)
        }
    }
}

fn empty_text() -> Node {
    Node::Scalar(Scalar::new("", Style::Bare))
}

/// Sets a scalar to a text.
pub(crate) fn set_text(node: &mut Node, text: &str) -> Result<()> {
    match node {
        Node::Scalar(scalar) => {
            let style = if scalar.style.is_quoted() {
                scalar.style
            } else {
                Style::Text
            };
            scalar.write(text, style);
            Ok(())
        }
        _ => expect_scalar(node),
    }
}

/// Sets a scalar to a value whose text decides its type, unless it was in quotes.
pub(crate) fn set_bare(node: &mut Node, text: &str) -> Result<()> {
    match node {
        Node::Scalar(scalar) => {
            scalar.set_bare(text);
            Ok(())
        }
        _ => expect_scalar(node),
    }
}

fn expect_scalar(node: &Node) -> Result<()> {
    match node {
        Node::Scalar(_) => Ok(()),
        other => Err(RenderError::new(
            Problem::Configuration,
            format!("expected a scalar, found {}", other.kind()),
        )),
    }
}
