//! The source's folder: one bare shallow repository, and one small file that says what is held.
//!
//! `state.json` is the only pointer and the only file that has to be whole after a power cut. There are no references,
//! the list of shallow commits is derived from the objects before each request, and everything that a cut could
//! leave half-made (locks, temporary packs, a repository not swapped in) is removed at the next opening.

use crate::SourceError;
use crate::error::disk;
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use kit::disk as durable;
use model::Revision;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What `state.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// Number of the repository in use: `git-<number>`.
    pub repository: u64,
    /// The last revision that was fetched whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Revision>,
    /// Other commits whose files have to stay readable.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kept: BTreeSet<String>,
}

/// The folder, locked against a second process.
#[derive(Debug)]
pub(crate) struct Folder {
    pub path: PathBuf,
    pub state: State,
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder and clears what an earlier cut left behind.
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        durable::create_dir_all(path).map_err(disk("create", path))?;
        let lock = lock(path)?;
        let state_path = path.join("state.json");
        let state = match durable::read_if_there(&state_path).map_err(disk("read", &state_path))? {
            // It is written whole or not at all. One that does not parse costs a clone, never the start.
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                tracing::warn!(path = %state_path.display(), %err, "state of the source cannot be read; starting anew");
                State::default()
            }),
            None => State::default(),
        };
        let folder = Self {
            path: path.to_owned(),
            state,
            _lock: lock,
        };
        folder.remove_others().map_err(disk("clean", path))?;
        Ok(folder)
    }

    /// Makes `state` the truth, durably.
    pub(crate) fn commit(&mut self, state: State) -> Result<(), SourceError> {
        let path = self.path.join("state.json");
        let bytes = serde_json::to_vec_pretty(&state).expect("plain data always serialises");
        durable::replace(&path, &bytes).map_err(disk("write", &path))?;
        self.state = state;
        Ok(())
    }

    /// Opens the repository in use; one that is missing or does not open is made anew, empty.
    pub(crate) fn store(&self) -> Result<Store, SourceError> {
        let path = self.repository(self.state.repository);
        if let Ok(store) = Store::open(&path) {
            return Ok(store);
        }
        remove_dir(&path)?;
        Store::create(&path)
    }

    /// Makes an empty repository with the next number; it counts only once [`Folder::commit`] names it.
    pub(crate) fn next_store(&self) -> Result<(u64, Store), SourceError> {
        let number = self.state.repository + 1;
        let path = self.repository(number);
        remove_dir(&path)?;
        Ok((number, Store::create(&path)?))
    }

    /// An empty repository in place of the one in use.
    pub(crate) fn start_over(&mut self) -> Result<Store, SourceError> {
        let (number, store) = self.next_store()?;
        self.commit(State {
            repository: number,
            ..self.state.clone()
        })?;
        self.remove_others().map_err(disk("clean", &self.path))?;
        Ok(store)
    }

    /// Removes every repository but the one in use.
    pub(crate) fn remove_others(&self) -> std::io::Result<()> {
        let keep = format!("git-{}", self.state.repository);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("git-") && name != keep)
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn repository(&self, number: u64) -> PathBuf {
        self.path.join(format!("git-{number}"))
    }
}

fn lock(folder: &Path) -> Result<File, SourceError> {
    let path = folder.join("lock");
    let taken = durable::take(&path).map_err(disk("lock", &path))?;
    taken.ok_or_else(|| SourceError::InUse {
        path: folder.to_owned(),
    })
}

/// One bare repository.
pub(crate) struct Store {
    pub repo: gix::Repository,
}

impl Store {
    fn options() -> gix::open::Options {
        // No configuration of the user or the system, no GIT_* variables; one thread keeps memory small.
        gix::open::Options::isolated().config_overrides(["pack.threads=1", "core.logAllRefUpdates=false"])
    }

    fn open(path: &Path) -> Result<Self, SourceError> {
        let repo = Self::options()
            .open_path_as_is(true)
            .with(gix::sec::Trust::Full)
            .open(path)
            .map_err(|err| disk("open", path)(std::io::Error::other(err.to_string())))?;
        Ok(Self {
            repo: repo.to_thread_local(),
        })
    }

    fn create(path: &Path) -> Result<Self, SourceError> {
        durable::create_dir_all(path).map_err(disk("create", path))?;
        let made = gix::ThreadSafeRepository::init_opts(
            path,
            gix::create::Kind::Bare,
            gix::create::Options {
                object_hash: Some(gix::hash::Kind::Sha1),
                ..Default::default()
            },
            Self::options(),
        );
        let repo = made.map_err(|err| disk("create", path)(std::io::Error::other(err.to_string())))?;
        // Sample hooks: nothing here ever runs one.
        let _ = fs::remove_dir_all(path.join("hooks"));
        Ok(Self {
            repo: repo.to_thread_local(),
        })
    }

    fn path(&self) -> &Path {
        self.repo.git_dir()
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.path().join("objects").join("pack")
    }

    /// The list of commits whose parents are not here.
    pub(crate) fn shallow_file(&self) -> PathBuf {
        self.path().join("shallow")
    }

    /// Removes what a power cut or a killed process may have left.
    pub(crate) fn recover(&self) -> Result<(), SourceError> {
        self.sweep().map_err(disk("clean", self.path()))
    }

    fn sweep(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(self.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|ext| ext == "lock") {
                fs::remove_file(path)?;
            }
        }
        let packs = self.packs();
        if !packs.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(&packs)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // The index is named last: a pack without one was never visible.
            let whole = name.starts_with("pack-")
                && (name.ends_with(".idx")
                    || (name.ends_with(".pack") && path.with_extension("idx").exists()));
            if !whole {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Derives the list of commits whose parents are not here, as far as `tips` lead to them.
    ///
    /// It is told to the server with each request, and has to fit the commits that are told with it: one left out
    /// would promise the server objects that the device does not have.
    pub(crate) fn derive_shallow(&self, tips: &[ObjectId]) -> Result<(), SourceError> {
        let mut seen = HashSet::new();
        let mut todo = tips.to_vec();
        let mut shallow = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            for parent in self.parents(id).unwrap_or_default() {
                if self.has(parent) {
                    todo.push(parent);
                } else {
                    shallow.insert(id);
                }
            }
        }
        let path = self.shallow_file();
        let lines: String = shallow.iter().map(|id| format!("{id}\n")).collect();
        let have = durable::read_if_there(&path)
            .map_err(disk("read", &path))?
            .unwrap_or_default();
        match lines.is_empty() {
            true => durable::remove_if_there(&path).map_err(disk("remove", &path)),
            false if have == lines.as_bytes() => Ok(()),
            false => durable::replace(&path, lines.as_bytes()).map_err(disk("write", &path)),
        }
    }

    /// Whether the object is here.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.repo.has_object(id)
    }

    /// Objects that `commit` leads to and that are not here, `most` at most. Below a missing folder nothing is known.
    pub(crate) fn missing(&self, commit: ObjectId, most: usize) -> Result<Vec<ObjectId>, SourceError> {
        let damaged = |err: &dyn std::error::Error| SourceError::Damaged {
            commit: commit.to_string(),
            why: err.to_string(),
        };
        let object = self.repo.find_object(commit).map_err(|err| damaged(&err))?;
        if object.kind != gix::objs::Kind::Commit {
            return Ok(vec![]);
        }
        let root = object.try_to_commit_ref().map_err(|err| damaged(&err))?.tree();
        let mut seen = HashSet::from([root]);
        let mut todo = vec![root];
        let mut missing = Vec::new();
        while let Some(id) = todo.pop() {
            if missing.len() >= most {
                break;
            }
            let Some(tree) = self.repo.try_find_object(id).map_err(|err| damaged(&err))? else {
                missing.push(id);
                continue;
            };
            let tree = tree.try_into_tree().map_err(|err| damaged(&err))?;
            for entry in tree.decode().map_err(|err| damaged(&err))?.entries {
                let id = entry.oid.to_owned();
                match entry.mode.kind() {
                    EntryKind::Commit => {}
                    _ if !seen.insert(id) => {}
                    EntryKind::Tree => todo.push(id),
                    _ if !self.has(id) => missing.push(id),
                    _ => {}
                }
            }
        }
        missing.truncate(most);
        Ok(missing)
    }

    /// A commit's parents as it names them, here or not; `None` where it cannot be read.
    pub(crate) fn parents(&self, id: ObjectId) -> Option<Vec<ObjectId>> {
        let object = self.repo.try_find_object(id).ok()??;
        let commit = object.try_to_commit_ref().ok()?;
        Some(commit.parents().collect())
    }

    /// The revision that commit `id` is, as reached by `reference`.
    pub(crate) fn revision(&self, id: ObjectId, reference: &str) -> Result<Revision, SourceError> {
        let damaged = |why: String| SourceError::Damaged {
            commit: id.to_string(),
            why,
        };
        let object = self
            .repo
            .find_object(id)
            .map_err(|err| damaged(err.to_string()))?;
        if object.kind != gix::objs::Kind::Commit {
            return Err(SourceError::NotACommit {
                reference: if reference.is_empty() {
                    id.to_string()
                } else {
                    reference.to_owned()
                },
                kind: object.kind.to_string(),
            });
        }
        let commit = object
            .try_to_commit_ref()
            .map_err(|err| damaged(err.to_string()))?;
        let author = commit.author().map_err(|err| damaged(err.to_string()))?;
        let seconds = commit
            .committer()
            .map_err(|err| damaged(err.to_string()))?
            .seconds();
        Ok(Revision {
            reference: reference.to_owned(),
            commit: id.to_string(),
            summary: commit.message().summary().to_string(),
            author: format!("{} <{}>", author.name, author.email),
            committed_at: jiff::Timestamp::from_second(seconds).unwrap_or_default(),
        })
    }

    /// Syncs all that a fetch wrote, so that `state.json` may name it.
    pub(crate) fn sync(&self) -> Result<(), SourceError> {
        let packs = self.packs();
        let sync = || -> std::io::Result<()> {
            for entry in fs::read_dir(&packs)? {
                File::open(entry?.path())?.sync_all()?;
            }
            durable::sync_dir(&packs)?;
            for name in ["config", "HEAD"] {
                File::open(self.path().join(name))?.sync_all()?;
            }
            durable::sync_dir(self.path())
        };
        sync().map_err(disk("sync", &packs))
    }

    /// Number of packs, each left by one fetch.
    pub(crate) fn pack_count(&self) -> usize {
        let is_pack = |path: &Path| path.extension().is_some_and(|ext| ext == "pack");
        fs::read_dir(self.packs()).map_or(0, |dir| {
            dir.flatten().filter(|entry| is_pack(&entry.path())).count()
        })
    }
}

fn remove_dir(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(disk("remove", path)(err)),
        _ => Ok(()),
    }
}
