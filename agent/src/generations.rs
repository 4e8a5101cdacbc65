//! The generations that a device holds, on disk, and which of them counts.
//!
//! `generations/<id>.sealed` holds one rendered generation each, sealed with a key of the device since it holds the
//! secrets in plain; `state.json` beside them is the only pointer.
//! Both are replaced whole, the generation before the pointer, so that a power cut at any byte leaves either the
//! old state or the new one. What no pointer names is removed.

use identity::Seal;
use kit::disk;
use model::{Admission, Desired, GenerationId, Revision};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Starts of the agent during one trial after which the trial counts as failed: a generation that takes the whole
/// device down never gets to its deadline.
const MOST_STARTS_ON_TRIAL: u32 = 4;

/// Why generations cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum GenerationsError {
    /// The disk refuses.
    #[error("{doing} {path}", path = .path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key of the device does not seal.
    #[error("seal a generation")]
    Seal(#[from] identity::KeyError),
}

/// A generation by name, with the revision that it was rendered from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// Content hash.
    pub id: GenerationId,
    /// Newest revision with this content.
    pub revision: Revision,
}

/// A generation that failed, so that it is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Content hash; absent where the revision did not even render.
    pub id: Option<GenerationId>,
    /// Its revision.
    pub revision: Revision,
    /// Why.
    pub reason: String,
    /// Whether it ran before it failed; otherwise it was refused before anything was touched.
    #[serde(default)]
    pub tried: bool,
}

/// The pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    #[serde(default)]
    current: Option<Named>,
    #[serde(default)]
    last_good: Option<Named>,
    /// How often the agent has started since `current` went on trial; absent when it is on none.
    #[serde(default)]
    trial_starts: Option<u32>,
    #[serde(default)]
    failed: Option<Failed>,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    admission: Admission,
}

/// What to do with a freshly rendered generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It runs already.
    Same,
    /// It failed before, with the same content.
    KnownBad,
    /// To be tried.
    New,
}

/// The store of generations.
#[derive(Debug)]
pub struct Generations {
    dir: PathBuf,
    seal: Seal,
    state: State,
}

