//! What kustomizations name by an address: folders of other repositories, and files on web servers.
//!
//! Each is resolved to a commit or to the SHA-256 of its bytes, kept in a folder of its own, and remembered by its
//! address. A pin given beforehand is the answer, and the network is not asked.

use crate::error::disk;
use crate::snapshot::{Snapshot, absolute};
use crate::web::{Answer, Web};
use crate::{GitAuth, GitRef, GitSource, GitSpec, Limits, SourceError};
use bytes::Bytes;
use kit::disk as durable;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What an address meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pin {
    /// Full id of a commit.
    Commit(String),
    /// SHA-256 of a file's bytes, 64 hexadecimal digits.
    Sha256(String),
}

/// By the address as it is written, a repository's with its reference behind a `#`.
pub type Pins = BTreeMap<String, Pin>;

/// Whether the network is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// What an address means now; where it cannot be reached, what it meant the last time.
    Now,
    /// What it meant the last time.
    Never,
}

/// How remotes are fetched.
#[derive(Debug, Clone)]
pub struct RemotesSpec {
    /// Where they are kept.
    pub dir: PathBuf,
    /// Whether the network is asked for what is not pinned.
    pub ask: Ask,
    /// For repositories over ssh.
    pub ssh: GitAuth,
    /// A source whose token and CA count for addresses at its host, too, and for no others.
    pub own: Option<GitSpec>,
    /// Least time that a fetch is given, however little its address grants: a slow link is no error.
    pub patience: Duration,
}

/// A repository, as a kustomization names it.
#[derive(Debug, Clone)]
pub struct RemoteRepository {
    /// As [`GitSpec::url`]; user and password in an `https` address are taken for a token.
    pub url: String,
    /// See [`GitRef::Named`]; the default branch where absent.
    pub reference: Option<String>,
    /// How long fetching may take.
    pub timeout: Duration,
    /// Whether the files of submodules belong to it.
    pub submodules: bool,
}

/// Repositories and files that one build may name.
const MOST: usize = 100;
/// Bytes of a file.
const MOST_BYTES: u64 = 32 << 20;
/// Commits of one repository that stay readable offline.
const KEPT: usize = 16;
/// How deep submodules may lie in one another.
const DEEPEST: usize = 8;

/// A cache of remotes, for one build at a time.
pub struct Remotes {
    spec: RemotesSpec,
    stop: Arc<AtomicBool>,
    /// What is given and what was found, which is what a next build should be given.
    pins: RefCell<Pins>,
    snapshots: RefCell<HashMap<String, Rc<Snapshot>>>,
    used: Cell<usize>,
    /// What people should know.
    notes: RefCell<Vec<String>>,
}

