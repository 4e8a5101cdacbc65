//! Records to the hub: one task decides what goes next, over all streams.
//!
//! **Order.** A strict stream goes by number, oldest first. Sampled and replayable ones, and `status`, go newest first
//! where a backlog is long: what is appended from now on overtakes it, marked as [`Records::ahead`], and the backlog
//! follows in what is left. The hub keeps numbers as sets and shows the status of the highest number, so nothing is
//! taken for lost and nothing counts twice.

use super::SINK;
use super::budget::{Allowance, Budget, Now};
use super::lanes::{BATCH, Choice, Lanes, Offer, Pipe};
use crate::report::STATUS;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use kit::Clock;
use spool::{Account, Class, Durability, Record, Stream};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::client::{Closed, Meter, Session};
use wire::frame::{Accounts, Cursor, Records, StreamAccount};

/// A backlog below this goes by number: it is gone before anyone could miss what is newest.
const LONG_BACKLOG: u64 = 64 * 1024;
/// What a record costs beside its payload, about.
const OVERHEAD: u64 = 24;
/// A stream that cannot be read is tried again after this time.
const REST: Duration = Duration::from_secs(5);
/// Accounts are told at most this often while records are on their way, ...
const ACCOUNTS_EVERY: Duration = Duration::from_secs(15);
/// ... and so often while little moves: they cost the link something.
const ACCOUNTS_IDLE: Duration = Duration::from_secs(900);

/// A stream on its way to the hub.
#[derive(Debug)]
struct Line {
    stream: Stream,
    /// All up to here was handed over, or is the hub's already.
    sent: u64,
    /// While a backlog is overtaken: where it ends, and how far what is newer was handed over.
    overtaken: Option<(u64, u64)>,
    /// Last numbers and bytes of what was handed over and is not acknowledged.
    under_way: VecDeque<(u64, u64, bool)>,
    /// Since when there has been something to send.
    since: Option<Duration>,
    /// Nothing is to be tried before.
    rests_until: Duration,
    /// The last number looked at: later ones are news.
    seen: u64,
    /// The hub's cursor makes no sense: nothing is sent.
    wrong: bool,
}

/// What a session sends by.
#[derive(Debug)]
pub struct Sender<'a> {
    session: &'a Session,
    meter: Meter,
    clock: Arc<dyn Clock>,
    epoch: u64,
    lines: Vec<Line>,
    lanes: Lanes,
    pipe: Pipe,
    counted: (u64, u64),
    handed: u64,
    acks: watch::Receiver<BTreeMap<String, Cursor>>,
    ahead: watch::Receiver<BTreeMap<String, u64>>,
    accounts: (Option<Accounts>, Duration),
}

impl<'a> Sender<'a> {
    /// Goes on where the hub stands.
    pub fn new(
        session: &'a Session,
        meter: Meter,
        streams: &[Stream],
        epoch: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let acks = session.acks();
        let lines = {
            let held = acks.borrow();
            let line = |stream: &Stream| Line::new(stream, stored(&held, stream.name(), epoch));
            streams.iter().map(line).collect()
        };
        Self {
            meter,
            clock,
            epoch,
            lines,
            lanes: Lanes::default(),
            pipe: Pipe::default(),
            counted: (0, 0),
            handed: 0,
            ahead: session.ahead(),
            acks,
            session,
            accounts: (None, Duration::ZERO),
        }
    }