impl Generations {
    /// Opens the store and counts a start of the agent if a trial is under way.
    ///
    /// # Errors
    /// [`GenerationsError`] where the disk refuses. A damaged pointer or generation is set aside, not an error: the
    /// device then has no current generation and gets one from its source.
    pub fn open(dir: &Path, seal: Seal) -> Result<Self, GenerationsError> {
        disk::create_dir_all(dir).map_err(|err| fault("make folder", dir, err))?;
        let pointer = dir.join("state.json");
        let state = match disk::read_if_there(&pointer).map_err(|err| fault("read", &pointer, err))? {
            None => State::default(),
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                tracing::error!(path = %pointer.display(), %err, "damaged; set aside");
                // Best effort: the bytes are of use to people only.
                let _ = disk::rename(&pointer, &dir.join("state.json.damaged"));
                State::default()
            }),
        };
        let mut store = Self {
            dir: dir.to_owned(),
            seal,
            state,
        };
        if let Some(starts) = store.state.trial_starts {
            store.change(|state| state.trial_starts = Some(starts + 1))?;
        }
        Ok(store)
    }

    /// What the device runs, on trial or not.
    pub fn current(&self) -> Option<&Named> {
        self.state.current.as_ref()
    }

    /// The newest generation that was healthy.
    pub fn last_good(&self) -> Option<&Named> {
        self.state.last_good.as_ref()
    }

    /// The last one that failed.
    pub fn failed(&self) -> Option<&Failed> {
        self.state.failed.as_ref()
    }

    /// Whether `current` is on trial.
    pub fn on_trial(&self) -> bool {
        self.state.trial_starts.is_some()
    }

    /// Whether the trial has outlived too many starts of the agent.
    pub fn trial_is_hopeless(&self) -> bool {
        self.state
            .trial_starts
            .is_some_and(|starts| starts >= MOST_STARTS_ON_TRIAL)
    }

    /// Whether new generations are to wait.
    pub fn paused(&self) -> bool {
        self.state.paused
    }

    /// Which revisions the device may move to.
    pub fn admission(&self) -> &Admission {
        &self.state.admission
    }

    /// What to do with a generation.
    pub fn offer(&self, id: GenerationId) -> Offer {
        let is = |named: Option<&Named>| named.is_some_and(|n| n.id == id);
        if is(self.current()) {
            Offer::Same
        } else if self
            .state
            .failed
            .as_ref()
            .is_some_and(|f| f.tried && f.id == Some(id))
        {
            Offer::KnownBad
        } else {
            Offer::New
        }
    }

    /// Puts a generation on trial: persisted first, then announced by the pointer.
    ///
    /// # Errors
    /// [`GenerationsError`]; the old state is then still in force.
    pub fn adopt(&mut self, desired: &Desired) -> Result<(), GenerationsError> {
        let id = desired.id();
        let path = self.path(id);
        // Serialising plain data to memory cannot fail.
        let bytes = serde_json::to_vec(desired).unwrap_or_default();
        let sealed = self.seal.seal(id.0.hex().as_bytes(), &bytes)?;
        disk::replace(&path, &sealed).map_err(|err| fault("write", &path, err))?;
        let named = Named {
            id,
            revision: desired.revision.clone(),
        };
        self.change(|state| {
            state.current = Some(named);
            state.trial_starts = Some(0);
        })?;
        self.sweep();
        Ok(())
    }

    /// The same content under a newer revision.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn renamed(&mut self, revision: &Revision) -> Result<(), GenerationsError> {
        if self
            .state
            .current
            .as_ref()
            .is_none_or(|named| &named.revision == revision)
        {
            return Ok(());
        }
        self.change(|state| {
            if let Some(named) = &mut state.current {
                named.revision = revision.clone();
                if state.last_good.as_ref().is_some_and(|good| good.id == named.id) {
                    state.last_good = Some(named.clone());
                }
            }
        })
    }

    /// The trial ended well.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn promote(&mut self) -> Result<(), GenerationsError> {
        self.change(|state| {
            state.trial_starts = None;
            state.last_good = state.current.clone();
            state.failed = None;
        })?;
        self.sweep();
        Ok(())
    }

    /// The trial failed: back to the last good generation, if there is one. Says whether there was.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn roll_back(&mut self, reason: &str) -> Result<bool, GenerationsError> {
        let mut back = false;
        self.change(|state| {
            let Some(current) = state.current.clone() else {
                return;
            };
            state.trial_starts = None;
            let reason = reason.to_owned();
            state.failed = Some(Failed {
                id: Some(current.id),
                revision: current.revision,
                reason,
                tried: true,
            });
            if let Some(good) = state.last_good.clone() {
                back = true;
                state.current = Some(good);
            }
        })?;
        self.sweep();
        Ok(back)
    }

    /// A revision was refused before it was tried.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn refused(
        &mut self,
        id: Option<GenerationId>,
        revision: &Revision,
        reason: &str,
    ) -> Result<(), GenerationsError> {
        let failed = Failed {
            id,
            revision: revision.clone(),
            reason: reason.to_owned(),
            tried: false,
        };
        if self.state.failed.as_ref() == Some(&failed) {
            return Ok(());
        }
        self.change(|state| state.failed = Some(failed))
    }

    /// Holds or releases new generations.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn pause(&mut self, paused: bool) -> Result<(), GenerationsError> {
        if self.state.paused == paused {
            return Ok(());
        }
        self.change(|state| state.paused = paused)
    }

    /// Moves to what is admitted from now on. Says whether that is new.
    ///
    /// # Errors
    /// [`GenerationsError`].
    pub fn admit(&mut self, admission: Admission) -> Result<bool, GenerationsError> {
        if self.state.admission == admission {
            return Ok(false);
        }
        self.change(|state| state.admission = admission)?;
        Ok(true)
    }

    /// Reads what the device runs. `None` where there is nothing, or where the file is damaged (it is set aside).
    pub fn load_current(&mut self) -> Option<Desired> {
        if let Some(desired) = self.state.current.clone().and_then(|named| self.load(&named)) {
            return Some(desired);
        }
        let good = self
            .state
            .last_good
            .clone()
            .filter(|good| self.state.current.as_ref() != Some(good))?;
        tracing::error!(id = %good.id, "falling back on the last good generation");
        let desired = self.load(&good)?;
        let fallen_back = self.change(|state| {
            state.current = Some(good);
            state.trial_starts = None;
        });
        if let Err(err) = fallen_back {
            tracing::error!(err = kit::chain(&err), "the pointer could not be moved");
        }
        Some(desired)
    }

    /// Reads the last good generation, where it is another one than the current one.
    pub fn load_last_good(&self) -> Option<Desired> {
        let good = self.last_good()?;
        let other = self.current().is_none_or(|current| current.id != good.id);
        other.then(|| self.load(good)).flatten()
    }

    fn load(&self, named: &Named) -> Option<Desired> {
        let path = self.path(named.id);
        let read = std::fs::read(&path)
            .map_err(|err| err.to_string())
            .and_then(|sealed| {
                let bytes = self
                    .seal
                    .open_sealed(named.id.0.hex().as_bytes(), &sealed)
                    .ok_or("it is damaged, or was sealed with another key")?;
                let desired: Desired = serde_json::from_slice(&bytes).map_err(|err| err.to_string())?;
                if desired.id() == named.id {
                    Ok(desired)
                } else {
                    Err("its content is not what its name says".to_owned())
                }
            });
        match read {
            Ok(mut desired) => {
                desired.revision = named.revision.clone();
                Some(desired)
            }
            Err(err) => {
                tracing::error!(path = %path.display(), err, "a generation cannot be used");
                None
            }
        }
    }

    fn path(&self, id: GenerationId) -> PathBuf {
        self.dir.join(format!("{}.sealed", id.0.hex()))
    }

    fn change(&mut self, edit: impl FnOnce(&mut State)) -> Result<(), GenerationsError> {
        let mut next = self.state.clone();
        edit(&mut next);
        let path = self.dir.join("state.json");
        // Serialising plain data to memory cannot fail.
        let bytes = serde_json::to_vec_pretty(&next).unwrap_or_default();
        disk::replace(&path, &bytes).map_err(|err| fault("write", &path, err))?;
        self.state = next;
        Ok(())
    }

    /// Removes generations that no pointer names. A failure leaves a file behind, nothing more.
    fn sweep(&self) {
        let kept: Vec<PathBuf> = [self.current(), self.last_good()]
            .into_iter()
            .flatten()
            .map(|named| self.path(named.id))
            .collect();
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let generation = path.extension().is_some_and(|e| e == "sealed");
            if generation && !kept.contains(&path) {
                let _ = disk::remove_if_there(&path);
            }
        }
    }
}

