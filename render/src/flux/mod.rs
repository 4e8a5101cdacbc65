//! What Flux does with a repository: its `Kustomization` objects resolved, one after another.

mod decrypt;
mod health;
mod ignore;
mod kustomize;
mod sources;
mod substitute;
mod types;
mod validate;

pub use health::{Health, Judge, Standing, ready_word};
pub use sources::{Artifact, FluxSource, Sourced};
pub use substitute::substitute;
pub use types::{
    BucketSpec, CommonMetadata, CrossNamespaceReference, Decryption, Dependency, FluxImage,
    FluxKustomization, FluxPatch, FluxSelector, GitRepositoryRef, GitRepositorySpec, HealthCheckExpr,
    IgnoreRule, KubeConfig, KustomizationSpec, LocalReference, OciRepositoryRef, OciRepositorySpec,
    PostBuild, SourceReference, SubstituteReference,
};
pub use validate::{SourceSpec, duration};

use crate::{
    NoRemotes, Remotes,
    error::{Problem, RenderError, Result},
    trace::{Inspection, Made},
    yaml::Node,
};
use model::{Desired, Kustomization, Object, ObjectKey, Origin, Revision, Tree};
use sops::Keys;
use sources::{Referred, Sources};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

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
    let keys = Keys::default();
    let given = Given {
        vars,
        keys: &keys,
        remotes: &NoRemotes,
    };
    render_for(tree, revision, path, &given)
}

/// What a device brings to the rendering of its folder.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Variables that substitutions know.
    pub vars: &'a BTreeMap<String, String>,
    /// Keys that SOPS files are decrypted with: those of the root folder, and those of each `Kustomization` with
    /// `spec.decryption`, together with the keys of the Secret that it names.
    pub keys: &'a Keys,
    /// What gives files and repositories for addresses in kustomizations.
    pub remotes: &'a dyn Remotes,
}

/// As [`render`], with the keys that a device holds.
///
/// # Errors
/// Those of [`render`]; [`Problem::Sealed`] for a file that cannot be decrypted and for an object that would be left
/// encrypted.
pub fn render_for(tree: &Tree, revision: &Revision, path: &str, given: &Given<'_>) -> Result<Desired> {
    let tree = ignore::without_ignored(tree)?;
    let mut renderer = Renderer::new(&tree, given);
    let path = kustomize::clean(&tree, path)?;
    renderer.folder(&path)?;
    Ok(Desired {
        revision: revision.clone(),
        path,
        objects: renderer.objects,
        kustomizations: renderer.kustomizations,
        origins: renderer.origins,
        warnings: renderer.warnings,
    })
}

/// As [`render`], for people: goes on behind a fault and keeps Flux's objects.
pub(crate) fn inspect(tree: &Tree, path: &str, given: &Given<'_>) -> Inspection {
    let failed = |problem| Inspection {
        problems: vec![problem],
        ..Inspection::default()
    };
    let tree = match ignore::without_ignored(tree) {
        Ok(tree) => tree,
        Err(problem) => return failed(problem),
    };
    let path = match kustomize::clean(&tree, path) {
        Ok(path) => path,
        Err(problem) => return failed(problem),
    };
    let mut renderer = Renderer::new(&tree, given);
    renderer.inspection = Some(Inspection::default());
    let ended = renderer.folder(&path);
    let mut inspection = renderer.inspection.unwrap_or_default();
    inspection.problems.extend(ended.err());
    inspection.warnings = renderer.warnings;
    inspection
}

/// An object's name, for the questions who made it and whether it is there.
type Named = (String, String);

/// Where the files of a `Kustomization` lie.
#[derive(Clone)]
struct Base {
    artifact: Option<Rc<Artifact>>,
    /// For messages, in front of a path.
    name: String,
}

impl Base {
    fn own() -> Self {
        Self {
            artifact: None,
            name: String::new(),
        }
    }
}

struct Renderer<'a> {
    tree: &'a Tree,
    sources: Sources,
    remotes: &'a dyn Remotes,
    vars: &'a BTreeMap<String, String>,
    keys: &'a Keys,
    objects: Vec<Object>,
    /// Those that were resolved.
    kustomizations: Vec<Kustomization>,
    /// Where each was read.
    origins: Vec<Option<Origin>>,
    /// Which `Kustomization` each object comes from.
    owners: BTreeMap<ObjectKey, String>,
    /// The `Kustomization` objects that are resolved or being resolved.
    rendered: BTreeSet<Named>,
    warnings: Vec<String>,
    /// Where faults do not end the rendering: what was found so far.
    inspection: Option<Inspection>,
}

