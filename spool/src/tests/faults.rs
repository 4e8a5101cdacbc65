//! A disk that is full, read-only, or failing; room, drops, and what is told of them.

use super::{DIR, notices, number, open, options, payload, read_all, strict};
use crate::sim::{Faults, SimDisk};
use crate::{
    AppendError, Class, DropReason, Durability, Notice, ReadError, Retention, Spool, Stream, WhenFull,
};
use std::path::Path;
use std::time::Duration;

fn append(stream: &Stream, number: u64, len: usize) -> Result<u64, AppendError> {
    stream
        .append(&payload(number, len), Some(("source", number)))?
        .wait()
}

fn numbers(stream: &Stream) -> Vec<u64> {
    read_all(stream, 0)
        .iter()
        .map(|record| number(&record.payload))
        .collect()
}

#[test]
fn one_failed_sync_costs_nothing_and_is_told() {
    for faults in [
        Faults {
            syncs: 1,
            ..Faults::default()
        },
        Faults {
            writes: 1,
            ..Faults::default()
        },
    ] {
        let disk = SimDisk::new();
        let (spool, _) = open(&disk);
        let stream = strict(&spool);
        append(&stream, 1, 2000).unwrap();
        disk.set_faults(faults);
        append(&stream, 2, 2000).unwrap();
        append(&stream, 3, 2000).unwrap();
        assert_eq!(numbers(&stream), [1, 2, 3]);
        assert!(matches!(
            notices(&spool)[..],
            [Notice::Poisoned {
                class: Class::Normal,
                ..
            }]
        ));
        for seed in 0..8 {
            let next = SimDisk::of(disk.durable()).cut(seed);
            let (spool, recovered) = open(&next);
            assert!(
                recovered.lost.is_empty() && recovered.torn.is_empty(),
                "{recovered:?}"
            );
            let stream = strict(&spool);
            assert_eq!(numbers(&stream), [1, 2, 3]);
            assert_eq!(spool.position("source"), Some(3));
            assert!(stream.account("hub").balanced());
        }
    }
}

#[test]
fn a_read_only_disk_refuses_and_recovers_by_itself() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    append(&stream, 1, 2000).unwrap();
    disk.set_faults(Faults {
        read_only: true,
        ..Faults::default()
    });
    let err = append(&stream, 2, 2000).unwrap_err();
    assert!(
        matches!(&err, AppendError::Disk { reason, .. } if reason.contains("ead-only")),
        "{err}"
    );
    assert_eq!(numbers(&stream), [1]);
    assert_eq!(spool.position("source"), Some(1));
    disk.set_faults(Faults::default());
    // Producers are turned away for a moment, then the disk is tried again.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let seq = loop {
        match append(&stream, 2, 2000) {
            Ok(seq) => break seq,
            Err(err) => assert!(std::time::Instant::now() < deadline, "{err}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(seq > 2);
    let account = stream.account("hub");
    assert!(account.balanced() && account.appended == 2, "{account:?}");
    drop((spool, stream));
    let (spool, recovered) = open(&disk);
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    let stream = strict(&spool);
    assert_eq!(numbers(&stream), [1, 2]);
    assert_eq!(stream.account("hub"), account);
}

#[test]
fn a_full_disk_pushes_strict_back_and_drops_the_oldest_of_others() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    let bulk = spool.stream("logs", Durability::Strict, Class::Bulk).unwrap();
    bulk.retain(Retention {
        when_full: WhenFull::DropOldest,
        max_age: None,
        max_bytes: None,
        thin: false,
    });
    for number in 1..=15 {
        append(&stream, number, 8000).unwrap();
        append(&bulk, number, 8000).unwrap();
    }
    disk.set_faults(Faults {
        full: true,
        ..Faults::default()
    });
    let refused = (16..40).find_map(|number| append(&stream, number, 8000).err());
    assert!(
        matches!(
            refused,
            Some(AppendError::Full {
                class: Class::Normal,
                ..
            })
        ),
        "{refused:?}"
    );
    for number in 16..=40 {
        append(&bulk, number, 8000).unwrap();
    }
    let account = bulk.account("hub");
    assert!(account.balanced() && account.appended == 40, "{account:?}");
    let dropped = account.dropped[&DropReason::Space];
    let there = numbers(&bulk);
    assert_eq!(there, (dropped + 1..=40).collect::<Vec<_>>());
    // The other class is whole, and goes on as soon as there is room.
    disk.set_faults(Faults::default());
    let held = numbers(&stream);
    assert_eq!(held, (1..=held.len() as u64).collect::<Vec<_>>());
    append(&stream, 100, 8000).unwrap();
    let told: u64 = notices(&spool)
        .iter()
        .map(|notice| match notice {
            Notice::Dropped {
                stream,
                count,
                reason: DropReason::Space,
                ..
            } if stream == "logs" => *count,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(told, dropped);
    drop((spool, stream, bulk));
    let (spool, _) = open(&disk);
    let bulk = spool.stream("logs", Durability::Strict, Class::Bulk).unwrap();
    assert_eq!(bulk.account("hub"), account);
    assert_eq!(numbers(&bulk), there);
}

#[test]
fn a_flood_of_one_class_leaves_the_others_their_room() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let flood = spool.stream("flood", Durability::Strict, Class::Bulk).unwrap();
    flood.retain(Retention {
        when_full: WhenFull::DropOldest,
        max_age: None,
        max_bytes: Some(200_000),
        thin: false,
    });
    let quiet = strict(&spool);
    append(&quiet, 1, 100).unwrap();
    for number in 1..=400 {
        append(&flood, number, 8000).unwrap();
    }
    append(&quiet, 2, 100).unwrap();
    assert!(spool.disk_bytes(Class::Bulk) <= 640 << 10);
    let account = flood.account("hub");
    assert!(
        account.balanced() && account.dropped[&DropReason::Bytes] > 300,
        "{account:?}"
    );
    assert!(account.resident * 8000 < 300_000, "{account:?}");
    assert_eq!(numbers(&quiet), [1, 2]);
}

#[test]
fn old_records_go_by_age() {
    let disk = SimDisk::new();
    let clock = kit::FakeClock::at("2026-01-01T00:00:00Z".parse().unwrap());
    let mut aged = options(&disk);
    aged.clock = std::sync::Arc::new(clock.clone());
    let (spool, _) = Spool::open(Path::new(DIR), aged).unwrap();
    let stream = strict(&spool);
    stream.retain(Retention {
        when_full: WhenFull::PushBack,
        max_age: Some(Duration::from_secs(3600)),
        max_bytes: None,
        thin: false,
    });
    for number in 1..=60 {
        append(&stream, number, 8000).unwrap();
        clock.advance(Duration::from_secs(120));
    }
    let account = stream.account("hub");
    assert!(
        account.balanced() && account.dropped[&DropReason::Age] > 10,
        "{account:?}"
    );
    assert_eq!(read_all(&stream, 0).len() as u64, account.resident);
    let newest = read_all(&stream, 59).pop().unwrap().appended_at;
    assert_eq!(newest.wall.to_string(), "2026-01-01T01:58:00Z");
    assert_eq!(newest.since_boot, Duration::from_secs(59 * 120));
}

#[test]
fn a_block_that_cannot_be_read_counts_as_lost_after_some_tries() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    for number in 1..=6 {
        append(&stream, number, 3000).unwrap();
    }
    disk.make_unreadable(Path::new("/spool/normal/000000.seg"), 2 * 4096, 3 * 4096);
    assert_eq!(stream.read(0, 5000).unwrap().len(), 1);
    let mut refusals = 0;
    let records = loop {
        match stream.read(2, 100_000) {
            Err(ReadError::Io { .. }) => refusals += 1,
            Ok(records) => break records,
        }
        assert!(refusals < 10);
    };
    assert!(refusals >= 1);
    assert_eq!(records[0].seq, 4);
    let account = stream.account("hub");
    assert!(account.balanced() && account.lost == 1, "{account:?}");
    stream.ack("hub", 6).unwrap();
    let account = stream.account("hub");
    assert_eq!((account.acked, account.lost), (5, 1));
    assert!(notices(&spool).iter().any(|notice| matches!(
        notice,
        Notice::Lost {
            first: 3,
            last: 3,
            ..
        }
    )));
}