fn fault(doing: &'static str, path: &Path, source: std::io::Error) -> GenerationsError {
    GenerationsError::Disk {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Object;
    use serde_json::json;
    use std::sync::LazyLock;

    fn revision(commit: &str) -> Revision {
        Revision {
            reference: "main".to_owned(),
            commit: commit.to_owned(),
            summary: String::new(),
            author: String::new(),
            committed_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn desired(name: &str) -> Desired {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        Desired {
            revision: revision(name),
            path: String::new(),
            objects: vec![Object::new(object).unwrap()],
            kustomizations: Vec::new(),
            origins: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// One key for all, made in a folder that is gone: what is tried here is the disk of the generations.
    static SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::open(tempfile::tempdir().unwrap().path()).unwrap());

    fn open(dir: &Path) -> Result<Generations, GenerationsError> {
        Generations::open(dir, SEAL.clone())
    }

    #[test]
    fn no_secret_is_readable_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut desired = desired("one");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "camera"},
            "stringData": {"password": "hunter2"}});
        desired.objects.push(Object::new(secret).unwrap());
        let mut store =
            Generations::open(&dir.path().join("g"), Seal::open(&dir.path().join("k")).unwrap()).unwrap();
        store.adopt(&desired).unwrap();
        store.promote().unwrap();
        for (path, bytes) in snapshot(&dir.path().join("g")) {
            let told = bytes
                .windows(7)
                .any(|part| part == b"hunter2" || part == b"camera\"");
            assert!(!told, "{}", path.display());
        }
        assert_eq!(store.load_current().unwrap().objects, desired.objects);
        // Another device's key does not open them.
        let other = Seal::open(&dir.path().join("other")).unwrap();
        assert!(
            Generations::open(&dir.path().join("g"), other)
                .unwrap()
                .load_current()
                .is_none()
        );
    }

    #[test]
    fn a_failed_trial_goes_back_to_the_last_good_one_and_is_not_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("generations");
        let mut store = open(&dir).unwrap();
        store.adopt(&desired("one")).unwrap();
        store.promote().unwrap();
        store.adopt(&desired("two")).unwrap();
        assert!(store.roll_back("never ready").unwrap());
        let mut store = open(&dir).unwrap();
        assert_eq!(store.load_current().unwrap().objects, desired("one").objects);
        assert_eq!(store.offer(desired("two").id()), Offer::KnownBad);
        assert_eq!(store.offer(desired("three").id()), Offer::New);
        assert!(!store.on_trial());
    }

    #[test]
    fn a_trial_that_takes_the_device_down_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("generations");
        let mut store = open(&dir).unwrap();
        store.adopt(&desired("one")).unwrap();
        for _ in 0..MOST_STARTS_ON_TRIAL {
            assert!(!store.trial_is_hopeless());
            store = open(&dir).unwrap();
        }
        assert!(store.trial_is_hopeless());
    }

    /// F5, F6: whatever byte the power cut comes at, the device holds the old generation or the new one, whole.
    #[test]
    fn a_power_cut_at_any_byte_leaves_the_old_or_the_new_generation() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("generations");
        let mut store = open(&dir).unwrap();
        store.adopt(&desired("one")).unwrap();
        store.promote().unwrap();
        let before: Vec<(PathBuf, Vec<u8>)> = snapshot(&dir);
        store.adopt(&desired("two")).unwrap();
        let after = snapshot(&dir);
        let new_generation = store.path(desired("two").id());
        let whole = std::fs::read(&new_generation).unwrap();
        let pointer = std::fs::read(dir.join("state.json")).unwrap();

        // `replace` writes a temporary file, syncs and renames: a cut leaves a prefix of the temporary file.
        for cut in 0..=whole.len() {
            restore(&dir, &before);
            std::fs::write(new_generation.with_file_name("x.sealed.tmp"), &whole[..cut]).unwrap();
            reopen_holds(&dir, "one");
        }
        for cut in 0..=pointer.len() {
            restore(&dir, &before);
            std::fs::write(&new_generation, &whole).unwrap();
            std::fs::write(dir.join("state.json.tmp"), &pointer[..cut]).unwrap();
            reopen_holds(&dir, "one");
        }
        // A file that lost its tail all the same (a disk that lies about syncing) costs the generation, not the device.
        for cut in 0..whole.len() {
            restore(&dir, &after);
            std::fs::write(&new_generation, &whole[..cut]).unwrap();
            reopen_holds(&dir, "one");
        }
        restore(&dir, &after);
        reopen_holds(&dir, "two");
    }

    fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    fn restore(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
        std::fs::read_dir(dir)
            .unwrap()
            .for_each(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap());
        files
            .iter()
            .for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }

    #[track_caller]
    fn reopen_holds(dir: &Path, name: &str) {
        let mut store = open(dir).unwrap();
        assert_eq!(
            store.load_current().map(|d| d.objects),
            Some(desired(name).objects)
        );
        store.adopt(&desired("next")).unwrap();
    }
}