impl<'a> Renderer<'a> {
    fn new(tree: &'a Tree, given: &Given<'a>) -> Self {
        Self {
            tree,
            sources: Sources::default(),
            remotes: given.remotes,
            vars: given.vars,
            keys: given.keys,
            objects: Vec::new(),
            kustomizations: Vec::new(),
            origins: Vec::new(),
            owners: BTreeMap::new(),
            rendered: BTreeSet::new(),
            warnings: Vec::new(),
            inspection: None,
        }
    }

    /// Ends the rendering, unless all faults are collected.
    fn fault(&mut self, error: RenderError) -> Result<()> {
        match &mut self.inspection {
            Some(inspection) => {
                inspection.problems.push(error);
                Ok(())
            }
            None => Err(error),
        }
    }

    fn build(
        &mut self,
        base: &Base,
        path: &str,
        spec: Option<&KustomizationSpec>,
        keys: Option<&Keys>,
    ) -> Result<Vec<Made>> {
        let Some(artifact) = &base.artifact else {
            if let Some(inspection) = &mut self.inspection {
                inspection.folders.push(path.to_owned());
            }
            let built = kustomize::build(self.tree, self.remotes, path, spec, keys)?;
            self.warnings.extend(built.warnings);
            return Ok(built.made);
        };
        // A file is told with its source: here it is none of the repository.
        let mut built = kustomize::build(&artifact.tree, self.remotes, path, spec, keys)
            .map_err(|error| error.in_source(&base.name))?;
        built.made.iter_mut().for_each(|made| made.lies_in(&base.name));
        self.warnings.extend(built.warnings);
        Ok(built.made)
    }

    /// The root folder, with the `Kustomization` that points at it where there is one.
    fn folder(&mut self, path: &str) -> Result<()> {
        let base = Base::own();
        let mut built = self.build(&base, path, None, None)?;
        let own = kustomizations(&built)
            .filter_map(|node| FluxKustomization::decode(node).ok())
            .find(|flux| kustomize::clean(self.tree, &flux.spec.path).is_ok_and(|target| target == path));
        let made = match &own {
            None => {
                if !self.looks_away() && decrypt::any_sealed(&built) {
                    built = self.build(&base, path, None, Some(self.keys))?;
                    decrypt::refuse_sealed(&built, None)?;
                }
                built
            }
            Some(flux) => {
                self.rendered.insert(flux.named());
                let made = self.built(&base, path, flux)?;
                self.note_resolved(flux, &made, None, None);
                made
            }
        };
        self.take(made, path)
    }

