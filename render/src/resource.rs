//! One object on its way through the transformers, and the list of them.

use crate::{
    error::{Problem, RenderError, Result},
    kube,
    origin::Origin,
    yaml::{self, Map, Node, Scalar, Style},
};
use std::{collections::HashMap, fmt, rc::Rc};

/// Stands for the namespace of an object that is outside of any.
const NO_NAMESPACE: &str = "_non_namespaceable_";

/// What names an object to kustomize. The namespace is the effective one: "default" where none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
}

impl<'a> Id<'a> {
    pub fn new(api_version: &'a str, kind: &'a str, name: &'a str, namespace: &'a str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self {
            group,
            version,
            kind,
            name,
            namespace: effective_namespace(api_version, kind, namespace),
        }
    }

    pub fn is_cluster_scoped(&self) -> bool {
        self.namespace == NO_NAMESPACE
    }

    /// The same group, version, kind and name.
    pub fn same_but_namespace(&self, other: &Self) -> bool {
        (self.group, self.version, self.kind, self.name)
            == (other.group, other.version, other.kind, other.name)
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if self.namespace != NO_NAMESPACE && self.namespace != "default" {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// Group and version of an apiVersion.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    match api_version.split_once('/') {
        Some(parts) => parts,
        None if api_version == "builtin" => (api_version, ""),
        None => ("", api_version),
    }
}

fn effective_namespace<'a>(api_version: &str, kind: &str, namespace: &'a str) -> &'a str {
    if kube::is_cluster_scoped(api_version, kind) {
        NO_NAMESPACE
    } else if namespace.is_empty() {
        "default"
    } else {
        namespace
    }
}

/// A name that an object had earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Previous {
    kind: String,
    name: String,
    namespace: String,
}

/// How a generated object joins one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Behavior {
    #[default]
    Create,
    Merge,
    Replace,
}

/// Where an object was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub file: Rc<str>,
    pub line: usize,
}

/// What kustomize keeps in annotations of its own while it builds.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub node: Node,
    pub source: Option<Source>,
    previous: Vec<Previous>,
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    pub behavior: Behavior,
    pub needs_hash: bool,
    /// Of a patch: may change the name of what it patches.
    pub allow_name_change: bool,
    /// Of a patch: may change the kind of what it patches.
    pub allow_kind_change: bool,
    /// Variables whose value is read from this object.
    pub vars: Vec<String>,
    /// How many values of this object are shared by several fields.
    shared: u32,
    /// Where it comes from, where that is asked for.
    pub origin: Option<Origin>,
    /// What changed it, where that is asked for.
    pub transformations: Vec<Origin>,
    /// Whether a patch changed it whose file is not in `patches` yet.
    pub patched: bool,
    /// The files of the patches that changed it, in order.
    pub patches: Vec<Rc<str>>,
}

impl Resource {
    pub fn new(node: Node) -> Self {
        Self {
            node,
            source: None,
            previous: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            behavior: Behavior::Create,
            needs_hash: false,
            allow_name_change: false,
            allow_kind_change: false,
            vars: Vec::new(),
            shared: 0,
            origin: None,
            transformations: Vec::new(),
            patched: false,
            patches: Vec::new(),
        }
    }

    pub fn api_version(&self) -> &str {
        self.node.get("apiVersion").map_or("", Node::value)
    }

    pub fn kind(&self) -> &str {
        self.node.get("kind").map_or("", Node::value)
    }

    pub fn group_version(&self) -> (&str, &str) {
        split_api_version(self.api_version())
    }

    fn metadata(&self, field: &str) -> &str {
        self.node.at(["metadata", field]).map_or("", Node::value)
    }

    pub fn name(&self) -> &str {
        self.metadata("name")
    }

    /// As written; empty where absent.
    pub fn namespace(&self) -> &str {
        self.metadata("namespace")
    }

    /// Whether a patch took everything away.
    pub fn is_deleted(&self) -> bool {
        self.node.is_nil_or_empty()
    }

