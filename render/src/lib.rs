//! Rendering: what a Git tree says should run.
//!
//! Takes: files behind [`Files`] (a [`model::Tree`] in memory, a disk), a folder among them, what [`Remotes`] gives
//! for addresses, and facts about the device as variables.
//! Gives: [`build`], what `kubectl kustomize` prints for the folder, byte for byte; and [`render`], the
//! objects that Flux would apply for it, with its `Kustomization` objects resolved.
//! Errors name file, line, object and field, and what to do about it.
//! Never: touches disk or network but through what it is given, runs programs, reads a clock.

pub mod cel;
mod config;
mod crds;
mod error;
mod fieldspec;
mod files;
pub mod flux;
mod generators;
mod hash;
mod json6902;
pub mod kstatus;
mod kube;
mod kustomization;
mod loader;
mod names;
mod origin;
mod path;
mod plugins;
mod reader;
mod replacements;
mod repository;
mod resource;
mod selector;
mod smp;
mod target;
mod trace;
mod transform;
mod vars;
mod yaml;

pub use error::{Details, Problem, RenderError};
pub use files::{Entry, Files, NoRemotes, Remotes};
pub use flux::{Given, render, render_for};
pub use loader::LoadRestrictor;
pub use repository::Repository;
pub use trace::{Inspection, Trace, Traced, inspect, inspect_folder};

use model::Object;
use yaml::Node;

/// How a folder is built.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions<'a> {
    /// Which files the kustomizations may read.
    pub load_restrictor: LoadRestrictor,
    /// What gives files and repositories for their addresses.
    pub remotes: &'a dyn Remotes,
}

impl Default for BuildOptions<'_> {
    fn default() -> Self {
        Self {
            load_restrictor: LoadRestrictor::default(),
            remotes: &NoRemotes,
        }
    }
}

/// The objects of a folder.
#[derive(Debug, Clone)]
pub struct Build {
    nodes: Vec<Node>,
    /// What people should know: deprecated fields and the like.
    pub warnings: Vec<String>,
}

/// What `kustomize build` gives for the folder at `path`, which may be the address of one in a repository.
///
/// # Errors
/// Whatever kustomize refuses, Helm charts, and plugins that are not built in.
pub fn build(files: &dyn Files, path: &str, options: &BuildOptions<'_>) -> Result<Build, RenderError> {
    let (made, warnings) = built(files, path, options)?;
    let nodes = made.into_iter().map(|made| made.node).collect();
    Ok(Build { nodes, warnings })
}

/// The objects of a folder with their origins, and the warnings.
fn built(
    files: &dyn Files,
    path: &str,
    options: &BuildOptions<'_>,
) -> Result<(Vec<trace::Made>, Vec<String>), RenderError> {
    let mut builder = target::Builder::new();
    let loader = loader::Loader::new(files, options.remotes, options.load_restrictor, path)?;
    let target = builder.load(loader)?;
    let resources = builder.build(&target)?;
    let mut made = Vec::with_capacity(resources.0.len());
    for resource in resources.0 {
        check_numbers(&resource.node).map_err(|error| resource.blame(error))?;
        made.push(trace::Made::from(resource));
    }
    Ok((made, builder.warnings))
}

impl Build {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The objects, in the order of the output.
    ///
    /// # Errors
    /// An object without apiVersion, which kustomize lets pass.
    pub fn objects(&self) -> Result<Vec<Object>, RenderError> {
        self.nodes
            .iter()
            .map(|node| {
                let value = yaml::to_json(node).map_err(bad_number)?;
                Object::new(value).map_err(|error| RenderError::new(Problem::Unreadable, error.to_string()))
            })
            .collect()
    }

    /// The objects as kustomize prints them.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            document(at, node, &mut out);
        }
        out
    }

    /// The pieces of [`Build::to_yaml`], an object each; what was told is forgotten, so that a large build and its text
    /// need not be in memory together.
    pub fn into_documents(self) -> impl Iterator<Item = String> {
        self.nodes.into_iter().enumerate().map(|(at, node)| {
            let mut out = String::new();
            document(at, &node, &mut out);
            out
        })
    }
}

fn document(at: usize, node: &Node, out: &mut String) {
    if at > 0 {
        out.push_str("---\n");
    }
    yaml::emit_document(node, out).expect("numbers were checked by build");
}

/// Objects as kustomize prints them.
pub fn to_yaml(objects: &[Object]) -> String {
    let mut out = String::new();
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            out.push_str("---\n");
        }
        yaml::emit_document(&yaml::from_json(object.value()), &mut out)
            .expect("JSON has no number that is not finite");
    }
    out
}

/// JSON has no infinity, so that kustomize cannot print it.
fn check_numbers(node: &Node) -> Result<(), RenderError> {
    match node {
        Node::Scalar(scalar) => match scalar.plain() {
            yaml::Plain::Float(value) if !value.is_finite() => Err(bad_number(scalar.text.clone())),
            _ => Ok(()),
        },
        Node::Seq(items) => items.iter().try_for_each(check_numbers),
        Node::Map(map) => map
            .0
            .iter()
            .try_for_each(|(key, value)| check_numbers(value).map_err(|error| error.under(key))),
    }
}

fn bad_number(number: String) -> RenderError {
    RenderError::new(
        Problem::Unreadable,
        format!("{number} is no number that JSON has"),
    )
    .remedy("put it in quotes")
}
