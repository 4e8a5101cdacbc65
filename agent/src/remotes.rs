//! What the renderer asks of other repositories and web servers, answered from the source's cache.

use bytes::Bytes;
use render::{Entry, Files, RenderError, Repository};
use source::{Ask, GitAuth, Lies, Pins, RemoteRepository, RemotesSpec, Snapshot, SourceError, SourceSpec};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Answers for one build.
#[derive(Debug)]
pub struct Remotes(source::Remotes);

impl Remotes {
    /// With what is pinned already; `stop` ends a fetch.
    pub fn new(spec: RemotesSpec, pins: Pins, stop: Arc<AtomicBool>) -> Self {
        Self(source::Remotes::new(spec, pins, stop))
    }

    /// For a person's command: their ssh, and a cache in their home folder.
    pub fn of_user(ask: Ask) -> Self {
        let spec = RemotesSpec {
            dir: user_cache().join("remotes"),
            ask,
            ssh: GitAuth::User,
            own: None,
            patience: Duration::ZERO,
        };
        Self::new(spec, Pins::new(), Arc::default())
    }

    /// What was asked for, and what it meant.
    pub fn pins(&self) -> Pins {
        self.0.pins()
    }

    /// What people should know.
    pub fn notes(&self) -> Vec<String> {
        self.0.notes()
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
        self.0.file(url).map_err(unreachable)
    }

    fn repository(&self, repository: &Repository) -> Result<Rc<dyn Files>, RenderError> {
        let remote = RemoteRepository {
            url: repository.url.clone(),
            reference: repository.reference.clone(),
            timeout: repository.timeout,
            submodules: repository.submodules,
        };
        let snapshot = self.0.repository(&remote).map_err(unreachable)?;
        Ok(Rc::new(Commit(snapshot)))
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
