//! Random use and power cuts against a model that remembers everything.

use super::{number, open, payload, read_all};
use crate::sim::{Faults, SimDisk};
use crate::{Class, Durability, Pending, Spool, Stream};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Op {
    Append { stream: usize, len: usize, wait: bool },
    Ack { stream: usize, back: u64 },
    Flush,
    Reopen,
    Cut(u64),
    FailWrites(u32),
    FailSyncs(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0_usize..4, prop_oneof![8_usize..200, 2000_usize..14_000], any::<bool>())
            .prop_map(|(stream, len, wait)| Op::Append { stream, len, wait }),
        4 => (0_usize..4, 0_u64..6).prop_map(|(stream, back)| Op::Ack { stream, back }),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        2 => any::<u64>().prop_map(Op::Cut),
        1 => (1_u32..3).prop_map(Op::FailWrites),
        1 => (1_u32..3).prop_map(Op::FailSyncs),
    ]
}

/// What one stream must hold.
#[derive(Default)]
struct Expect {
    /// Sequence number to record, for all that were ever confirmed or read.
    known: BTreeMap<u64, u64>,
    /// Confirmed and not lost to an acknowledgement: must be there.
    confirmed: BTreeMap<u64, u64>,
    appended: Vec<u64>,
    acked: u64,
}

struct Rig {
    disk: SimDisk,
    spool: Option<Spool>,
    streams: Vec<Stream>,
    expect: Vec<Expect>,
    waiting: Vec<(usize, u64, Pending)>,
    next: u64,
}

const NAMES: [(&str, Class, Durability); 4] = [
    ("a", Class::Critical, Durability::Strict),
    ("b", Class::Normal, Durability::Strict),
    ("c", Class::Normal, Durability::Strict),
    ("m", Class::Normal, Durability::Sampled),
];

impl Rig {
    fn new() -> Self {
        let mut rig = Rig {
            disk: SimDisk::new(),
            spool: None,
            streams: Vec::new(),
            expect: NAMES.iter().map(|_| Expect::default()).collect(),
            waiting: Vec::new(),
            next: 1,
        };
        rig.power_on();
        rig
    }

    fn power_on(&mut self) {
        let (spool, recovered) = open(&self.disk);
        assert!(recovered.lost.is_empty(), "{recovered:?}");
        self.streams = NAMES
            .iter()
            .map(|(name, class, durability)| spool.stream(name, *durability, *class).unwrap())
            .collect();
        for stream in &self.streams {
            stream.attach("hub").unwrap();
        }
        self.spool = Some(spool);
    }

    /// Takes the answers that have come, or waits for all.
    fn answers(&mut self) {
        for (stream, number, pending) in std::mem::take(&mut self.waiting) {
            if let Ok(seq) = pending.wait() {
                let expect = &mut self.expect[stream];
                assert_eq!(
                    *expect.known.entry(seq).or_insert(number),
                    number,
                    "number {seq} given out twice"
                );
                if NAMES[stream].2 == Durability::Strict {
                    expect.confirmed.insert(seq, number);
                }
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append { stream, len, wait } => {
                let number = self.next;
                let source = NAMES[stream].0;
                match self.streams[stream].append(&payload(number, len), Some((source, number))) {
                    Ok(pending) => {
                        self.next += 1;
                        self.expect[stream].appended.push(number);
                        self.waiting.push((stream, number, pending));
                    }
                    Err(err) => assert!(!matches!(err, crate::AppendError::Closed), "{err}"),
                }
                if wait {
                    self.answers();
                }
            }
            Op::Ack { stream, back } => {
                self.answers();
                let last = self.streams[stream].last();
                let upto = last.saturating_sub(back);
                // A receiver acknowledges what it was given.
                let after = self.streams[stream].acked("hub");
                self.check(stream, after);
                self.streams[stream].ack("hub", upto).unwrap();
                let expect = &mut self.expect[stream];
                expect.acked = expect.acked.max(upto);
                expect.confirmed.retain(|seq, _| *seq > upto);
            }
            Op::Flush => {
                if let Some(spool) = &self.spool {
                    // With an injected fault it may fail; else what was sampled is as good as strict.
                    if spool.flush().wait().is_ok() {
                        let stream = &self.streams[3];
                        let there = read_all(stream, stream.acked("hub"));
                        let kept = there.iter().map(|r| (r.seq, number(&r.payload)));
                        self.expect[3].confirmed.extend(kept);
                    }
                }
            }
            Op::Reopen => {
                self.disk.set_faults(Faults::default());
                self.answers();
                self.spool = None;
                self.power_on();
                self.check_all();
            }
            Op::Cut(seed) => {
                self.disk.set_faults(Faults::default());
                let next = self.disk.cut(seed);
                // The old process goes on against a dead disk; what it confirmed before stays confirmed.
                self.answers();
                self.spool = None;
                self.disk = next;
                self.power_on();
                self.check_all();
            }
            Op::FailWrites(count) => self.disk.set_faults(Faults {
                writes: count,
                ..Faults::default()
            }),
            Op::FailSyncs(count) => self.disk.set_faults(Faults {
                syncs: count,
                ..Faults::default()
            }),
        }
    }

    fn check_all(&mut self) {
        for stream in 0..NAMES.len() {
            let after = self.streams[stream].acked("hub");
            assert!(
                after <= self.expect[stream].acked,
                "a cursor ahead of what was acknowledged"
            );
            self.check(stream, after);
        }
    }

    fn check(&mut self, index: usize, after: u64) {
        let stream = &self.streams[index];
        let expect = &mut self.expect[index];
        let records = read_all(stream, after);
        let mut there = BTreeMap::new();
        let mut before = 0;
        for record in &records {
            let number = number(&record.payload);
            assert_eq!(
                record.payload,
                payload(number, record.payload.len()),
                "torn bytes handed out"
            );
            assert!(
                expect.appended.contains(&number),
                "a record of elsewhere or of a former life"
            );
            assert!(number > before, "order or twice");
            before = number;
            assert_eq!(
                *expect.known.entry(record.seq).or_insert(number),
                number,
                "number {} means two records",
                record.seq
            );
            there.insert(record.seq, number);
        }
        for (seq, number) in &expect.confirmed {
            if *seq > after {
                assert_eq!(there.get(seq), Some(number), "a confirmed record is gone");
            }
        }
        let account = stream.account("hub");
        assert!(account.balanced(), "{account:?}");
        assert_eq!(account.lost, 0, "{account:?}");
        assert_eq!(
            account.resident,
            records.iter().filter(|r| r.seq > stream.acked("hub")).count() as u64,
            "{account:?}"
        );
        // A source goes on after its position: all before it that was not refused must be there or acknowledged.
        if self.waiting.is_empty()
            && let Some(spool) = &self.spool
        {
            let position = spool.position(NAMES[index].0).unwrap_or(0);
            assert!(
                position >= expect.confirmed.values().max().copied().unwrap_or(0),
                "position {position} of {index}: {:?}",
                expect.confirmed
            );
            if let Some(last) = there.values().max() {
                assert!(position >= *last, "position {position} before record {last}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::rounds(150), max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_confirmed_is_lost_and_nothing_comes_twice(ops in prop::collection::vec(op(), 1..60)) {
        let mut rig = Rig::new();
        for op in ops {
            rig.apply(op);
        }
        rig.apply(Op::Cut(1));
        rig.apply(Op::Reopen);
    }
}