    /// Keeps what is to run, and resolves the `Kustomization` objects among it.
    fn take(&mut self, made: Vec<Made>, from: &str) -> Result<()> {
        let mut found = Vec::new();
        for node in kustomizations(&made) {
            match FluxKustomization::decode(node) {
                Ok(flux) => found.push(flux),
                Err(error) => {
                    self.fault(error)?;
                    // It is there, if only to be mended: what depends on it has no fault of its own.
                    self.rendered.insert(name_of(node));
                }
            }
        }
        self.sources.add(&made);
        for made in &made {
            if let Some(switch) = switched_off(&made.node) {
                let name = made.node.at(["metadata", "name"]).map_or("", Node::value);
                let kind = made.node.get("kind").map_or("", Node::value);
                self.warnings.push(format!(
                    "{kind}/{name} is left out: it says {KUSTOMIZE_GROUP}/{switch}"
                ));
                continue;
            }
            let object = match made.object() {
                Ok(object) => object,
                Err(error) => {
                    self.fault(error.in_file(from))?;
                    continue;
                }
            };
            if let Some(inspection) = &mut self.inspection {
                inspection.objects.push(made.traced(object.clone()));
            }
            if group_of(&made.node).ends_with(GROUP_SUFFIX) {
                if let Err(error) = SourceSpec::decode(&object) {
                    self.fault(made.blame(error))?;
                }
                self.note_flux_object(&made.node);
            } else {
                self.keep(object, made.origin(), from)?;
            }
        }
        self.resolve_all(found)
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

    fn keep(&mut self, object: Object, origin: Option<Origin>, from: &str) -> Result<()> {
        let key = object.key();
        if let Some(first) = self.owners.get(&key) {
            let error = RenderError::new(
                Problem::Conflict,
                format!("the object comes from {first} and from {from}"),
            )
            .on(key)
            .remedy("leave it to one of them");
            return self.fault(error);
        }
        self.owners.insert(key, from.to_owned());
        self.objects.push(object);
        self.origins.push(origin);
        Ok(())
    }

    /// Resolves in the order of `dependsOn`; the order of the files where that leaves it open.
    fn resolve_all(&mut self, mut todo: Vec<FluxKustomization>) -> Result<()> {
        todo.retain(|flux| !self.rendered.contains(&flux.named()));
        while !todo.is_empty() {
            let waiting: Vec<Named> = todo.iter().map(FluxKustomization::named).collect();
            let ready = todo
                .iter()
                .position(|flux| flux.dependencies().all(|name| !waiting.contains(&name)));
            let Some(ready) = ready else {
                let names: Vec<&str> = todo.iter().map(|flux| flux.name.as_str()).collect();
                let error = RenderError::new(
                    Problem::Configuration,
                    format!("the Kustomizations {} depend on one another", names.join(", ")),
                )
                .field("spec.dependsOn")
                .remedy("break the circle");
                return self.fault(error);
            };
            let flux = todo.remove(ready);
            if let Err(error) = self.resolve(&flux) {
                self.fault(error.on(named(&flux)))?;
            }
        }
        Ok(())
    }

    fn resolve(&mut self, flux: &FluxKustomization) -> Result<()> {
        self.rendered.insert(flux.named());
        let spec = &flux.spec;
        if spec.suspend {
            self.warnings.push(format!(
                "Kustomization/{} is suspended: its objects are left out",
                flux.name
            ));
            self.note_resolved(
                flux,
                &[],
                Some(("Suspended", "Reconciliation is suspended")),
                None,
            );
            return Ok(());
        }
        for dependency in flux.dependencies() {
            if !self.rendered.contains(&dependency) {
                let error = RenderError::new(
                    Problem::NotFound,
                    format!("there is no Kustomization {} to depend on", dependency.1),
                )
                .field("spec.dependsOn")
                .on(named(flux));
                self.fault(error)?;
            }
        }
        if spec.kube_config.is_some() {
            let why = "it applies to another cluster (spec.kubeConfig)";
            self.leave_out(flux, "ReconciliationFailed", why);
            return Ok(());
        }
        let base = match self.base(flux).map_err(|error| error.field("spec.sourceRef")) {
            Ok(Ok(base)) => base,
            Ok(Err(why)) => {
                self.leave_out(flux, "ArtifactFailed", &why);
                return Ok(());
            }
            // People see what the repository itself says; what a source gives is not theirs to mend here.
            Err(error) if self.inspection.is_some() => {
                let why = format!("its source was not fetched, and its objects are not looked at: {error}");
                self.leave_out(flux, "ArtifactFailed", &why);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let tree = base
            .artifact
            .as_ref()
            .map_or(self.tree, |artifact| &artifact.tree);
        let path = kustomize::clean(tree, &spec.path).map_err(|error| error.field("spec.path"))?;
        let made = self.built(&base, &path, flux)?;
        let revision = base.artifact.as_ref().map(|artifact| artifact.revision.clone());
        self.note_resolved(flux, &made, None, revision);
        self.take(made, &format!("Kustomization {}", flux.name))
    }

    fn leave_out(&mut self, flux: &FluxKustomization, reason: &str, why: &str) {
        self.warnings
            .push(format!("Kustomization/{} is left out: {why}", flux.name));
        self.note_resolved(flux, &[], Some((reason, why)), None);
    }

    /// Where the files of a `Kustomization` lie, or why it is left out.
    fn base(&self, flux: &FluxKustomization) -> Result<std::result::Result<Base, String>> {
        let reference = &flux.spec.source_ref;
        let named = format!("{} {}", reference.kind, reference.name);
        if self.looks_away() && self.sources.has_secret(reference, &flux.namespace) {
            return Ok(Err(format!(
                "{named} is read with a Secret, which is encrypted here; give its key to have it fetched"
            )));
        }
        let source = match self.sources.refer(reference, &flux.namespace, &self.objects)? {
            Referred::Own => return Ok(Ok(Base::own())),
            Referred::Undefined => return Ok(Err(format!("there is no {named}"))),
            Referred::Defined(source) => source,
        };
        match self.remotes.source(&source)? {
            Sourced::Own => Ok(Ok(Base::own())),
            Sourced::NotAsked => Ok(Err(format!("it reads {named}, which is not this repository"))),
            Sourced::Other(artifact) => Ok(Ok(Base {
                artifact: Some(artifact),
                name: format!("{}/{}/{}", source.kind(), source.namespace, source.name),
            })),
        }
    }

    /// Remembers what a `Kustomization` rendered to, or why it was left out.
    fn note_resolved(
        &mut self,
        flux: &FluxKustomization,
        made: &[Made],
        left_out: Option<(&str, &str)>,
        revision: Option<String>,
    ) {
        let objects: Vec<Object> = made.iter().filter_map(|made| made.object().ok()).collect();
        self.kustomizations.push(Kustomization {
            namespace: flux.namespace.clone(),
            name: flux.name.clone(),
            object: flux.object.clone(),
            inventory: objects.iter().map(Object::inventory_entry).collect(),
            objects: made
                .iter()
                .filter(|made| switched_off(&made.node).is_none())
                .filter(|made| !group_of(&made.node).ends_with(GROUP_SUFFIX))
                .filter_map(|made| made.object().ok())
                .map(|object| object.key())
                .collect(),
            left_out: left_out.map(|(reason, message)| (reason.to_owned(), message.to_owned())),
            revision,
        });
    }

    /// People look at a repository without the keys of its devices: what is encrypted stays so.
    fn looks_away(&self) -> bool {
        self.inspection.is_some() && self.keys.is_empty()
    }

    /// The folder of a `Kustomization`, with all that it asks for.
    fn built(&mut self, base: &Base, path: &str, flux: &FluxKustomization) -> Result<Vec<Made>> {
        let keys = match &flux.spec.decryption {
            Some(decryption) if !self.looks_away() => Some(decrypt::keys_for(
                decryption,
                &flux.namespace,
                self.keys,
                &self.objects,
            )?),
            _ => None,
        };
        let mut built = self.build(base, path, Some(&flux.spec), keys.as_ref())?;
        if let Some(keys) = &keys {
            for made in &mut built {
                decrypt::open_data(&mut made.node, keys).map_err(|error| made.blame(error))?;
            }
        }
        if !self.looks_away() {
            decrypt::refuse_sealed(&built, Some(&flux.spec))?;
        }
        self.finish(built, flux)
    }

    /// What Flux does after the build: substitution, common metadata, owner labels, order.
    fn finish(&self, built: Vec<Made>, flux: &FluxKustomization) -> Result<Vec<Made>> {
        let spec = &flux.spec;
        let variables = match &spec.post_build {
            Some(post_build) => Some(self.variables(post_build, &flux.namespace)?)
                .filter(|variables| !variables.is_empty() || post_build.always()),
            None => None,
        };
        let mut finished = Vec::with_capacity(built.len());
        for mut made in built {
            let node = &mut made.node;
            if let Some(variables) = variables.as_ref().filter(|_| may_substitute(node)) {
                *node = kustomize::substitute_in(node, variables)?;
            }
            if let Some(common) = &spec.common_metadata {
                set_metadata(node, "labels", &common.labels);
                set_metadata(node, "annotations", &common.annotations);
            }
            let owner = BTreeMap::from([
                (format!("{KUSTOMIZE_GROUP}/name"), flux.name.clone()),
                (format!("{KUSTOMIZE_GROUP}/namespace"), flux.namespace.clone()),
            ]);
            set_metadata(node, "labels", &owner);
            finished.push(made);
        }
        finished.sort_by_key(|made| stage(&made.node));
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

/// The `Kustomization` objects among others.
fn kustomizations(made: &[Made]) -> impl Iterator<Item = &Node> {
    made.iter()
        .map(|made| &made.node)
        .filter(|node| switched_off(node).is_none())
        .filter(|node| group_of(node) == KUSTOMIZE_GROUP)
        .filter(|node| node.get("kind").map_or("", Node::value) == "Kustomization")
}

/// Namespace and name, as they stand.
fn name_of(node: &Node) -> Named {
    let metadata = |field| node.at(["metadata", field]).map_or("", Node::value).to_owned();
    (metadata("namespace"), metadata("name"))
}

/// For messages.
fn named(flux: &FluxKustomization) -> String {
    format!("Kustomization/{}/{}", flux.namespace, flux.name)
}

/// The switch by which an object asks not to be applied, with its value.
fn switched_off(node: &Node) -> Option<&'static str> {
    let value = |switch: &str| {
        let key = format!("{KUSTOMIZE_GROUP}/{switch}");
        ["annotations", "labels"].iter().find_map(|field| {
            let value = node.at(["metadata", field, key.as_str()])?;
            Some(value.value().to_ascii_lowercase())
        })
    };
    if value("reconcile").as_deref() == Some("disabled") {
        return Some("reconcile: disabled");
    }
    (value("ssa").as_deref() == Some("ignore")).then_some("ssa: Ignore")
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
