//! What is wrong with a repository, before it is pushed.
//!
//! Takes: a [`model::Tree`], the Kubernetes version it is for, and the hardware classes whose devices render its folders.
//! Gives: a [`Report`]: every fault with file, line, column and remedy. Every cluster is rendered, and every kustomization
//! that nobody includes; each object is held against the schema of its kind, against what else the cluster defines, and,
//! where devices render it, against what Leeward's engine runs. A fault hides no other.
//! Never: touches disk or network, reads a clock. Which images there are is asked by the caller: [`Images`].

mod crds;
mod engine;
mod expressions;
mod files;
mod finding;
mod flux;
mod formats;
mod images;
mod known;
mod kubernetes;
mod marked;
mod path;
mod pods;
mod policy;
mod problems;
mod prometheus;
mod references;
mod removed;
mod rule;
mod schema;
mod scope;
mod scopes;
mod sealed;

pub use finding::{Finding, Place, Related, Severity};
pub use images::{ImageAnswer, ImageNeed, Images};
pub use kubernetes::{KubernetesVersion, UnknownVersion};
pub use rule::{NoSuchRule, Rule};

use files::Files;
use model::{Object, Tree};
use render::{Given, Inspection, NoRemotes, Remotes};
use scope::Scope;
use sops::Keys;
use std::collections::BTreeSet;

/// What a repository is checked for.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// The version of the clusters that run Kubernetes.
    pub kubernetes: KubernetesVersion,
    /// The hardware classes, each with the folder that its devices render.
    pub classes: Vec<DeviceClass>,
    /// What SOPS files are decrypted with; without any they stay as they are, and what is sealed is not looked at.
    pub keys: Option<&'a Keys>,
    /// What answers for addresses in kustomizations; without it they are refused.
    pub remotes: Option<&'a dyn Remotes>,
}

impl<'a> Options<'a> {
    fn remotes(&self) -> &'a dyn Remotes {
        self.remotes.unwrap_or(&NoRemotes)
    }
}

/// A hardware class, as far as it bounds what can run.
#[derive(Debug, Clone)]
pub struct DeviceClass {
    /// Its name.
    pub name: String,
    /// The folder that its devices render.
    pub folder: String,
    /// `arm64`; any where absent.
    pub architecture: Option<String>,
    /// What a device gives to workloads.
    pub limits: plan::Limits,
}

/// What was looked at and what was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By file and line.
    pub findings: Vec<Finding>,
    /// The folders of clusters.
    pub clusters: Vec<String>,
    /// Folders with a kustomization that belong to no cluster.
    pub folders: Vec<String>,
    /// How many objects were rendered, each cluster's counted.
    pub objects: usize,
    /// The images that devices need.
    pub images: Images,
}

impl Report {
    /// How many findings are as bad as this.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// Adds what registries answered.
    pub fn add_answers<'a>(&mut self, answers: impl Iterator<Item = (&'a ImageNeed, &'a ImageAnswer)>) {
        for (need, answer) in answers {
            for finding in self.images.judge(need, answer) {
                add(&mut self.findings, finding);
            }
        }
        self.findings
            .sort_by(|a, b| (&a.place, a.rule).cmp(&(&b.place, b.rule)));
    }
}

/// Checks a whole repository.
pub fn check(tree: &Tree, options: &Options<'_>) -> Report {
    let rendered = render_all(tree, options);
    let read: BTreeSet<String> = rendered
        .iter()
        .flat_map(|(_, inspection)| &inspection.objects)
        .filter_map(|traced| traced.trace.file.clone())
        .collect();
    let loose = scopes::loose_crds(tree, &read);
    let objects = || {
        rendered
            .iter()
            .flat_map(|(_, found)| found.objects.iter().map(|traced| &traced.object))
    };
    let mut crds = crds::Crds::default();
    crds.add(objects().chain(&loose));
    let mut sources = flux::Sources::default();
    sources.add(objects());
    let files = Files::new(tree);
    let mut checker = scope::Checker::new(options.kubernetes, &files, &crds, &sources);
    let mut report = Report::default();
    for (scope, inspection) in &rendered {
        let names = if scope.is_cluster {
            &mut report.clusters
        } else {
            &mut report.folders
        };
        if names.last() != Some(&scope.folder) {
            names.push(scope.folder.clone());
            report.objects += inspection.objects.len();
        }
        checker.check(scope, inspection);
    }
    (report.findings, report.images) = checker.done();
    report.add_answers(std::iter::empty());
    report
}

/// A cluster is rendered once for each class of its devices, whose variables differ.
fn render_all<'a>(tree: &Tree, options: &'a Options<'_>) -> Vec<(Scope<'a>, Inspection)> {
    let no_keys = Keys::default();
    let mut rendered = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let folders = options.classes.iter().map(|class| class.folder.as_str());
    for folder in scopes::clusters(tree, folders) {
        let classes: Vec<&DeviceClass> = options
            .classes
            .iter()
            .filter(|class| class.folder.trim_matches('/') == folder)
            .collect();
        let each = classes.into_iter().map(Some);
        let none = std::iter::once(None);
        let has_classes = each.len() > 0;
        for class in each.chain(none.filter(|_| !has_classes)) {
            let variables = class.map(engine::variables).unwrap_or_default();
            let given = Given {
                vars: &variables,
                keys: options.keys.unwrap_or(&no_keys),
                remotes: options.remotes(),
            };
            let inspection = render::inspect(tree, &folder, &given);
            seen.insert(folder.clone());
            seen.extend(inspection.folders.iter().cloned());
            let scope = Scope {
                folder: folder.clone(),
                is_cluster: true,
                class,
            };
            rendered.push((scope, inspection));
        }
    }
    for folder in scopes::roots(tree, &seen) {
        let inspection = render::inspect_folder(tree, &folder, options.remotes());
        let scope = Scope {
            folder,
            is_cluster: false,
            class: None,
        };
        rendered.push((scope, inspection));
    }
    rendered
}

/// Adds a finding, to one that is the same but for its clusters where there is one.
fn add(findings: &mut Vec<Finding>, finding: Finding) {
    let same = |known: &&mut Finding| {
        known.rule == finding.rule && known.place == finding.place && known.message == finding.message
    };
    match findings.iter_mut().find(same) {
        Some(known) => join_clusters(known, finding.clusters),
        None => findings.push(finding),
    }
}

fn join_clusters(finding: &mut Finding, clusters: Vec<String>) {
    for cluster in clusters {
        if !finding.clusters.contains(&cluster) {
            finding.clusters.push(cluster);
        }
    }
}

/// As reports name an object.
fn named(object: &Object) -> String {
    object.key().to_string()
}
