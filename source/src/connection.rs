//! One connection to a server, on which references are listed and packs received.

use crate::repository::Store;
use crate::transport::{Way, Wire, connect};
use crate::{Limits, SourceError};
use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::odb::pack;
use gix::progress::Discard;
use gix::protocol::fetch::{Arguments, Context, Negotiate, Options, Response, Shallow, Tags, negotiate};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::{Protocol, Service};
use gix::protocol::{Handshake, LsRefsCommand, SendFlushOnDrop};
use std::cell::Cell;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A reference at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Full name.
    pub name: String,
    /// What it holds; an annotated tag is an object of its own.
    pub target: ObjectId,
    /// The commit that it leads to.
    pub commit: ObjectId,
}

/// What is to be received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull<'p> {
    /// Objects to receive, with all that they lead to.
    pub wants: &'p [ObjectId],
    /// Commits that the store has whole, so that what they lead to is left out.
    pub haves: &'p [ObjectId],
    /// For commits: how many from each one back.
    pub depth: Option<u32>,
    /// Whether what came before a connection broke is kept. Only where nothing is promised to be whole by `haves`.
    pub salvage: bool,
}

/// A connection to a server that has told what it can do.
pub(crate) struct Connection<'a> {
    wire: &'a Wire<'a>,
    transport: SendFlushOnDrop<Box<dyn Transport + 'a>>,
    handshake: Handshake,
}

impl<'a> Connection<'a> {
    pub(crate) fn open(way: Way<'a>, wire: &'a Wire<'a>) -> Result<Self, SourceError> {
        let mut transport = SendFlushOnDrop::new(connect(way, wire)?, false);
        // The transports send credentials by themselves; there is nobody to ask for others.
        let nobody = |_| Ok(None);
        let service = Service::UploadPack;
        let handshake =
            gix::protocol::handshake(&mut transport.inner, service, nobody, Vec::new(), &mut Discard)
                .map_err(|err| wire.explain(&err))?;
        Ok(Self {
            wire,
            transport,
            handshake,
        })
    }

    /// Whether another pack may be received. Over HTTP each command of protocol version 2 has a process of its own at
    /// the server. Elsewhere one process would serve them all, and `git upload-pack` does not forget what the first
    /// told it of shallow commits. Before version 2 a connection ends with its first pack.
    fn can_receive_more(&self) -> bool {
        let one_process = self
            .transport
            .inner
            .connection_persists_across_multiple_requests();
        self.handshake.server_protocol_version == Protocol::V2 && !one_process
    }

    /// Whether [`Connection::list`] has something to answer from: before protocol version 2 references are listed
    /// once, at the start.
    fn can_list(&self) -> bool {
        self.handshake.server_protocol_version == Protocol::V2 || self.handshake.refs.is_some()
    }

    /// The references whose names begin with one of `prefixes`.
    pub(crate) fn list(&mut self, prefixes: &[String]) -> Result<Vec<Found>, SourceError> {
        let refs = match self.handshake.refs.take() {
            Some(refs) => refs,
            None => {
                let mut asked = RefPrefixes::new();
                asked.extend(prefixes.iter().map(|prefix| prefix.as_str().into()));
                let prefixes = asked;
                LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent())
                    .invoke_blocking(&mut self.transport.inner, &mut Discard, false)
                    .map_err(|err| self.wire.explain(&err))?
            }
        };
        Ok(refs
            .iter()
            .filter_map(found)
            .filter(|found| {
                prefixes
                    .iter()
                    .any(|prefix| found.name.starts_with(prefix.as_str()))
            })
            .collect())
    }

    /// Receives a pack into `store`. On an error what the store had is untouched.
    pub(crate) fn receive(&mut self, store: &Store, pull: Pull<'_>) -> Result<(), SourceError> {
        store.derive_shallow(pull.haves)?;
        let folder = store.packs();
        let depth = pull.depth.and_then(NonZeroU32::new);
        let shallow = depth.map_or(Shallow::NoChange, Shallow::DepthAtRemote);
        let options = Options {
            shallow_file: store.shallow_file(),
            shallow: &shallow,
            tags: Tags::None,
            reject_shallow_remote: false,
        };
        let context = Context {
            handshake: &mut self.handshake,
            transport: &mut self.transport.inner,
            user_agent: agent(),
            trace_packetlines: false,
        };
        // gix looks at this flag between steps; the transports look at the caller's.
        let never = AtomicBool::new(false);
        let wire = self.wire;
        let unreadable = Cell::new(false);
        let write = |reader: &mut dyn std::io::BufRead,
                     progress: &mut dyn gix::DynNestedProgress,
                     stop: &AtomicBool| {
            let options = write_options(pull.salvage, wire.limits);
            write(store, &folder, reader, progress, stop, options).inspect_err(|_| unreadable.set(true))?;
            // What was salvaged of a broken connection is no success.
            wire.broken().map_or(Ok(true), Err)
        };
        gix::protocol::fetch(&mut Ask(pull), write, Discard, &never, context, options)
            .map(drop)
            .map_err(|err| match self.wire.explain(&err) {
                // It came whole, but does not fit what the store has: a delta's base is missing or damaged.
                SourceError::Server { why, .. } if unreadable.get() => SourceError::Damaged {
                    commit: pull.wants.first().map(ToString::to_string).unwrap_or_default(),
                    why,
                },
                explained => explained,
            })
    }
}

