//! A writer process killed with SIGKILL at any moment: what it was told is kept, is kept, once and in order.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use spool::{Class, Durability, Options, PerClass, Record, Spool, Stream};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const STREAMS: [(&str, Class); 2] = [("audit", Class::Critical), ("events", Class::Normal)];
const WRITER: &str = "SPOOL_TEST_WRITER";

fn options() -> Options {
    let budget = 2 << 20;
    Options {
        segment_bytes: 128 << 10,
        block_bytes: 16 << 10,
        budget: PerClass {
            critical: budget,
            normal: budget,
            bulk: budget,
        },
        linger: PerClass {
            critical: Duration::ZERO,
            normal: Duration::from_millis(1),
            bulk: Duration::ZERO,
        },
        ..Options::default()
    }
}

fn payload(number: u64) -> Vec<u8> {
    let len = 8 + usize::try_from(number * 7919 % 6000).unwrap();
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len, number as u8);
    bytes
}

fn number(record: &Record) -> u64 {
    let number = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
    assert_eq!(record.payload, payload(number));
    number
}

/// The process that is killed; a test like the others, with nothing to do unless it is started for that.
#[test]
fn writer_process() {
    let Ok(dir) = std::env::var(WRITER) else { return };
    let (spool, _) = Spool::open(Path::new(&dir), options()).unwrap();
    let streams: Vec<Stream> = STREAMS
        .iter()
        .map(|(name, class)| spool.stream(name, Durability::Strict, *class).unwrap())
        .collect();
    let mut next: Vec<u64> = STREAMS
        .iter()
        .map(|(name, _)| spool.position(name).unwrap_or(0) + 1)
        .collect();
    let mut waiting = VecDeque::new();
    let mut out = std::io::stdout().lock();
    loop {
        for (index, stream) in streams.iter().enumerate() {
            let name = STREAMS[index].0;
            let pending = stream
                .append(&payload(next[index]), Some((name, next[index])))
                .unwrap();
            waiting.push_back((index, next[index], pending));
            next[index] += 1;
        }
        while waiting.len() > 8 {
            let (index, number, pending) = waiting.pop_front().unwrap();
            let seq = pending.wait().unwrap();
            writeln!(out, "kept {index} {number} {seq}").unwrap();
            // A receiver that lags behind by some thirty records.
            if number % 10 == 0 && seq > 30 {
                let upto = seq - 30;
                let first = streams[index].acked("hub");
                let run = streams[index].read(first, 1 << 20).unwrap();
                if run.last().is_some_and(|last| last.seq >= upto) {
                    streams[index].ack("hub", upto).unwrap();
                    writeln!(out, "acked {index} {upto}").unwrap();
                }
            }
        }
        out.flush().unwrap();
    }
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture"])
        .env(WRITER, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What all lives of the writer were told, by stream.
#[derive(Default)]
struct Told {
    kept: BTreeMap<u64, u64>,
    acked: u64,
}

fn take(line: &str, told: &mut [Told; 2]) {
    let words: Vec<&str> = line.split(' ').collect();
    let at = |index: usize| words[index].parse::<u64>().unwrap();
    match words.as_slice() {
        ["kept", _, _, _] => {
            let held = told[at(1) as usize].kept.insert(at(3), at(2));
            assert!(held.is_none(), "number {} given out twice", at(3));
        }
        ["acked", _, _] => told[at(1) as usize].acked = at(2),
        _ => {}
    }
}

fn kills(rounds: u32) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("spool");
    let mut told: [Told; 2] = Default::default();
    for round in 0..rounds {
        let mut child = start(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after so many answers, somewhere in the middle of the next ones.
        let most = 1 + u64::from(round) * 2_654_435_761 % 700;
        for _ in 0..most {
            take(&lines.next().unwrap().unwrap(), &mut told);
        }
        child.kill().unwrap();
        // What was told and not read yet counts too; the last line may be cut short.
        let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.pop();
        for line in &rest {
            take(line, &mut told);
        }
        child.wait().unwrap();
        check(&path, &told);
    }
}

fn check(path: &Path, told: &[Told; 2]) {
    let (spool, recovered) = Spool::open(path, options()).unwrap();
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    for (index, (name, class)) in STREAMS.iter().enumerate() {
        let stream = spool.stream(name, Durability::Strict, *class).unwrap();
        let mut after = stream.acked("hub");
        assert!(after <= stream.last());
        let mut there = BTreeMap::new();
        let mut numbers = Vec::new();
        loop {
            let records = stream.read(after, 1 << 20).unwrap();
            let Some(last) = records.last() else { break };
            after = last.seq;
            for record in &records {
                numbers.push(number(record));
                there.insert(record.seq, number(record));
            }
        }
        // Each once, none left out, up to the source's position: a source that goes on there repeats nothing.
        assert!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{name}: {numbers:?}"
        );
        if let Some(last) = numbers.last() {
            assert_eq!(spool.position(name), Some(*last), "{name}");
        }
        for (seq, number) in &told[index].kept {
            if *seq > stream.acked("hub") {
                assert_eq!(there.get(seq), Some(number), "{name}: {seq} was confirmed");
            }
        }
        let account = stream.account("hub");
        assert!(account.balanced() && account.lost == 0, "{account:?}");
        assert_eq!(account.resident, there.len() as u64, "{account:?}");
    }
}

#[test]
fn killed_again_and_again_it_loses_nothing() {
    kills(12);
}

#[test]
#[ignore = "a thousand kills: run by the soak"]
fn a_thousand_kills_lose_nothing() {
    let asked = std::env::var("SPOOL_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    kills(asked.unwrap_or(1000));
}
