//! One stream: appending, acknowledging, counting. Reading is in `read`.

use crate::block::Item;
use crate::core::{Core, Inner, JUMP, MOST_ITEMS, Queued};
use crate::error::AppendError;
use crate::ledger::{Account, Gap};
use crate::memory;
use crate::notice::Notice;
use crate::pending::{Pending, Ticket};
use crate::record::{Class, Durability};
use crate::retention::{self, Retention};
use crate::spool::check_name;
use bytes::Bytes;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// A handle to a stream of numbered records.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(crate) core: Arc<Core>,
    pub(crate) id: u32,
    pub(crate) class: Class,
    durability: Durability,
    name: Arc<str>,
}

impl Stream {
    pub(crate) fn new(core: Arc<Core>, id: u32, class: Class, durability: Durability, name: &str) -> Self {
        Self {
            core,
            id,
            class,
            durability,
            name: name.into(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it promises.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Appends a record; with a source's position, that becomes durable together with it or not at all.
    ///
    /// The record is kept once the answer has come, and can be read from then on. If it answers with an error, all
    /// records queued behind it are refused too, so that a source can go on from [`crate::Spool::position`].
    ///
    /// # Errors
    /// At once if the record cannot be taken now; later through [`Pending`].
    pub fn append(&self, payload: &[u8], position: Option<(&str, u64)>) -> Result<Pending, AppendError> {
        let options = &self.core.options;
        if payload.len() > options.most_record() {
            return Err(AppendError::TooLarge {
                len: payload.len(),
                most: options.most_record(),
            });
        }
        if let Some((source, _)) = position {
            check_name(source)?;
        }
        let ticket = Arc::new(Ticket::default());
        let mut guard = self.core.lock();
        let inner = &mut *guard;
        if inner.closing {
            return Err(AppendError::Closed);
        }
        let item = Item {
            stream: self.id,
            seq: 0,
            wall: options.clock.now().as_microsecond(),
            boot: u64::try_from(options.clock.since_boot().as_micros()).unwrap_or(u64::MAX),
            payload: Bytes::copy_from_slice(payload),
        };
        let held_position = position.map(|(source, value)| (Arc::from(source), value));
        if self.durability != Durability::Strict {
            return self.append_to_memory(guard, item, held_position);
        }
        let queue = &mut inner.queues[self.class.index()];
        if let Some((error, until)) = &queue.refusing
            && until.is_some_and(|until| Instant::now() < until)
        {
            return Err(error.clone());
        }
        if !queue.items.is_empty()
            && (queue.bytes + payload.len() > options.queue_bytes || queue.items.len() >= MOST_ITEMS)
        {
            return Err(AppendError::Busy { class: self.class });
        }
        let Some(live) = inner.streams.get_mut(&self.id) else {
            return Err(AppendError::Closed);
        };
        live.given += 1;
        let queued = Queued {
            item: Item {
                seq: live.given,
                ..item
            },
            position: held_position,
            ticket: ticket.clone(),
        };
        if let Some((source, value)) = position {
            inner.offered.insert(source.to_owned(), value);
        }
        let before = queue.bytes;
        queue.bytes += queued.cost();
        queue.items.push_back(queued);
        let first = queue.since.is_none() || !queue.awaited;
        queue.since.get_or_insert_with(Instant::now);
        queue.awaited = true;
        // The thread sleeps through what only makes a block fuller.
        let wakes = first || (before < options.block_bytes && queue.bytes >= options.block_bytes);
        drop(guard);
        if wakes {
            self.core.work.notify_all();
        }
        Ok(Pending(ticket))
    }

    fn append_to_memory(
        &self,
        mut guard: MutexGuard<'_, Inner>,
        mut item: Item,
        position: Option<(Arc<str>, u64)>,
    ) -> Result<Pending, AppendError> {
        let inner = &mut *guard;
        let Some(live) = inner.streams.get(&self.id) else {
            return Err(AppendError::Closed);
        };
        item.seq = live.given + 1;
        if self.durability == Durability::Sampled && item.seq > live.memory.reserved {
            inner.checkpoint_now = true;
            inner.changed = true;
            drop(guard);
            self.core.work.notify_all();
            return Err(AppendError::Busy { class: self.class });
        }
        let first = live.memory.held.is_empty();
        let offered = position.clone();
        let pending = memory::append(&self.core, inner, item, position);
        if pending.is_ok()
            && let Some((source, value)) = offered
        {
            inner.offered.insert(source.to_string(), value);
        }
        let wakes = first || inner.checkpoint_now || inner.streams.values().any(|live| live.memory.spill_now);
        drop(guard);
        if wakes {
            self.core.work.notify_all();
        }
        pending
    }

    /// Writes what the stream has in memory to disk soon, whatever its age: before a log file is rotated away, say.
    pub fn spill(&self) {
        let mut inner = self.core.lock();
        if let Some(live) = inner.streams.get_mut(&self.id) {
            live.memory.spill_now = !live.memory.held.is_empty();
        }
        drop(inner);
        self.core.work.notify_all();
    }

    /// Goes on with numbers that were never used, when a replayable source cannot give the same records again: its
    /// file is gone, say. Returns the last number left out.
    pub fn skip_ahead(&self) -> u64 {
        let mut guard = self.core.lock();
        let inner = &mut *guard;
        let (Some(ledger), Some(live)) = (inner.ledgers.get_mut(&self.id), inner.streams.get_mut(&self.id))
        else {
            return 0;
        };
        let last = live.given + JUMP;
        ledger.leave_out(live.given + 1, last);
        live.given = last;
        inner.mark_unsaved();
        last
    }

    /// Sets how long the stream keeps what no receiver has; holds for this life of the process.
    pub fn retain(&self, retention: Retention) {
        let mut inner = self.core.lock();
        if let Some(live) = inner.streams.get_mut(&self.id) {
            live.retention = retention;
        }
        retention::enforce(&self.core, &mut inner, self.class);
        drop(inner);
        self.core.work.notify_all();
    }

    /// Bytes of the class's records that are only in memory.
    pub fn memory_bytes(&self) -> usize {
        self.core.lock().memory_bytes(self.class)
    }

    /// The last number that can be read, 0 at first.
    pub fn last(&self) -> u64 {
        let inner = self.core.lock();
        inner.ledgers.get(&self.id).map_or(0, |ledger| ledger.last)
    }

    /// Makes a sink known: from now on records wait for it. The first acknowledgement does the same.
    pub fn attach(&self, sink: &str) -> Result<(), AppendError> {
        check_name(sink)?;
        let mut inner = self.core.lock();
        if let Some(ledger) = inner.ledgers.get_mut(&self.id)
            && !ledger.sinks.contains_key(sink)
        {
            ledger.attach(sink);
            inner.mark_unsaved();
            drop(inner);
            self.core.work.notify_all();
        }
        Ok(())
    }

    /// Forgets a sink: nothing waits for it any more.
    pub fn detach(&self, sink: &str) {
        let mut inner = self.core.lock();
        if inner
            .ledgers
            .get_mut(&self.id)
            .is_some_and(|ledger| ledger.detach(sink))
        {
            inner.unsaved_acks.remove(&(self.id, sink.to_owned()));
            inner.mark_unsaved();
            inner.release_after(self.class, self.id);
            drop(inner);
            self.core.work.notify_all();
        }
    }

    /// Takes note that the sink has all records up to `upto`. What all sinks have is given back to the disk.
    ///
    /// Written with the next block, or by itself after [`crate::Options::cursor_every`]: after a crash a sink may be
    /// sent records again.
    ///
    /// # Errors
    /// If the sink claims records that the stream does not have: the receiver remembers another life of this spool.
    pub fn ack(&self, sink: &str, upto: u64) -> Result<(), AppendError> {
        check_name(sink)?;
        let mut guard = self.core.lock();
        let inner = &mut *guard;
        let Some(ledger) = inner.ledgers.get_mut(&self.id) else {
            return Err(AppendError::Closed);
        };
        if upto > ledger.last {
            return Err(AppendError::Beyond {
                stream: self.name.to_string(),
                sink: sink.to_owned(),
                upto,
                last: ledger.last,
            });
        }
        let before = ledger.sink(sink).upto;
        let in_memory = ledger.durability == Durability::Sampled
            && ledger.sinks.contains_key(sink)
            && inner
                .streams
                .get(&self.id)
                .and_then(|live| live.memory.first())
                .is_some_and(|first| before + 1 >= first);
        if ledger.ack(sink, upto) {
            inner.forget_settled(self.id);
            inner.changed = true;
            inner.release_after(self.class, self.id);
            // Of records that never were on disk, the disk need not know that they went.
            if in_memory {
                return Ok(());
            }
            inner.unsaved_acks.insert((self.id, sink.to_owned()), upto);
            let first = inner.acks_since.is_none();
            inner.acks_since.get_or_insert_with(Instant::now);
            drop(guard);
            if first {
                self.core.work.notify_all();
            }
        }
        Ok(())
    }

    pub(crate) fn mark_aside(&self, sink: &str, seq: u64, notice: Notice) {
        let mut guard = self.core.lock();
        let inner = &mut *guard;
        if let Some(ledger) = inner.ledgers.get_mut(&self.id)
            && ledger.set_aside(sink, seq)
        {
            inner.tell(Some(notice));
            inner.mark_unsaved();
            inner.forget_settled(self.id);
            inner.release_after(self.class, self.id);
            drop(guard);
            self.core.work.notify_all();
        }
    }

    /// A strict stream of the same class.
    pub(crate) fn beside(&self, name: &str) -> Stream {
        let id = self.core.lock().define(name, self.class, Durability::Strict);
        Self::new(self.core.clone(), id, self.class, Durability::Strict, name)
    }

    /// The last number that the sink has settled.
    pub fn acked(&self, sink: &str) -> u64 {
        let inner = self.core.lock();
        inner
            .ledgers
            .get(&self.id)
            .map_or(0, |ledger| ledger.sink(sink).upto)
    }

    /// Numbers after `after` and before `before` that never were records: left out after a crash, or refused to their
    /// producer. A receiver must not take them for lost.
    pub fn unused(&self, after: u64, before: u64) -> Vec<(u64, u64)> {
        let inner = self.core.lock();
        let Some(ledger) = inner.ledgers.get(&self.id) else {
            return Vec::new();
        };
        let between = ledger.gaps.within(after + 1, before.saturating_sub(1));
        between
            .filter(|(.., gap)| *gap == Gap::Unused)
            .map(|(first, last, _)| (first, last))
            .collect()
    }

    /// Where every record ever appended is, for one sink.
    pub fn account(&self, sink: &str) -> Account {
        let inner = self.core.lock();
        let Some(ledger) = inner.ledgers.get(&self.id) else {
            return Account::default();
        };
        let upto = ledger.sink(sink).upto;
        ledger.account(sink, inner.stored_above(self.id, upto))
    }

    /// Returns once there is a record after `after`.
    pub async fn changed(&self, after: u64) {
        let receiver = {
            let inner = self.core.lock();
            inner.streams.get(&self.id).map(|live| live.last.subscribe())
        };
        let Some(mut receiver) = receiver else { return };
        if receiver.wait_for(|last| *last > after).await.is_err() {
            // The spool is gone; there will be no more records.
            std::future::pending::<()>().await;
        }
    }
}