fn agent() -> (&'static str, Option<String>) {
    (
        "agent",
        Some(concat!("git/leeward-", env!("CARGO_PKG_VERSION")).to_owned()),
    )
}

fn found(found: &Ref) -> Option<Found> {
    let (name, target, peeled) = found.unpack();
    let target = target?.to_owned();
    let commit = peeled.map_or(target, ToOwned::to_owned);
    Some(Found {
        name: name.to_str_lossy().into_owned(),
        target,
        commit,
    })
}

fn write_options(salvage: bool, limits: &Limits) -> pack::bundle::write::Options {
    use pack::data::input::Mode;
    pack::bundle::write::Options {
        thread_limit: Some(1),
        iteration_mode: if salvage { Mode::Restore } else { Mode::Verify },
        // A few bytes may claim to unpack into any size.
        alloc_limit_bytes: Some(usize::try_from(limits.object).unwrap_or(usize::MAX)),
        ..Default::default()
    }
}

fn write(
    store: &Store,
    folder: &Path,
    reader: &mut dyn std::io::BufRead,
    progress: &mut dyn gix::DynNestedProgress,
    stop: &AtomicBool,
    options: pack::bundle::write::Options,
) -> gix::Result<()> {
    let bases = Some(Box::new(store.repo.objects.clone()));
    let sha1 = gix::hash::Kind::Sha1;
    let outcome =
        pack::Bundle::write_to_directory(reader, Some(folder), progress, stop, bases, sha1, options)?;
    if let Some(keep) = outcome.keep_path {
        std::fs::remove_file(&keep).map_err(gix::Error::from_error)?;
    }
    Ok(())
}

/// Says what is wanted and what is had, once: a device has few commits, and knows which.
struct Ask<'p>(Pull<'p>);

impl Negotiate for Ask<'_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<negotiate::Action> {
        Ok(negotiate::Action::MustNegotiate {
            remote_ref_target_known: Vec::new(),
        })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _known: &[bool]) -> bool {
        self.0.wants.iter().for_each(|id| arguments.want(id));
        !self.0.wants.is_empty()
    }

    fn one_round(
        &mut self,
        _state: &mut negotiate::one_round::State,
        arguments: &mut Arguments,
        _previous: Option<&Response>,
    ) -> gix::Result<(negotiate::Round, bool)> {
        self.0.haves.iter().for_each(|id| arguments.have(id));
        let haves = self.0.haves.len();
        let round = negotiate::Round {
            haves_sent: haves,
            in_vain: 0,
            haves_to_send: haves,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}

/// The way to the server during one fetch: a connection is opened when it is needed, and used again where it can be.
pub(crate) struct Line<'a> {
    pub way: Way<'a>,
    pub wire: &'a Wire<'a>,
    open: Option<Connection<'a>>,
}

impl<'a> Line<'a> {
    pub(crate) fn new(way: Way<'a>, wire: &'a Wire<'a>) -> Self {
        Self {
            way,
            wire,
            open: None,
        }
    }

    /// The references whose names begin with `prefix`.
    pub(crate) fn list(&mut self, prefix: &str) -> Result<Vec<Found>, SourceError> {
        self.list_all(&[prefix.to_owned()])
    }

    /// See [`Connection::list`].
    pub(crate) fn list_all(&mut self, prefixes: &[String]) -> Result<Vec<Found>, SourceError> {
        let mut connection = match self.open.take() {
            Some(connection) if connection.can_list() => connection,
            _ => Connection::open(self.way, self.wire)?,
        };
        let found = connection.list(prefixes)?;
        self.open = Some(connection);
        Ok(found)
    }

    /// See [`Connection::receive`].
    pub(crate) fn receive(&mut self, store: &Store, pull: Pull<'_>) -> Result<(), SourceError> {
        let mut connection = match self.open.take() {
            Some(connection) => connection,
            None => Connection::open(self.way, self.wire)?,
        };
        let received = connection.receive(store, pull);
        if pull.salvage && received.is_err() {
            store.sync()?;
        }
        received?;
        if connection.can_receive_more() {
            self.open = Some(connection);
        }
        Ok(())
    }

    /// Receives `commit` and all its files into a store that has nothing else.
    ///
    /// What an earlier try got before its connection broke is not asked for again: the objects that are still
    /// missing are wanted one by one, which servers give in protocol version 2.
    pub(crate) fn clone_into(
        &mut self,
        store: &Store,
        ask: ObjectId,
        commit: ObjectId,
    ) -> Result<(), SourceError> {
        let all = Pull {
            wants: &[ask],
            haves: &[],
            depth: Some(1),
            salvage: true,
        };
        if !store.has(commit) {
            self.receive(store, all)?;
        }
        let mut before = Vec::new();
        loop {
            let missing = store.missing(commit, MOST_WANTS)?;
            if missing.is_empty() {
                return Ok(());
            }
            if missing == before {
                let why = "the server does not send all that the commit names".to_owned();
                return Err(SourceError::Server {
                    url: self.wire.url.clone(),
                    why,
                });
            }
            match self.receive(
                store,
                Pull {
                    wants: &missing,
                    depth: None,
                    ..all
                },
            ) {
                // One that gives no single objects: from the start, then.
                Err(SourceError::Server { .. }) => self.receive(store, all)?,
                received => received?,
            }
            before = missing;
        }
    }
}

/// Objects wanted in one request, each some 50 bytes of it.
const MOST_WANTS: usize = 2000;
