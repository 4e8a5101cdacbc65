//! Measures the spool beside the disk's own floor, fjall and JetStream, in one run: `cargo xtask bench spool`.
//!
//! `[FIGURE...] [--short]`: interleaved rounds, medians; one JSON list on standard output. The folder is a temporary one
//! below `LEEWARD_BENCH_DIR` (the present folder's `target` where absent): device bytes are the block device's own count,
//! so they hold only while nothing else writes to it; the smallest of the rounds is taken. `LEEWARD_NATS` names the
//! nats-server.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is its purpose"
)]

mod peers;
mod socket;

use serde::Serialize;
use spool::{Class, Durability, Options, PerClass, Spool, Stream};
use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK: usize = 64 << 10;
/// What a 64 KiB record takes in a log: header and padding make 17 pages.
const WRITTEN: usize = 68 << 10;
const COUNT: usize = 200;
const SMALL: usize = 1024;
const SMALL_COUNT: usize = 20_000;
const IN_FLIGHT: usize = 256;

type Answer<T> = Result<T, Box<dyn Error>>;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<f64>,
    note: String,
}

/// What is asked for.
struct Ask {
    figures: Vec<String>,
    rounds: usize,
}

impl Ask {
    fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let short = words.iter().any(|word| word == "--short");
        Self {
            figures: words.into_iter().filter(|word| !word.starts_with('-')).collect(),
            rounds: if short { 3 } else { 7 },
        }
    }

    fn wants(&self, names: &[&str]) -> bool {
        self.figures.is_empty()
            || names
                .iter()
                .any(|name| self.figures.iter().any(|figure| figure == name))
    }
}

/// A folder that goes with the program.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn main() -> Answer<()> {
    let ask = Ask::read();
    let below = std::env::var_os("LEEWARD_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = Folder(below.join(format!("spool-bench-{}", std::process::id())));
    let dir = &folder.0;
    fs::create_dir_all(dir)?;
    let mut rows = Vec::new();
    let measured = measure(&ask, dir, &mut rows);
    println!("{}", serde_json::to_string(&rows)?);
    measured
}

fn measure(ask: &Ask, dir: &Path, rows: &mut Vec<Row>) -> Answer<()> {
    if ask.wants(&["spool-overwrite", "spool-append", "spool-fjall", "spool-bytes"]) {
        commits(ask, dir, rows)?;
    }
    if ask.wants(&[
        "spool-records",
        "spool-jetstream",
        "spool-jetstream-always",
        "spool-bytes-small",
    ]) {
        records(ask, dir, rows)?;
    }
    if ask.wants(&["spool-recovery"]) {
        rows.push(recovery(dir)?);
    }
    if ask.wants(&["spool-memory"]) {
        rows.extend(memory()?);
    }
    rows.retain(|row| ask.wants(&[row.name]));
    Ok(())
}

fn told(round: usize, name: &str, value: f64) {
    eprintln!("round {round}: {name} {value:.0}/s");
}

/// Commits of 64 KiB, each synced: floors, ours and fjall in turns.
fn commits(ask: &Ask, dir: &Path, rows: &mut Vec<Row>) -> Answer<()> {
    let (mut over, mut grown, mut ours, mut fjall, mut device) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 1..=ask.rounds {
        over.push(overwrite(dir)?);
        told(round, "overwrite + fdatasync", over[round - 1]);
        let (rate, bytes) = strict(dir)?;
        told(round, "spool", rate);
        ours.push(rate);
        device.extend(bytes);
        grown.push(append(dir)?);
        told(round, "append + fdatasync", grown[round - 1]);
        fjall.push(peers::fjall(&dir.join("fjall"))?);
        told(round, "fjall, SyncData", fjall[round - 1]);
    }
    for (name, peer_name, peer) in [
        ("spool-overwrite", "overwriting + fdatasync", &over),
        ("spool-append", "appending + fdatasync", &grown),
        ("spool-fjall", "fjall, SyncData", &fjall),
    ] {
        rows.push(against(name, &ours, peer_name, peer));
    }
    rows.extend(least("spool-bytes", &device));
    Ok(())
}