    pub fn metadata_mut(&mut self) -> Option<&mut Map> {
        self.node
            .as_map_mut()?
            .entry("metadata", Node::empty_map)
            .as_map_mut()
    }

    pub fn set_name(&mut self, name: &str) {
        if let Some(metadata) = self.metadata_mut() {
            set_text(metadata, "name", name);
        }
    }

    pub fn set_kind(&mut self, kind: &str) {
        if let Some(map) = self.node.as_map_mut() {
            set_text(map, "kind", kind);
        }
    }

    /// Removes the field where the namespace is empty.
    pub fn set_namespace(&mut self, namespace: &str) {
        if let Some(metadata) = self.metadata_mut() {
            if namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                set_text(metadata, "namespace", namespace);
            }
        }
    }

    /// The identity it has now.
    pub fn id(&self) -> Id<'_> {
        Id::new(self.api_version(), self.kind(), self.name(), self.namespace())
    }

    /// The identities it had, oldest first.
    pub fn previous_ids(&self) -> impl Iterator<Item = Id<'_>> {
        let api_version = self.api_version();
        self.previous
            .iter()
            .map(move |old| Id::new(api_version, &old.kind, &old.name, &old.namespace))
    }

    /// The identity it was read with.
    pub fn original_id(&self) -> Id<'_> {
        self.previous_ids().next().unwrap_or_else(|| self.id())
    }

    /// Remembers the identity before a change.
    pub fn store_previous_id(&mut self) {
        let id = self.id();
        let previous = Previous {
            kind: id.kind.to_owned(),
            name: id.name.to_owned(),
            namespace: id.namespace.to_owned(),
        };
        self.previous.push(previous);
    }

    /// A value for several fields of this object, so that a change of one changes all.
    pub fn share(&mut self, text: &str) -> Node {
        self.shared += 1;
        let mut scalar = Scalar::new(text, Style::Text);
        scalar.shared = self.shared;
        Node::Scalar(scalar)
    }

    /// Carries changes over to the fields that share a value.
    pub fn settle(&mut self) {
        if self.shared > 0 {
            yaml::settle(&mut self.node);
        }
    }

    /// Names the file, line and object of an error that happened to it.
    pub fn blame(&self, error: RenderError) -> RenderError {
        let error = error.on(self.id());
        match &self.source {
            Some(source) if error.details().file.is_none() => {
                error.in_file(&*source.file).at_line(source.line)
            }
            _ => error,
        }
    }

    /// The text values of `metadata.labels` or `metadata.annotations`.
    pub fn metadata_texts(&self, field: &str) -> impl Iterator<Item = (&str, &str)> {
        self.node
            .at(["metadata", field])
            .and_then(Node::as_map)
            .into_iter()
            .flat_map(|map| map.0.iter().map(|(key, value)| (key.as_str(), value.raw())))
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata_texts("annotations")
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Takes name, namespace, labels, annotations and history of the object that this one merges with or
    /// replaces.
    pub fn take_identity_of(&mut self, old: &Resource) {
        for field in ["labels", "annotations"] {
            let mut merged: Vec<(String, String)> = Vec::new();
            for (key, value) in old.metadata_texts(field).chain(self.metadata_texts(field)) {
                match merged.iter_mut().find(|(known, _)| known == key) {
                    Some((_, known)) => value.clone_into(known),
                    None => merged.push((key.to_owned(), value.to_owned())),
                }
            }
            let entries = merged.into_iter().map(|(key, value)| (key, Node::text(value)));
            let node = Map(entries.collect());
            if let Some(metadata) = self.metadata_mut() {
                if node.is_empty() {
                    metadata.remove(field);
                } else {
                    metadata.set(field, Node::Map(node));
                }
            }
        }
        let (name, namespace) = (old.name().to_owned(), old.namespace().to_owned());
        self.set_name(&name);
        self.set_namespace(&namespace);
        self.previous.clone_from(&old.previous);
        self.prefixes.clone_from(&old.prefixes);
        self.suffixes.clone_from(&old.suffixes);
        self.needs_hash = self.needs_hash && old.needs_hash;
        self.behavior = old.behavior;
        self.vars.clone_from(&old.vars);
        self.transformations.clone_from(&old.transformations);
        self.patches.clone_from(&old.patches);
    }
}

