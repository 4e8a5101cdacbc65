//! What Flux does with a repository: its `Kustomization` objects resolved, one after another.

mod ignore;
mod kustomize;
mod substitute;
mod types;

pub use substitute::substitute;
pub use types::{
    BucketSpec, CommonMetadata, CrossNamespaceReference, Decryption, Dependency, FluxImage,
    FluxKustomization, FluxPatch, FluxSelector, GitRepositoryRef, GitRepositorySpec, HealthCheckExpr,
    IgnoreRule, KubeConfig, KustomizationSpec, LocalReference, OciRepositoryRef, OciRepositorySpec,
    PostBuild, SourceReference, SubstituteReference,
};

use crate::{
    error::{Problem, RenderError, Result},
    yaml::{self, Node},
};
use model::{Desired, Object, ObjectKey, Revision, Tree};
use std::collections::{BTreeMap, BTreeSet};

const GROUP_SUFFIX: &str = "toolkit.fluxcd.io";
const KUSTOMIZE_GROUP: &str = "kustomize.toolkit.fluxcd.io";

/// The objects that a device with these `vars` should run, from the folder at `path`.
///
/// The folder is built as Flux builds it (a kustomization is made up where it has none), then each
/// `Kustomization` object found is resolved, in the order of `dependsOn`, recursively. `vars` are known to
/// the substitutions of those that have a `postBuild`.
///
/// # Errors
/// Whatever [`crate::build`] refuses; a `Kustomization` that does not decode, that depends on one that is
/// not there or on itself, or that uses a variable without value; the same object twice.
pub fn render(
    tree: &Tree,
    revision: &Revision,
    path: &str,
    vars: &BTreeMap<String, String>,
) -> Result<Desired> {
    let tree = ignore::without_ignored(tree)?;
    let mut renderer = Renderer {
        tree: &tree,
        vars,
        objects: Vec::new(),
        owners: BTreeMap::new(),
        rendered: BTreeSet::new(),
        warnings: Vec::new(),
    };
    let path = kustomize::clean(&tree, path)?;
    renderer.folder(&path)?;
    Ok(Desired {
        revision: revision.clone(),
        path,
        objects: renderer.objects,
        warnings: renderer.warnings,
    })
}

/// An object's name, for the questions who made it and whether it is there.
type Named = (String, String);

struct Renderer<'a> {
    tree: &'a Tree,
    vars: &'a BTreeMap<String, String>,
    objects: Vec<Object>,
    /// Which `Kustomization` each object comes from.
    owners: BTreeMap<ObjectKey, String>,
    /// The `Kustomization` objects that are resolved or being resolved.
    rendered: BTreeSet<Named>,
    warnings: Vec<String>,
}

