//! Which stream goes next: strict priorities with a floor, turns within a class, live before backlog, and batches that
//! wait to be worth their bytes where bytes are short. No clock, no I/O.

use spool::Class;
use std::time::Duration;

/// Share of what is sent that a class gets while a higher one has something to send.
const FLOOR: f64 = 0.1;
/// Most bytes of one batch.
pub const BATCH: usize = 256 * 1024;
/// Fewest bytes that a batch is cut to: below, headers cost more than they carry.
const LEAST: usize = 4 * 1024;
/// Seconds of the link that one batch may take: so long may a record of a higher class have to wait for it.
const TURN: f64 = 0.5;

/// What a stream could send now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offer {
    /// Its class.
    pub class: Class,
    /// Newest records of a stream whose older ones are still on their way.
    pub live: bool,
    /// Bytes that wait.
    pub bytes: u64,
    /// For how long the stream has had something to send.
    pub waited: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// Send of this offer, so many bytes at most.
    Send {
        /// Its place in the list of offers.
        offer: usize,
        /// At least one record, however long.
        most: usize,
    },
    /// Nothing yet: a batch is worth sending after this time.
    Gather(Duration),
    /// There is nothing.
    Nothing,
}

/// The memory of past turns.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Bytes that a class has earned while higher ones were served.
    earned: [f64; 3],
    /// Per class, which stream had the last turn.
    turn: [usize; 3],
    /// The class that was chosen for its floor.
    owed: Option<Class>,
}

impl Lanes {
    /// Chooses among offers; those without bytes count for nothing. `speed` is what the link carries per second, where
    /// that is bounded or known; `tight` says that a budget bounds it. `may` says which classes may go at all.
    pub fn choose(&mut self, offers: &[Offer], speed: Option<u64>, tight: bool, may: [bool; 3]) -> Choice {
        let mut gather: Option<Duration> = None;
        let mut ready: [Vec<usize>; 3] = Default::default();
        for (index, offer) in offers.iter().enumerate() {
            if offer.bytes == 0 || !may[offer.class as usize] {
                continue;
            }
            let left = window(offer.class, speed.filter(|_| tight)).saturating_sub(offer.waited);
            // What overtakes a backlog goes beside it: nothing is saved by waiting.
            if offer.live || left.is_zero() || offer.bytes >= batch(speed) as u64 {
                ready[offer.class as usize].push(index);
            } else {
                gather = Some(gather.map_or(left, |held| held.min(left)));
            }
        }
        for class in Class::ALL {
            if ready[class as usize].is_empty() {
                // Nothing is saved up for later: a floor is a share of the present.
                self.earned[class as usize] = 0.0;
            }
        }
        let Some(class) = self.class(&ready) else {
            return gather.map_or(Choice::Nothing, Choice::Gather);
        };
        let offer = self.stream(class, &ready[class as usize], offers);
        Choice::Send {
            offer,
            most: batch(speed),
        }
    }

    /// Takes note of what was sent: classes that had to wait for it earn their floor.
    pub fn sent(&mut self, class: Class, bytes: usize) {
        let served = class as usize;
        for earned in &mut self.earned[served + 1..] {
            *earned += bytes as f64 * FLOOR;
        }
        // A batch may be more than was earned; the rest is worked off before the next.
        if self.owed.take() == Some(class) {
            self.earned[served] -= bytes as f64;
        }
    }

    fn class(&mut self, ready: &[Vec<usize>; 3]) -> Option<Class> {
        let mut waiting = Class::ALL
            .into_iter()
            .filter(|class| !ready[*class as usize].is_empty());
        let first = waiting.next()?;
        // The lowest that has earned a batch; its floor is paid in whole batches.
        let earned = |class: &Class| self.earned[*class as usize] >= LEAST as f64;
        let owed = waiting.rev().find(earned);
        self.owed = owed;
        Some(owed.unwrap_or(first))
    }

    /// Live ones first, each in its turn; so a stream that floods holds up another for one batch at most.
    fn stream(&mut self, class: Class, ready: &[usize], offers: &[Offer]) -> usize {
        let live: Vec<usize> = ready
            .iter()
            .copied()
            .filter(|index| offers[*index].live)
            .collect();
        let among = if live.is_empty() { ready } else { &live };
        let last = self.turn[class as usize];
        let next = among
            .iter()
            .copied()
            .find(|index| *index > last)
            .or_else(|| among.first().copied())
            .unwrap_or_default();
        self.turn[class as usize] = next;
        next
    }
}