impl std::fmt::Debug for Remotes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remotes")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl Remotes {
    /// With what is pinned already. `stop` ends a fetch.
    pub fn new(spec: RemotesSpec, pins: Pins, stop: Arc<AtomicBool>) -> Self {
        Self {
            spec,
            stop,
            pins: RefCell::new(pins),
            snapshots: RefCell::default(),
            used: Cell::new(0),
            notes: RefCell::default(),
        }
    }

    /// All that was asked for, and what it meant.
    pub fn pins(&self) -> Pins {
        self.pins.borrow().clone()
    }

    /// What people should know: an address that could not be reached, and is taken as it was.
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// The files of a repository.
    pub fn repository(&self, remote: &RemoteRepository) -> Result<Rc<Snapshot>, SourceError> {
        self.repository_in(remote, 0)
    }

    fn repository_in(&self, remote: &RemoteRepository, depth: usize) -> Result<Rc<Snapshot>, SourceError> {
        let reference = remote.reference.as_deref().unwrap_or("HEAD");
        let (auth, url) = self.auth(&remote.url);
        let key = format!("{url}#{reference}");
        let memory = format!("{key}{}", if remote.submodules { "" } else { " alone" });
        if let Some(known) = self.snapshots.borrow().get(&memory) {
            return Ok(Rc::clone(known));
        }
        self.count(&key)?;
        let folder = self.folder("git", &url);
        let last_file = folder.join("references.json");
        let mut source = self.open(&folder.join("store"), &url, auth, remote.timeout)?;
        let mut last: BTreeMap<String, String> = read_json(&last_file)?;
        let pinned = match self.pins.borrow().get(&key) {
            Some(Pin::Commit(commit)) => Some(commit.clone()),
            _ => None,
        };
        let known = pinned.or_else(|| match self.spec.ask {
            Ask::Never => last.get(reference).cloned(),
            Ask::Now => None,
        });
        let commit = match known {
            Some(commit) if source.has(&commit) => commit,
            None if self.spec.ask == Ask::Never => return Err(SourceError::NotCached { url: key }),
            known => {
                source.follow(GitRef::Named(known.unwrap_or_else(|| reference.to_owned())));
                match source.bring(&self.stop) {
                    Ok(revision) => revision.commit,
                    Err(err) => {
                        self.fall_back(&key, err, last.get(reference).filter(|commit| source.has(commit)))?
                    }
                }
            }
        };
        let mut kept: Vec<String> = source
            .kept()
            .iter()
            .filter(|kept| **kept != commit)
            .cloned()
            .collect();
        kept.truncate(KEPT - 1);
        source.keep(kept.into_iter().chain([commit.clone()]).collect::<BTreeSet<_>>())?;
        if last.get(reference) != Some(&commit) {
            last.insert(reference.to_owned(), commit.clone());
            write_json(&last_file, &last)?;
        }
        let limits = self.limits(remote.timeout);
        let mut snapshot = Snapshot::open(source.store()?, &commit, &limits)?;
        // Let go of the folder's lock: a submodule may be the same repository at another commit.
        drop(source);
        self.pins.borrow_mut().insert(key, Pin::Commit(commit));
        if remote.submodules {
            self.add_submodules(&mut snapshot, remote, &url, depth)?;
        }
        let snapshot = Rc::new(snapshot);
        self.snapshots.borrow_mut().insert(memory, Rc::clone(&snapshot));
        Ok(snapshot)
    }

    fn add_submodules(
        &self,
        snapshot: &mut Snapshot,
        remote: &RemoteRepository,
        url: &str,
        depth: usize,
    ) -> Result<(), SourceError> {
        for module in snapshot.submodules()? {
            if depth >= DEEPEST {
                return Err(SourceError::TooMany {
                    what: format!("submodules within one another in {url}"),
                    limit: DEEPEST,
                });
            }
            let inner = RemoteRepository {
                url: absolute(url, &module.url),
                reference: Some(module.commit),
                ..remote.clone()
            };
            snapshot.add(&module.path, self.repository_in(&inner, depth + 1)?);
        }
        Ok(())
    }

    /// The body that an address gives.
    pub fn file(&self, url: &str) -> Result<Bytes, SourceError> {
        let folder = self.folder("http", url);
        let known: Option<Known> = read_json(&folder.join("known.json"))?;
        let stored = |known: &Known| read_stored(&folder, &known.sha256);
        let pinned = match self.pins.borrow().get(url) {
            Some(Pin::Sha256(sum)) => Some(sum.clone()),
            _ => None,
        };
        if let Some(sum) = &pinned
            && let Some(body) = read_stored(&folder, sum)?
        {
            return Ok(body);
        }
        self.count(url)?;
        if self.spec.ask == Ask::Never {
            let body = known.as_ref().map(stored).transpose()?.flatten();
            return body.ok_or_else(|| SourceError::NotCached { url: url.to_owned() });
        }
        let etag = match &known {
            Some(known) if stored(known)?.is_some() => known.etag.as_deref(),
            _ => None,
        };
        let limits = self.limits(self.spec.patience);
        let (token, ca) = self.own_for(url);
        let web = Web::new(url, ca.as_deref(), &limits, &self.stop)?;
        let body = match web.get(url, &token, etag, MOST_BYTES) {
            Ok(Answer::Body { body, etag }) => {
                let sum = hex(&body);
                durable::create_dir_all(&folder).map_err(disk("create", &folder))?;
                let path = folder.join(&sum);
                durable::replace(&path, &body).map_err(disk("write", &path))?;
                write_json(&folder.join("known.json"), &Known { sha256: sum, etag })?;
                body
            }
            Ok(Answer::Unchanged) => {
                let body = known.as_ref().map(stored).transpose()?.flatten();
                body.ok_or_else(|| SourceError::NotCached { url: url.to_owned() })?
            }
            Err(err) if err.is_passing() => match known.as_ref().map(stored).transpose()?.flatten() {
                Some(body) => {
                    self.note_stale(url, &err);
                    body
                }
                None => return Err(err),
            },
            Err(err) => return Err(err),
        };
        let sum = hex(&body);
        if let Some(pinned) = pinned
            && pinned != sum
        {
            return Err(SourceError::Changed {
                url: url.to_owned(),
                pinned,
                found: sum,
            });
        }
        self.pins.borrow_mut().insert(url.to_owned(), Pin::Sha256(sum));
        Ok(body)
    }

    /// The last commit, where a server cannot be reached now.
    fn fall_back(&self, key: &str, err: SourceError, last: Option<&String>) -> Result<String, SourceError> {
        match last {
            Some(commit) if err.is_passing() => {
                self.note_stale(key, &err);
                Ok(commit.clone())
            }
            _ => Err(err),
        }
    }

    fn note_stale(&self, key: &str, err: &SourceError) {
        self.notes.borrow_mut().push(format!(
            "{key} is taken as it was when it could last be reached: {err}"
        ));
    }

    fn count(&self, key: &str) -> Result<(), SourceError> {
        self.used.set(self.used.get() + 1);
        if self.used.get() > MOST {
            return Err(SourceError::TooMany {
                what: format!("remote repositories and files, {key} among them"),
                limit: MOST,
            });
        }
        Ok(())
    }

    /// Opens a store; another build may have it for a while.
    fn open(
        &self,
        dir: &Path,
        url: &str,
        auth: GitAuth,
        timeout: Duration,
    ) -> Result<GitSource, SourceError> {
        let end = Instant::now() + timeout.max(self.spec.patience);
        loop {
            let spec = GitSpec {
                url: url.to_owned(),
                reference: GitRef::Named("HEAD".to_owned()),
                auth: auth.clone(),
                ca: self.own_for(url).1,
                include: vec![],
                ignore: None,
            };
            match GitSource::open(dir, spec) {
                Err(SourceError::InUse { .. }) if Instant::now() < end => {}
                opened => return Ok(opened?.with_limits(self.limits(timeout))),
            }
        }
    }

    fn limits(&self, timeout: Duration) -> Limits {
        Limits {
            total: timeout.max(self.spec.patience),
            ..Limits::default()
        }
    }

    fn folder(&self, kind: &str, address: &str) -> PathBuf {
        self.spec.dir.join(kind).join(&hex(address.as_bytes())[..24])
    }

    /// As whom, and the address without that.
    fn auth(&self, url: &str) -> (GitAuth, String) {
        let Some((scheme, rest)) = url.split_once("://") else {
            let scp = url.contains(':') && !url.starts_with('/');
            return (
                if scp { self.spec.ssh.clone() } else { GitAuth::None },
                url.to_owned(),
            );
        };
        match scheme {
            "ssh" => (self.spec.ssh.clone(), url.to_owned()),
            "http" | "https" => {
                let end = rest.find('/').unwrap_or(rest.len());
                let Some((user, host)) = rest[..end].rsplit_once('@') else {
                    return (self.own_for(url).0, url.to_owned());
                };
                let plain = format!("{scheme}://{host}{}", &rest[end..]);
                match user.split_once(':') {
                    Some((user, token)) => {
                        let (user, token) = (user.to_owned(), token.to_owned());
                        (GitAuth::Token { user, token }, plain)
                    }
                    None => (self.own_for(&plain).0, plain),
                }
            }
            _ => (GitAuth::None, url.to_owned()),
        }
    }

    /// Token and CA for an address.
    fn own_for(&self, url: &str) -> (GitAuth, Option<Vec<u8>>) {
        let origin = |url: &str| reqwest::Url::parse(url).ok().map(|url| url.origin());
        match &self.spec.own {
            Some(own) if url.starts_with("https://") && origin(&own.url) == origin(url) => {
                (own.auth.clone(), own.ca.clone())
            }
            _ => (GitAuth::None, None),
        }
    }
}

/// A file's last state.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

/// A body by its sum; `None` where it is not here, or not what was written.
fn read_stored(folder: &Path, sum: &str) -> Result<Option<Bytes>, SourceError> {
    // The name comes from a file on disk.
    if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let path = folder.join(sum);
    let body = durable::read_if_there(&path).map_err(disk("read", &path))?;
    Ok(body.filter(|body| hex(body) == sum).map(Bytes::from))
}

/// What a small file says; what it says where it is not there or does not parse is the default.
fn read_json<T: Default + for<'de> Deserialize<'de>>(path: &Path) -> Result<T, SourceError> {
    let bytes = durable::read_if_there(path).map_err(disk("read", path))?;
    Ok(bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SourceError> {
    let bytes = serde_json::to_vec_pretty(value).expect("plain data always serialises");
    durable::replace(path, &bytes).map_err(disk("write", path))
}

fn hex(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
