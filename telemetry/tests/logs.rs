//! A log is followed through everything that happens to log files, and each line is given once.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use telemetry::logs::{Batch, Collector, Follower, Format, Rules, Source, Together, UPTO, trim};

/// A folder, its reader, and what a receiver holds, which forgets nothing when the reader starts anew.
struct Rig {
    dir: tempfile::TempDir,
    positions: BTreeMap<String, u64>,
    follower: Follower,
    seen: Vec<String>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let follower = Follower::new(dir.path().join("x.log"));
        Self {
            dir,
            positions: BTreeMap::new(),
            follower,
            seen: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        append(&self.path("x.log"), text);
    }

    fn rename(&self, from: &str, to: &str) {
        kit::disk::swap(&self.path(from), &self.path(to)).unwrap();
    }

    /// Reads until nothing is new; adds whole lines to `seen`.
    fn read(&mut self) {
        loop {
            let positions = self.positions.clone();
            let chunks = self
                .follower
                .read(1 << 16, |file| positions.get(file).copied())
                .unwrap();
            if chunks.is_empty() {
                return;
            }
            for chunk in chunks {
                self.positions
                    .insert(chunk.file, chunk.from + chunk.bytes.len() as u64);
                self.seen
                    .extend(String::from_utf8(chunk.bytes).unwrap().lines().map(str::to_owned));
            }
        }
    }