impl Renderer<'_> {
    /// The root folder, with the `Kustomization` that points at it where there is one.
    fn folder(&mut self, path: &str) -> Result<()> {
        let built = kustomize::build(self.tree, path, None)?;
        self.warnings.extend(built.warnings);
        let own = kustomizations(&built.nodes)?.into_iter().find(|(_, flux)| {
            kustomize::clean(self.tree, &flux.spec.path).is_ok_and(|target| target == path)
        });
        let nodes = match &own {
            None => built.nodes,
            Some((_, flux)) => {
                self.rendered.insert(flux.named());
                let built = kustomize::build(self.tree, path, Some(&flux.spec))?;
                self.finish(built.nodes, flux)?
            }
        };
        self.take(nodes, path)
    }

    /// Keeps what is to run, and resolves the `Kustomization` objects among it.
    fn take(&mut self, nodes: Vec<Node>, from: &str) -> Result<()> {
        let found = kustomizations(&nodes)?;
        let sources = Sources::of(&nodes);
        for node in nodes {
            let group = group_of(&node);
            if group.ends_with(GROUP_SUFFIX) {
                self.note_flux_object(&node);
                continue;
            }
            self.keep(&node, from)?;
        }
        self.resolve_all(found, &sources)
    }

    fn note_flux_object(&mut self, node: &Node) {
        let kind = node.get("kind").map_or("", Node::value);
        let ours = ["Kustomization", "GitRepository", "OCIRepository", "Bucket"];
        if !ours.contains(&kind) {
            let name = node.at(["metadata", "name"]).map_or("", Node::value);
            self.warnings.push(format!(
                "{kind}/{name} is left out: there is no Flux on the device to carry it out"
            ));
        }
    }

    fn keep(&mut self, node: &Node, from: &str) -> Result<()> {
        let value = yaml::to_json(node).map_err(crate::bad_number)?;
        let object = Object::new(value)
            .map_err(|error| RenderError::new(Problem::Unreadable, error.to_string()).in_file(from))?;
        let key = object.key();
        if let Some(first) = self.owners.get(&key) {
            return Err(RenderError::new(
                Problem::Conflict,
                format!("the object comes from {first} and from {from}"),
            )
            .on(key)
            .remedy("leave it to one of them"));
        }
        self.owners.insert(key, from.to_owned());
        self.objects.push(object);
        Ok(())
    }

    /// Resolves in the order of `dependsOn`; the order of the files where that leaves it open.
    fn resolve_all(&mut self, mut todo: Vec<(String, FluxKustomization)>, sources: &Sources) -> Result<()> {
        todo.retain(|(_, flux)| !self.rendered.contains(&flux.named()));
        while !todo.is_empty() {
            let waiting: Vec<Named> = todo.iter().map(|(_, flux)| flux.named()).collect();
            let ready = todo
                .iter()
                .position(|(_, flux)| flux.dependencies().all(|name| !waiting.contains(&name)));
            let Some(ready) = ready else {
                let names: Vec<&str> = todo.iter().map(|(_, flux)| flux.name.as_str()).collect();
                return Err(RenderError::new(
                    Problem::Configuration,
                    format!("the Kustomizations {} depend on one another", names.join(", ")),
                )
                .field("spec.dependsOn")
                .remedy("break the circle"));
            };
            let (_, flux) = todo.remove(ready);
            self.resolve(&flux, sources)
                .map_err(|error| error.on(format_args!("Kustomization/{}/{}", flux.namespace, flux.name)))?;
        }
        Ok(())
    }

    fn resolve(&mut self, flux: &FluxKustomization, sources: &Sources) -> Result<()> {
        self.rendered.insert(flux.named());
        let spec = &flux.spec;
        if spec.suspend {
            self.warnings.push(format!(
                "Kustomization/{} is suspended: its objects are left out",
                flux.name
            ));
            return Ok(());
        }
        for dependency in flux.dependencies() {
            if !self.rendered.contains(&dependency) {
                return Err(RenderError::new(
                    Problem::NotFound,
                    format!("there is no Kustomization {} to depend on", dependency.1),
                )
                .field("spec.dependsOn"));
            }
        }
        if !sources.is_this_repository(&spec.source_ref, &flux.namespace) {
            self.warnings.push(format!(
                "Kustomization/{} is left out: it reads {} {}, which is not this repository",
                flux.name, spec.source_ref.kind, spec.source_ref.name
            ));
            return Ok(());
        }
        let path = kustomize::clean(self.tree, &spec.path).map_err(|error| error.field("spec.path"))?;
        let built = kustomize::build(self.tree, &path, Some(spec))?;
        self.warnings.extend(built.warnings);
        let nodes = self.finish(built.nodes, flux)?;
        self.take(nodes, &format!("Kustomization {}", flux.name))
    }

    /// What Flux does after the build: substitution, common metadata, owner labels, order.
    fn finish(&self, nodes: Vec<Node>, flux: &FluxKustomization) -> Result<Vec<Node>> {
        let spec = &flux.spec;
        let variables = match &spec.post_build {
            Some(post_build) => Some(self.variables(post_build, &flux.namespace)?),
            None => None,
        };
        let mut finished = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            if let Some(variables) = variables.as_ref().filter(|_| may_substitute(&node)) {
                node = kustomize::substitute_in(&node, variables)?;
            }
            if let Some(common) = &spec.common_metadata {
                set_metadata(&mut node, "labels", &common.labels);
                set_metadata(&mut node, "annotations", &common.annotations);
            }
            let owner = BTreeMap::from([
                (format!("{KUSTOMIZE_GROUP}/name"), flux.name.clone()),
                (format!("{KUSTOMIZE_GROUP}/namespace"), flux.namespace.clone()),
            ]);
            set_metadata(&mut node, "labels", &owner);
            finished.push(node);
        }
        finished.sort_by_key(stage);
        Ok(finished)
    }

    /// The variables of a `postBuild`: the device's own, then those of objects, then those written in it.
    fn variables(&self, post_build: &PostBuild, namespace: &str) -> Result<BTreeMap<String, String>> {
        let mut variables = self.vars.clone();
        for reference in &post_build.substitute_from {
            match self.data_of(reference, namespace)? {
                Some(data) => variables.extend(data),
                None if reference.optional => {}
                None => {
                    return Err(RenderError::new(
                        Problem::NotFound,
                        format!("there is no {} {namespace}/{}", reference.kind, reference.name),
                    )
                    .field("spec.postBuild.substituteFrom")
                    .remedy("add it to what is rendered before, or set 'optional: true'"));
                }
            }
        }
        variables.extend(post_build.substitute.clone());
        Ok(variables)
    }

    fn data_of(
        &self,
        reference: &SubstituteReference,
        namespace: &str,
    ) -> Result<Option<BTreeMap<String, String>>> {
        let object = self.objects.iter().find(|object| {
            object.group().is_empty()
                && object.kind() == reference.kind
                && object.name() == reference.name
                && object.namespace() == namespace
        });
        let Some(object) = object else {
            return Ok(None);
        };
        kustomize::data(object).map(Some)
    }
}

