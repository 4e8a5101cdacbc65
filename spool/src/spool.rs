//! Opening, closing, and what concerns all streams.

use crate::core::Core;
use crate::disk::DiskFile;
use crate::error::{AppendError, OpenError};
use crate::notice::Notice;
use crate::options::Options;
use crate::pending::{Pending, Ticket};
use crate::place::Placed;
use crate::record::{Class, Durability, Stamp};
use crate::recover::{self, Access, Recovered};
use crate::room;
use crate::stream::Stream;
use crate::writer::Writer;
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// The most bytes of a name.
const MOST_NAME: usize = 128;

/// A device's spool. Clones are handles to one spool, which is closed with the last of them.
#[derive(Debug, Clone)]
pub struct Spool {
    pub(crate) core: Arc<Core>,
    owner: Arc<Owner>,
}

/// Ends the I/O thread and gives the lock back.
#[derive(Debug)]
struct Owner {
    core: Arc<Core>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the spool is open.
    _lock: Arc<dyn DiskFile>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut inner = self.core.lock();
        inner.closing = true;
        inner.hurry_since = Some(Instant::now());
        drop(inner);
        self.core.work.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("spool: the I/O thread panicked");
        }
    }
}

impl Spool {
    /// Opens the spool in `dir`, making it if there is none.
    ///
    /// Damage is never an error: what cannot be read is counted and told in [`Recovered`].
    ///
    /// # Errors
    /// If another process has it open, if the file system refuses, or if the options contradict one another.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        options.check()?;
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { action, path, source }
        };
        options.disk.create_dir_all(dir).map_err(io("make folder", dir))?;
        let path = dir.join("lock");
        let lock = options
            .disk
            .open(&path, true)
            .map_err(io("open lock file", &path))?;
        if !lock.try_lock().map_err(io("lock", &path))? {
            return Err(OpenError::InUse { dir: dir.to_owned() });
        }
        let opened = recover::open(dir, &options, Access::Write)?;
        Core::tell(&opened.recovered, dir);
        let mut inner = opened.inner;
        // Saved with whatever is saved next: a boot without a record needs no place.
        inner.boots.begin(options.boot);
        let core = Arc::new(Core::new(dir.to_owned(), options, opened.epoch, inner));
        let mut state = opened.state.expect("opened for writing");
        if core.lock().checkpoint_now {
            core.lock().checkpoint_now = false;
            match room::save(&core, &mut state, false) {
                Ok(()) => {}
                Err(err) if opened.recovered.created => return Err(io("write the saved state in", dir)(err)),
                // The same will be found again at the next start; the workloads' records come first.
                Err(err) => {
                    tracing::error!(error = %err, "spool: what recovery found is not saved yet");
                    core.lock().mark_unsaved();
                }
            }
        }
        if core.options.reserve {
            room::reserve(&core).map_err(io("reserve the budget in", dir))?;
        }
        let writer = Writer {
            core: core.clone(),
            state,
            tails: opened.tails,
            passed_over: [0; 3],
            committed: [None; 3],
            untried: [0; 3],
            poisoned: [None, None, None],
            buffer: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run())
            .map_err(io("start the I/O thread for", dir))?;
        let owner = Owner {
            core: core.clone(),
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        };
        let spool = Self {
            core,
            owner: Arc::new(owner),
        };
        Ok((spool, opened.recovered))
    }

    /// Opens a stream, making it if there is none.
    ///
    /// # Errors
    /// If the name cannot be stored, or if the stream exists with another class or durability.
    pub fn stream(&self, name: &str, durability: Durability, class: Class) -> Result<Stream, OpenError> {
        if !name_fits(name) {
            return Err(OpenError::BadName {
                name: name.to_owned(),
            });
        }
        let mut inner = self.core.lock();
        let id = inner.define(name, class, durability);
        let held = inner
            .ledgers
            .get(&id)
            .map_or((class, durability), |ledger| (ledger.class, ledger.durability));
        if held.0 != class {
            return Err(OpenError::OtherClass {
                name: name.to_owned(),
                held: held.0,
                asked: class,
            });
        }
        if held.1 != durability {
            return Err(OpenError::OtherDurability {
                name: name.to_owned(),
                held: held.1,
                asked: durability,
            });
        }
        let unreserved = durability == Durability::Sampled
            && inner
                .streams
                .get(&id)
                .is_some_and(|live| live.memory.reserved <= live.given);
        if unreserved {
            inner.changed = true;
        }
        drop(inner);
        if unreserved {
            // Numbers that a receiver sees from memory must never be given out again, whatever happens.
            self.flush().wait().map_err(|err| OpenError::Reserve {
                name: name.to_owned(),
                source: err,
            })?;
        }
        Ok(Stream::new(self.core.clone(), id, class, durability, name))
    }

    /// Names of all streams.
    pub fn streams(&self) -> Vec<String> {
        let inner = self.core.lock();
        inner.ledgers.values().map(|ledger| ledger.name.clone()).collect()
    }

    /// How far a source has been taken in: the position of the last record appended with one. After a crash, that of
    /// the last one that was durable.
    pub fn position(&self, source: &str) -> Option<u64> {
        let inner = self.core.lock();
        inner
            .offered
            .get(source)
            .copied()
            .or_else(|| inner.sources.get(source).map(|(value, _)| *value))
    }

    /// How far a source need not be read again after a crash: up to there its records are on disk, or a receiver has
    /// them, or they were given up.
    pub fn settled(&self, source: &str) -> Option<u64> {
        let inner = self.core.lock();
        inner.sources.get(source).map(|(value, _)| *value)
    }

    /// [`Spool::position`] of every source that is remembered.
    pub fn positions(&self) -> BTreeMap<String, u64> {
        let inner = self.core.lock();
        let kept = inner
            .sources
            .iter()
            .map(|(source, (position, _))| (source.clone(), *position));
        let mut positions: BTreeMap<String, u64> = kept.collect();
        positions.extend(
            inner
                .offered
                .iter()
                .map(|(source, position)| (source.clone(), *position)),
        );
        positions
    }

    /// Identifies this spool's numbering: a new one at each loss of state, so that a number never means two records.
    /// Below 2^52.
    pub fn epoch(&self) -> u64 {
        self.core.epoch
    }

    /// Forgets a source that is no more, so that the saved state does not grow with every pod that ever was.
    pub fn forget(&self, source: &str) {
        let mut inner = self.core.lock();
        inner.offered.remove(source);
        if inner.sources.remove(source).is_some() {
            inner.mark_unsaved();
            drop(inner);
            self.core.work.notify_all();
        }
    }

    /// To be called when the wall clock is known to be right, and again when it was set: dates the records of this
    /// boot, also those from before.
    pub fn clock_is_right(&self) {
        let options = &self.core.options;
        let since_boot = SignedDuration::try_from(options.clock.since_boot()).unwrap_or(SignedDuration::ZERO);
        let mut inner = self.core.lock();
        inner.boots.begin(options.boot);
        if inner.boots.synced(options.boot, options.clock.now(), since_boot) {
            inner.mark_unsaved();
            drop(inner);
            self.core.work.notify_all();
        }
    }

    /// When a record was appended, as far as can be known: a device's clock may have been wrong then.
    pub fn place(&self, stamp: &Stamp) -> Placed {
        self.core.lock().boots.place(stamp)
    }

    /// Keeps a note of what a producer left out before it became a record: every drop is a record itself.
    pub fn left_out(&self, stream: &str, count: u64, unit: &str, reason: &str) {
        self.core.lock().tell(Some(Notice::LeftOut {
            stream: stream.to_owned(),
            count,
            unit: unit.to_owned(),
            reason: reason.to_owned(),
        }));
        self.core.work.notify_all();
    }

    /// Makes everything durable that is in memory: records, cursors, accounts.
    pub fn flush(&self) -> Pending {
        let ticket = Arc::new(Ticket::default());
        let mut inner = self.core.lock();
        if inner.closing {
            ticket.answer(Err(AppendError::Closed));
        } else {
            inner.flushes.push(ticket.clone());
            inner.hurry_since.get_or_insert_with(Instant::now);
        }
        drop(inner);
        self.core.work.notify_all();
        Pending(ticket)
    }

    /// Bytes of the class's files.
    pub fn disk_bytes(&self, class: Class) -> u64 {
        self.core.lock().logs[class.index()].bytes()
    }

    /// Whether this is the last handle: dropping it closes the spool.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.owner) == 1
    }
}

/// Checks the name of a source or a sink.
pub(crate) fn check_name(name: &str) -> Result<(), AppendError> {
    if name_fits(name) {
        return Ok(());
    }
    Err(AppendError::BadName {
        name: name.to_owned(),
    })
}

/// Whether a name can be stored and shown.
fn name_fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= MOST_NAME && !name.chars().any(char::is_control)
}
