//! What any user of a spool relies on, on the real file system.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use spool::{AppendError, Class, Durability, OpenError, Options, PerClass, Record, Spool, Stream};
use std::path::Path;
use std::time::Duration;

fn small() -> Options {
    Options {
        segment_bytes: 128 << 10,
        block_bytes: 16 << 10,
        budget: PerClass {
            critical: 1 << 20,
            normal: 1 << 20,
            bulk: 1 << 20,
        },
        linger: PerClass {
            critical: Duration::ZERO,
            normal: Duration::ZERO,
            bulk: Duration::ZERO,
        },
        ..Options::default()
    }
}

fn open(dir: &Path) -> (Spool, Stream) {
    let (spool, _) = Spool::open(dir, small()).unwrap();
    let stream = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
    (spool, stream)
}

fn all(stream: &Stream, mut after: u64) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let more = stream.read(after, 4096).unwrap();
        let Some(last) = more.last() else { return records };
        after = last.seq;
        records.extend(more);
    }
}

#[test]
fn what_was_appended_is_read_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    assert_eq!(
        stream.append(b"one", Some(("pod/a", 7))).unwrap().wait().unwrap(),
        1
    );
    assert_eq!(
        stream.append(b"two", Some(("pod/a", 8))).unwrap().wait().unwrap(),
        2
    );
    let before = stream.read(0, 1 << 20).unwrap();
    let epoch = spool.epoch();
    drop((spool, stream));

    let (spool, recovered) = Spool::open(dir.path(), small()).unwrap();
    assert!(
        recovered.clean && !recovered.created && recovered.lost.is_empty(),
        "{recovered:?}"
    );
    assert_eq!(spool.epoch(), epoch);
    assert_eq!(spool.position("pod/a"), Some(8));
    assert_eq!(spool.position("pod/b"), None);
    let stream = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
    assert_eq!(stream.last(), 2);
    let records = stream.read(0, 1 << 20).unwrap();
    assert_eq!(records, before);
    assert_eq!(records[1].payload, b"two");
    assert_eq!(stream.append(b"three", None).unwrap().wait().unwrap(), 3);
    assert_eq!(stream.read(2, 0).unwrap()[0].payload, b"three");
}

#[test]
fn cursors_survive_and_the_account_balances() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    for number in 0..10_u8 {
        stream.append(&[number], None).unwrap().wait().unwrap();
    }
    stream.ack("hub", 4).unwrap();
    stream.ack("other", 6).unwrap();
    drop((spool, stream));
    let (_spool, stream) = open(dir.path());
    assert_eq!(
        (stream.acked("hub"), stream.acked("other"), stream.acked("new")),
        (4, 6, 4)
    );
    let account = stream.account("hub");
    assert_eq!((account.appended, account.acked, account.resident), (10, 4, 6));
    assert!(account.balanced() && stream.account("other").balanced());
    let late = stream.account("new");
    assert!(late.balanced() && late.dropped_total() == 4, "{late:?}");
    stream.ack("hub", 2).unwrap();
    assert_eq!(stream.acked("hub"), 4);
    assert!(matches!(
        stream.ack("hub", 11),
        Err(AppendError::Beyond { last: 10, .. })
    ));
    stream.detach("other");
    stream.ack("hub", 10).unwrap();
    assert_eq!(stream.account("hub").resident, 0);
}

#[test]
fn full_segments_are_recycled_and_the_class_keeps_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    let mut seq = 0;
    for round in 0..40_u32 {
        for part in 0..10_u32 {
            let payload = vec![(round * 10 + part) as u8; 9000];
            seq = stream.append(&payload, None).unwrap().wait().unwrap();
        }
        let records = all(&stream, seq - 10);
        assert_eq!(records.len(), 10);
        assert!(
            records
                .iter()
                .all(|r| r.payload[0] == (r.seq - 1) as u8 && r.payload.len() == 9000)
        );
        stream.ack("hub", seq).unwrap();
    }
    assert!(spool.disk_bytes(Class::Normal) <= 1 << 20);
    drop((spool, stream));
    let (_spool, stream) = open(dir.path());
    assert_eq!(stream.last(), seq);
    assert!(all(&stream, 0).is_empty());
    assert_eq!(stream.account("hub").acked, seq);
}

#[test]
fn a_full_class_pushes_back_and_goes_on_after_an_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small();
    options.compression = None;
    let (spool, _) = Spool::open(dir.path(), options).unwrap();
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    let other = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
    let mut taken = 0;
    let refused = loop {
        match stream.append(&[7; 30_000], None).unwrap().wait() {
            Ok(seq) => taken = seq,
            Err(err) => break err,
        }
    };
    assert!(
        matches!(
            refused,
            AppendError::Full {
                class: Class::Critical,
                ..
            }
        ),
        "{refused}"
    );
    assert!(taken > 20);
    other.append(b"not my class", None).unwrap().wait().unwrap();
    assert_eq!(all(&stream, 0).len() as u64, taken);
    assert!(stream.account("hub").balanced());
    stream.ack("hub", taken).unwrap();
    let next = stream.append(b"room again", None).unwrap().wait().unwrap();
    assert_eq!(stream.read(taken, 0).unwrap()[0].seq, next);
    let account = stream.account("hub");
    assert!(account.balanced() && account.appended == taken + 1, "{account:?}");
}

#[test]
fn one_spool_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _stream) = open(dir.path());
    assert!(matches!(
        Spool::open(dir.path(), small()),
        Err(OpenError::InUse { .. })
    ));
    drop(spool);
    open(dir.path());
}

