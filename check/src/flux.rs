//! Flux's own objects: what they say, which sources they read, on what they wait.

use crate::{
    Rule,
    path::{Path, meant},
    schema::Fault,
};
use model::Object;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Written by hand from Flux's API reference, v2.9: `group/version/kind` to schema.
static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../schemas/flux.json")).expect("a test reads what is compiled in")
});

/// Kinds that artifacts come from.
const SOURCES: &[&str] = &[
    "GitRepository",
    "OCIRepository",
    "Bucket",
    "HelmRepository",
    "HelmChart",
];

/// The schema of one of Flux's kinds.
pub(crate) fn schema(api_version: &str, kind: &str) -> Option<&'static Value> {
    SCHEMAS.get(format!("{api_version}/{kind}").as_str())
}

pub(crate) fn is_flux(object: &Object) -> bool {
    object.group().ends_with("toolkit.fluxcd.io")
}

pub(crate) fn is_kustomization(object: &Object) -> bool {
    object.kind() == "Kustomization" && object.group() == "kustomize.toolkit.fluxcd.io"
}

/// Kind, namespace and name of each source in a repository.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeSet<(String, String, String)>);

impl Sources {
    pub fn add<'a>(&mut self, objects: impl Iterator<Item = &'a Object>) {
        for object in objects.filter(|object| SOURCES.contains(&object.kind()) && is_flux(object)) {
            let key = (
                object.kind().to_owned(),
                object.namespace().to_owned(),
                object.name().to_owned(),
            );
            self.0.insert(key);
        }
    }

    /// References to sources that no object of the repository defines. What Flux itself was started from need not be in
    /// the repository.
    pub fn faults(&self, object: &Object) -> Vec<Fault> {
        let mut faults = Vec::new();
        for dotted in ["spec.sourceRef", "spec.chart.spec.sourceRef", "spec.chartRef"] {
            let path = Path::fields(dotted);
            let Some(reference) = path.of(object.value()) else {
                continue;
            };
            let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
            let (kind, name) = (text("kind"), text("name"));
            let namespace = if text("namespace").is_empty() {
                object.namespace()
            } else {
                text("namespace")
            };
            let known = self
                .0
                .iter()
                .any(|(k, n, it)| k == kind && it == name && (n == namespace || n.is_empty()));
            if known || name.is_empty() || !SOURCES.contains(&kind) || name == "flux-system" {
                continue;
            }
            let others = self
                .0
                .iter()
                .filter(|(k, ..)| k == kind)
                .map(|(.., name)| name.as_str());
            let remedy = match meant(name, others) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "add it to the repository, or correct kind, name and namespace".to_owned(),
            };
            let message = format!("there is no {kind} {name:?} in namespace {namespace}");
            faults.push(Fault::new(Rule::FluxSource, path.key("name"), message).remedy(remedy));
        }
        faults
    }
}

type Named = (String, String);

/// Namespaces and names of what an object depends on, with the way to each.
fn dependencies(object: &Object) -> impl Iterator<Item = (Path, Named)> + '_ {
    let list = object.value()["spec"]["dependsOn"].as_array();
    list.into_iter().flatten().enumerate().map(|(at, dependency)| {
        let text = |key: &str| dependency.get(key).and_then(Value::as_str);
        let namespace = text("namespace").unwrap_or(object.namespace());
        let name = text("name").unwrap_or_default();
        (
            Path::fields("spec.dependsOn").index(at).key("name"),
            (namespace.to_owned(), name.to_owned()),
        )
    })
}

/// What a cluster's `Kustomization` objects wait for in vain: by the place of each among `objects`.
pub(crate) fn dependency_faults(objects: &[&Object]) -> Vec<(usize, Fault)> {
    let mut at: BTreeMap<Named, usize> = BTreeMap::new();
    for (index, object) in objects
        .iter()
        .enumerate()
        .filter(|(_, object)| is_kustomization(object))
    {
        at.insert((object.namespace().to_owned(), object.name().to_owned()), index);
    }
    let mut faults = Vec::new();
    let mut edges: BTreeMap<usize, Vec<(usize, Path)>> = BTreeMap::new();
    for index in at.values() {
        for (path, named) in dependencies(objects[*index]) {
            match at.get(&named) {
                Some(other) => edges.entry(*index).or_default().push((*other, path)),
                None => {
                    let others = at.keys().map(|(_, name)| name.as_str());
                    let remedy = match meant(&named.1, others) {
                        Some(meant) => format!("did you mean {meant:?}?"),
                        None => "add it to the cluster, or take the dependency out".to_owned(),
                    };
                    let message = format!(
                        "there is no Kustomization {:?} in namespace {} to depend on",
                        named.1, named.0
                    );
                    faults.push((
                        *index,
                        Fault::new(Rule::FluxDependency, path, message).remedy(remedy),
                    ));
                }
            }
        }
    }
    faults.extend(cycles(objects, &edges));
    faults
}

/// One fault for each circle, at the first of its objects.
fn cycles(objects: &[&Object], edges: &BTreeMap<usize, Vec<(usize, Path)>>) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    let mut told: BTreeSet<usize> = BTreeSet::new();
    for start in edges.keys() {
        if told.contains(start) {
            continue;
        }
        let Some(way) = way_back(*start, edges) else {
            continue;
        };
        told.extend(way.iter().copied());
        let names: Vec<&str> = way.iter().chain([start]).map(|at| objects[*at].name()).collect();
        let path = edges[start]
            .iter()
            .find(|(next, _)| way.get(1).unwrap_or(start) == next);
        let path = path.map_or(Path::fields("spec.dependsOn"), |(_, path)| path.clone());
        let message = format!("the Kustomizations wait for one another: {}", names.join(" -> "));
        faults.push((
            *start,
            Fault::new(Rule::FluxDependency, path, message).remedy("break the circle"),
        ));
    }
    faults
}

/// The objects on a way from one to itself.
fn way_back(start: usize, edges: &BTreeMap<usize, Vec<(usize, Path)>>) -> Option<Vec<usize>> {
    let mut todo = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = todo.pop() {
        let last = way.last().copied()?;
        for (next, _) in edges.get(&last).into_iter().flatten() {
            if *next == start {
                return Some(way);
            }
            if seen.insert(*next) {
                todo.push(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}