#[test]
fn a_poison_record_is_set_aside_and_seen() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    for number in 1..=5 {
        append(&stream, number, 500).unwrap();
    }
    stream.set_aside("hub", 3, "400 label name is not valid").unwrap();
    stream.set_aside("hub", 3, "again").unwrap();
    stream.ack("hub", 5).unwrap();
    let account = stream.account("hub");
    assert!(
        account.balanced() && account.set_aside == 1 && account.acked == 4,
        "{account:?}"
    );
    drop((spool, stream));
    let (spool, _) = open(&disk);
    let aside = spool.aside(Class::Normal, 0, 1 << 20).unwrap();
    assert_eq!(aside[0].1.payload, payload(3, 500));
    assert_eq!(
        (
            aside[0].1.stream.as_str(),
            aside[0].1.seq,
            aside[0].1.sink.as_str()
        ),
        ("s", 3, "hub")
    );
    assert!(notices(&spool).iter().any(|notice| matches!(
        notice,
        Notice::SetAside {
            seq: 3,
            kept: true,
            ..
        }
    )));
    assert_eq!(strict(&spool).account("hub").set_aside, 1);
}

#[test]
fn a_segment_that_vanished_is_counted_and_does_not_stop_the_rest() {
    let disk = SimDisk::new();
    let (spool, _) = open(&disk);
    let stream = strict(&spool);
    for number in 1..=20 {
        append(&stream, number, 8000).unwrap();
    }
    drop((spool, stream));
    let mut image = disk.durable();
    image.remove(Path::new("/spool/normal/000001.seg")).unwrap();
    let disk = SimDisk::of(image);
    let (spool, recovered) = open(&disk);
    let stream = strict(&spool);
    let there = numbers(&stream);
    let account = stream.account("hub");
    assert!(
        account.balanced() && account.lost > 1,
        "{account:?} {recovered:?}"
    );
    assert_eq!(account.lost as usize + there.len(), 20);
    assert!(there.contains(&1) && there.contains(&20));
    assert!(!recovered.lost.is_empty());
}