    /// Sends for as long as the session takes something.
    pub async fn run(mut self, budget: Arc<Mutex<Budget>>) {
        loop {
            let now = self.now();
            self.take_acks(now.since_boot);
            let next = {
                let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
                self.count(&mut budget, now);
                self.next(&mut budget, now)
            };
            let pause = match next {
                Next::Hand(index, records) => match self.hand(index, records).await {
                    Ok(()) => continue,
                    Err(Closed) => return,
                },
                Next::Tell(accounts) => match self.session.sender().accounts(accounts).await {
                    Ok(()) => continue,
                    Err(Closed) => return,
                },
                Next::Wait(pause) => pause,
            };
            let news = news(&self.lines, now.since_boot);
            tokio::select! {
                moved = self.acks.changed() => if moved.is_err() { return },
                moved = self.ahead.changed() => if moved.is_err() { return },
                () = news => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            since_boot: self.clock.since_boot(),
            wall: self.clock.now(),
        }
    }

    /// What went over the socket since the last look.
    fn count(&mut self, budget: &mut Budget, now: Now) {
        let (sent, received) = (self.meter.sent(), self.meter.received());
        budget.spent(sent - self.counted.0, received - self.counted.1, now);
        self.counted = (sent, received);
    }

    fn under_way(&self) -> u64 {
        let lines = self.lines.iter().flat_map(|line| &line.under_way);
        lines.map(|(_, bytes, _)| bytes).sum()
    }

    fn take_acks(&mut self, now: Duration) {
        let held = self.acks.borrow_and_update().clone();
        let ahead = self.ahead.borrow_and_update().clone();
        let before = self.under_way();
        for line in &mut self.lines {
            let acked = stored(&held, line.stream.name(), self.epoch);
            line.acked(acked, ahead.get(line.stream.name()).copied().unwrap_or(0));
        }
        let left = self.under_way();
        if left < before {
            self.pipe.acked(before - left, left, now);
        }
        if left == 0 {
            // Headers and pings make the socket's count drift away from ours.
            self.handed = self.meter.sent();
        }
    }

    fn next(&mut self, budget: &mut Budget, now: Now) -> Next {
        if let Some(accounts) = self.accounts_to_tell(budget, now) {
            return Next::Tell(accounts);
        }
        let mut pause = ACCOUNTS_IDLE;
        let queued = self
            .handed
            .saturating_sub(self.meter.sent())
            .min(self.under_way());
        let may = Class::ALL.map(|class| match budget.allows(class, queued, now) {
            Allowance::Go => true,
            Allowance::Wait(time) => {
                pause = pause.min(time);
                false
            }
        });
        if self.under_way() >= self.pipe.most() {
            // The next acknowledgement makes room.
            return Next::Wait(ACCOUNTS_EVERY);
        }
        loop {
            let offers = self.offers(now.since_boot);
            let rate = budget.rate(now);
            let speed = match rate {
                Some(rate) => rate.min(self.pipe.goodput()),
                None => self.pipe.goodput(),
            };
            let list: Vec<Offer> = offers.iter().map(|(_, offer)| *offer).collect();
            match self.lanes.choose(&list, Some(speed), rate.is_some(), may) {
                Choice::Send { offer, most } => {
                    let (index, chosen) = offers[offer];
                    let most = most.min(BATCH);
                    if let Some(records) =
                        self.lines[index].take(chosen.live, most, self.epoch, now.since_boot)
                    {
                        return Next::Hand(index, records);
                    }
                }
                Choice::Gather(time) => return Next::Wait(pause.min(time)),
                Choice::Nothing => {
                    let moving = self.under_way() > 0 || list.iter().any(|offer| offer.bytes > 0);
                    return Next::Wait(if moving { pause.min(ACCOUNTS_EVERY) } else { pause });
                }
            }
        }
    }

    fn offers(&mut self, now: Duration) -> Vec<(usize, Offer)> {
        let mut offers = Vec::new();
        for (index, line) in self.lines.iter_mut().enumerate() {
            line.offer(index, now, &mut offers);
        }
        offers
    }

    async fn hand(&mut self, index: usize, records: Records) -> Result<(), Closed> {
        let class = self.lines[index].stream.class();
        let bytes = records
            .records()
            .iter()
            .map(|r| r.len() as u64 + OVERHEAD)
            .sum::<u64>();
        self.lanes
            .sent(class, usize::try_from(bytes).unwrap_or(usize::MAX));
        let last = records.last().max(records.first);
        self.lines[index]
            .under_way
            .push_back((last, bytes, records.ahead));
        self.handed += bytes;
        self.pipe.handed(self.under_way(), self.now().since_boot);
        self.session.sender().records(records).await
    }

    /// Where every record is, when that is worth telling.
    fn accounts_to_tell(&mut self, budget: &mut Budget, now: Now) -> Option<Accounts> {
        let (told, at) = &self.accounts;
        let passed = now.since_boot.saturating_sub(*at);
        if told.is_some() && passed < ACCOUNTS_EVERY {
            return None;
        }
        if budget.allows(Class::Normal, 0, now) != Allowance::Go {
            return None;
        }
        let accounts = self.accounts_now(budget.rate(now));
        // A backlog that melts is worth a line; records that come and go are not.
        let backlog = |accounts: &Accounts| accounts.waiting_bytes >= LONG_BACKLOG;
        let tell = match told {
            None => true,
            Some(told) if backlog(told) || backlog(&accounts) => told.waiting_bytes != accounts.waiting_bytes,
            Some(told) => passed >= ACCOUNTS_IDLE && told.streams != accounts.streams,
        };
        if !tell {
            return None;
        }
        self.accounts = (Some(accounts.clone()), now.since_boot);
        Some(accounts)
    }

    fn accounts_now(&self, rate: Option<u64>) -> Accounts {
        let streams: Vec<StreamAccount> = self.lines.iter().map(|line| account(&line.stream)).collect();
        let waiting_bytes = self.lines.iter().map(|line| line.stream.waiting(SINK).1).sum();
        let speed = rate.map_or(self.pipe.goodput(), |rate| rate.min(self.pipe.goodput()));
        Accounts {
            epoch: self.epoch,
            streams,
            waiting_bytes,
            seconds_left: (waiting_bytes >= LONG_BACKLOG && speed > 0).then(|| waiting_bytes.div_ceil(speed)),
        }
    }
}

fn account(stream: &Stream) -> StreamAccount {
    let Some(held) = stream.sink_figures(SINK) else {
        return StreamAccount {
            stream: stream.name().to_owned(),
            ..StreamAccount::default()
        };
    };
    let gone = |account: &Account| account.dropped_total() + account.set_aside + account.lost;
    let (all, settled) = (gone(&held.account), gone(&held.settled));
    StreamAccount {
        stream: stream.name().to_owned(),
        upto: held.upto,
        acked: held.settled.acked,
        gone: settled,
        unused: held.unused,
        appended: held.account.appended,
        lapsed: all - settled,
        waiting: held.account.resident,
    }
}

/// What the loop does.
enum Next {
    Hand(usize, Records),
    Tell(Accounts),
    Wait(Duration),
}

fn stored(held: &BTreeMap<String, Cursor>, stream: &str, epoch: u64) -> u64 {
    held.get(stream)
        .filter(|cursor| cursor.epoch == epoch)
        .map_or(0, |cursor| cursor.upto)
}

/// Resolves when a stream has something that was not looked at.
async fn news(lines: &[Line], now: Duration) {
    let changes: Vec<_> = lines
        .iter()
        .filter(|line| !line.wrong && line.rests_until <= now)
        .map(|line| line.stream.changed(line.seen).boxed())
        .collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    select_all(changes).await;
}

impl Line {
    fn new(stream: &Stream, stored: u64) -> Self {
        let live_first = stream.durability() != Durability::Strict || stream.name() == STATUS;
        let last = stream.last();
        let long = live_first && last > stored && stream.waiting_after(stored).1 >= LONG_BACKLOG;
        Self {
            stream: stream.clone(),
            sent: stored,
            overtaken: long.then_some((last, last)),
            under_way: VecDeque::new(),
            since: None,
            rests_until: Duration::ZERO,
            seen: last,
            wrong: false,
        }
    }

