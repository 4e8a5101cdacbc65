//! Rotated files are compressed beside their reader, and it never loses a line by that.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use runtime::logs::{Retention, keep};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use telemetry::logs::{Follower, is_taken};

const PLENTY: Retention = Retention {
    per_log: 1 << 30,
    total: 1 << 30,
    age: SignedDuration::from_hours(1),
};

struct Rig {
    dir: tempfile::TempDir,
    follower: Follower,
    /// As the spool has them: in memory, and safe from a crash.
    offered: BTreeMap<String, u64>,
    settled: BTreeMap<String, u64>,
    /// What a receiver keeps: by file and offset, as the hub does.
    seen: Vec<String>,
    held: BTreeMap<String, u64>,
    written: usize,
    compressed: u64,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            follower: Follower::new(dir.path().join("0.log")),
            dir,
            offered: BTreeMap::new(),
            settled: BTreeMap::new(),
            seen: Vec::new(),
            held: BTreeMap::new(),
            written: 0,
            compressed: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&mut self) {
        let path = self.path("0.log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "line {}", self.written).unwrap();
        self.written += 1;
    }

    /// As the shim does, but that its bound never costs a line here.
    fn rotate(&self) {
        for number in (1..40).rev() {
            let name = |number| self.path(&format!("0.log.{number}"));
            let _ = kit::disk::swap(&name(number), &name(number + 1));
        }
        let _ = kit::disk::swap(&self.path("0.log"), &self.path("0.log.1"));
    }

    fn read(&mut self) {
        let offered = self.offered.clone();
        let chunks = self.follower.read(64, |file| offered.get(file).copied()).unwrap();
        for chunk in chunks {
            let mut at = chunk.from;
            for line in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
                at += line.len() as u64;
                let held = self.held.entry(chunk.file.clone()).or_default();
                if at > *held {
                    *held = at;
                    self.seen.push(String::from_utf8_lossy(line).trim().to_owned());
                }
            }
            self.offered.insert(chunk.file, at);
        }
    }

    fn settle(&mut self) {
        self.settled.clone_from(&self.offered);
    }

    fn keep(&mut self) {
        let log = self.path("0.log");
        let kept = keep(&[log], &PLENTY, Timestamp::now(), |path| {
            is_taken(path, |file| self.settled.get(file).copied()).unwrap()
        });
        self.compressed += kept.unwrap().compressed;
    }

    /// What was in memory is lost.
    fn crash(&mut self) {
        self.offered.clone_from(&self.settled);
        self.follower = Follower::new(self.path("0.log"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn compression_never_costs_a_line(steps in proptest::collection::vec(0..9u8, 1..80)) {
        let mut rig = Rig::new();
        for step in steps {
            match step {
                0..=2 => rig.write(),
                3 => rig.rotate(),
                4 => rig.read(),
                5 => rig.settle(),
                6 | 7 => rig.keep(),
                _ => rig.crash(),
            }
        }
        for _ in 0..200 {
            rig.read();
        }
        let want: Vec<String> = (0..rig.written).map(|number| format!("line {number}")).collect();
        let mut seen = rig.seen.clone();
        // An inode may be given again to a file whose first line says that it is another: order is by file.
        seen.sort_by_key(|line| line.trim_start_matches("line ").parse::<usize>().ok());
        prop_assert_eq!(seen, want);
    }
}

#[test]
fn what_is_settled_is_compressed_and_what_is_not_stays() {
    let mut rig = Rig::new();
    rig.write();
    rig.rotate();
    rig.write();
    rig.keep();
    assert_eq!(rig.compressed, 0);
    rig.read();
    rig.keep();
    assert_eq!(rig.compressed, 0, "read, but not safe from a crash");
    rig.settle();
    rig.keep();
    assert_eq!(rig.compressed, 1);
    assert!(rig.path("0.log").exists());
}
