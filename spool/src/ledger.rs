//! The account of one stream, as arithmetic on its sequence numbers: no disk, no clock.

use crate::record::{Class, Durability};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why records were given up before a receiver had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DropReason {
    /// The class's disk budget was full and the stream may drop its oldest.
    Space,
    /// Older than the stream keeps records.
    Age,
    /// More bytes than the stream may hold.
    Bytes,
    /// Every n-th was kept when the class's room ran short, before any was given up for good.
    Thinned,
    /// The memory for records that are not on disk was full.
    Memory,
    /// All other sinks had it before this sink was named.
    BeforeSink,
    /// Only in memory when the process or the machine died, as the stream's durability allows.
    Crash,
}

/// Where every record ever appended to a stream is, as one sink sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Records appended.
    pub appended: u64,
    /// Acknowledged by the sink.
    pub acked: u64,
    /// Given up by policy, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Refused by the sink for good, and kept apart for people to look at.
    pub set_aside: u64,
    /// Unreadable: the disk did not keep what it had confirmed.
    pub lost: u64,
    /// Still here.
    pub resident: u64,
}

impl Account {
    /// All that was dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether every record is accounted for: `appended = acked + dropped + set aside + lost + resident`.
    pub fn balanced(&self) -> bool {
        self.appended == self.acked + self.dropped_total() + self.set_aside + self.lost + self.resident
    }
}

/// Why sequence numbers have no readable record behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Gap {
    /// Never a durable record: left out after a torn tail, or refused to the producer.
    Unused,
    /// The disk lost it.
    Lost,
    /// Given up.
    Dropped(DropReason),
}

/// Ranges of sequence numbers without records; they never overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Gaps(Vec<(u64, u64, Gap)>);

impl Gaps {
    /// Adds what of `first..=last` is in no range yet; returns those parts.
    pub(crate) fn add(&mut self, first: u64, last: u64, gap: Gap) -> Vec<(u64, u64)> {
        let mut free = Vec::new();
        let mut at = first;
        for (start, end, _) in self
            .0
            .iter()
            .filter(|(start, end, _)| *end >= first && *start <= last)
        {
            if at < *start {
                free.push((at, start - 1));
            }
            at = at.max(end + 1);
        }
        if at <= last {
            free.push((at, last));
        }
        self.0.extend(free.iter().map(|(start, end)| (*start, *end, gap)));
        self.0.sort_by_key(|(start, ..)| *start);
        // Neighbours of one kind are one range, so that a long drop stays one line.
        self.0.dedup_by(|next, held| {
            let joins = held.2 == next.2 && held.1 + 1 == next.0;
            if joins {
                held.1 = next.1;
            }
            joins
        });
        free
    }

    /// The range a number is in.
    pub(crate) fn at(&self, seq: u64) -> Option<(u64, u64, Gap)> {
        let index = self.0.partition_point(|(_, end, _)| *end < seq);
        self.0.get(index).copied().filter(|(start, ..)| *start <= seq)
    }

    /// Ranges cut to `first..=last`.
    pub(crate) fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64, Gap)> + '_ {
        self.0
            .iter()
            .filter(move |(start, end, _)| *end >= first && *start <= last)
            .map(move |(start, end, gap)| ((*start).max(first), (*end).min(last), *gap))
    }

    /// How many numbers of `first..=last` are in any range.
    pub(crate) fn count(&self, first: u64, last: u64) -> u64 {
        self.within(first, last)
            .map(|(start, end, _)| end - start + 1)
            .sum()
    }

    /// Forgets what lies above `last`; returns how many unused numbers that were.
    fn end_at(&mut self, last: u64) -> u64 {
        let mut unused = 0;
        self.0.retain_mut(|(start, end, gap)| {
            let gone = end.saturating_sub(last.max(*start - 1));
            if *gap == Gap::Unused {
                unused += gone;
            }
            *end -= gone;
            start <= end
        });
        unused
    }

    /// Forgets what lies below `seq`; returns how many unused numbers that were.
    fn forget_below(&mut self, seq: u64) -> u64 {
        let mut unused = 0;
        self.0.retain_mut(|(start, end, gap)| {
            let gone = (*end + 1).min(seq).saturating_sub(*start);
            if *gap == Gap::Unused {
                unused += gone;
            }
            *start += gone;
            start <= end
        });
        unused
    }
}

/// One sink's cursor and what it passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sink {
    /// All up to here is settled.
    pub upto: u64,
    acked: u64,
    lost: u64,
    #[serde(default)]
    dropped: BTreeMap<DropReason, u64>,
    set_aside: u64,
    /// Set aside above `upto`.
    #[serde(default)]
    aside: Vec<u64>,
}

/// One stream's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ledger {
    pub name: String,
    pub class: Class,
    pub durability: Durability,
    /// The last number that is durable, or held in memory for a stream that is not strict.
    pub last: u64,
    /// Unused numbers up to `last`.
    unused: u64,
    /// Every sink has settled all up to here.
    pub gone: u64,
    gone_unused: u64,
    pub gaps: Gaps,
    pub sinks: BTreeMap<String, Sink>,
}