    fn acked(&mut self, upto: u64, ahead: u64) {
        // A hub that claims more than there is remembers another life of this spool.
        if upto > self.stream.acked(SINK)
            && !self.wrong
            && let Err(err) = self.stream.ack(SINK, upto)
        {
            tracing::error!(
                stream = self.stream.name(),
                err = kit::chain(&err),
                "the hub's cursor makes no sense"
            );
            self.wrong = true;
        }
        self.under_way
            .retain(|(last, _, early)| *last > if *early { ahead.max(upto) } else { upto });
    }

    fn offer(&mut self, index: usize, now: Duration, offers: &mut Vec<(usize, Offer)>) {
        self.seen = self.seen.max(self.stream.last());
        if self.wrong || self.rests_until > now {
            return;
        }
        let waiting = |after: u64| {
            let (records, bytes) = self.stream.waiting_after(after);
            bytes + records * OVERHEAD
        };
        let (backlog, live) = match self.overtaken {
            None => (waiting(self.sent), 0),
            Some((head, live)) => (waiting(self.sent).saturating_sub(waiting(head)), waiting(live)),
        };
        let class = self.stream.class();
        if backlog + live == 0 && self.overtaken.is_none() {
            self.since = None;
            return;
        }
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        let offer = |bytes, live| Offer {
            class,
            live,
            bytes,
            waited,
        };
        if live > 0 {
            offers.push((index, offer(live, true)));
        }
        // The end of a backlog is found by reading, also where all of it is gone.
        let bytes = if self.overtaken.is_some() {
            backlog.max(1)
        } else {
            backlog
        };
        offers.push((index, offer(bytes, false)));
    }

