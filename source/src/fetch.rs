//! Following a reference: ask what it names, fetch what is missing, tell how history moved.

use crate::ancestry::{Reach, reaches};
use crate::error::disk;
use crate::range::version_of_tag;
use crate::repository::{Folder, State, Store};
use crate::spec::Address;
use crate::transport::{Session, Wire, chain, connect, tls};
use crate::{GitRef, GitSpec, Limits, Range, SourceError, compact, files};
use gix::ObjectId;
use gix::protocol::handshake::Ref;
use gix::remote::fetch::{Shallow, Tags};
use model::{Moved, Revision, Tree};
use std::collections::BTreeSet;
use std::num::NonZeroU32;
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

/// What is to be fetched: `source` as a refspec's left side.
struct Want {
    source: String,
    /// For [`Revision::reference`]; empty for a commit.
    reference: String,
    tip: ObjectId,
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
        source.folder.store()?.recover(&source.tips())?;
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
        let limits = self.limits.clone();
        let wire = Wire::new(self.spec.display_url(), &limits, stop);
        let session = match &self.address {
            Address::Http(url) => Some(Session::new(&self.spec, url, &wire, self.tls()?)?),
            Address::Ssh { .. } | Address::File(_) => None,
        };
        let mut line = Line {
            spec: &self.spec,
            address: &self.address,
            wire: &wire,
            session: session.as_ref(),
        };
        let store = self.folder.store()?;
        let want = line.resolve(&store)?;
        let fetched = |revision, tree, moved, warnings| Fetched {
            revision,
            tree,
            moved,
            bytes_received: wire.received(),
            warnings,
        };
        let intact = !self.damaged.load(Ordering::Relaxed);
        let before = self.folder.state.held.clone();
        if let Some(held) = &before
            && want.tip == held.commit.as_str()
            && held.reference == want.reference
            && intact
            && store.has(want.tip)
        {
            return Ok(fetched(held.clone(), None, Moved::Unchanged, vec![]));
        }
        let mut store = Some(store).filter(|_| intact);
        if let Some(store) = &store
            && !store.has(want.tip)
            && let Err(err) = line.receive(store, &want.source, 1)
        {
            return Err(self.unknown_commit(&want, err));
        }
        let mut number = self.folder.state.repository;
        // A store that does not give back what it was sent is replaced, not repaired.
        let read = store.as_ref().map(|store| self.read(store, &want));
        let (revision, tree, warnings) = match read {
            Some(Err(SourceError::Damaged { .. })) | None => {
                let (next, fresh) = self.folder.next_store()?;
                line.receive(&fresh, &want.source, 1)
                    .map_err(|err| self.unknown_commit(&want, err))?;
                let read = self.read(&fresh, &want)?;
                (number, store) = (next, Some(fresh));
                read
            }
            Some(read) => read?,
        };
        let store = store.expect("one of the two was read from");
        let moved = line.relate(&store, before.as_ref(), want.tip)?;
        self.hold_in(&store, number, &revision)?;
        self.damaged.store(false, Ordering::Relaxed);
        Ok(fetched(revision, Some(tree), moved, warnings))
    }

    /// The files of `commit` that the source's `include` and `.sourceignore` let through. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        let not_held = || SourceError::NotHeld {
            commit: commit.to_owned(),
        };
        let id = ObjectId::from_hex(commit.as_bytes()).map_err(|_| not_held())?;
        let store = self.folder.store()?;
        let result = match store.has(id) {
            true => files::read(&store, id, &self.spec.include, &self.limits),
            false if self.tips().contains(&id) => Err(SourceError::Damaged {
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
        let state = State {
            held: Some(revision.clone()),
            ..self.folder.state.clone()
        };
        self.folder.commit(state)?;
        self.folder.store()?.set_tips(&self.tips())
    }

    /// Keeps the files of these commits readable beside the held one's; what is named no more may be dropped.
    pub fn keep(&mut self, commits: BTreeSet<String>) -> Result<(), SourceError> {
        if commits == self.folder.state.kept {
            return Ok(());
        }
        self.folder.commit(State {
            kept: commits,
            ..self.folder.state.clone()
        })?;
        self.folder.store()?.set_tips(&self.tips())
    }

    fn read(&self, store: &Store, want: &Want) -> Result<(Revision, Tree, Vec<String>), SourceError> {
        let revision = store.revision(want.tip, &want.reference)?;
        let (tree, warnings) = files::read(store, want.tip, &self.spec.include, &self.limits)?;
        Ok((revision, tree, warnings))
    }

    /// Made once: reading the system's certificates costs more than a whole poll.
    fn tls(&self) -> Result<rustls::ClientConfig, SourceError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let made = tls(&self.spec)?;
        Ok(self.tls.get_or_init(|| made).clone())
    }

    /// Held and kept commits that are here.
    fn tips(&self) -> Vec<ObjectId> {
        let state = &self.folder.state;
        let ids = state.held.iter().map(|held| &held.commit).chain(&state.kept);
        let ids: BTreeSet<_> = ids
            .filter_map(|id| ObjectId::from_hex(id.as_bytes()).ok())
            .collect();
        match self.folder.store() {
            Ok(store) => ids.into_iter().filter(|id| store.has(*id)).collect(),
            Err(_) => vec![],
        }
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
        let tips = self.tips();
        store.recover(&tips)?;
        if store.pack_count() > self.limits.packs {
            let (next, fresh) = self.folder.next_store()?;
            compact::copy(store, &fresh, &tips)?;
            fresh.sync()?;
            fresh.recover(&tips)?;
            self.folder.commit(State {
                repository: next,
                ..self.folder.state.clone()
            })?;
        }
        self.folder
            .remove_others()
            .map_err(disk("clean", &self.folder.path))
    }

    fn unknown_commit(&self, want: &Want, err: SourceError) -> SourceError {
        match (&self.spec.reference, err) {
            (
                GitRef::Commit(commit),
                SourceError::Server { url, why } | SourceError::Cut { url, why, .. },
            ) if why.contains("not our ref") || why.contains("unadvertised object") => {
                debug_assert_eq!(*commit, want.source);
                SourceError::NoCommit {
                    url,
                    commit: commit.clone(),
                    why,
                }
            }
            (_, err) => err,
        }
    }
}