/// Records of 1 KiB with 256 in flight.
fn records(ask: &Ask, dir: &Path, rows: &mut Vec<Row>) -> Answer<()> {
    let mut usual = socket::JetStream::start(dir, false)?;
    let mut always = socket::JetStream::start(dir, true)?;
    let (mut inside, mut ours, mut device) = (vec![], vec![], vec![]);
    let (mut default, mut synced) = (vec![], vec![]);
    for round in 1..=ask.rounds {
        let (rate, bytes) = small(dir)?;
        told(round, "spool, in process", rate);
        inside.push(rate);
        device.extend(bytes);
        let (_spool, stream) = warm(dir, "socket")?;
        ours.push(socket::into_spool(&stream)?);
        told(round, "spool, over a socket", ours[round - 1]);
        if let Some(jetstream) = &mut usual {
            default.push(jetstream.measure(SMALL_COUNT)?);
            told(round, "JetStream, default", default[round - 1]);
        }
        if let Some(jetstream) = &mut always {
            synced.push(jetstream.measure(SMALL_COUNT / 20)?);
            told(round, "JetStream, sync always", synced[round - 1]);
        }
    }
    rows.push(Row {
        name: "spool-records",
        ours: median(&inside),
        peer_name: None,
        peer: None,
        note: "durable, 256 in flight, in one process".to_owned(),
    });
    let version = usual
        .as_ref()
        .map_or_else(String::new, |jetstream| jetstream.version.clone());
    for (name, how, peer) in [
        ("spool-jetstream", "default: not durable", &default),
        ("spool-jetstream-always", "sync always", &synced),
    ] {
        if peer.is_empty() {
            eprintln!("{name}: no nats-server that can do this (LEEWARD_NATS names one)");
        } else {
            rows.push(against(name, &ours, &format!("NATS {version}, {how}"), peer));
        }
    }
    rows.extend(least("spool-bytes-small", &device));
    Ok(())
}

/// Ours and a peer's, round by round: the ratio told is the median of the rounds' ratios.
fn against(name: &'static str, ours: &[f64], peer_name: &str, peer: &[f64]) -> Row {
    let ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
    let least = ratios.iter().copied().fold(f64::MAX, f64::min);
    let most = ratios.iter().copied().fold(f64::MIN, f64::max);
    let median_ratio = median(&ratios);
    let ours = median(ours);
    Row {
        name,
        ours,
        peer_name: Some(peer_name.to_owned()),
        // So that ours over the peer's is the median of pairs, not a pair of medians.
        peer: Some(ours / median_ratio),
        note: format!("{} pairs, {least:.2} to {most:.2}", ratios.len()),
    }
}

fn least(name: &'static str, values: &[f64]) -> Option<Row> {
    values.iter().copied().reduce(f64::min).map(|ours| Row {
        name,
        ours,
        peer_name: None,
        peer: None,
        note: "smallest of the rounds, by the block device's count".to_owned(),
    })
}

/// Commits per second of writing over a file that has its bytes already.
fn overwrite(dir: &Path) -> Answer<f64> {
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
fn append(dir: &Path) -> Answer<f64> {
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
fn warm(dir: &Path, name: &str) -> Answer<(Spool, Stream)> {
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

fn strict(dir: &Path) -> Answer<(f64, Option<f64>)> {
    let (_spool, stream) = warm(dir, "strict")?;
    let blocks: Vec<Vec<u8>> = (0..16).map(|seed| noise(BLOCK, seed + 10)).collect();
    let before = device_bytes(dir);
    let rate = per_second(COUNT, |at| {
        let seq = stream.append(&blocks[at % blocks.len()], None)?.wait()?;
        Ok(stream.ack("hub", seq)?)
    })?;
    Ok((rate, per_byte(before, device_bytes(dir), COUNT * BLOCK)))
}

fn small(dir: &Path) -> Answer<(f64, Option<f64>)> {
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
fn recovery(dir: &Path) -> Answer<Row> {
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
    for _ in 0..3 {
        let (_spool, recovered) = Spool::open(&dir, sized.clone())?;
        bytes = recovered.bytes;
        times.push(recovered.took.as_secs_f64());
    }
    let first = times[0] * (1_u64 << 30) as f64 / bytes as f64;
    Ok(Row {
        name: "spool-recovery",
        ours: first,
        peer_name: None,
        peer: None,
        note: "first open of half a GiB that was not closed".to_owned(),
    })
}

/// Most memory of this process after all of the above, buffers of the bench included.
fn memory() -> Answer<Option<Row>> {
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
        name: "spool-memory",
        ours: kib / 1024.0,
        peer_name: None,
        peer: None,
        note: "peak of the whole program, peers in this process included".to_owned(),
    }))
}

fn per_second(count: usize, mut act: impl FnMut(usize) -> Answer<()>) -> Answer<f64> {
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
