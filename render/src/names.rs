//! Name references: a field that holds an object's name follows when that name changes.

use crate::{
    config::{Config, NameReference, selects},
    error::{Problem, RenderError, Result},
    fieldspec::{self, Create},
    resource::{Resource, Resources, split_api_version},
    yaml::Node,
};
use std::collections::{HashMap, HashSet};

/// What must be known of an object to decide whether a name means it.
#[derive(Debug)]
struct Candidate {
    group: String,
    version: String,
    kind: String,
    name: String,
    /// As written.
    namespace: String,
    /// "default" where none is written.
    effective: String,
    original: String,
    cluster_scoped: bool,
    previous: Vec<(String, String)>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

impl Candidate {
    fn new(resource: &Resource) -> Self {
        let id = resource.id();
        Self {
            group: id.group.to_owned(),
            version: id.version.to_owned(),
            kind: id.kind.to_owned(),
            name: id.name.to_owned(),
            namespace: resource.namespace().to_owned(),
            effective: id.namespace.to_owned(),
            original: resource.original_id().namespace.to_owned(),
            cluster_scoped: id.is_cluster_scoped(),
            previous: resource
                .previous_ids()
                .map(|old| (old.kind.to_owned(), old.name.to_owned()))
                .collect(),
            prefixes: resource.prefixes.clone(),
            suffixes: resource.suffixes.clone(),
        }
    }

    /// Whether it was, under some earlier name, of this group, version and kind.
    fn was(&self, group: &str, version: &str, kind: &str) -> bool {
        selects(group, &self.group)
            && selects(version, &self.version)
            && self.previous.iter().any(|(old, _)| selects(kind, old))
    }

    fn same_context(&self, other: &Self, allow_empty: bool) -> bool {
        let equal =
            |a: &[String], b: &[String]| (allow_empty && (a.is_empty() || b.is_empty())) || same_ending(a, b);
        equal(&self.prefixes, &other.prefixes) && equal(&self.suffixes, &other.suffixes)
    }
}

/// Whether the shorter list is the end of the longer one.
fn same_ending(a: &[String], b: &[String]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if short.is_empty() {
        return long.is_empty();
    }
    long.ends_with(short)
}

/// Updates all references in all objects.
pub(crate) fn update(resources: &mut Resources, config: &Config) -> Result<()> {
    for resource in &resources.0 {
        check_subjects(&resource.node).map_err(|error| resource.blame(error))?;
    }
    let candidates: Vec<Candidate> = resources.0.iter().map(Candidate::new).collect();
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let names: HashSet<&str> = candidate.previous.iter().map(|(_, name)| name.as_str()).collect();
        for name in names {
            by_name.entry(name).or_default().push(at);
        }
    }
    if by_name.is_empty() {
        return Ok(());
    }
    for (at, resource) in resources.0.iter_mut().enumerate() {
        let mut node = std::mem::replace(&mut resource.node, Node::null());
        let outcome = Referrer {
            candidates: &candidates,
            by_name: &by_name,
            own: &candidates[at],
            role_ref: role_ref(&node),
            foreign_namespaces: foreign_namespaces(&node),
        }
        .update(&mut node, config);
        resource.node = node;
        resource.settle();
        outcome.map_err(|error| resource.blame(error))?;
    }
    Ok(())
}

/// Group and kind that a binding's `roleRef` names.
fn role_ref(node: &Node) -> Option<(String, String)> {
    let role = node.get("roleRef")?;
    let group = role.get("apiGroup")?.raw().to_owned();
    Some((group, role.get("kind")?.raw().to_owned()))
}

/// A service account that is bound with an empty namespace is bound to nothing.
fn check_subjects(node: &Node) -> Result<()> {
    if node.get("kind").map_or("", Node::value) != "RoleBinding" {
        return Ok(());
    }
    let subjects = node.get("subjects").and_then(Node::as_seq).unwrap_or_default();
    let blank = subjects.iter().any(|subject| {
        subject.get("kind").map_or("", Node::value) == "ServiceAccount"
            && subject
                .get("namespace")
                .is_some_and(|namespace| !namespace.as_scalar().is_some_and(|n| n.is_text()))
    });
    if blank {
        return Err(
            RenderError::configuration("the namespace of a service account is blank")
                .field("subjects.namespace")
                .remedy("name the namespace, or leave the field out"),
        );
    }
    Ok(())
}

/// Namespaces of the service accounts that a RoleBinding binds.
fn foreign_namespaces(node: &Node) -> Vec<String> {
    if node.get("kind").map_or("", Node::value) != "RoleBinding" {
        return Vec::new();
    }
    let subjects = node.get("subjects").and_then(Node::as_seq).unwrap_or_default();
    subjects
        .iter()
        .filter(|subject| subject.get("kind").map_or("", Node::value) == "ServiceAccount")
        .filter_map(|subject| Some(subject.get("namespace")?.value().to_owned()))
        .collect()
}

/// An object whose references are updated.
struct Referrer<'a> {
    candidates: &'a [Candidate],
    by_name: &'a HashMap<&'a str, Vec<usize>>,
    own: &'a Candidate,
    role_ref: Option<(String, String)>,
    foreign_namespaces: Vec<String>,
}