impl Ledger {
    pub(crate) fn new(name: &str, class: Class, durability: Durability) -> Self {
        Self {
            name: name.to_owned(),
            class,
            durability,
            last: 0,
            unused: 0,
            gone: 0,
            gone_unused: 0,
            gaps: Gaps::default(),
            sinks: BTreeMap::new(),
        }
    }

    /// Records up to `last` are there now; numbers between the old last and `first` were left out.
    pub(crate) fn extend(&mut self, first: u64, last: u64) {
        if first > self.last + 1 {
            self.leave_out(self.last + 1, first - 1);
        }
        self.last = self.last.max(last);
    }

    /// Ends the account before `first`, of which all later numbers are in memory only, as far as no sink has them.
    pub(crate) fn end_before(&mut self, first: u64) {
        let acked = self.sinks.values().map(|sink| sink.upto).max().unwrap_or(0);
        let last = (first - 1).max(acked);
        if last < self.last {
            self.unused -= self.gaps.end_at(last);
            self.last = last;
        }
    }

    /// Numbers that will never be records.
    pub(crate) fn leave_out(&mut self, first: u64, last: u64) {
        for (start, end) in self.gaps.add(first, last, Gap::Unused) {
            self.unused += end - start + 1;
        }
        self.last = self.last.max(last);
    }

    /// Numbers whose records the disk lost or policy gave up; returns how many that newly are.
    pub(crate) fn give_up(&mut self, first: u64, last: u64, gap: Gap) -> u64 {
        self.last = self.last.max(last);
        let first = first.max(self.gone + 1);
        if first > last {
            return 0;
        }
        let added = self.gaps.add(first, last, gap);
        // A record is counted once: what was set aside and then went is what it is now.
        for sink in self.sinks.values_mut() {
            sink.aside
                .retain(|seq| !added.iter().any(|(start, end)| (start..=end).contains(&seq)));
        }
        added.iter().map(|(start, end)| end - start + 1).sum()
    }

    /// The sink's cursor, for a sink that may be new.
    pub(crate) fn sink(&self, name: &str) -> Sink {
        self.sinks.get(name).cloned().unwrap_or_else(|| {
            let before = self.gone - self.gone_unused;
            Sink {
                upto: self.gone,
                dropped: (before > 0)
                    .then_some((DropReason::BeforeSink, before))
                    .into_iter()
                    .collect(),
                ..Sink::default()
            }
        })
    }

    /// Makes a sink known, so that records wait for it.
    pub(crate) fn attach(&mut self, name: &str) {
        if !self.sinks.contains_key(name) {
            let sink = self.sink(name);
            self.sinks.insert(name.to_owned(), sink);
        }
    }

    /// Moves a cursor on; false if it was there already. `upto` is at most `last`.
    pub(crate) fn ack(&mut self, name: &str, upto: u64) -> bool {
        let mut sink = self.sink(name);
        let known = self.sinks.contains_key(name);
        if upto > sink.upto {
            sink.settle(&self.gaps, upto);
        } else if known {
            return false;
        }
        self.sinks.insert(name.to_owned(), sink);
        self.settle();
        true
    }

    /// Keeps a record apart for a sink; false if the sink has settled it already.
    pub(crate) fn set_aside(&mut self, name: &str, seq: u64) -> bool {
        self.attach(name);
        let Some(sink) = self.sinks.get_mut(name) else {
            return false;
        };
        if seq <= sink.upto || seq > self.last || sink.aside.contains(&seq) || self.gaps.at(seq).is_some() {
            return false;
        }
        sink.aside.push(seq);
        if seq == sink.upto + 1 {
            sink.settle(&self.gaps, seq);
            self.settle();
        }
        true
    }

    /// A sink that is no more: nothing waits for it.
    pub(crate) fn detach(&mut self, name: &str) -> bool {
        let known = self.sinks.remove(name).is_some();
        self.settle();
        known
    }

    /// Moves `gone` up to what all sinks have settled.
    fn settle(&mut self) {
        if let Some(least) = self.sinks.values().map(|sink| sink.upto).min()
            && least > self.gone
        {
            self.gone_unused += self.gaps.forget_below(least + 1);
            self.gone = least;
        }
    }

    /// Numbers up to `seq` that never were records.
    pub(crate) fn unused_upto(&self, seq: u64) -> u64 {
        let above = self.gaps.within(seq + 1, self.last);
        let above: u64 = above
            .filter(|(.., gap)| *gap == Gap::Unused)
            .map(|(start, end, _)| end - start + 1)
            .sum();
        self.unused - above
    }

    /// What became of the records up to a sink's cursor; nothing of them is resident.
    pub(crate) fn settled(&self, name: &str) -> Account {
        let sink = self.sink(name);
        Account {
            appended: sink.upto - self.unused_upto(sink.upto),
            acked: sink.acked,
            dropped: sink.dropped,
            set_aside: sink.set_aside,
            lost: sink.lost,
            resident: 0,
        }
    }

