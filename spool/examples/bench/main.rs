//! Measures the spool beside the disk's own floor, in one run: `cargo run --release -p spool --example bench -- DIR`.
//!
//! Interleaved rounds, medians; one JSON row per figure on standard output. Device bytes are the block device's own
//! count, so they hold only while nothing else writes; the smallest of the rounds is taken.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod socket;

use serde::Serialize;
use spool::{Class, Durability, Options, PerClass, Spool, Stream};
use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const BLOCK: usize = 64 << 10;
/// What a 64 KiB record takes in a log: header and padding make 17 pages.
const WRITTEN: usize = 68 << 10;
const COUNT: usize = 200;
const SMALL: usize = 1024;
const SMALL_COUNT: usize = 20_000;
const IN_FLIGHT: usize = 256;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    peer_name: &'static str,
    peer: Option<f64>,
    ratio: Option<f64>,
    target: String,
    met: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from("target/spool-bench"), PathBuf::from);
    fs::create_dir_all(&dir)?;
    let mut rounds = Rounds::default();
    let mut jetstream = socket::JetStream::start(&dir)?;
    for _ in 0..ROUNDS {
        rounds.run(&dir, jetstream.as_mut())?;
    }
    drop(jetstream);
    for row in rounds.rows() {
        println!("{}", serde_json::to_string(&row)?);
    }
    println!("{}", serde_json::to_string(&recovery(&dir)?)?);
    if let Some(row) = memory()? {
        println!("{}", serde_json::to_string(&row)?);
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

#[derive(Default)]
struct Rounds {
    overwrite: Vec<f64>,
    append: Vec<f64>,
    ours: Vec<f64>,
    small: Vec<f64>,
    socket: Vec<f64>,
    jetstream: Vec<f64>,
    device: Vec<f64>,
    device_small: Vec<f64>,
}

impl Rounds {
    /// Each measure once, so that what else the machine does falls on all alike.
    fn run(&mut self, dir: &Path, jetstream: Option<&mut socket::JetStream>) -> Result<(), Box<dyn Error>> {
        self.overwrite.push(overwrite(dir)?);
        let (per_second, device) = strict(dir)?;
        self.ours.push(per_second);
        self.device.extend(device);
        self.append.push(append(dir)?);
        let (per_second, device) = small(dir)?;
        self.small.push(per_second);
        self.device_small.extend(device);
        let (_spool, stream) = warm(dir, "socket")?;
        self.socket.push(socket::into_spool(&stream)?);
        if let Some(jetstream) = jetstream {
            self.jetstream.push(jetstream.measure()?);
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let ours = median(&self.ours);
        let mut rows = vec![
            against(
                "spool strict append, 64 KiB",
                ours,
                "overwrite + fdatasync",
                &self.pairs(&self.overwrite),
                0.8,
            ),
            against(
                "spool strict append, 64 KiB",
                ours,
                "append + fdatasync",
                &self.pairs(&self.append),
                1.2,
            ),
            Row {
                name: "spool durable records, 1 KiB, 256 in flight",
                unit: "records/s",
                ours: median(&self.small),
                peer_name: "none: in process",
                peer: None,
                ratio: None,
                target: "told".to_owned(),
                met: true,
            },
            self.against_jetstream(),
        ];
        for (name, values) in [
            ("spool device bytes per payload byte, 64 KiB", &self.device),
            (
                "spool device bytes per payload byte, 1 KiB, 256 in flight",
                &self.device_small,
            ),
        ] {
            if let Some(least) = values.iter().copied().reduce(f64::min) {
                rows.push(Row {
                    name,
                    unit: "B/B",
                    ours: least,
                    peer_name: "target",
                    peer: None,
                    ratio: None,
                    target: "<= 1.10".to_owned(),
                    met: least <= 1.10,
                });
            }
        }
        rows
    }

    /// JetStream answers before its sync, by default every two minutes; ours after it.
    fn against_jetstream(&self) -> Row {
        let pairs = self.socket.iter().zip(&self.jetstream);
        let ratios: Vec<f64> = pairs.map(|(ours, peer)| ours / peer).collect();
        let known = !ratios.is_empty();
        Row {
            name: "spool durable records, 1 KiB, 256 in flight, over a socket",
            unit: "records/s",
            ours: median(&self.socket),
            peer_name: if known {
                "NATS JetStream, default (not durable)"
            } else {
                "NATS JetStream: not installed"
            },
            peer: known.then(|| median(&self.jetstream)),
            ratio: known.then(|| median(&ratios)),
            target: ">= 2 x".to_owned(),
            met: known && median(&ratios) >= 2.0,
        }
    }

    /// Ours and the peer's, round by round.
    fn pairs(&self, peer: &[f64]) -> Vec<(f64, f64)> {
        self.ours.iter().copied().zip(peer.iter().copied()).collect()
    }
}

fn against(name: &'static str, ours: f64, peer_name: &'static str, pairs: &[(f64, f64)], target: f64) -> Row {
    let ratio = median(&pairs.iter().map(|(ours, peer)| ours / peer).collect::<Vec<_>>());
    Row {
        name,
        unit: "commits/s",
        ours,
        peer_name,
        peer: Some(median(&pairs.iter().map(|(_, peer)| *peer).collect::<Vec<_>>())),
        ratio: Some(ratio),
        target: format!(">= {target} x"),
        met: ratio >= target,
    }
}

/// Commits per second of writing over a file that has its bytes already.
fn overwrite(dir: &Path) -> Result<f64, Box<dyn Error>> {
    let path = dir.join("floor");
    let data = noise(WRITTEN, 1);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    if file.metadata()?.len() < (WRITTEN * COUNT) as u64 {
        for at in 0..COUNT {
            file.write_all_at(&data, (at * WRITTEN) as u64)?;
        }
        file.sync_all()?;
    }
    per_second(COUNT, |at| {
        file.write_all_at(&data, (at * WRITTEN) as u64)?;
        Ok(file.sync_data()?)
    })
}

/// Commits per second of a growing file.
fn append(dir: &Path) -> Result<f64, Box<dyn Error>> {
    let data = noise(WRITTEN, 2);
    let file = File::create(dir.join("growing"))?;
    per_second(COUNT, |at| {
        file.write_all_at(&data, (at * WRITTEN) as u64)?;
        Ok(file.sync_data()?)
    })
}

fn options() -> Options {
    let budget = 64 << 20;
    Options {
        segment_bytes: 8 << 20,
        budget: PerClass {
            critical: budget,
            normal: budget,
            bulk: budget,
        },
        ..Options::default()
    }
}

/// A stream whose files have been through one life already.
fn warm(dir: &Path, name: &str) -> Result<(Spool, Stream), Box<dyn Error>> {
    let (spool, _) = Spool::open(&dir.join(name), options())?;
    let stream = spool.stream("bench", Durability::Strict, Class::Critical)?;
    let data = noise(BLOCK, 3);
    while spool.disk_bytes(Class::Critical) + (8 << 20) <= options().budget.critical
        && stream.account("hub").acked == 0
    {
        stream.append(&data, None)?.wait()?;
    }
    stream.ack("hub", stream.last())?;
    spool.flush().wait()?;
    Ok((spool, stream))
}

fn strict(dir: &Path) -> Result<(f64, Option<f64>), Box<dyn Error>> {
    let (_spool, stream) = warm(dir, "strict")?;
    let blocks: Vec<Vec<u8>> = (0..16).map(|seed| noise(BLOCK, seed + 10)).collect();
    let before = device_bytes(dir);
    let rate = per_second(COUNT, |at| {
        let seq = stream.append(&blocks[at % blocks.len()], None)?.wait()?;
        Ok(stream.ack("hub", seq)?)
    })?;
    Ok((rate, per_byte(before, device_bytes(dir), COUNT * BLOCK)))
}

fn small(dir: &Path) -> Result<(f64, Option<f64>), Box<dyn Error>> {
    let (_spool, stream) = warm(dir, "small")?;
    let records: Vec<Vec<u8>> = (0..64).map(|seed| noise(SMALL, seed + 50)).collect();
    let before = device_bytes(dir);
    let mut waiting = VecDeque::new();
    let rate = per_second(SMALL_COUNT, |at| {
        if waiting.len() == IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            let seq = spool::Pending::wait(oldest)?;
            if seq % 1000 == 0 {
                stream.ack("hub", seq)?;
            }
        }
        waiting.push_back(stream.append(&records[at % records.len()], None)?);
        Ok(())
    })?;
    for pending in waiting {
        pending.wait()?;
    }
    Ok((rate, per_byte(before, device_bytes(dir), SMALL_COUNT * SMALL)))
}

/// Seconds to open a spool of half a GiB that was not closed, per GiB.
fn recovery(dir: &Path) -> Result<Row, Box<dyn Error>> {
    let dir = dir.join("recovery");
    let mut sized = options();
    sized.budget.critical = 768 << 20;
    {
        let (spool, _) = Spool::open(&dir, sized.clone())?;
        let stream = spool.stream("bench", Durability::Strict, Class::Critical)?;
        let data = noise(BLOCK, 4);
        let mut waiting = VecDeque::new();
        for _ in 0..(512 << 20) / BLOCK {
            if waiting.len() == 8
                && let Some(oldest) = waiting.pop_front()
            {
                spool::Pending::wait(oldest)?;
            }
            waiting.push_back(stream.append(&data, None)?);
        }
        for pending in waiting {
            pending.wait()?;
        }
    }
    // As a start after a reboot: nothing in the page cache, where that may be asked for.
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let (_spool, recovered) = Spool::open(&dir, sized.clone())?;
        bytes = recovered.bytes;
        times.push(recovered.took.as_secs_f64());
    }
    let first = times[0] * (1_u64 << 30) as f64 / bytes as f64;
    Ok(Row {
        name: "spool recovery, first open",
        unit: "s/GiB",
        ours: first,
        peer_name: "target",
        peer: None,
        ratio: None,
        target: "< 1".to_owned(),
        met: first < 1.0,
    })
}

/// Most memory of this process after all of the above, buffers of the bench included.
fn memory() -> Result<Option<Row>, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let most = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<f64>()
            .ok()
    });
    Ok(most.map(|kib| Row {
        name: "spool peak memory of the bench process",
        unit: "MiB",
        ours: kib / 1024.0,
        peer_name: "target",
        peer: None,
        ratio: None,
        target: "< 16".to_owned(),
        met: kib / 1024.0 < 16.0,
    }))
}

fn per_second(
    count: usize,
    mut act: impl FnMut(usize) -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    for at in 0..count {
        act(at)?;
    }
    Ok(count as f64 / started.elapsed().max(Duration::from_nanos(1)).as_secs_f64())
}

/// Bytes that the device below `dir` has been given, if it says.
fn device_bytes(dir: &Path) -> Option<u64> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

fn per_byte(before: Option<u64>, after: Option<u64>, payload: usize) -> Option<f64> {
    Some((after? - before?) as f64 / payload as f64)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
