//! What the renderer asks of other repositories and web servers, answered from the source's cache.

use crate::sources::Other;
use bytes::Bytes;
use render::flux::{Artifact, FluxSource, Sourced};
use render::{Entry, Files, RenderError, Repository};
use source::{
    Artifacts, Ask, GitAuth, Lies, Pins, RemoteRepository, RemotesSpec, Snapshot, SourceError, SourceSpec,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Answers for one build.
#[derive(Debug)]
pub struct Remotes {
    inner: source::Remotes,
    artifacts: Artifacts,
    patience: Duration,
    stop: Arc<AtomicBool>,
    own: Own,
    /// What was answered, so that one source is one artifact within a build.
    known: RefCell<HashMap<String, Sourced>>,
    followed: RefCell<Vec<Followed>>,
    notes: RefCell<Vec<String>>,
}

/// How the repository that is rendered is told from the others that it names.
#[derive(Debug, Clone)]
enum Own {
    /// What a device follows.
    Followed(SourceSpec),
    /// What a clone was cloned from.
    Clone(Vec<String>),
}

/// A source that was read for a build, and what it was.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    pub other: Other,
    pub commit: String,
}

impl Remotes {
    /// With what is pinned already; `stop` ends a fetch.
    pub(crate) fn of_device(spec: RemotesSpec, pins: Pins, own: SourceSpec, stop: Arc<AtomicBool>) -> Self {
        Self::new(spec, pins, Own::Followed(own), stop)
    }

    /// For a person's command in their clone of these addresses: their ssh, and a cache in their home folder.
    pub fn of_user(ask: Ask, own: Vec<String>) -> Self {
        let spec = RemotesSpec {
            dir: user_cache().join("remotes"),
            ask,
            ssh: GitAuth::User,
            own: None,
            patience: Duration::ZERO,
        };
        Self::new(spec, Pins::new(), Own::Clone(own), Arc::default())
    }

    fn new(spec: RemotesSpec, pins: Pins, own: Own, stop: Arc<AtomicBool>) -> Self {
        Self {
            artifacts: artifacts(&spec),
            // Flux's own default, for a person; a device waits for its link.
            patience: spec.patience.max(Duration::from_secs(60)),
            inner: source::Remotes::new(spec, pins, Arc::clone(&stop)),
            stop,
            own,
            known: RefCell::default(),
            followed: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// What was asked for, and what it meant.
    pub fn pins(&self) -> Pins {
        self.inner.pins()
    }

    /// What people should know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.inner.notes();
        notes.extend(self.notes.borrow().iter().cloned());
        notes
    }

    /// The sources that were read.
    pub(crate) fn followed(&self) -> Vec<Followed> {
        self.followed.borrow().clone()
    }

    fn is_own(&self, source: &FluxSource, spec: &SourceSpec) -> bool {
        match (&self.own, spec) {
            (Own::Followed(own), spec) => own.is_same_place(spec),
            (Own::Clone(urls), SourceSpec::Git(_)) if urls.is_empty() => source.alone,
            (Own::Clone(urls), SourceSpec::Git(spec)) => {
                urls.iter().any(|url| source::same_repository(url, &spec.url))
            }
            (Own::Clone(_), SourceSpec::Oci(_) | SourceSpec::Bucket(_)) => false,
        }
    }

    fn fetch(&self, source: &FluxSource, name: &str) -> Result<Sourced, RenderError> {
        let other = Other::of(source)?;
        if self.is_own(source, &other.spec) {
            return Ok(Sourced::Own);
        }
        let artifacts = Artifacts {
            ask: if other.suspended {
                Ask::Never
            } else {
                self.artifacts.ask
            },
            ..self.artifacts.clone()
        };
        let held = artifacts
            .get(&other.spec, self.patience, &self.stop)
            .map_err(|err| RenderError::unreachable(format!("{name}: {}", kit::chain(&err))))?;
        if let Some(why) = &held.stale {
            let note = format!("{name} is taken as it was when it could last be reached: {why}");
            self.notes.borrow_mut().push(note);
        }
        self.followed.borrow_mut().push(Followed {
            other,
            commit: held.revision.commit.clone(),
        });
        Ok(Sourced::Other(Rc::new(Artifact {
            tree: held.tree,
            revision: held.revision.to_string(),
        })))
    }
}

/// Where the artifacts of other sources lie.
pub(crate) fn artifacts(spec: &RemotesSpec) -> Artifacts {
    Artifacts {
        dir: spec.dir.join("sources"),
        ask: spec.ask,
    }
}

/// How a device fetches: with its own source's key, and its token and CA at that source's host.
pub(crate) fn of_device(state: &Path, own: &SourceSpec) -> RemotesSpec {
    let own = match own {
        SourceSpec::Git(own) => Some(own),
        SourceSpec::Oci(_) | SourceSpec::Bucket(_) => None,
    };
    let ssh = match own.map(|own| &own.auth) {
        Some(key @ GitAuth::Ssh { .. }) => key.clone(),
        Some(GitAuth::None | GitAuth::Token { .. } | GitAuth::User) | None => GitAuth::None,
    };
    RemotesSpec {
        dir: state.join("remotes"),
        ask: Ask::Now,
        ssh,
        own: own.cloned(),
        // kustomize's 27 seconds are for a fast link.
        patience: Duration::from_secs(30 * 60),
    }
}

fn user_cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("leeward")
}

