//! Strategic merge, as kustomize's kyaml does it: mappings merge, lists merge by the keys of the Kubernetes
//! schema, other lists are replaced; `$patch` is the only directive.

use crate::{
    error::{Problem, RenderError, Result},
    kube::{ListSchema, Schema, Schemas},
    yaml::{Map, Node, Scalar, Style},
};

mod lists;

const DIRECTIVE: &str = "$patch";

/// What a `$patch` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// The patched object; `None` where the patch deletes it.
pub(crate) fn merge(object: Node, patch: Node, schemas: &Schemas) -> Result<Option<Node>> {
    let root = Place {
        schemas,
        schema: None,
    };
    both(object, patch, root)
}

/// What is known about merging where the walk is.
#[derive(Debug, Clone, Copy)]
struct Place<'s> {
    schemas: &'s Schemas,
    schema: Option<Schema<'s>>,
}

impl<'s> Place<'s> {
    fn with(self, schema: Option<Schema<'s>>) -> Self {
        Self { schema, ..self }
    }

    /// An object within an object brings its own schema where none is known.
    fn of_map(self, map: &Map) -> Self {
        let own = || {
            let api_version = map.get("apiVersion")?.value();
            self.schemas.of(api_version, map.get("kind")?.value())
        };
        self.with(self.schema.or_else(own))
    }

    fn field(self, name: &str) -> Self {
        self.with(self.schema.and_then(|schema| schema.field(name)))
    }

    fn list(self, name: &str) -> Option<ListSchema<'s>> {
        self.schema?.list(name)
    }
}

/// Merges a patch into what is there.
fn both(dest: Node, mut patch: Node, place: Place<'_>) -> Result<Option<Node>> {
    match (dest.is_null(), patch.is_null()) {
        (true, false) => return added(patch, place),
        (_, true) => return Ok(None),
        (false, false) => {}
    }
    match (dest, &mut patch) {
        (Node::Map(mut map), Node::Map(changes)) => {
            match take_directive(changes)? {
                Directive::Delete => return Ok(None),
                Directive::Replace => return added(patch, place),
                Directive::Merge => {}
            }
            let place = place.of_map(&map).of_map(changes);
            let mut merged = Vec::with_capacity(map.0.len() + changes.0.len());
            for (key, value) in map.0.drain(..) {
                let value = match changes.remove(&key) {
                    Some(change) => field_both(value, change, place, &key)?,
                    None => own_field(value, place, &key)?,
                };
                merged.extend(value.map(|value| (key, value)));
            }
            for (key, change) in changes.0.drain(..) {
                let value = added_field(change, place, &key)?;
                merged.extend(value.map(|value| (key, value)));
            }
            map.0 = merged;
            Ok(Some(Node::Map(map)))
        }
        (Node::Scalar(mut old), Node::Scalar(new)) => {
            // The new value is written as the old one was: quotes stay quotes.
            let style = match (old.style.is_quoted(), new.style.is_quoted()) {
                (true, _) => old.style,
                (false, true) => Style::Text,
                (false, false) => new.style,
            };
            old.write(std::mem::take(&mut new.text), style);
            Ok(Some(Node::Scalar(old)))
        }
        (Node::Seq(_), Node::Seq(_)) => Ok(Some(patch)),
        (dest, patch) => Err(RenderError::new(
            Problem::Patch,
            format!(
                "the patch has {} where the object has {}",
                patch.kind(),
                dest.kind()
            ),
        )),
    }
}

fn field_both(dest: Node, patch: Node, place: Place<'_>, key: &str) -> Result<Option<Node>> {
    let merged = match (place.list(key), dest, patch) {
        (Some(list), Node::Seq(dest), Node::Seq(patch)) => lists::both(dest, patch, &list, place),
        (_, dest, patch) if dest.is_null() && !patch.is_null() => added_field(patch, place, key),
        (_, dest, patch) => both(dest, patch, place.field(key)),
    };
    merged.map_err(|error| error.under(key))
}

/// What only the patch has: directives in it are obeyed, nulls dropped.
fn added(node: Node, place: Place<'_>) -> Result<Option<Node>> {
    match node {
        Node::Scalar(scalar) if scalar.is_null() => Ok(None),
        Node::Map(mut map) => {
            if take_directive(&mut map)? == Directive::Delete {
                return Ok(None);
            }
            let place = place.of_map(&map);
            let mut kept = Vec::with_capacity(map.0.len());
            for (key, value) in map.0.drain(..) {
                let value = added_field(value, place, &key)?;
                kept.extend(value.map(|value| (key, value)));
            }
            map.0 = kept;
            Ok(Some(Node::Map(map)))
        }
        other => Ok(Some(other)),
    }
}

fn added_field(node: Node, place: Place<'_>, key: &str) -> Result<Option<Node>> {
    match (place.list(key), node) {
        (Some(list), Node::Seq(items)) => lists::added(items, &list, place),
        (_, node) => added(node, place.field(key)),
    }
}

/// What only the object has: fields without a value are dropped, a written `null` stays.
fn own(node: Node, place: Place<'_>) -> Result<Option<Node>> {
    match node {
        Node::Scalar(scalar) if scalar.is_null() => {
            if scalar.text.is_empty() {
                return Ok(None);
            }
            Ok(Some(Node::Scalar(Scalar {
                style: Style::Bare,
                ..scalar
            })))
        }
        Node::Map(mut map) => {
            let place = place.of_map(&map);
            let mut kept = Vec::with_capacity(map.0.len());
            for (key, value) in map.0.drain(..) {
                let value = own_field(value, place, &key)?;
                kept.extend(value.map(|value| (key, value)));
            }
            map.0 = kept;
            Ok(Some(Node::Map(map)))
        }
        other => Ok(Some(other)),
    }
}

fn own_field(node: Node, place: Place<'_>, key: &str) -> Result<Option<Node>> {
    match (place.list(key), node) {
        (Some(list), Node::Seq(items)) => lists::own(items, &list, place).map(Some),
        (_, node) => own(node, place.field(key)),
    }
}

/// Takes the `$patch` of a mapping.
fn take_directive(map: &mut Map) -> Result<Directive> {
    match map.remove(DIRECTIVE) {
        None => Ok(Directive::Merge),
        Some(value) => directive(&value),
    }
}

fn directive(value: &Node) -> Result<Directive> {
    match value.raw() {
        "merge" => Ok(Directive::Merge),
        "replace" => Ok(Directive::Replace),
        "delete" => Ok(Directive::Delete),
        other => Err(
            RenderError::new(Problem::Patch, format!("{other:?} is no patch directive"))
                .field(DIRECTIVE)
                .remedy("use delete, replace or merge"),
        ),
    }
}
