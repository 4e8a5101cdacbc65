//! Following a reference: ask what it names, fetch what is missing, tell how history moved.

use crate::ancestry::relate;
use crate::connection::{Line, Pull};
use crate::error::disk;
use crate::repository::{Folder, State, Store};
use crate::resolve::{Want, resolve};
use crate::spec::Address;
use crate::transport::{Session, Way, Wire, tls};
use crate::{GitRef, GitSpec, Limits, SourceError, compact, files};
use gix::ObjectId;
use model::{Moved, Revision, Tree};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a fetch found.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the reference names now; held from here on.
    pub revision: Revision,
    /// Its files; `None` where nothing moved ([`GitSource::load`] reads them again).
    pub tree: Option<Tree>,
    /// How history moved since the revision that was held before.
    ///
    /// `Forward` and `Backward` are only ever said where the commits prove it. Where the relation is not found
    /// within [`Limits::ancestry`] commits, or the server does not give the older history, it is `Rewritten`:
    /// what cannot be shown to build upon the held commit is not taken as such.
    pub moved: Moved,
    /// Bytes of Git's protocol received, all requests together; headers and encryption come on top.
    pub bytes_received: u64,
    /// What people should know, such as a submodule that is left out.
    pub warnings: Vec<String>,
}

/// A commit that is here whole: where, and what was read of it.
struct Got<T> {
    store: Store,
    number: u64,
    read: T,
}

/// One Git repository followed by this device, in a folder of its own.
pub struct GitSource {
    spec: GitSpec,
    address: Address,
    limits: Limits,
    folder: Folder,
    tls: OnceLock<rustls::ClientConfig>,
    /// Set when the store did not read back; the next fetch starts with a new one.
    damaged: AtomicBool,
}

impl std::fmt::Debug for GitSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitSource")
            .field("spec", &self.spec)
            .field("held", &self.folder.state.held)
            .finish()
    }
}

impl GitSource {
    /// Opens or makes the bare shallow repository below `dir`, and clears what a power cut may have left there.
    ///
    /// Nothing is asked of the network. The spec may differ from the one the folder was made with: what is held
    /// stays held until a fetch brings another revision.
    pub fn open(dir: &Path, spec: GitSpec) -> Result<Self, SourceError> {
        let address = spec.check()?;
        let folder = Folder::open(dir)?;
        let source = Self {
            spec,
            address,
            limits: Limits::default(),
            folder,
            tls: OnceLock::new(),
            damaged: AtomicBool::new(false),
        };
        source.folder.store()?.recover()?;
        Ok(source)
    }

    /// With other bounds on time and size.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The last revision that was fetched whole.
    pub fn held(&self) -> Option<&Revision> {
        self.folder.state.held.as_ref()
    }

    /// The address for people.
    pub fn url(&self) -> String {
        self.spec.display_url()
    }

    /// Fetches what the reference names now.
    ///
    /// The references are listed first; where nothing moved, nothing is fetched, and a pinned commit that is
    /// held does not touch the network. On any error, and when `stop` is set, what is held stays as it was.
    pub fn fetch(&mut self, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        let (spec, address, limits) = (self.spec.clone(), self.address.clone(), self.limits.clone());
        let folder = self.folder.path.clone();
        let wire = Wire::new(spec.display_url(), &limits, &folder, stop);
        let session = match &address {
            Address::Http(url) => Some(Session::new(&spec, url, &wire, self.tls()?)?),
            Address::Ssh { .. } | Address::File(_) => None,
        };
        let way = Way {
            spec: &spec,
            address: &address,
            session: session.as_ref(),
        };
        let mut line = Line::new(way, &wire);
        let want = resolve(&spec.reference, &mut line)?;
        let bytes_received = wire.received();
        let before = self.held().cloned();
        if let Some(held) = &before
            && want.tip == held.commit.as_str()
            && held.reference == want.reference
            && !self.damaged.load(Ordering::Relaxed)
            && self.folder.store()?.has(want.tip)
        {
            let (revision, moved) = (held.clone(), Moved::Unchanged);
            return Ok(Fetched {
                revision,
                tree: None,
                moved,
                bytes_received,
                warnings: vec![],
            });
        }
        let whole = self.tips();
        let read = |store: &Store| {
            let revision = store.revision(want.tip, &want.reference)?;
            Ok((
                revision,
                files::read(store, want.tip, &spec.include, spec.ignore.as_deref(), &limits)?,
            ))
        };
        let got = self
            .obtain(&mut line, &want, &whole, read)
            .map_err(|err| no_commit(&spec.reference, err))?;
        let (revision, (tree, warnings)) = got.read;
        let moved = relate(&mut line, &got.store, before.as_ref(), want.tip, &whole)?;
        drop(line);
        self.hold_in(&got.store, got.number, &revision)?;
        self.damaged.store(false, Ordering::Relaxed);
        Ok(Fetched {
            revision,
            tree: Some(tree),
            moved,
            bytes_received: wire.received(),
            warnings,
        })
    }