    /// The account for a sink; `stored` is what the index counts of records above the sink's cursor.
    pub(crate) fn account(&self, name: &str, stored: u64) -> Account {
        let sink = self.sink(name);
        let mut account = Account {
            appended: self.last - self.unused,
            acked: sink.acked,
            dropped: sink.dropped,
            set_aside: sink.set_aside + sink.aside.len() as u64,
            lost: sink.lost,
            resident: stored.saturating_sub(sink.aside.len() as u64),
        };
        for (start, end, gap) in self.gaps.within(sink.upto + 1, self.last) {
            match gap {
                Gap::Unused => {}
                Gap::Lost => account.lost += end - start + 1,
                Gap::Dropped(reason) => *account.dropped.entry(reason).or_default() += end - start + 1,
            }
        }
        account
    }
}

impl Sink {
    /// Passes all up to `upto`, each number to its own count.
    fn settle(&mut self, gaps: &Gaps, upto: u64) {
        let mut records = upto - self.upto;
        for (start, end, gap) in gaps.within(self.upto + 1, upto) {
            let count = end - start + 1;
            records -= count;
            match gap {
                Gap::Unused => {}
                Gap::Lost => self.lost += count,
                Gap::Dropped(reason) => *self.dropped.entry(reason).or_default() += count,
            }
        }
        let before = self.aside.len();
        self.aside.retain(|seq| *seq > upto);
        let set_aside = (before - self.aside.len()) as u64;
        self.set_aside += set_aside;
        self.acked += records - set_aside;
        self.upto = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Append(u64),
        Skip(u64),
        Lose(u64, u64),
        Drop(u64, u64),
        Ack(u8, u64),
        Aside(u8, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (1_u64..5).prop_map(Op::Append),
            (1_u64..4).prop_map(Op::Skip),
            (1_u64..60, 0_u64..5).prop_map(|(a, n)| Op::Lose(a, a + n)),
            (1_u64..60, 0_u64..5).prop_map(|(a, n)| Op::Drop(a, a + n)),
            (0_u8..2, 1_u64..60).prop_map(|(s, n)| Op::Ack(s, n)),
            (0_u8..2, 1_u64..60).prop_map(|(s, n)| Op::Aside(s, n)),
        ]
    }

    proptest! {
        /// Against a table with one row per number and sink, which is what the ranges stand for.
        #[test]
        fn ranges_count_what_single_numbers_count(ops in prop::collection::vec(op(), 0..40)) {
            let mut ledger = Ledger::new("s", Class::Normal, Durability::Strict);
            let sinks = ["a", "b"];
            for sink in sinks { ledger.attach(sink); }
            let mut rows: [Vec<&str>; 2] = [vec!["none"], vec!["none"]];
            for op in ops {
                let last = ledger.last;
                match op {
                    Op::Append(n) => {
                        ledger.extend(last + 1, last + n);
                        for row in &mut rows { row.extend((0..n).map(|_| "here")); }
                    }
                    Op::Skip(n) => {
                        ledger.leave_out(last + 1, last + n);
                        for row in &mut rows { row.extend((0..n).map(|_| "unused")); }
                    }
                    Op::Lose(a, b) | Op::Drop(a, b) => {
                        let (gap, word) = match op { Op::Lose(..) => (Gap::Lost, "lost"), _ => (Gap::Dropped(DropReason::Space), "dropped") };
                        let b = b.min(last);
                        if a > b { continue }
                        ledger.give_up(a, b, gap);
                        let settled: Vec<usize> = sinks.iter().map(|s| ledger.sinks[*s].upto as usize).collect();
                        for (row, settled) in rows.iter_mut().zip(settled) {
                            for cell in row.iter_mut().take(b as usize + 1).skip((settled + 1).max(a as usize)) {
                                if *cell == "here" || *cell == "aside" { *cell = word; }
                            }
                        }
                    }
                    Op::Ack(s, n) => {
                        let n = n.min(last);
                        if n == 0 { continue }
                        let from = ledger.sinks[sinks[s as usize]].upto as usize;
                        ledger.ack(sinks[s as usize], n);
                        for cell in rows[s as usize].iter_mut().take(n as usize + 1).skip(from + 1) {
                            if *cell == "here" { *cell = "acked"; }
                        }
                    }
                    Op::Aside(s, n) => {
                        if ledger.set_aside(sinks[s as usize], n) { rows[s as usize][n as usize] = "aside"; }
                    }
                }
                for (sink, row) in sinks.iter().zip(&rows) {
                    let count = |word: &str| row.iter().filter(|cell| **cell == word).count() as u64;
                    let upto = ledger.sinks[*sink].upto;
                    let above = ledger.last - upto - ledger.gaps.count(upto + 1, ledger.last);
                    let account = ledger.account(sink, above);
                    prop_assert_eq!(account.acked, count("acked"));
                    prop_assert_eq!(account.lost, count("lost"));
                    prop_assert_eq!(account.dropped_total(), count("dropped"));
                    prop_assert_eq!(account.appended, ledger.last - count("unused"));
                    prop_assert_eq!(account.set_aside, count("aside"));
                    prop_assert!(account.balanced(), "{:?}", account);
                }
            }
        }
    }
}
