//! A backlog far larger than memory. `SPOOL_GIB` makes a long form of it (20, as of a device away for weeks).
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use spool::{Class, Durability, Options, PerClass, Spool};
use std::time::Instant;

const RECORD: usize = 60_000;
/// Above what the test's own program takes.
const MOST_MEMORY: u64 = 48 << 20;

/// Most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
#[expect(clippy::print_stderr, reason = "the long form tells its figures")]
fn a_long_backlog_is_kept_and_drained_in_bounded_memory() {
    let gib: Option<u64> = std::env::var("SPOOL_GIB").ok().and_then(|text| text.parse().ok());
    let bytes = gib.map_or(96 << 20, |gib| gib << 30);
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        segment_bytes: 8 << 20,
        budget: PerClass {
            critical: 32 << 20,
            normal: 32 << 20,
            bulk: bytes + bytes / 8 + (64 << 20),
        },
        compression: None,
        ..Options::default()
    };
    let before = peak();
    let count = bytes / RECORD as u64;
    let started = Instant::now();
    {
        let (spool, _) = Spool::open(dir.path(), options()).unwrap();
        let stream = spool.stream("app", Durability::Strict, Class::Bulk).unwrap();
        stream.attach("hub").unwrap();
        let mut waiting = std::collections::VecDeque::new();
        for number in 0..count {
            let mut payload = vec![number as u8; RECORD];
            payload[..8].copy_from_slice(&number.to_le_bytes());
            if waiting.len() == 8
                && let Some(oldest) = waiting.pop_front()
            {
                spool::Pending::wait(oldest).unwrap();
            }
            waiting.push_back(stream.append(&payload, None).unwrap());
        }
        for pending in waiting {
            pending.wait().unwrap();
        }
        assert_eq!(stream.waiting("hub"), (count, count * RECORD as u64));
    }
    let written = started.elapsed();
    let started = Instant::now();
    let (spool, recovered) = Spool::open(dir.path(), options()).unwrap();
    let opened = started.elapsed();
    assert!(recovered.clean && recovered.lost.is_empty(), "{recovered:?}");
    let stream = spool.stream("app", Durability::Strict, Class::Bulk).unwrap();
    let (mut after, mut next) = (0, 0_u64);
    loop {
        let records = stream.read(after, 256 << 10).unwrap();
        let Some(last) = records.last() else { break };
        for record in &records {
            assert_eq!(record.payload[..8], next.to_le_bytes());
            next += 1;
        }
        after = last.seq;
        stream.ack("hub", after).unwrap();
    }
    assert_eq!(next, count);
    let account = stream.account("hub");
    assert!(account.balanced() && account.acked == count, "{account:?}");
    let grown = peak() - before;
    eprintln!(
        "{} MiB: written in {written:?}, opened in {opened:?}, drained in {:?}, {} KiB of memory",
        bytes >> 20,
        started.elapsed() - opened,
        grown >> 10
    );
    assert!(
        grown < MOST_MEMORY,
        "{grown} bytes of memory for a backlog of {bytes}"
    );
}