/// How many bytes a batch may have at a speed.
fn batch(speed: Option<u64>) -> usize {
    match speed {
        None => BATCH,
        Some(speed) => ((speed as f64 * TURN) as usize).clamp(LEAST, BATCH),
    }
}

/// How long a class's records gather where the budget allows so many bytes a second: several in one batch cost a
/// fraction of their bytes one by one. No budget, no delay.
fn window(class: Class, rate: Option<u64>) -> Duration {
    let Some(rate) = rate else { return Duration::ZERO };
    match class {
        Class::Critical => Duration::ZERO,
        Class::Normal => seconds(16_000.0 / rate.max(1) as f64, 10.0),
        Class::Bulk => seconds(512_000.0 / rate.max(1) as f64, 300.0),
    }
}

fn seconds(seconds: f64, most: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, most))
}

/// How much may be on its way without acknowledgement: about a second of what gets through, so that what is urgent
/// does not stand behind a full pipe, whatever the link.
#[derive(Debug)]
pub struct Pipe {
    rate: f64,
    since: Option<Duration>,
    acked: u64,
    /// Since `since` the pipe was full once: only then is what got through all that can.
    full: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            rate: Self::LEAST,
            since: None,
            acked: 0,
            full: false,
        }
    }
}

impl Pipe {
    const LEAST: f64 = 32.0 * 1024.0;
    const MOST: f64 = 1024.0 * 1024.0;

    /// Bytes that may be under way.
    pub fn most(&self) -> u64 {
        self.rate.clamp(Self::LEAST, Self::MOST) as u64
    }

    /// Bytes per second that get through, as far as is known.
    pub fn goodput(&self) -> u64 {
        self.rate as u64
    }

    /// Takes note that something was handed over; `under_way` bytes are not acknowledged.
    pub fn handed(&mut self, under_way: u64, now: Duration) {
        self.since.get_or_insert(now);
        self.full |= under_way >= self.most();
    }

    /// Takes note that `bytes` were acknowledged; `under_way` are left.
    pub fn acked(&mut self, bytes: u64, under_way: u64, now: Duration) {
        let Some(since) = self.since else { return };
        self.acked += bytes;
        let took = now.saturating_sub(since).as_secs_f64();
        // One round trip says little; a quarter of a second or an emptied pipe is a measure.
        if took < 0.25 && under_way > 0 {
            return;
        }
        let measured = self.acked as f64 / took.max(0.001);
        if measured > self.rate {
            self.rate = measured.min(self.rate * 2.0);
        } else if self.full {
            self.rate = self.rate * 0.7 + measured * 0.3;
        }
        (self.acked, self.full) = (0, false);
        self.since = (under_way > 0).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Allowance, Budget, Now, Policy, Usage};
    use super::*;

    fn offer(class: Class, bytes: u64) -> Offer {
        Offer {
            class,
            live: false,
            bytes,
            waited: Duration::ZERO,
        }
    }

    fn at(millis: u64) -> Now {
        Now {
            since_boot: Duration::from_millis(millis),
            wall: "2026-05-10T12:00:00Z".parse().unwrap(),
        }
    }

    /// Serves offers of which none ever ends; gives the share of bytes of each.
    fn shares(offers: &[Offer], rounds: usize) -> Vec<f64> {
        let mut lanes = Lanes::default();
        let mut served = vec![0_f64; offers.len()];
        for _ in 0..rounds {
            let Choice::Send { offer, most } = lanes.choose(offers, Some(100_000), false, [true; 3]) else {
                panic!("something waits")
            };
            served[offer] += most as f64;
            lanes.sent(offers[offer].class, most);
        }
        let all: f64 = served.iter().sum();
        served.iter().map(|bytes| bytes / all).collect()
    }

    #[test]
    fn higher_classes_go_first_and_each_lower_one_keeps_its_floor() {
        let all = [Class::Critical, Class::Normal, Class::Bulk].map(|class| offer(class, 1 << 30));
        let shares_of_all = shares(&all, 5000);
        assert!((0.78..0.84).contains(&shares_of_all[0]), "{shares_of_all:?}");
        assert!(
            shares_of_all[1..]
                .iter()
                .all(|share| (0.08..0.11).contains(share)),
            "{shares_of_all:?}"
        );
        let two = shares(&all[1..], 5000);
        assert!((0.89..0.92).contains(&two[0]), "{two:?}");
    }