    /// The next batch; `None` where there is nothing to read after all.
    fn take(&mut self, live: bool, most: usize, epoch: u64, now: Duration) -> Option<Records> {
        let (after, head) = match self.overtaken {
            Some((_, position)) if live => (position, u64::MAX),
            Some((head, _)) => (self.sent, head),
            None => (self.sent, u64::MAX),
        };
        let mut records = match self.stream.read(after, most) {
            Ok(records) => records,
            Err(err) => {
                tracing::warn!(
                    stream = self.stream.name(),
                    err = kit::chain(&err),
                    "records cannot be read now"
                );
                self.rests_until = now + REST;
                return None;
            }
        };
        records.retain(|record| record.seq <= head);
        if records.is_empty() {
            return self.nothing(live, head, epoch, now);
        }
        let batch = self.batch(after, &records, epoch, live)?;
        let last = batch.last();
        match &mut self.overtaken {
            Some((_, position)) if live => *position = last,
            Some((head, position)) if last >= *head => {
                self.sent = *position;
                self.overtaken = None;
            }
            _ => self.sent = last,
        }
        if self.overtaken.is_none() && self.stream.last() <= self.sent {
            self.since = None;
        }
        Some(batch)
    }

    /// The end of a backlog whose last records are gone; or a moment's rest, so that damage is no busy loop.
    fn nothing(&mut self, live: bool, head: u64, epoch: u64, now: Duration) -> Option<Records> {
        let Some((_, position)) = self.overtaken.filter(|_| !live) else {
            self.rests_until = now + Duration::from_secs(1);
            return None;
        };
        let first = self.sent + 1;
        self.overtaken = None;
        self.sent = position;
        if first > head {
            return None;
        }
        let mut told = Records::new(self.stream.name(), epoch, head + 1, Vec::new());
        told.unused = self.stream.unused(first - 1, head + 1);
        told.lost = vec![(first, head)];
        Some(told)
    }

    fn batch(&self, after: u64, records: &[Record], epoch: u64, live: bool) -> Option<Records> {
        let first = records.first()?.seq;
        let payloads = records
            .iter()
            .map(|record| Bytes::from(record.payload.clone()))
            .collect();
        let mut batch = Records::new(self.stream.name(), epoch, first, payloads);
        // After a crash numbers are left out; the hub must not count them as lost.
        batch.unused = self.stream.unused(after, first);
        // Where the hub cannot conclude it from its cursor, what lies between is told; what is unused counts as that.
        if live && first > after + 1 {
            batch.lost = vec![(after + 1, first - 1)];
        }
        batch.ahead = live;
        Some(batch)
    }
}
