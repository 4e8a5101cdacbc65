//! Streams that keep the disk out: sampled and replayable.

use super::{DIR, notices, number, open, options, payload, read_all};
use crate::sim::SimDisk;
use crate::{Account, AppendError, Class, DropReason, Durability, Notice, Retention, Spool, Stream};
use std::path::Path;
use std::time::Duration;

fn sampled(spool: &Spool) -> Stream {
    let stream = spool.stream("metrics", Durability::Sampled, Class::Bulk).unwrap();
    stream.attach("hub").unwrap();
    stream
}

fn fill(stream: &Stream, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        stream
            .append(&payload(number, 1000), Some(("scraper", number)))
            .unwrap()
            .wait()
            .unwrap();
    }
}

fn checked(account: Account) -> Account {
    assert!(account.balanced(), "{account:?}");
    account
}

#[test]
fn with_the_link_up_the_disk_sees_nothing() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = sampled(&spool);
    spool.flush().wait().unwrap();
    let before = disk.counts();
    for round in 0..200 {
        fill(&stream, round * 10 + 1..=round * 10 + 10);
        let records = read_all(&stream, stream.acked("hub"));
        assert_eq!(records.len(), 10);
        stream.ack("hub", records[9].seq).unwrap();
    }
    assert_eq!(disk.counts(), before);
    assert_eq!(stream.memory_bytes(), 0);
    let account = checked(stream.account("hub"));
    assert_eq!(
        (account.appended, account.acked, account.resident),
        (2000, 2000, 0)
    );
    // Closed and opened, the account is the same.
    drop((spool, stream));
    let (spool, recovered) = open(&disk);
    assert!(recovered.clean, "{recovered:?}");
    let stream = sampled(&spool);
    assert_eq!(checked(stream.account("hub")).acked, 2000);
    fill(&stream, 2001..=2001);
    assert_eq!(stream.last(), 2001);
}

#[test]
fn what_nobody_acknowledged_is_spilled_in_time_and_on_a_flush() {
    let disk = SimDisk::new();
    let mut timely = options(&disk);
    timely.spill_after = Duration::from_millis(1);
    let (spool, _) = Spool::open(Path::new(DIR), timely).unwrap();
    let stream = sampled(&spool);
    fill(&stream, 1..=5);
    while stream.memory_bytes() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let next = disk.cut(3);
    drop((spool, stream));
    let (spool, _) = open(&next);
    let stream = sampled(&spool);
    let numbers: Vec<u64> = read_all(&stream, 0).iter().map(|r| number(&r.payload)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(spool.position("scraper"), Some(5));
    fill(&stream, 6..=7);
    spool.flush().wait().unwrap();
    assert_eq!(stream.memory_bytes(), 0);
    let last = stream.last();
    let next = next.cut(4);
    drop((spool, stream));
    let (spool, _) = open(&next);
    let stream = sampled(&spool);
    assert_eq!(read_all(&stream, 5).len(), 2);
    let account = checked(stream.account("hub"));
    assert_eq!((account.appended, account.resident), (7, 7));
    fill(&stream, 8..=8);
    assert!(
        stream.last() > last + 1,
        "numbers seen from memory must not come again"
    );
}

#[test]
fn a_crash_costs_only_what_was_in_memory_and_no_number_comes_again() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = sampled(&spool);
    fill(&stream, 1..=10);
    stream.ack("hub", 4).unwrap();
    spool.flush().wait().unwrap();
    fill(&stream, 11..=20);
    let seen = read_all(&stream, 0).last().unwrap().seq;
    stream.ack("hub", 12).unwrap();
    let next = disk.cut(7);
    drop((spool, stream));
    let (spool, recovered) = open(&next);
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    let stream = sampled(&spool);
    let account = checked(stream.account("hub"));
    assert_eq!(account.lost, 0);
    let there = read_all(&stream, 0);
    assert_eq!(there.len() as u64, account.resident);
    assert!(there.iter().any(|record| number(&record.payload) == 10));
    fill(&stream, 30..=30);
    assert!(stream.last() > seen);
    // The receiver is told that what lies between never was.
    let left_out = stream.unused(there[there.len() - 1].seq, stream.last());
    assert_eq!(left_out.last().map(|(_, last)| last + 1), Some(stream.last()));
    checked(stream.account("hub"));
}

#[test]
fn too_much_in_memory_is_written_and_where_the_disk_refuses_the_oldest_goes() {
    let disk = SimDisk::new();
    let mut tight = options(&disk);
    tight.memory_bytes = 20_000;
    let (spool, _) = Spool::open(Path::new(DIR), tight).unwrap();
    let stream = sampled(&spool);
    disk.set_faults(crate::sim::Faults {
        read_only: true,
        ..Default::default()
    });
    fill(&stream, 1..=100);
    let account = checked(stream.account("hub"));
    assert_eq!(account.appended, 100);
    assert!(
        account.dropped[&DropReason::Memory] > 50 && account.resident > 10,
        "{account:?}"
    );
    let there = read_all(&stream, 0);
    assert_eq!(there.len() as u64, account.resident);
    assert_eq!(number(&there.last().unwrap().payload), 100);
    // The disk is back: the drop is told, and what is left gets there.
    disk.set_faults(crate::sim::Faults::default());
    spool.flush().wait().unwrap();
    assert_eq!(stream.memory_bytes(), 0);
    assert_eq!(checked(stream.account("hub")).resident, account.resident);
}

