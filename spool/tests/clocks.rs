//! Clocks that are wrong, and a folder that moves to another machine.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use jiff::Timestamp;
use kit::FakeClock;
use spool::{BootId, Class, Durability, Options, Spool, Stream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(dir: &Path, clock: &FakeClock, boot: u8) -> (Spool, Stream) {
    let options = Options {
        clock: Arc::new(clock.clone()),
        boot: BootId([boot; 16]),
        ..Options::default()
    };
    let (spool, recovered) = Spool::open(dir, options).unwrap();
    assert!(
        recovered.lost.is_empty() && recovered.torn.is_empty(),
        "{recovered:?}"
    );
    let stream = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
    stream.attach("hub").unwrap();
    (spool, stream)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn append(stream: &Stream, text: &str) {
    stream.append(text.as_bytes(), None).unwrap().wait().unwrap();
}

#[test]
fn wrong_clocks_change_neither_order_nor_times_once_they_are_set() {
    let dir = tempfile::tempdir().unwrap();
    // Boot 1 begins in 1970, and its clock is set after a minute.
    let clock = FakeClock::at(Timestamp::UNIX_EPOCH);
    let (spool, stream) = open(dir.path(), &clock, 1);
    append(&stream, "a");
    clock.advance(Duration::from_secs(60));
    clock.jump_to(at("2026-05-01T10:01:00Z"));
    spool.clock_is_right();
    append(&stream, "b");
    // An hour back, as a wrong server of time would do it.
    clock.advance(Duration::from_secs(10));
    clock.jump_to(at("2026-05-01T09:01:10Z"));
    append(&stream, "c");
    clock.jump_to(at("2026-05-01T10:01:10Z"));
    spool.clock_is_right();
    drop((spool, stream));
    // Boot 2 is ten years ahead, on another machine that took the folder over, and is never set right.
    let clock = FakeClock::at(at("2036-05-01T00:00:00Z"));
    let (spool, stream) = open(dir.path(), &clock, 2);
    append(&stream, "d");
    drop((spool, stream));
    // Boot 3 knows the time from the start.
    let clock = FakeClock::at(at("2026-05-01T12:00:00Z"));
    let (spool, stream) = open(dir.path(), &clock, 3);
    spool.clock_is_right();
    append(&stream, "e");
    let records = stream.read(0, 1 << 20).unwrap();
    let placed: Vec<_> = records
        .iter()
        .map(|record| {
            (
                String::from_utf8(record.payload.clone()).unwrap(),
                spool.place(&record.appended_at),
            )
        })
        .collect();
    let order: String = placed.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(order, "abcde");
    let time = |index: usize| placed[index].1.at;
    assert_eq!(time(0), at("2026-05-01T10:00:00Z"));
    assert_eq!(time(1), at("2026-05-01T10:01:00Z"));
    assert_eq!(time(2), at("2026-05-01T10:01:10Z"));
    assert!(
        placed[3].1.estimated && time(3) > time(2) && time(3) <= time(4),
        "{placed:?}"
    );
    assert_eq!(placed.iter().filter(|(_, placed)| placed.estimated).count(), 1);
    // Ages come from the boot clock where that says something, and are never negative.
    let waiting = spool.snapshot().streams[0].sinks["hub"].oldest_seconds.unwrap();
    assert!((7000.0..7400.0).contains(&waiting), "{waiting}");
}
