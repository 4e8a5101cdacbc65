//! Lists that merge by key.
//!
//! kustomize builds the new list in two passes: first every set of key values, those of the patch before
//! those of the object, with its merged element; then the object's elements again, each over the element with
//! its keys. Lists with elements that lack a key come out in ways that nobody would ask for, and overlays in
//! use depend on some of them; so the passes are followed step by step.

use super::{DIRECTIVE, Directive, Place, both as merge_both, directive};
use crate::{error::Result, kube::ListSchema, yaml::Node};

/// Where the elements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Only the object has the list.
    Own,
    /// Only the patch has it.
    Added,
    Both,
}

pub(super) fn both(
    dest: Vec<Node>,
    mut patch: Vec<Node>,
    list: &ListSchema<'_>,
    place: Place<'_>,
) -> Result<Option<Node>> {
    match take_directive(&mut patch)? {
        Directive::Delete => Ok(None),
        Directive::Replace => merge(patch, Vec::new(), list, place, Side::Added).map(Some),
        Directive::Merge => merge(dest, patch, list, place, Side::Both).map(Some),
    }
}

pub(super) fn added(mut items: Vec<Node>, list: &ListSchema<'_>, place: Place<'_>) -> Result<Option<Node>> {
    if take_directive(&mut items)? == Directive::Delete {
        return Ok(None);
    }
    merge(items, Vec::new(), list, place, Side::Added).map(Some)
}

pub(super) fn own(items: Vec<Node>, list: &ListSchema<'_>, place: Place<'_>) -> Result<Node> {
    merge(items, Vec::new(), list, place, Side::Own)
}

/// Takes the `$patch` of a list: an element with nothing else.
fn take_directive(items: &mut Vec<Node>) -> Result<Directive> {
    let is_directive =
        |item: &Node| matches!(item, Node::Map(map) if map.0.len() == 1 && map.0[0].0 == DIRECTIVE);
    let Some(at) = items.iter().position(is_directive) else {
        return Ok(Directive::Merge);
    };
    let item = items.remove(at);
    item.get(DIRECTIVE).map_or(Ok(Directive::Merge), directive)
}