    #[test]
    fn streams_of_a_class_take_turns_and_live_ones_go_before_backlog() {
        let mut offers = [
            offer(Class::Bulk, 1 << 40),
            offer(Class::Bulk, 2000),
            offer(Class::Bulk, 1 << 30),
        ];
        let mut lanes = Lanes::default();
        let mut turns = Vec::new();
        for _ in 0..4 {
            if let Choice::Send { offer, .. } = lanes.choose(&offers, None, false, [true; 3]) {
                turns.push(offer);
            }
        }
        assert_eq!(turns, [1, 2, 0, 1]);
        offers[2].live = true;
        for _ in 0..3 {
            let choice = lanes.choose(&offers, None, false, [true; 3]);
            assert_eq!(
                choice,
                Choice::Send {
                    offer: 2,
                    most: BATCH
                }
            );
        }
    }

    #[test]
    fn batches_gather_only_where_a_budget_is_short() {
        let mut lanes = Lanes::default();
        let one = [offer(Class::Bulk, 100)];
        let mut choose = |offers: &[Offer], rate, tight| lanes.choose(offers, Some(rate), tight, [true; 3]);
        assert!(matches!(choose(&one, 8_000, false), Choice::Send { .. }));
        let Choice::Gather(long) = choose(&one, 8_000, true) else {
            panic!()
        };
        let Choice::Gather(short) = choose(&one, 800_000, true) else {
            panic!()
        };
        assert!(
            long >= Duration::from_secs(60) && short < Duration::from_secs(1),
            "{long:?} {short:?}"
        );
        // A full batch does not wait, and nothing waits for ever.
        assert!(matches!(
            choose(&[offer(Class::Bulk, 5000)], 8_000, true),
            Choice::Send { .. }
        ));
        let waited = [Offer {
            waited: long,
            ..one[0]
        }];
        assert!(matches!(choose(&waited, 8_000, true), Choice::Send { .. }));
        assert!(matches!(
            choose(&[offer(Class::Critical, 1)], 8_000, true),
            Choice::Send { .. }
        ));
        assert_eq!(
            lanes.choose(&one, None, false, [true, true, false]),
            Choice::Nothing
        );
    }

    /// A link of a rate, a budget, and streams that are appended to: all of it in computed time.
    struct World {
        lanes: Lanes,
        pipe: Pipe,
        budget: Budget,
        /// Bytes per second of the link itself.
        link: f64,
        /// What waits, by stream: when each record was appended, and its bytes.
        waiting: Vec<(Class, std::collections::VecDeque<(u64, u64)>)>,
        /// When what was handed over is acknowledged, and its bytes.
        under_way: std::collections::VecDeque<(u64, u64)>,
        free_at: u64,
        delays: Vec<Vec<u64>>,
        sent: u64,
    }

    impl World {
        fn new(rate: Option<u64>, link: f64, classes: &[Class]) -> Self {
            let policy = Policy {
                rate,
                ..Policy::default()
            };
            Self {
                lanes: Lanes::default(),
                pipe: Pipe::default(),
                budget: Budget::new(policy, Usage::default(), at(0)),
                link,
                waiting: classes.iter().map(|class| (*class, Default::default())).collect(),
                under_way: Default::default(),
                free_at: 0,
                delays: vec![Vec::new(); classes.len()],
                sent: 0,
            }
        }

        fn append(&mut self, stream: usize, now: u64, bytes: u64) {
            self.waiting[stream].1.push_back((now, bytes));
        }

