//! Values that several fields share.
//!
//! When kustomize adds one label in several places of an object, all of them hold the same value in memory; a
//! later change of one, as by a patch in an overlay, changes all. Overlays in use depend on it: a patched label
//! takes the selector with it.

use super::node::{Map, Node};

/// Marks a value that was just written, in [`super::Scalar::shared`].
pub(super) const WRITTEN: u32 = 1 << 31;

/// Gives all that share a value what was written last into one of them.
pub(crate) fn settle(root: &mut Node) {
    let mut written: Vec<(u32, Node)> = Vec::new();
    collect(root, &mut written);
    if !written.is_empty() {
        spread(root, &written);
    }
}

fn collect(node: &mut Node, written: &mut Vec<(u32, Node)>) {
    match node {
        Node::Scalar(scalar) if scalar.shared & WRITTEN != 0 => {
            scalar.shared &= !WRITTEN;
            let group = scalar.shared;
            written.retain(|(known, _)| *known != group);
            written.push((group, node.clone()));
        }
        Node::Scalar(_) => {}
        Node::Seq(items) => items.iter_mut().for_each(|item| collect(item, written)),
        Node::Map(Map(entries)) => {
            // Fields are written in the order of their names.
            let mut order: Vec<usize> = (0..entries.len()).collect();
            order.sort_by(|a, b| entries[*a].0.cmp(&entries[*b].0));
            for at in order {
                collect(&mut entries[at].1, written);
            }
        }
    }
}

fn spread(node: &mut Node, written: &[(u32, Node)]) {
    match node {
        Node::Scalar(scalar) if scalar.shared != 0 => {
            let group = scalar.shared;
            if let Some((_, value)) = written.iter().find(|(known, _)| *known == group) {
                node.clone_from(value);
            }
        }
        Node::Scalar(_) => {}
        Node::Seq(items) => items.iter_mut().for_each(|item| spread(item, written)),
        Node::Map(map) => map.0.iter_mut().for_each(|(_, value)| spread(value, written)),
    }
}