fn merge(
    dest: Vec<Node>,
    patch: Vec<Node>,
    list: &ListSchema<'_>,
    place: Place<'_>,
    side: Side,
) -> Result<Node> {
    if list.keys.is_empty() {
        return Ok(Node::Seq(union(patch, dest)));
    }
    let place = place.with(list.element);
    keyed(dest, &patch, &list.keys, place, side).map(Node::Seq)
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

/// An element's values for all keys, empty where it has none.
type Values = Vec<String>;

fn keyed(
    mut dest: Vec<Node>,
    patch: &[Node],
    keys: &[&str],
    place: Place<'_>,
    side: Side,
) -> Result<Vec<Node>> {
    let mut wanted: Vec<Values> = Vec::new();
    for element in patch.iter().chain(&dest) {
        let values: Values = keys
            .iter()
            .map(|key| element.get(key).map_or("", Node::raw).to_owned())
            .collect();
        if !wanted.contains(&values) {
            wanted.push(values);
        }
    }
    if keys.len() > 1 {
        complete(&mut wanted);
    }
    // Keys that no element has do not count; where no element has any, all do.
    let used: Vec<usize> = (0..keys.len())
        .filter(|at| wanted.iter().any(|values| !values[*at].is_empty()))
        .collect();
    let used = if used.is_empty() {
        (0..keys.len()).collect()
    } else {
        used
    };
    let keys: Vec<&str> = used.iter().map(|at| keys[*at]).collect();
    let mut items: Vec<Node> = Vec::with_capacity(dest.len() + patch.len());
    for all_values in &wanted {
        let values: Values = used.iter().map(|at| all_values[*at].clone()).collect();
        let at = dest.iter().position(|element| has(element, &keys, &values));
        let change = patch.iter().find(|element| has(element, &keys, &values));
        let (merged, in_place) = element(at.map(|at| dest[at].clone()), change.cloned(), place, side)?;
        let Some(mut merged) = merged.filter(|merged| !is_empty_map(merged)) else {
            dest.retain(|element| keeps(element) && !matches(element, &keys, &values));
            continue;
        };
        if let Some(map) = merged.as_map_mut() {
            for (key, value) in keys.iter().zip(&values) {
                if !value.is_empty() {
                    map.entry(key, || Node::bare(value.as_str()));
                }
            }
        }
        if let (Some(at), true) = (at, in_place) {
            dest[at] = merged.clone();
        }
        put(&mut items, merged, &keys, &values);
    }
    if !wanted.is_empty() {
        for element in dest {
            put_again(&mut items, element, &keys);
        }
    }
    Ok(items)
}

/// Where two sets of values differ only in what one of them lacks, both become the fuller one.
fn complete(wanted: &mut [Values]) {
    for i in 0..wanted.len() {
        for j in 0..wanted.len() {
            if let Some(full) = fuller(&wanted[i], &wanted[j]) {
                wanted[i].clone_from(&full);
                wanted[j] = full;
            }
        }
    }
}

fn fuller(a: &Values, b: &Values) -> Option<Values> {
    let mut common = false;
    let mut full = Vec::with_capacity(a.len());
    for (x, y) in a.iter().zip(b) {
        if x == y {
            common = true;
        } else if !x.is_empty() && !y.is_empty() {
            return None;
        }
        full.push(if x.is_empty() { y.clone() } else { x.clone() });
    }
    common.then_some(full)
}

/// Whether an element has the given values; those that are empty do not count unless all are.
fn has(element: &Node, keys: &[&str], values: &Values) -> bool {
    let all_empty = values.iter().all(String::is_empty);
    keys.iter()
        .zip(values)
        .filter(|(_, value)| all_empty || !value.is_empty())
        .all(|(key, value)| element.get(key).is_some_and(|field| field.raw() == value))
}

/// As kyaml's setter of elements compares: an empty value fits any, missing ones fit what came before.
fn matches(element: &Node, keys: &[&str], values: &Values) -> bool {
    let mut found = false;
    for (at, key) in keys.iter().enumerate() {
        if let Some(value) = values.get(at) {
            found = element
                .get(key)
                .is_some_and(|field| value.is_empty() || field.raw() == value);
        }
        if !found {
            return false;
        }
    }
    true
}

/// The merged element, and whether it is the object's own, changed in place.
fn element(
    dest: Option<Node>,
    patch: Option<Node>,
    place: Place<'_>,
    side: Side,
) -> Result<(Option<Node>, bool)> {
    Ok(match (dest, patch) {
        (Some(dest), Some(patch)) => {
            let replaces = patch.get(DIRECTIVE).is_some_and(|value| value.raw() == "replace");
            (merge_both(dest, patch, place)?, !replaces)
        }
        (Some(dest), None) if side == Side::Added => (super::added(dest, place)?, true),
        (Some(dest), None) => (super::own(dest, place)?, true),
        (None, Some(patch)) => (super::added(patch, place)?, false),
        (None, None) => (None, false),
    })
}

/// Replaces the elements with these values, or appends.
fn put(items: &mut Vec<Node>, new: Node, keys: &[&str], values: &Values) {
    let mut found = false;
    items.retain_mut(|item| {
        if !keeps(item) {
            return false;
        }
        if matches(item, keys, values) {
            item.clone_from(&new);
            found = true;
            return true;
        }
        !values.is_empty()
    });
    if !found {
        items.push(new);
    }
}

/// The second pass for one element of the object.
fn put_again(items: &mut Vec<Node>, element: Node, keys: &[&str]) {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        match element.get(key) {
            Some(value) => values.push(value.raw().to_owned()),
            None => items.push(element.clone()),
        }
    }
    if keys.len() > 1 {
        items.retain(|item| keeps(item) && !matches(item, keys, &values) && !values.is_empty());
    }
    put(items, element, keys, &values);
}

fn is_empty_map(node: &Node) -> bool {
    matches!(node, Node::Map(map) if map.is_empty())
}

fn keeps(element: &Node) -> bool {
    !element.is_null() && !is_empty_map(element)
}
