//! Objects from YAML text.

use crate::{
    error::{Problem, RenderError, Result},
    resource::{Resource, Source},
    yaml::{self, Node},
};
use std::rc::Rc;

/// All objects of a file; lists of objects are taken apart.
pub(crate) fn objects(text: &str, file: Option<&Rc<str>>) -> Result<Vec<Resource>> {
    let place = |error: RenderError| match file {
        Some(file) => error.in_file(&**file),
        None => error,
    };
    let documents = yaml::parse_documents(text)
        .map_err(|error| place(RenderError::new(Problem::Unreadable, error.message).at_line(error.line)))?;
    let mut queue: Vec<(Node, usize)> = documents.into_iter().map(|doc| (doc.root, doc.line)).collect();
    let mut resources = Vec::with_capacity(queue.len());
    let mut next = 0;
    while next < queue.len() {
        let (node, line) = std::mem::replace(&mut queue[next], (Node::null(), 0));
        next += 1;
        if node.is_nil_or_empty() {
            continue;
        }
        check(&node).map_err(|error| place(error.at_line(line)))?;
        let kind = node.get("kind").map_or("", Node::value);
        let items = node.get("items").filter(|_| kind.ends_with("List"));
        if items.is_none() {
            let mut resource = Resource::new(node);
            resource.source = file.map(|file| Source {
                file: file.clone(),
                line,
            });
            resources.push(resource);
            continue;
        }
        let Node::Map(mut list) = node else { continue };
        match list.remove("items") {
            Some(Node::Seq(items)) => queue.extend(items.into_iter().map(|item| (item, line))),
            Some(items) if !items.is_null() => {
                return Err(place(
                    RenderError::new(
                        Problem::Unreadable,
                        format!("items should be a list, but are {}", items.kind()),
                    )
                    .field("items")
                    .at_line(line),
                ));
            }
            _ => {}
        }
    }
    Ok(resources)
}

/// Every object has a kind and, unless it is a list, a name.
fn check(node: &Node) -> Result<()> {
    let missing = |field: &str| {
        RenderError::new(Problem::Unreadable, format!("the object has no {field}"))
            .field(field)
            .remedy("every Kubernetes object needs apiVersion, kind and metadata.name")
    };
    if node.as_map().is_none() {
        return Err(RenderError::new(
            Problem::Unreadable,
            format!("the document is {}, not a Kubernetes object", node.kind()),
        ));
    }
    let kind = node.get("kind").map_or("", Node::value);
    if kind.is_empty() {
        return Err(missing("kind"));
    }
    if !kind.ends_with("List") && node.at(["metadata", "name"]).map_or("", Node::value).is_empty() {
        return Err(missing("metadata.name"));
    }
    Ok(())
}
