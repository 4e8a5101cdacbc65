//! Strategic merge, as kustomize's kyaml does it: mappings merge, lists merge by the keys of the built-in
//! Kubernetes schema, other lists are replaced; `$patch` is the only directive.

use crate::{
    error::{Problem, RenderError, Result},
    kube::{ListSchema, Schema},
    yaml::{Map, Node, Scalar, Style},
};

const DIRECTIVE: &str = "$patch";

/// What a `$patch` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// The patched object; `None` where the patch deletes it.
pub(crate) fn merge(object: Node, patch: Node) -> Result<Option<Node>> {
    both(object, patch, None)
}

/// Merges a patch into what is there.
fn both(dest: Node, mut patch: Node, schema: Option<Schema>) -> Result<Option<Node>> {
    if dest.is_null() {
        // A patch's value takes the place of nothing.
        return if patch.is_null() {
            Ok(None)
        } else {
            added(patch, schema)
        };
    }
    if patch.is_null() {
        return Ok(None);
    }
    match (dest, &mut patch) {
        (Node::Map(mut map), Node::Map(changes)) => {
            match take_directive(changes)? {
                Directive::Delete => return Ok(None),
                Directive::Replace => return added(patch, schema),
                Directive::Merge => {}
            }
            let schema = schema_of_map(&map, schema);
            let mut merged = Vec::with_capacity(map.0.len() + changes.0.len());
            for (key, value) in map.0.drain(..) {
                let value = match changes.remove(&key) {
                    Some(change) => field_both(value, change, schema, &key)?,
                    None => own_field(value, schema, &key)?,
                };
                if let Some(value) = value {
                    merged.push((key, value));
                }
            }
            for (key, change) in changes.0.drain(..) {
                if let Some(value) = added_field(change, schema, &key)? {
                    merged.push((key, value));
                }
            }
            map.0 = merged;
            Ok(Some(Node::Map(map)))
        }
        (Node::Scalar(_), Node::Scalar(_)) | (Node::Seq(_), Node::Seq(_)) => Ok(Some(patch)),
        (dest, patch) => Err(mismatch(&dest, patch)),
    }
}

fn mismatch(dest: &Node, patch: &Node) -> RenderError {
    RenderError::new(
        Problem::Patch,
        format!(
            "the patch has {} where the object has {}",
            patch.kind(),
            dest.kind()
        ),
    )
}

fn schema_of_map(map: &Map, inherited: Option<Schema>) -> Option<Schema> {
    inherited.or_else(|| {
        let api_version = map.get("apiVersion")?.value();
        Schema::of(api_version, map.get("kind")?.value())
    })
}

fn field_both(dest: Node, patch: Node, schema: Option<Schema>, key: &str) -> Result<Option<Node>> {
    let merged = match (schema.and_then(|schema| schema.list(key)), dest, patch) {
        (Some(list), Node::Seq(dest), Node::Seq(patch)) => list_both(dest, patch, list),
        (_, dest, patch) if dest.is_null() && !patch.is_null() => added_field(patch, schema, key),
        (_, dest, patch) => both(dest, patch, schema.and_then(|schema| schema.field(key))),
    };
    merged.map_err(|error| error.under(key))
}

/// What only the patch has: directives in it are obeyed, nulls dropped.
fn added(node: Node, schema: Option<Schema>) -> Result<Option<Node>> {
    match node {
        Node::Scalar(scalar) if scalar.is_null() => Ok(None),
        Node::Map(mut map) => {
            if take_directive(&mut map)? == Directive::Delete {
                return Ok(None);
            }
            let schema = schema_of_map(&map, schema);
            let mut kept = Vec::with_capacity(map.0.len());
            for (key, value) in map.0.drain(..) {
                if let Some(value) = added_field(value, schema, &key)? {
                    kept.push((key, value));
                }
            }
            map.0 = kept;
            Ok(Some(Node::Map(map)))
        }
        other => Ok(Some(other)),
    }
}

fn added_field(node: Node, schema: Option<Schema>, key: &str) -> Result<Option<Node>> {
    match (schema.and_then(|schema| schema.list(key)), node) {
        (Some(list), Node::Seq(items)) => list_added(items, list),
        (_, node) => added(node, schema.and_then(|schema| schema.field(key))),
    }
}

/// What only the object has: fields without a value are dropped, a written `null` stays.
fn own(node: Node, schema: Option<Schema>) -> Result<Option<Node>> {
    match node {
        Node::Scalar(scalar) if scalar.is_null() => Ok((!scalar.text.is_empty()).then_some({
            Node::Scalar(Scalar {
                text: scalar.text,
                style: Style::Bare,
            })
        })),
        Node::Map(mut map) => {
            let schema = schema_of_map(&map, schema);
            let mut kept = Vec::with_capacity(map.0.len());
            for (key, value) in map.0.drain(..) {
                if let Some(value) = own_field(value, schema, &key)? {
                    kept.push((key, value));
                }
            }
            map.0 = kept;
            Ok(Some(Node::Map(map)))
        }
        other => Ok(Some(other)),
    }
}

fn own_field(node: Node, schema: Option<Schema>, key: &str) -> Result<Option<Node>> {
    match (schema.and_then(|schema| schema.list(key)), node) {
        (Some(list), Node::Seq(items)) => list_merge(items, Vec::new(), list, Side::Own).map(Some),
        (_, node) => own(node, schema.and_then(|schema| schema.field(key))),
    }
}

/// Where the value of an element comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Only the object has the list.
    Own,
    /// Only the patch has it.
    Added,
    Both,
}