#[test]
fn names_and_sizes_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    assert!(matches!(
        spool.stream("events", Durability::Strict, Class::Bulk),
        Err(OpenError::OtherClass { .. })
    ));
    assert!(matches!(
        spool.stream("a\nb", Durability::Strict, Class::Bulk),
        Err(OpenError::BadName { .. })
    ));
    assert!(matches!(
        stream.append(&vec![0; 200_000], None),
        Err(AppendError::TooLarge { most: 32_768, .. })
    ));
    let mut options = small();
    options.budget.bulk = 1000;
    let err = Spool::open(&dir.path().join("other"), options).unwrap_err();
    assert!(err.to_string().contains("bulk"), "{err}");
}

#[test]
fn streams_share_a_log_without_mixing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), small()).unwrap();
    let streams: Vec<Stream> = (0..20)
        .map(|n| {
            spool
                .stream(&format!("s{n}"), Durability::Strict, Class::Bulk)
                .unwrap()
        })
        .collect();
    let mut pending = Vec::new();
    for round in 0..50_u32 {
        for (number, stream) in streams.iter().enumerate() {
            let payload = format!("{number}:{round}");
            pending.push(
                stream
                    .append(payload.as_bytes(), Some((&payload[..2], u64::from(round))))
                    .unwrap(),
            );
        }
    }
    for pending in pending {
        pending.wait().unwrap();
    }
    for (number, stream) in streams.iter().enumerate() {
        let texts: Vec<_> = all(stream, 0)
            .into_iter()
            .map(|r| String::from_utf8(r.payload).unwrap())
            .collect();
        let want: Vec<_> = (0..50).map(|round| format!("{number}:{round}")).collect();
        assert_eq!(texts, want);
    }
}

#[test]
fn a_batch_is_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    let mut pending = Vec::new();
    for n in 0..100_u32 {
        pending.push(stream.append(&[n as u8; 1000], None).unwrap());
    }
    for pending in pending {
        pending.wait().unwrap();
    }
    let mut bounds = Vec::new();
    let mut after = 0;
    while let Some(last) = stream.batch(after).unwrap().last() {
        after = last.seq;
        bounds.push(after);
    }
    assert_eq!(after, 100);
    stream.append(b"later", None).unwrap().wait().unwrap();
    drop((spool, stream));
    let (_spool, stream) = open(dir.path());
    let mut after = 0;
    for bound in bounds {
        let batch = stream.batch(after).unwrap();
        assert_eq!((batch[0].seq, batch.last().unwrap().seq), (after + 1, bound));
        after = bound;
    }
}

#[test]
fn a_reader_is_told_of_new_records() {
    let dir = tempfile::tempdir().unwrap();
    let (_spool, stream) = open(dir.path());
    let reader = stream.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let waiter = std::thread::spawn(move || runtime.block_on(async move { reader.changed(0).await }));
    stream.append(b"x", None).unwrap().wait().unwrap();
    waiter.join().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seq = runtime
        .block_on(async { stream.append(b"y", None).unwrap().await })
        .unwrap();
    assert_eq!(seq, 2);
}

#[test]
fn an_idle_spool_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, stream) = open(dir.path());
    stream.append(b"x", None).unwrap().wait().unwrap();
    drop((spool, stream));
    let stamps = || {
        let mut stamps = Vec::new();
        for entry in ["state.0", "state.1", "normal/000000.seg"] {
            let meta = std::fs::metadata(dir.path().join(entry)).unwrap();
            stamps.push((entry, meta.modified().unwrap(), meta.len()));
        }
        stamps
    };
    let before = stamps();
    for _ in 0..3 {
        let (spool, stream) = open(dir.path());
        assert_eq!(stream.read(0, 0).unwrap().len(), 1);
        spool.flush().wait().unwrap();
    }
    assert_eq!(stamps(), before);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn fixture() -> std::path::PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/v1")
}

fn smallest() -> Options {
    Options {
        segment_bytes: 64 << 10,
        block_bytes: 4 << 10,
        ..small()
    }
}

/// Writes the files that later versions must still read: run once per format, by hand.
#[test]
#[ignore = "writes the fixture of the present format"]
fn write_fixture() {
    if std::env::var_os("SPOOL_WRITE_FIXTURE").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), smallest()).unwrap();
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    for number in 1..=20_u64 {
        let text = format!("record {number} ").repeat(40);
        stream
            .append(text.as_bytes(), Some(("pod/a", number)))
            .unwrap()
            .wait()
            .unwrap();
    }
    stream.ack("hub", 5).unwrap();
    drop((spool, stream));
    copy(dir.path(), &fixture());
}

#[test]
fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let (spool, recovered) = Spool::open(dir.path(), smallest()).unwrap();
    assert!(recovered.clean && recovered.lost.is_empty(), "{recovered:?}");
    assert_eq!(spool.position("pod/a"), Some(20));
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    assert_eq!((stream.acked("hub"), stream.last()), (5, 20));
    let records = all(&stream, 5);
    assert_eq!(records.len(), 15);
    assert!(records[0].payload.starts_with(b"record 6 record 6 "));
    assert_eq!(stream.append(b"next", None).unwrap().wait().unwrap(), 21);
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let text = r#"{"version":2,"epoch":1,"incarnation":1,"clean":true,"streams":{},"sources":{},"logs":{}}"#;
    let generation = 1_000_u64.to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&generation), text.as_bytes());
    let mut bytes = b"LWSTATE1".to_vec();
    bytes.extend(generation);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(crc.to_le_bytes());
    bytes.extend(text.as_bytes());
    std::fs::write(dir.path().join("state.0"), bytes).unwrap();
    let segment = dir.path().join("critical/000000.seg");
    let before = std::fs::read(&segment).unwrap();
    let err = Spool::open(dir.path(), smallest()).unwrap_err();
    assert!(
        matches!(
            err,
            OpenError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{err}"
    );
    assert_eq!(std::fs::read(&segment).unwrap(), before);
}