/// The way to the server during one fetch.
struct Line<'a> {
    spec: &'a GitSpec,
    address: &'a Address,
    wire: &'a Wire<'a>,
    session: Option<&'a Session<'a>>,
}

impl Line<'_> {
    /// What the spec's reference names now.
    fn resolve(&self, store: &Store) -> Result<Want, SourceError> {
        let short = |full: &str| {
            let name = full
                .strip_prefix("refs/heads/")
                .or_else(|| full.strip_prefix("refs/tags/"));
            name.unwrap_or(full).to_owned()
        };
        match &self.spec.reference {
            GitRef::Commit(id) => {
                let tip = ObjectId::from_hex(id.as_bytes()).expect("GitSpec::check has seen 40 digits");
                Ok(Want {
                    source: tip.to_string(),
                    reference: String::new(),
                    tip,
                })
            }
            GitRef::Semver(range) => {
                let (full, tip) = self.newest_in(store, range)?;
                Ok(Want {
                    reference: short(&full),
                    source: full,
                    tip,
                })
            }
            GitRef::Branch(name) | GitRef::Tag(name) => {
                let full = self
                    .spec
                    .reference
                    .full_name()
                    .expect("branches and tags have one");
                let found = self
                    .list(store, &full)?
                    .into_iter()
                    .find(|(there, _)| *there == full);
                match found {
                    Some((_, tip)) => Ok(Want {
                        reference: short(&full),
                        source: full,
                        tip,
                    }),
                    None => Err(self.unknown(store, name, &full)),
                }
            }
        }
    }

    fn newest_in(&self, store: &Store, range: &str) -> Result<(String, ObjectId), SourceError> {
        let wanted: Range = range.parse().expect("GitSpec::check has parsed it");
        let tags = self.list(store, "refs/tags/*")?;
        let version = |full: &str| version_of_tag(full.strip_prefix("refs/tags/")?);
        let mut versions: Vec<_> = tags
            .iter()
            .filter_map(|(full, tip)| Some((version(full)?, full, *tip)))
            .collect();
        versions.sort();
        let best = versions
            .iter()
            .rev()
            .find(|(version, ..)| wanted.matches(version));
        match best {
            Some((_, full, tip)) => Ok(((*full).clone(), *tip)),
            None => Err(SourceError::NoVersion {
                url: self.wire.url.clone(),
                range: range.to_owned(),
                tags: tags.len(),
                newest: versions
                    .iter()
                    .rev()
                    .take(5)
                    .map(|(version, ..)| version.to_string())
                    .collect(),
            }),
        }
    }

    fn unknown(&self, store: &Store, name: &str, full: &str) -> SourceError {
        let folder = if full.starts_with("refs/tags/") {
            "refs/tags/"
        } else {
            "refs/heads/"
        };
        // Only a hint: that it cannot be had is not the error to report.
        let there = self.list(store, &format!("{folder}*")).unwrap_or_default();
        let there = there
            .iter()
            .rev()
            .filter_map(|(full, _)| full.strip_prefix(folder));
        SourceError::UnknownReference {
            url: self.wire.url.clone(),
            kind: self.spec.reference.kind(),
            reference: name.to_owned(),
            there: there.take(10).map(str::to_owned).collect(),
        }
    }

    /// The references at the server that match `pattern`, with the commits they lead to.
    fn list(&self, store: &Store, pattern: &str) -> Result<Vec<(String, ObjectId)>, SourceError> {
        let into = if pattern.ends_with('*') {
            "refs/leeward-list/*"
        } else {
            "refs/leeward-list/one"
        };
        let remote = self.remote(store, &format!("+{pattern}:{into}"))?;
        let transport = connect(self.spec, self.address, self.wire, self.session)?;
        let (map, _) = remote
            .to_connection_with_transport(transport)
            .with_credentials(|_| Ok(None))
            .ref_map(gix::progress::Discard, Default::default())
            .map_err(|err| self.wire.explain(&err))?;
        Ok(map.remote_refs.iter().filter_map(name_and_commit).collect())
    }

    /// Receives `depth` commits from `source` back, as a pack that leaves out what the store has.
    fn receive(&self, store: &Store, source: &str, depth: u32) -> Result<(), SourceError> {
        let remote = self.remote(store, &format!("+{source}:refs/leeward/incoming"))?;
        let transport = connect(self.spec, self.address, self.wire, self.session)?;
        let depth = NonZeroU32::new(depth).unwrap_or(NonZeroU32::MIN);
        // gix looks at this flag between steps; the transports look at the caller's.
        let never = AtomicBool::new(false);
        remote
            .to_connection_with_transport(transport)
            .with_credentials(|_| Ok(None))
            .prepare_fetch(gix::progress::Discard, Default::default())
            .and_then(|fetch| {
                fetch
                    .with_shallow(Shallow::DepthAtRemote(depth))
                    .receive(gix::progress::Discard, &never)
            })
            .map(drop)
            .map_err(|err| self.wire.explain(&err))
    }

    fn remote<'r>(&self, store: &'r Store, refspec: &str) -> Result<gix::Remote<'r>, SourceError> {
        let bad = |err: gix::Error| SourceError::BadUrl {
            url: self.wire.url.clone(),
            why: chain(&err),
        };
        // The transport knows where to go; gix only wants some address.
        let remote = store
            .repo
            .remote_at_without_url_rewrite("leeward:/source")
            .map_err(bad)?;
        let remote = remote
            .with_refspecs([refspec], gix::remote::Direction::Fetch)
            .map_err(bad)?;
        Ok(remote.with_fetch_tags(Tags::None))
    }

    /// How history moved from `before` to `tip`; fetches older commits, more each time, until it shows.
    fn relate(
        &mut self,
        store: &Store,
        before: Option<&Revision>,
        tip: ObjectId,
    ) -> Result<Moved, SourceError> {
        let Some(before) = before else {
            return Ok(Moved::First);
        };
        let from = before.commit.clone();
        let Ok(held) = ObjectId::from_hex(from.as_bytes()) else {
            return Ok(Moved::Rewritten { from });
        };
        if held == tip {
            return Ok(Moved::Unchanged);
        }
        let mut depth = 1;
        loop {
            let forward = reaches(store, tip, held);
            let backward = reaches(store, held, tip);
            match (forward, backward) {
                (Reach::Yes, _) => return Ok(Moved::Forward),
                (_, Reach::Yes) => return Ok(Moved::Backward { from }),
                (Reach::No, Reach::No) => return Ok(Moved::Rewritten { from }),
                _ if depth >= self.wire.limits.ancestry => return Ok(Moved::Rewritten { from }),
                _ => {}
            }
            depth = (depth * 8).min(self.wire.limits.ancestry);
            let new_shows = forward == Reach::Unknown && self.deepen(store, tip, depth)?;
            let old_shows = backward == Reach::Unknown && self.deepen(store, held, depth)?;
            if !new_shows && !old_shows {
                return Ok(Moved::Rewritten { from });
            }
        }
    }

    /// Whether the server gave older history; one that refuses (the commit is unreachable there by now) is no error.
    fn deepen(&self, store: &Store, tip: ObjectId, depth: u32) -> Result<bool, SourceError> {
        match self.receive(store, &tip.to_string(), depth) {
            Ok(()) => Ok(true),
            Err(SourceError::Server { .. }) => Ok(false),
            Err(SourceError::Cut { why, .. }) if why.contains("not our ref") => Ok(false),
            Err(err) => Err(err),
        }
    }
}

fn name_and_commit(found: &Ref) -> Option<(String, ObjectId)> {
    let (name, target, peeled) = found.unpack();
    Some((name.to_string(), peeled.or(target)?.to_owned()))
}