    /// [`GitSource::fetch`], this once of what another reference names.
    pub(crate) fn fetch_as(&mut self, reference: GitRef, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        let usual = std::mem::replace(&mut self.spec.reference, reference);
        let fetched = self.fetch(stop);
        self.spec.reference = usual;
        fetched
    }

    /// Follows another reference of the same repository from the next fetch on.
    pub(crate) fn follow(&mut self, reference: GitRef) {
        self.spec.reference = reference;
    }

    /// Brings the commit that the reference names here, with all its files, and asks nothing else: neither how
    /// history moved nor what the files are.
    pub(crate) fn bring(&mut self, stop: &AtomicBool) -> Result<Revision, SourceError> {
        let (spec, limits) = (self.spec.clone(), self.limits.clone());
        let address = spec.check()?;
        let folder = self.folder.path.clone();
        let wire = Wire::new(spec.display_url(), &limits, &folder, stop);
        let session = match &address {
            Address::Http(url) => Some(Session::new(&spec, url, &wire, self.tls()?)?),
            Address::Ssh { .. } | Address::File(_) => None,
        };
        let way = Way {
            spec: &spec,
            address: &address,
            session: session.as_ref(),
        };
        let mut line = Line::new(way, &wire);
        let want = resolve(&spec.reference, &mut line)?;
        let whole = self.tips();
        let read = |store: &Store| match store.missing(want.tip, 1)?.first() {
            None => store.revision(want.tip, &want.reference),
            Some(missing) => Err(SourceError::Damaged {
                commit: want.tip.to_string(),
                why: format!("object {missing} is missing"),
            }),
        };
        let got = self
            .obtain(&mut line, &want, &whole, read)
            .map_err(|err| no_commit(&spec.reference, err))?;
        drop(line);
        let revision = got.read;
        self.hold_in(&got.store, got.number, &revision)?;
        self.damaged.store(false, Ordering::Relaxed);
        Ok(revision)
    }

    /// Whether a commit is among those that stay here.
    pub(crate) fn has(&self, commit: &str) -> bool {
        ObjectId::from_hex(commit.as_bytes()).is_ok_and(|id| self.tips().contains(&id))
    }

    /// The store in use, for reading from it.
    pub(crate) fn store(&self) -> Result<Store, SourceError> {
        self.folder.store()
    }

    /// The commits whose files stay readable beside the held one's.
    pub(crate) fn kept(&self) -> &BTreeSet<String> {
        &self.folder.state.kept
    }

