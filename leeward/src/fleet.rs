//! Revisions of a repository, and what each of its clusters and classes would run of them.

use crate::exit::{NotFound, Refused};
use crate::files;
use anyhow::{Context as _, Result};
use device::Class;
use jiff::Timestamp;
use model::{Desired, Revision, Tree};
use source::{Ask, LocalRepository, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One state of a repository.
#[derive(Debug)]
pub struct State {
    pub revision: Revision,
    pub tree: Tree,
}

impl State {
    /// For people: a short commit and its reference, or `work tree`.
    pub fn label(&self) -> String {
        match self.revision.reference.as_str() {
            "" => self.revision.short().to_owned(),
            WORK_TREE => WORK_TREE.to_owned(),
            reference => format!("{reference} ({})", self.revision.short()),
        }
    }
}

const WORK_TREE: &str = "work tree";

/// A commit of the repository that `dir` lies in.
pub fn committed(repository: &LocalRepository, text: &str) -> Result<State> {
    let revision = repository.revision(text).map_err(|err| match err {
        SourceError::UnknownReference { .. } => NotFound(err.to_string()).into(),
        err => anyhow::Error::from(err),
    })?;
    let tree = repository.tree(&revision)?;
    Ok(State { revision, tree })
}

/// The files as they lie there.
pub fn work_tree(dir: &Path) -> Result<State> {
    let revision = Revision {
        reference: WORK_TREE.to_owned(),
        commit: "0".repeat(40),
        summary: String::new(),
        author: String::new(),
        committed_at: Timestamp::now(),
    };
    Ok(State {
        revision,
        tree: files::whole(dir)?,
    })
}

/// The repository around a folder.
pub fn repository(dir: &Path) -> Result<LocalRepository> {
    LocalRepository::discover(dir).map_err(|err| match err {
        SourceError::NotFound { .. } => NotFound(err.to_string()).into(),
        err => anyhow::Error::from(err).context(dir.display().to_string()),
    })
}

/// The folders that devices or clusters render: those below `clusters`, and those of the classes.
pub fn clusters(tree: &Tree) -> BTreeSet<String> {
    let below = tree.below("clusters").filter_map(|(path, _)| {
        let rest = path.strip_prefix("clusters/")?;
        let (name, _) = rest.split_once('/')?;
        Some(format!("clusters/{name}"))
    });
    let classes = Class::all()
        .iter()
        .filter(|class| tree.below(&class.folder).next().is_some());
    below.chain(classes.map(|class| class.folder.clone())).collect()
}

/// What is known of a device to substitutions.
pub fn vars(device: &str, class: &str, site: &str, architecture: &str) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::from([
        ("DEVICE".to_owned(), device.to_owned()),
        ("CLASS".to_owned(), class.to_owned()),
        ("ARCH".to_owned(), architecture.to_owned()),
    ]);
    if !site.is_empty() {
        vars.insert("SITE".to_owned(), site.to_owned());
    }
    vars
}

/// The variables of a folder's typical device: of its class where it is a class's, else of a class called so.
pub fn typical(folder: &str) -> BTreeMap<String, String> {
    let class = Class::all().iter().find(|class| class.folder == folder);
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let architecture = class
        .and_then(|class| class.architecture.clone())
        .unwrap_or_else(|| model::Platform::host().architecture);
    let class = class.map_or(name, |class| class.name.as_str());
    vars("preview", class, "preview", &architecture)
}

/// What rendering needs beside the files.
#[derive(Debug)]
pub struct Means {
    /// What SOPS files are decrypted with.
    pub keys: sops::Keys,
    /// What answers for addresses in kustomizations.
    pub remotes: agent::Remotes,
}

impl Means {
    /// Of a person.
    pub fn new(keys: sops::Keys, offline: bool, repository: &LocalRepository) -> Self {
        let ask = if offline { Ask::Never } else { Ask::Now };
        Self {
            keys,
            remotes: agent::Remotes::of_user(ask, repository.remotes()),
        }
    }
}

/// What a folder renders to; nothing where it is not there.
pub fn render(
    state: &State,
    folder: &str,
    vars: &BTreeMap<String, String>,
    means: &Means,
) -> Result<Desired> {
    if state.tree.below(folder).next().is_none() && !folder.is_empty() {
        return Ok(Desired {
            revision: state.revision.clone(),
            path: folder.to_owned(),
            objects: vec![],
            kustomizations: Vec::new(),
            origins: Vec::new(),
            warnings: vec![],
        });
    }
    let given = render::Given {
        vars,
        keys: &means.keys,
        remotes: &means.remotes,
    };
    render::render_for(&state.tree, &state.revision, folder, &given)
        .with_context(|| format!("{folder} at {}", state.label()))
}

/// `folders` where given, else all that two states have.
pub fn chosen(folders: &[String], states: [&State; 2]) -> Result<Vec<String>> {
    let all: BTreeSet<String> = states.iter().flat_map(|state| clusters(&state.tree)).collect();
    if folders.is_empty() {
        if all.is_empty() {
            let classes: Vec<&str> = Class::all().iter().map(|class| class.folder.as_str()).collect();
            return Err(Refused(format!(
                "the repository has no folder below clusters/ and none of a class ({}); name folders with --path",
                classes.join(", ")
            ))
            .into());
        }
        return Ok(all.into_iter().collect());
    }
    let mut chosen = BTreeSet::new();
    for folder in folders {
        let folder = folder.trim_start_matches("./").trim_end_matches('/');
        let within: Vec<&String> = all
            .iter()
            .filter(|known| *known == folder || known.starts_with(&format!("{folder}/")))
            .collect();
        if !within.is_empty() {
            chosen.extend(within.into_iter().cloned());
        } else if states
            .iter()
            .any(|state| state.tree.below(folder).next().is_some())
        {
            chosen.insert(folder.to_owned());
        } else {
            return Err(NotFound(format!("neither revision has a folder {folder:?}")).into());
        }
    }
    Ok(chosen.into_iter().collect())
}
