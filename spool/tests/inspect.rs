//! Looking into a spool while its owner works on it.

use spool::{Class, Durability, Inspection, Options, ReadError, Spool};
use std::os::unix::fs::FileExt as _;

fn options() -> Options {
    Options {
        segment_bytes: 128 << 10,
        block_bytes: 16 << 10,
        compression: None,
        ..Options::default()
    }
}

#[test]
fn a_running_spool_can_be_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), options()).unwrap();
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    for number in 0..30_u8 {
        stream
            .append(&[number; 10_000], Some(("pod/a", u64::from(number))))
            .unwrap()
            .wait()
            .unwrap();
    }
    stream.ack("hub", 3).unwrap();
    spool.flush().wait().unwrap();

    let figures = spool.snapshot();
    let held = &figures.streams[0].sinks["hub"];
    assert_eq!((held.upto, &held.account), (3, &stream.account("hub")));
    assert_eq!(
        (held.settled.appended, held.settled.acked, held.unused),
        (3, 3, 0)
    );
    assert_eq!(stream.waiting("hub"), (27, held.waiting_bytes));
    assert!((260_000..=270_000).contains(&held.waiting_bytes), "{held:?}");
    assert!(held.oldest_seconds.is_some_and(|age| age < 3600.0));
    let log = &figures.logs[0];
    assert_eq!((log.writes.records, log.writes.failures), (30, 0));
    assert_eq!(log.writes.histogram.iter().sum::<u64>(), log.writes.syncs);
    assert!(log.writes.bytes >= 300_000 && log.bytes <= log.budget);

    let view = Inspection::open(dir.path()).unwrap();
    let seen = view.snapshot();
    assert_eq!(seen.streams[0].sinks["hub"].account, held.account);
    let listing = view.listing();
    assert_eq!(listing.epoch, spool.epoch());
    assert_eq!(listing.sources["pod/a"], 29);
    let (upto, account) = &listing.streams[0].sinks["hub"];
    assert_eq!((*upto, account), (3, &stream.account("hub")));
    assert!(listing.logs[0].segments.len() >= 3);
    let first = &listing.logs[0].segments[0];
    let blocks = view.blocks(Class::Critical, first.id).unwrap().unwrap();
    assert!(blocks.iter().all(|block| block.whole));
    assert_eq!(blocks[0].records, [("audit".to_owned(), 1, 1)]);
    assert_eq!(view.blocks(Class::Bulk, 1).unwrap(), None);
    let tail = view.tail("audit", 2).unwrap().unwrap();
    assert_eq!(tail.iter().map(|r| r.seq).collect::<Vec<_>>(), [29, 30]);
    assert!(view.tail("nothing", 2).unwrap().is_none());
    let mut exported = Vec::new();
    let last = view
        .export("audit", 10, |record| {
            exported.push(record.seq);
            Ok::<(), ReadError>(())
        })
        .unwrap();
    assert_eq!((last, exported), (Some(30), (11..=30).collect()));
    assert!(view.verify().unwrap().is_sound());

    // The owner is not disturbed, and a later look sees what came meanwhile.
    stream.append(b"more", None).unwrap().wait().unwrap();
    let view = Inspection::open(dir.path()).unwrap();
    assert_eq!(
        view.records("audit", 30, 100).unwrap().unwrap()[0].payload,
        b"more"
    );
}

#[test]
fn verify_names_what_is_damaged_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), options()).unwrap();
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    for number in 0..30_u8 {
        stream.append(&[number; 10_000], None).unwrap().wait().unwrap();
    }
    drop((spool, stream));
    let path = dir.path().join("critical/000000.seg");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"rot", 5000).unwrap();
    let before = std::fs::read(dir.path().join("state.0")).unwrap();
    for _ in 0..2 {
        let verdict = Inspection::open(dir.path()).unwrap().verify().unwrap();
        assert!(!verdict.is_sound());
        assert_eq!(verdict.damaged, [(Class::Critical, 1, 0)]);
        assert_eq!(
            verdict
                .lost
                .iter()
                .map(|range| (range.first, range.last))
                .collect::<Vec<_>>(),
            [(1, 1)]
        );
        assert!(verdict.unbalanced.is_empty());
    }
    assert_eq!(std::fs::read(dir.path().join("state.0")).unwrap(), before);
    let err = Inspection::open(&dir.path().join("nothing")).unwrap_err();
    assert!(err.to_string().contains("nothing"), "{err}");
}