        /// One millisecond.
        fn step(&mut self, now: u64) {
            while self.under_way.front().is_some_and(|(done, _)| *done <= now) {
                let (_, bytes) = self.under_way.pop_front().unwrap();
                let left = self.under_way.iter().map(|(_, bytes)| bytes).sum();
                self.pipe.acked(bytes, left, at(now).since_boot);
            }
            loop {
                let under_way: u64 = self.under_way.iter().map(|(_, bytes)| bytes).sum();
                if under_way >= self.pipe.most() {
                    return;
                }
                let may = Class::ALL.map(|class| self.budget.allows(class, 0, at(now)) == Allowance::Go);
                let offers: Vec<Offer> = self
                    .waiting
                    .iter()
                    .map(|(class, queue)| Offer {
                        waited: Duration::from_millis(now - queue.front().map_or(now, |(since, _)| *since)),
                        ..offer(*class, queue.iter().map(|(_, bytes)| bytes).sum())
                    })
                    .collect();
                let rate = self.budget.rate(at(now));
                let speed = rate.unwrap_or(u64::MAX).min(self.pipe.goodput());
                let choice = self.lanes.choose(&offers, Some(speed), rate.is_some(), may);
                let Choice::Send { offer, most } = choice else {
                    return;
                };
                let mut bytes = 0;
                let (class, queue) = &mut self.waiting[offer];
                let mut appended = Vec::new();
                while let Some((since, size)) = queue.front().copied()
                    && (bytes == 0 || bytes + size <= most as u64)
                {
                    queue.pop_front();
                    bytes += size;
                    appended.push(since);
                }
                self.free_at = self.free_at.max(now) + (bytes as f64 / self.link * 1000.0) as u64;
                let done = self.free_at + 40;
                self.delays[offer].extend(appended.into_iter().map(|since| done - since));
                self.under_way.push_back((done, bytes));
                self.lanes.sent(*class, bytes as usize);
                self.pipe.handed(under_way + bytes, at(now).since_boot);
                self.budget.spent(bytes, 0, at(now));
                self.sent += bytes;
            }
        }

        fn worst(&self, stream: usize) -> u64 {
            self.delays[stream].iter().copied().max().unwrap_or(u64::MAX)
        }
    }

    #[test]
    fn a_flood_of_one_stream_leaves_the_latency_of_others_as_it_was() {
        // A link of 1 Mbit/s, no budget; one bulk stream floods it at ten times its rate.
        let classes = [Class::Critical, Class::Normal, Class::Bulk, Class::Bulk];
        let quiet_and_flooded = [false, true].map(|flood| {
            let mut world = World::new(None, 125_000.0, &classes);
            for now in 0..15_000 {
                for stream in 0..3 {
                    if now % 1000 == 250 * stream {
                        world.append(stream as usize, now, 500);
                    }
                }
                if flood {
                    world.append(3, now, 1250);
                }
                world.step(now);
            }
            [world.worst(0), world.worst(1), world.worst(2)]
        });
        let [quiet, flooded] = quiet_and_flooded;
        assert!(quiet.iter().all(|worst| *worst < 100), "{quiet:?}");
        // What is under way already must leave the pipe first: about a second's worth; a stream of the same class has
        // one batch of the flood before it as well.
        assert!(
            flooded[0] < 1_700 && flooded[1] < 1_700 && flooded[2] < 2_500,
            "{flooded:?}"
        );
    }

    #[test]
    fn a_budget_of_nothing_and_then_64_kbit() {
        let mut world = World::new(Some(0), 1e6, &[Class::Critical, Class::Bulk]);
        for now in 0..10_000 {
            world.append(1, now, 20);
            world.step(now);
        }
        world.append(0, 10_000, 300);
        world.step(10_001);
        assert_eq!(world.sent, 0);
        let policy = Policy {
            rate: Some(8_000),
            ..Policy::default()
        };
        world.budget = Budget::new(policy, Usage::default(), at(10_001));
        for now in 10_001..40_001 {
            world.step(now);
        }
        // 30 s at 8,000 bytes and one burst; the one critical record goes at once.
        assert!((190_000..=256_000).contains(&world.sent), "{}", world.sent);
        assert!(world.worst(0) < 100, "{}", world.worst(0));
    }

    #[test]
    fn the_pipe_follows_the_link_and_ignores_what_says_nothing_of_it() {
        let mut pipe = Pipe::default();
        let mut now = Duration::ZERO;
        for _ in 0..20 {
            let most = pipe.most();
            pipe.handed(most, now);
            now += Duration::from_millis(20);
            pipe.acked(most, 0, now);
        }
        assert_eq!(pipe.most(), 1024 * 1024);
        let known = pipe.goodput();
        pipe.handed(100, now);
        now += Duration::from_secs(1);
        pipe.acked(100, 0, now);
        assert_eq!(pipe.goodput(), known);
        for _ in 0..20 {
            let most = pipe.most();
            pipe.handed(most, now);
            now += Duration::from_secs(10);
            pipe.acked(most, 0, now);
        }
        assert!(pipe.most() < 200_000, "{}", pipe.most());
    }
}