    /// The files of `commit` that the source's `include` and `.sourceignore` let through. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        let not_held = || SourceError::NotHeld {
            commit: commit.to_owned(),
        };
        let id = ObjectId::from_hex(commit.as_bytes()).map_err(|_| not_held())?;
        let store = self.folder.store()?;
        let result = match store.has(id) {
            true => files::read(
                &store,
                id,
                &self.spec.include,
                self.spec.ignore.as_deref(),
                &self.limits,
            ),
            false if self.named().contains(&id) => Err(SourceError::Damaged {
                commit: commit.to_owned(),
                why: "its objects are missing".to_owned(),
            }),
            false => Err(not_held()),
        };
        if let Err(SourceError::Damaged { .. }) = &result {
            self.damaged.store(true, Ordering::Relaxed);
        }
        result.map(|(tree, _)| tree)
    }

    /// Makes an earlier revision the held one again, so that the next fetch compares with it: for a caller
    /// that does not accept where the reference moved to.
    pub fn hold(&mut self, revision: &Revision) -> Result<(), SourceError> {
        self.folder.commit(State {
            held: Some(revision.clone()),
            ..self.folder.state.clone()
        })
    }

    /// Keeps the files of these commits readable beside the held one's; what is named no more may be dropped.
    pub fn keep(&mut self, commits: BTreeSet<String>) -> Result<(), SourceError> {
        if commits == self.folder.state.kept {
            return Ok(());
        }
        self.folder.commit(State {
            kept: commits,
            ..self.folder.state.clone()
        })
    }

    /// Brings all objects of the wanted commit here. `whole` are the commits that are here already.
    ///
    /// A store that does not give back what it was sent is replaced, not repaired.
    fn obtain<T>(
        &mut self,
        line: &mut Line<'_>,
        want: &Want,
        whole: &[ObjectId],
        read: impl Fn(&Store) -> Result<T, SourceError>,
    ) -> Result<Got<T>, SourceError> {
        if !self.damaged.load(Ordering::Relaxed) {
            let store = self.folder.store()?;
            // What a broken clone of another commit left is no ground to build upon.
            let stale = whole.is_empty() && store.pack_count() > 0 && !store.has(want.tip);
            if !stale {
                let number = self.folder.state.repository;
                let obtained = obtain_in(line, &store, want, whole).and_then(|()| read(&store));
                match obtained {
                    Err(SourceError::Damaged { why, .. }) => {
                        tracing::warn!(%why, "the source's store cannot be read; fetching it anew");
                    }
                    obtained => {
                        let read = obtained?;
                        return Ok(Got { store, number, read });
                    }
                }
            }
        }
        let (number, store) = if whole.is_empty() {
            // Nothing to lose: what a broken clone gets is found again after a restart.
            (self.folder.state.repository + 1, self.folder.start_over()?)
        } else {
            self.folder.next_store()?
        };
        line.clone_into(&store, want.ask, want.tip)?;
        let read = read(&store)?;
        Ok(Got { store, number, read })
    }

    /// Made once: reading the system's certificates costs more than a whole poll.
    fn tls(&self) -> Result<rustls::ClientConfig, SourceError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let made = tls(&self.spec)?;
        Ok(self.tls.get_or_init(|| made).clone())
    }

    /// Held and kept commits.
    fn named(&self) -> BTreeSet<ObjectId> {
        let state = &self.folder.state;
        let ids = state.held.iter().map(|held| &held.commit).chain(&state.kept);
        ids.filter_map(|id| ObjectId::from_hex(id.as_bytes()).ok())
            .collect()
    }

    /// Those of them that are here.
    fn tips(&self) -> Vec<ObjectId> {
        let Ok(store) = self.folder.store() else {
            return vec![];
        };
        self.named().into_iter().filter(|id| store.has(*id)).collect()
    }

    /// Persists `revision` as the held one, objects before the pointer.
    fn hold_in(&mut self, store: &Store, number: u64, revision: &Revision) -> Result<(), SourceError> {
        store.sync()?;
        let state = State {
            repository: number,
            held: Some(revision.clone()),
            ..self.folder.state.clone()
        };
        self.folder.commit(state)?;
        if store.pack_count() > self.limits.packs {
            let (next, fresh) = self.folder.next_store()?;
            compact::copy(store, &fresh, &self.tips())?;
            fresh.sync()?;
            self.folder.commit(State {
                repository: next,
                ..self.folder.state.clone()
            })?;
        }
        self.folder
            .remove_others()
            .map_err(disk("clean", &self.folder.path))
    }
}

fn obtain_in(line: &mut Line<'_>, store: &Store, want: &Want, whole: &[ObjectId]) -> Result<(), SourceError> {
    if whole.is_empty() {
        return line.clone_into(store, want.ask, want.tip);
    }
    if store.has(want.tip) {
        return Ok(());
    }
    let (wants, depth) = (&[want.ask][..], Some(1));
    let pull = Pull {
        wants,
        haves: whole,
        depth,
        salvage: false,
    };
    line.receive(store, pull)
}

fn no_commit(reference: &GitRef, err: SourceError) -> SourceError {
    match (reference, err) {
        (
            GitRef::Commit(commit) | GitRef::Named(commit),
            SourceError::Server { url, why } | SourceError::Cut { url, why, .. },
        ) if why.contains("not our ref") || why.contains("unadvertised object") => SourceError::NoCommit {
            url,
            commit: commit.clone(),
            why,
        },
        (_, err) => err,
    }
}