impl render::Remotes for Remotes {
    fn file(&self, url: &str) -> Result<Bytes, RenderError> {
        self.inner.file(url).map_err(unreachable)
    }

    fn repository(&self, repository: &Repository) -> Result<Rc<dyn Files>, RenderError> {
        let remote = RemoteRepository {
            url: repository.url.clone(),
            reference: repository.reference.clone(),
            timeout: repository.timeout,
            submodules: repository.submodules,
        };
        let snapshot = self.inner.repository(&remote).map_err(unreachable)?;
        Ok(Rc::new(Commit(snapshot)))
    }

    fn source(&self, source: &FluxSource) -> Result<Sourced, RenderError> {
        let name = format!("{} {}/{}", source.kind(), source.namespace, source.name);
        if let Some(known) = self.known.borrow().get(&name) {
            return Ok(known.clone());
        }
        let sourced = self.fetch(source, &name)?;
        self.known.borrow_mut().insert(name, sourced.clone());
        Ok(sourced)
    }
}

fn unreachable(err: SourceError) -> RenderError {
    RenderError::unreachable(kit::chain(&err))
}

/// A commit's files for the renderer.
#[derive(Debug)]
struct Commit(Rc<Snapshot>);

impl Files for Commit {
    fn look(&self, path: &str) -> Result<Option<Entry>, RenderError> {
        let lies = self.0.look(path).map_err(unreadable)?;
        Ok(lies.map(|lies| match lies {
            Lies::File => Entry::File,
            Lies::Folder => Entry::Folder,
            Lies::Link(target) => Entry::Link(target),
        }))
    }

    fn read(&self, path: &str) -> Result<Bytes, RenderError> {
        self.0
            .read(path)
            .map_err(unreadable)?
            .ok_or_else(|| RenderError::cannot_read(format!("there is no file {path:?}")))
    }
}

fn unreadable(err: SourceError) -> RenderError {
    RenderError::cannot_read(kit::chain(&err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use source::GitSpec;

    #[test]
    fn a_device_uses_its_key_for_ssh_and_nothing_of_its_user() {
        let mut own = GitSpec {
            url: "https://git.example.com/fleet".to_owned(),
            reference: source::GitRef::Branch("main".to_owned()),
            auth: GitAuth::Token {
                user: String::new(),
                token: "secret".to_owned(),
            },
            ca: None,
            include: vec![],
            ignore: None,
        };
        let ssh = |own: &GitSpec| of_device(Path::new("/x"), &SourceSpec::Git(own.clone())).ssh;
        assert_eq!(ssh(&own), GitAuth::None);
        own.auth = GitAuth::Ssh {
            key: "/k".into(),
            known_hosts: "/h".into(),
        };
        assert_eq!(ssh(&own), own.auth);
    }
}