/// Sets a field's text, keeping the quotes of an old value.
fn set_text(map: &mut Map, field: &str, text: &str) {
    match map.get_mut(field) {
        Some(Node::Scalar(scalar)) => scalar.set_bare(text),
        _ => map.set(field, Node::bare(text)),
    }
}

/// Objects in order; no two of the same identity.
#[derive(Debug, Default)]
pub(crate) struct Resources(pub Vec<Resource>);

impl Resources {
    pub fn push(&mut self, resource: Resource) -> Result<()> {
        let id = resource.id();
        if let Some(known) = self.0.iter().find(|known| known.id() == id) {
            return Err(conflict(&resource, known));
        }
        self.0.push(resource);
        Ok(())
    }

    /// An error where two objects have one identity.
    pub fn check_unique(&self) -> Result<()> {
        let mut known: HashMap<Id<'_>, &Resource> = HashMap::with_capacity(self.0.len());
        for resource in &self.0 {
            if let Some(first) = known.insert(resource.id(), resource) {
                return Err(conflict(resource, first));
            }
        }
        Ok(())
    }

    /// Adds what a generator made: new, merged into, or in place of an object of the same identity.
    pub fn absorb(&mut self, mut new: Resource) -> Result<()> {
        let id = new.id();
        let mut matches = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, old)| old.previous_ids().chain([old.id()]).any(|old| old == id));
        let (first, second) = (matches.next().map(|(at, _)| at), matches.next().is_some());
        if second {
            return Err(new.blame(RenderError::new(
                Problem::Conflict,
                "more than one object could take the generated data",
            )));
        }
        match (first, new.behavior) {
            (None, Behavior::Create) => self.push(new),
            (None, _) => Err(new
                .blame(RenderError::configuration(
                    "behavior is merge or replace, but there is no object of this name",
                ))
                .remedy("use 'create', or add the resource that is to be changed")),
            (Some(_), Behavior::Create) => Err(new
                .blame(RenderError::new(
                    Problem::Conflict,
                    "an object of this name exists already",
                ))
                .remedy("set the generator's behavior to merge or replace")),
            (Some(at), behavior) => {
                let old = &self.0[at];
                if behavior == Behavior::Merge {
                    merge_data(&mut new, old, "data");
                    merge_data(&mut new, old, "binaryData");
                    if old.origin.is_some() {
                        new.origin.clone_from(&old.origin);
                    }
                }
                new.take_identity_of(old);
                self.0[at] = new;
                Ok(())
            }
        }
    }
}

fn merge_data(new: &mut Resource, old: &Resource, field: &str) {
    let Some(old_map) = old.node.get(field).and_then(Node::as_map) else {
        return;
    };
    let mut merged = Map(old_map
        .0
        .iter()
        .map(|(key, value)| (key.clone(), Node::text(value.value())))
        .collect());
    if let Some(new_map) = new.node.get(field).and_then(Node::as_map) {
        for (key, value) in &new_map.0 {
            merged.set(key, value.clone());
        }
    }
    if let Some(map) = new.node.as_map_mut() {
        map.set(field, Node::Map(merged));
    }
}

pub(crate) fn conflict(new: &Resource, known: &Resource) -> RenderError {
    let place = known.source.as_ref().map_or(String::new(), |source| {
        format!(", first in {}:{}", source.file, source.line)
    });
    new.blame(RenderError::new(
        Problem::Conflict,
        format!("an object of this name is there already{place}"),
    ))
    .remedy("rename one, or list it only once")
}