impl Referrer<'_> {
    fn update(&self, node: &mut Node, config: &Config) -> Result<()> {
        let original_kind = self
            .own
            .previous
            .first()
            .map_or(self.own.kind.as_str(), |(kind, _)| kind);
        let api_version = node.get("apiVersion").map_or("", Node::value).to_owned();
        let (group, version) = split_api_version(&api_version);
        for reference in &config.name_reference {
            for spec in &reference.referrers {
                if !spec.selects(group, version, original_kind) {
                    continue;
                }
                let mut everywhere = spec.clone();
                everywhere.group = "".into();
                everywhere.version = "".into();
                everywhere.kind = "".into();
                everywhere.create = false;
                fieldspec::apply(node, &everywhere, Create::Nothing, &mut |field| {
                    self.set(field, reference, &spec.path)
                })?;
            }
        }
        Ok(())
    }

    fn set(&self, field: &mut Node, target: &NameReference, path: &str) -> Result<()> {
        match field {
            Node::Scalar(scalar) if scalar.is_null() => Ok(()),
            Node::Scalar(_) => self.set_scalar(field, target, path),
            Node::Map(_) => self.set_mapping(field, target, path),
            Node::Seq(items) => items.iter_mut().try_for_each(|item| match item {
                Node::Scalar(_) => self.set_scalar(item, target, path),
                Node::Map(_) => self.set_mapping(item, target, path),
                Node::Seq(_) => Err(RenderError::configuration("a list of lists holds no names")),
            }),
        }
    }

    fn set_scalar(&self, field: &mut Node, target: &NameReference, path: &str) -> Result<()> {
        let name = field.raw();
        if !self.by_name.contains_key(name) {
            return Ok(());
        }
        let referral = self.referral(name, target, path, |_| true, |a, b| a.name == b.name)?;
        if let Some(referral) = referral.filter(|referral| referral.name != name) {
            fieldspec::set_bare(field, &referral.name)?;
        }
        Ok(())
    }

    /// A mapping with `name` and perhaps `namespace`.
    fn set_mapping(&self, field: &mut Node, target: &NameReference, path: &str) -> Result<()> {
        let Some(map) = field.as_map_mut() else {
            return Ok(());
        };
        let Some(name) = map.get("name").map(|name| name.raw().to_owned()) else {
            return Err(RenderError::configuration(
                "there is no 'name' beside the reference",
            ));
        };
        if !self.by_name.contains_key(name.as_str()) {
            return Ok(());
        }
        let namespace = map.get("namespace").map(|namespace| namespace.raw().to_owned());
        let by_original = namespace.as_deref().is_some_and(|namespace| {
            self.reachable()
                .any(|candidate| !candidate.cluster_scoped && candidate.original == namespace)
        });
        let in_namespace = |candidate: &Candidate| match namespace.as_deref() {
            None => true,
            Some(namespace) if by_original => candidate.original == namespace,
            Some(namespace) => !candidate.cluster_scoped && candidate.effective == namespace,
        };
        let same = |a: &Candidate, b: &Candidate| (&a.name, &a.namespace) == (&b.name, &b.namespace);
        let Some(referral) = self.referral(&name, target, path, in_namespace, same)? else {
            return Ok(());
        };
        if referral.name == name && referral.namespace.is_empty() {
            return Ok(());
        }
        fieldspec::set_bare(map.entry("name", || Node::bare("")), &referral.name)?;
        if !referral.namespace.is_empty() {
            fieldspec::set_bare(map.entry("namespace", || Node::bare("")), &referral.namespace)?;
        }
        Ok(())
    }

    /// The objects that this one can refer to at all.
    fn reachable(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates
            .iter()
            .filter(|candidate| self.can_reach(candidate))
    }

    fn can_reach(&self, candidate: &Candidate) -> bool {
        self.own.cluster_scoped
            || candidate.cluster_scoped
            || candidate.effective == self.own.effective
            || self.foreign_namespaces.contains(&candidate.namespace)
    }

    /// The object that a name means, if there is one.
    fn referral(
        &self,
        name: &str,
        target: &NameReference,
        path: &str,
        accept: impl Fn(&Candidate) -> bool,
        same: impl Fn(&Candidate, &Candidate) -> bool,
    ) -> Result<Option<&Candidate>> {
        let Some(named) = self.by_name.get(name) else {
            return Ok(None);
        };
        let role = path
            .ends_with("roleRef/name")
            .then_some(self.role_ref.as_ref())
            .flatten();
        let mut found: Vec<&Candidate> = named
            .iter()
            .map(|at| &self.candidates[*at])
            .filter(|candidate| self.can_reach(candidate) && accept(candidate))
            .filter(|candidate| candidate.was(&target.group, &target.version, &target.kind))
            .filter(|candidate| role.is_none_or(|(group, kind)| candidate.was(group, "", kind)))
            .filter(|candidate| {
                self.own.cluster_scoped
                    || candidate.cluster_scoped
                    || candidate.kind == "ServiceAccount"
                    || candidate.effective == self.own.effective
            })
            .collect();
        for allow_empty in [true, false] {
            if found.len() > 1 {
                found.retain(|candidate| candidate.same_context(self.own, allow_empty));
            }
        }
        let Some(first) = found.first().copied() else {
            return Ok(None);
        };
        if found.iter().any(|other| !same(first, other)) {
            let names: Vec<String> = found
                .iter()
                .map(|candidate| format!("{}/{}", candidate.kind, candidate.name))
                .collect();
            return Err(RenderError::new(
                Problem::Conflict,
                format!("{name:?} could mean {}", names.join(" or ")),
            )
            .remedy("give the objects different names"));
        }
        Ok(Some(first))
    }
}