fn group_of(node: &Node) -> &str {
    let api_version = node.get("apiVersion").map_or("", Node::value);
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The `Kustomization` objects among others, with their names.
fn kustomizations(nodes: &[Node]) -> Result<Vec<(String, FluxKustomization)>> {
    nodes
        .iter()
        .filter(|node| group_of(node) == KUSTOMIZE_GROUP)
        .filter(|node| node.get("kind").map_or("", Node::value) == "Kustomization")
        .map(|node| {
            let flux = FluxKustomization::decode(node)?;
            Ok((flux.name.clone(), flux))
        })
        .collect()
}

/// The sources that are defined beside some `Kustomization` objects.
struct Sources {
    /// Namespace and name of each `GitRepository`.
    git: Vec<Named>,
}

impl Sources {
    fn of(nodes: &[Node]) -> Self {
        let git = nodes
            .iter()
            .filter(|node| group_of(node) == "source.toolkit.fluxcd.io")
            .filter(|node| node.get("kind").map_or("", Node::value) == "GitRepository")
            .map(|node| {
                let metadata = |field| node.at(["metadata", field]).map_or("", Node::value).to_owned();
                (metadata("namespace"), metadata("name"))
            });
        Self { git: git.collect() }
    }

    /// A `GitRepository` that is not defined here, the only one, or the one that Flux itself came from.
    fn is_this_repository(&self, source: &SourceReference, namespace: &str) -> bool {
        if source.kind != "GitRepository" {
            return false;
        }
        let namespace = source.namespace.as_deref().unwrap_or(namespace);
        let defined = self
            .git
            .iter()
            .any(|(n, name)| *name == source.name && (n == namespace || n.is_empty()));
        !defined || self.git.len() == 1 || source.name == "flux-system"
    }
}

fn may_substitute(node: &Node) -> bool {
    let key = format!("{KUSTOMIZE_GROUP}/substitute");
    !["labels", "annotations"].iter().any(|field| {
        node.at(["metadata", field, key.as_str()])
            .is_some_and(|value| value.raw() == "disabled")
    })
}

fn set_metadata(node: &mut Node, field: &str, pairs: &BTreeMap<String, String>) {
    if pairs.is_empty() {
        return;
    }
    let Some(map) = node.as_map_mut() else { return };
    let Some(metadata) = map.entry("metadata", Node::empty_map).as_map_mut() else {
        return;
    };
    let entry = metadata.entry(field, Node::empty_map);
    if entry.is_null() {
        *entry = Node::empty_map();
    }
    if let Some(entries) = entry.as_map_mut() {
        for (key, value) in pairs {
            entries.set(key, Node::text(value.as_str()));
        }
    }
}

/// What others need is applied first.
fn stage(node: &Node) -> u8 {
    match node.get("kind").map_or("", Node::value) {
        "CustomResourceDefinition" | "Namespace" | "ClusterRole" => 0,
        kind if kind.ends_with("Class") => 1,
        _ => 2,
    }
}