fn list_both(dest: Vec<Node>, mut patch: Vec<Node>, list: ListSchema) -> Result<Option<Node>> {
    match take_list_directive(&mut patch)? {
        Directive::Delete => Ok(None),
        Directive::Replace => list_merge(patch, Vec::new(), list, Side::Added).map(Some),
        Directive::Merge => list_merge(dest, patch, list, Side::Both).map(Some),
    }
}

fn list_added(mut items: Vec<Node>, list: ListSchema) -> Result<Option<Node>> {
    if take_list_directive(&mut items)? == Directive::Delete {
        return Ok(None);
    }
    list_merge(items, Vec::new(), list, Side::Added).map(Some)
}

fn list_merge(dest: Vec<Node>, patch: Vec<Node>, list: ListSchema, side: Side) -> Result<Node> {
    if list.keys.is_empty() {
        return Ok(Node::Seq(union(patch, dest)));
    }
    keyed(dest, patch, list, side).map(Node::Seq)
}

/// Plain values: those of the patch first, each once.
fn union(first: Vec<Node>, second: Vec<Node>) -> Vec<Node> {
    let mut all: Vec<Node> = Vec::with_capacity(first.len() + second.len());
    for item in first.into_iter().chain(second) {
        if !item.is_null() && !all.iter().any(|known| known.raw() == item.raw()) {
            all.push(item);
        }
    }
    all
}

/// The values of an element's keys that it has.
type KeyValues = Vec<(&'static str, String)>;

fn key_values(element: &Node, keys: &'static [&'static str]) -> KeyValues {
    keys.iter()
        .filter_map(|key| {
            let value = element.get(key)?.raw();
            (!value.is_empty()).then(|| (*key, value.to_owned()))
        })
        .collect()
}

fn has(element: &Node, values: &[(&'static str, String)]) -> bool {
    values
        .iter()
        .all(|(key, value)| element.get(key).is_some_and(|field| field.raw() == value))
}

/// Elements that merge by key; new ones of the patch come first.
fn keyed(mut dest: Vec<Node>, patch: Vec<Node>, list: ListSchema, side: Side) -> Result<Vec<Node>> {
    let mut wanted: Vec<KeyValues> = Vec::new();
    for element in patch.iter().chain(&dest) {
        let values = key_values(element, list.keys);
        if !values.is_empty() && !wanted.contains(&values) {
            wanted.push(values);
        }
    }
    let mut items: Vec<Node> = Vec::with_capacity(dest.len() + patch.len());
    for values in &wanted {
        let at = dest.iter().position(|element| has(element, values));
        let change = patch.iter().find(|element| has(element, values));
        let (merged, in_place) = element(at.map(|at| dest[at].clone()), change.cloned(), list, side)?;
        let Some(mut merged) = merged.filter(|merged| !is_empty_map(merged)) else {
            dest.retain(|element| !has(element, values));
            continue;
        };
        if let Some(map) = merged.as_map_mut() {
            for (key, value) in values {
                map.entry(key, || Node::bare(value.as_str()));
            }
        }
        if let (Some(at), true) = (at, in_place) {
            dest[at] = merged.clone();
        }
        put(&mut items, merged, values);
    }
    for values in &wanted {
        // Elements of the object go over those of the patch where one key identifies them.
        if let [(key, _)] = values.as_slice() {
            for element in std::mem::take(&mut dest) {
                match element.get(key).map(|value| value.raw().to_owned()) {
                    Some(value) if !value.is_empty() => put(&mut items, element, &[(*key, value)]),
                    _ => items.push(element),
                }
            }
        }
    }
    if wanted.is_empty() {
        items.append(&mut dest);
    }
    Ok(items)
}

/// The merged element, and whether it is the object's own, changed in place.
fn element(
    dest: Option<Node>,
    patch: Option<Node>,
    list: ListSchema,
    side: Side,
) -> Result<(Option<Node>, bool)> {
    Ok(match (dest, patch) {
        (Some(dest), Some(patch)) => {
            let replaces = patch.get(DIRECTIVE).is_some_and(|value| value.raw() == "replace");
            (both(dest, patch, list.element)?, !replaces)
        }
        (Some(dest), None) if side == Side::Added => (added(dest, list.element)?, true),
        (Some(dest), None) => (own(dest, list.element)?, true),
        (None, Some(patch)) => (added(patch, list.element)?, false),
        (None, None) => (None, false),
    })
}

/// Replaces the elements with these key values, or appends.
fn put(items: &mut Vec<Node>, new: Node, values: &[(&'static str, String)]) {
    let mut found = false;
    for item in items.iter_mut().filter(|item| has(item, values)) {
        item.clone_from(&new);
        found = true;
    }
    if !found {
        items.push(new);
    }
}

fn is_empty_map(node: &Node) -> bool {
    matches!(node, Node::Map(map) if map.is_empty())
}

/// Takes the `$patch` of a mapping.
fn take_directive(map: &mut Map) -> Result<Directive> {
    match map.remove(DIRECTIVE) {
        None => Ok(Directive::Merge),
        Some(value) => directive(&value),
    }
}

/// Takes the `$patch` of a list: an element with nothing else.
fn take_list_directive(items: &mut Vec<Node>) -> Result<Directive> {
    let is_directive =
        |item: &Node| matches!(item, Node::Map(map) if map.0.len() == 1 && map.0[0].0 == DIRECTIVE);
    let Some(at) = items.iter().position(is_directive) else {
        return Ok(Directive::Merge);
    };
    let item = items.remove(at);
    item.get(DIRECTIVE).map_or(Ok(Directive::Merge), directive)
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