    fn restart(&mut self) {
        self.follower = Follower::new(self.path("x.log"));
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn renamed_files_are_read_to_their_ends_in_order() {
    let mut rig = Rig::new();
    rig.write("a\nb\n");
    rig.read();
    rig.write("c\n");
    rig.rename("x.log", "x.log.1");
    rig.write("d\n");
    rig.rename("x.log.1", "x.log.2");
    rig.rename("x.log", "x.log.1");
    rig.write("e\n");
    rig.read();
    assert_eq!(rig.seen, ["a", "b", "c", "d", "e"]);
}

#[test]
fn ten_rotations_between_two_looks_lose_nothing() {
    let mut rig = Rig::new();
    for number in 0..10 {
        rig.write(&format!("line {number}\n"));
        for old in (1..number + 1).rev() {
            let _ = kit::disk::swap(
                &rig.path(&format!("x.log.{old}")),
                &rig.path(&format!("x.log.{}", old + 1)),
            );
        }
        rig.rename("x.log", "x.log.1");
    }
    rig.read();
    assert_eq!(
        rig.seen,
        (0..10).map(|number| format!("line {number}")).collect::<Vec<_>>()
    );
}

#[test]
fn a_truncated_file_begins_anew_even_with_the_same_first_line() {
    let mut rig = Rig::new();
    rig.write("head\nold 1\nold 2\n");
    rig.read();
    // As logrotate's copytruncate does: what was read is not read again, what came in between is in the copy.
    rig.write("old 3\n");
    fs::copy(rig.path("x.log"), rig.path("x.log.1")).unwrap();
    OpenOptions::new()
        .write(true)
        .open(rig.path("x.log"))
        .unwrap()
        .set_len(0)
        .unwrap();
    rig.write("head\nnew\n");
    rig.read();
    rig.restart();
    rig.read();
    rig.write("more\n");
    rig.read();
    assert_eq!(
        rig.seen,
        ["head", "old 1", "old 2", "old 3", "head", "new", "more"]
    );
}

#[test]
fn another_file_under_the_same_inode_is_another_file() {
    let mut rig = Rig::new();
    rig.write("first\n1\n");
    rig.read();
    // The same inode with other, longer content: what a freed inode looks like to a reader that was away.
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(rig.path("x.log"))
        .unwrap();
    file.write_all(b"second\n1\n2\n3\n").unwrap();
    rig.read();
    assert_eq!(rig.seen, ["first", "1", "second", "1", "2", "3"]);
}

#[test]
fn a_deleted_file_is_read_to_its_end_and_a_partial_line_with_it() {
    let mut rig = Rig::new();
    rig.write("a\n");
    rig.read();
    rig.write("b\nc without an end");
    fs::remove_file(rig.path("x.log")).unwrap();
    rig.read();
    assert_eq!(rig.seen, ["a", "b", "c without an end"]);
    assert!(!rig.follower.holds());
    rig.write("d\n");
    rig.read();
    assert_eq!(rig.seen.last().unwrap(), "d");
}

#[test]
fn a_partial_line_waits_for_its_end() {
    let mut rig = Rig::new();
    rig.write("one\ntw");
    rig.read();
    assert_eq!(rig.seen, ["one"]);
    rig.restart();
    rig.write("o\n");
    rig.read();
    assert_eq!(rig.seen, ["one", "two"]);
}

#[test]
fn a_line_beyond_any_measure_comes_in_parts() {
    let mut rig = Rig::new();
    let long = "x".repeat(3 << 20);
    rig.write(&format!("{long}\nnext\n"));
    rig.read();
    assert_eq!(rig.seen.last().unwrap(), "next");
    assert_eq!(rig.seen.iter().map(String::len).sum::<usize>(), long.len() + 4);
}

#[test]
fn compressed_files_and_strangers_are_left_alone() {
    let mut rig = Rig::new();
    rig.write("a\n");
    for name in ["x.log.2.gz", "x.logs", "y.log", "x.log-2026.zst"] {
        append(&rig.path(name), "not this\n");
    }
    append(&rig.path("x.log-20260101"), "older\n");
    fs::create_dir(rig.path("x.log.d")).unwrap();
    rig.read();
    assert_eq!(rig.seen, ["older", "a"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Lines are written and files rotated at random, and the reader is ended and started anew.
    #[test]
    fn every_line_comes_once_and_in_order(steps in proptest::collection::vec(0..6u8, 1..60)) {
        let mut rig = Rig::new();
        let mut written = 0;
        for step in steps {
            match step {
                0..=2 => {
                    rig.write(&format!("line {written}\n"));
                    written += 1;
                }
                3 => if rig.path("x.log").exists() {
                    for old in (1..=9).rev() {
                        let _ = kit::disk::swap(
                            &rig.path(&format!("x.log.{old}")),
                            &rig.path(&format!("x.log.{}", old + 1)),
                        );
                    }
                    rig.rename("x.log", "x.log.1");
                    // The oldest goes, as with any rotation, once it was read.
                    rig.read();
                    let _ = fs::remove_file(rig.path("x.log.9"));
                },
                4 => rig.read(),
                _ => rig.restart(),
            }
        }
        rig.read();
        let want: Vec<String> = (0..written).map(|number| format!("line {number}")).collect();
        prop_assert_eq!(rig.seen, want);
    }
}

fn collector(path: &Path, per_second: u32) -> Collector {
    let attributes = vec![("k8s.pod.name".to_owned(), "p".to_owned())];
    let rules = Rules {
        format: Format::Plain,
        together: Together::Never,
        redactions: Vec::new(),
        per_second,
        wait: Duration::from_secs(5),
    };
    Collector::new(
        Source {
            path: path.to_owned(),
            attributes,
        },
        rules,
    )
}

fn poll(collector: &mut Collector, at: u64, over: bool) -> Vec<Batch> {
    collector
        .poll(Timestamp::UNIX_EPOCH, Duration::from_secs(at), over, |_| None)
        .unwrap()
}

fn bodies(batch: &Batch) -> Vec<(String, i64)> {
    let request = ExportLogsServiceRequest::decode(batch.record.as_slice()).unwrap();
    let records = request
        .resource_logs
        .iter()
        .flat_map(|resource| &resource.scope_logs);
    records
        .flat_map(|scope| &scope.log_records)
        .map(|record| {
            let body = match &record.body.as_ref().unwrap().value {
                Some(Value::StringValue(text)) => text.clone(),
                other => panic!("{other:?}"),
            };
            let upto = record.attributes.iter().find(|it| it.key == UPTO).unwrap();
            match upto.value.as_ref().unwrap().value {
                Some(Value::IntValue(upto)) => (body, upto),
                ref other => panic!("{other:?}"),
            }
        })
        .collect()
}

#[test]
fn entries_wait_for_one_another_and_carry_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    append(&path, "one\n{\"msg\":\"two\"}\n");
    let mut logs = collector(&path, 100);
    assert_eq!(poll(&mut logs, 0, false), []);
    append(&path, "three\n");
    assert_eq!(poll(&mut logs, 1, false), []);
    let batches = poll(&mut logs, 5, false);
    let [batch] = batches.as_slice() else {
        panic!("{batches:?}")
    };
    assert_eq!(batch.upto, File::open(&path).unwrap().metadata().unwrap().len());
    assert_eq!(
        bodies(batch),
        [
            ("one".to_owned(), 4),
            ("two".to_owned(), 18),
            ("three".to_owned(), 24)
        ]
    );
}

#[test]
fn the_end_of_a_log_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    append(&path, "last words");
    let mut logs = collector(&path, 100);
    poll(&mut logs, 0, false);
    append(&path, ", said\n");
    fs::remove_file(&path).unwrap();
    // Deleted before it was ever opened: nothing can be had of it.
    assert_eq!(poll(&mut logs, 0, true), []);
    assert!(logs.is_over());

    append(&path, "a\n");
    let mut logs = collector(&path, 100);
    poll(&mut logs, 0, false);
    append(&path, "b");
    fs::remove_file(&path).unwrap();
    let batches: Vec<Batch> = (0..3).flat_map(|at| poll(&mut logs, at, true)).collect();
    let all: Vec<_> = batches.iter().flat_map(bodies).collect();
    assert_eq!(all, [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    assert!(logs.is_over());
}

#[test]
fn what_a_flood_costs_is_said_in_the_log_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    append(&path, "before\n");
    let mut logs = collector(&path, 10);
    let mut batches = poll(&mut logs, 0, false);
    append(&path, &"noise\n".repeat(500));
    batches.extend(poll(&mut logs, 0, false));
    batches.extend(poll(&mut logs, 5, false));
    let all: Vec<_> = batches.iter().flat_map(bodies).collect();
    assert_eq!(all.len(), 102);
    assert_eq!(
        all.last().unwrap(),
        &("400 entries dropped: over 10 a second".to_owned(), 3007)
    );
    assert_eq!(batches.last().unwrap().upto, 3007);
}

#[test]
fn what_was_there_before_anybody_read_it_is_no_flood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    append(&path, &"line\n".repeat(500));
    let mut logs = collector(&path, 10);
    let mut batches = poll(&mut logs, 0, false);
    batches.extend(poll(&mut logs, 5, false));
    assert_eq!(batches.iter().flat_map(bodies).count(), 500);
}

/// A device that crashed reads again from an older place and cuts its records elsewhere.
#[test]
fn a_receiver_takes_each_entry_once_however_often_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let lines: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
    let (mut held, mut kept) = (BTreeMap::<String, u64>::new(), Vec::new());
    let mut receive = |batch: &Batch| {
        let trimmed = trim(batch.record.clone().into(), |file| {
            Ok::<_, std::convert::Infallible>(held.get(file).copied())
        })
        .unwrap();
        held.extend(trimmed.places);
        let left = Batch {
            record: trimmed.record.to_vec(),
            ..batch.clone()
        };
        kept.extend(bodies(&left).into_iter().map(|(body, _)| body));
    };
    for known in [0, 0, 13, 40] {
        for part in lines.chunks(20) {
            if known == 0 && held_lines(&path) < lines.len() {
                append(&path, &(part.join("\n") + "\n"));
            }
        }
        let place = lines[..known]
            .iter()
            .map(|line| line.len() as u64 + 1)
            .sum::<u64>();
        let mut logs = collector(&path, 1000);
        // A file's first life only.
        let position = |file: &str| (file.split('-').count() == 3).then_some(place);
        let mut batches = logs
            .poll(Timestamp::UNIX_EPOCH, Duration::ZERO, false, position)
            .unwrap();
        batches.extend(poll(&mut logs, 5, false));
        batches.iter().for_each(&mut receive);
    }
    assert_eq!(kept, lines);
}

fn held_lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