#[test]
fn a_replayable_source_goes_on_from_the_receivers_acknowledgement() {
    let disk = SimDisk::new();
    let log = |spool: &Spool| {
        let stream = spool.stream("log", Durability::Replayable, Class::Bulk).unwrap();
        stream.attach("hub").unwrap();
        stream
    };
    let (spool, _) = open(&disk);
    let stream = log(&spool);
    fill(&stream, 1..=10);
    stream.ack("hub", 6).unwrap();
    spool.flush().wait().unwrap();
    fill(&stream, 11..=12);
    let before = read_all(&stream, 6);
    assert_eq!(spool.position("scraper"), Some(12));
    let next = disk.cut(9);
    drop((spool, stream));
    let (spool, _) = open(&next);
    let stream = log(&spool);
    assert_eq!(spool.position("scraper"), Some(6));
    assert_eq!((stream.last(), stream.acked("hub")), (6, 6));
    // The same records get the same numbers.
    fill(&stream, 7..=12);
    let after = read_all(&stream, 6);
    let brief = |records: &[crate::Record]| -> Vec<(u64, Vec<u8>)> {
        records.iter().map(|r| (r.seq, r.payload.clone())).collect()
    };
    assert_eq!(brief(&after), brief(&before));
    checked(stream.account("hub"));
    // The file is about to be rotated away: a copy goes to disk, and the source's position with it.
    stream.spill();
    while stream.memory_bytes() > 0 {
        std::thread::yield_now();
    }
    let next = next.cut(11);
    drop((spool, stream));
    let (spool, _) = open(&next);
    let stream = log(&spool);
    assert_eq!(spool.position("scraper"), Some(12));
    assert_eq!(brief(&read_all(&stream, 6)), brief(&before));
    let left_out = stream.skip_ahead();
    fill(&stream, 13..=13);
    assert_eq!(stream.last(), left_out + 1);
    checked(stream.account("hub"));
}

#[test]
fn a_replayable_source_is_asked_to_wait_when_memory_is_full() {
    let disk = SimDisk::new();
    let mut tight = options(&disk);
    tight.memory_bytes = 10_000;
    let (spool, _) = Spool::open(Path::new(DIR), tight).unwrap();
    let stream = spool.stream("log", Durability::Replayable, Class::Bulk).unwrap();
    stream.attach("hub").unwrap();
    fill(&stream, 1..=9);
    let refused = stream
        .append(&payload(10, 1000), Some(("scraper", 10)))
        .unwrap_err();
    assert!(matches!(refused, AppendError::Busy { .. }), "{refused}");
    assert_eq!(spool.position("scraper"), Some(9));
    stream.ack("hub", 3).unwrap();
    fill(&stream, 10..=10);
}

#[test]
fn as_room_runs_short_readings_become_coarser_before_the_oldest_go() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = sampled(&spool);
    stream.attach("hub").unwrap();
    stream.retain(Retention {
        thin: true,
        ..Retention::usual("metrics", Durability::Sampled)
    });
    let mut appended = 0;
    let dropped = |reason| stream.account("hub").dropped.get(&reason).copied().unwrap_or(0);
    let mut fill_until = |enough: &dyn Fn() -> bool| {
        while !enough() {
            for number in appended + 1..=appended + 16 {
                let pending = stream.append(&payload(number, 1000), None).unwrap();
                pending.wait().unwrap();
            }
            appended += 16;
            spool.flush().wait().unwrap();
        }
        appended
    };
    // Ten segments hold some 320 records in blocks of five: the first 60 % whole, then fewer and fewer.
    let first_thinned = fill_until(&|| dropped(DropReason::Thinned) > 0);
    assert!((150..250).contains(&first_thinned), "{first_thinned}");
    let first_dropped = fill_until(&|| dropped(DropReason::Space) > 0);
    assert!(
        first_dropped > 450,
        "an outage is covered for longer: {first_dropped}"
    );
    let account = checked(stream.account("hub"));
    assert_eq!(account.appended, appended);
    let there: Vec<u64> = read_all(&stream, 0).iter().map(|r| number(&r.payload)).collect();
    assert_eq!(there.len() as u64, account.resident);
    let step = |at: usize| there[at + 1] - there[at];
    assert_eq!((step(5), step(there.len() - 2)), (1, 8));
    let told = notices(&spool);
    let thinned = |notice: &&Notice| {
        matches!(
            notice,
            Notice::Dropped {
                reason: DropReason::Thinned,
                ..
            }
        )
    };
    let counted: u64 = told
        .iter()
        .filter(thinned)
        .map(|notice| match notice {
            Notice::Dropped { count, .. } => *count,
            _ => 0,
        })
        .sum();
    assert_eq!(counted, dropped(DropReason::Thinned));
    // A crash changes nothing of what is there.
    let next = disk.cut(1);
    drop((spool, stream));
    let (spool, recovered) = open(&next);
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    let stream = sampled(&spool);
    checked(stream.account("hub"));
    let after: Vec<u64> = read_all(&stream, 0).iter().map(|r| number(&r.payload)).collect();
    assert_eq!(after, there);
}
