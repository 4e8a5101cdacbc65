//! Failure tests on the simulated disk.

mod cuts;
mod faults;
mod lost_state;
mod memory;
mod model;

use crate::sim::{Image, SimDisk};
use crate::{Class, Durability, NOTICES, Notice, Options, PerClass, Record, Recovered, Spool, Stream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/spool";

/// Small enough that a few records fill a segment.
fn options(disk: &SimDisk) -> Options {
    Options {
        segment_bytes: 64 << 10,
        block_bytes: 6 << 10,
        budget: PerClass {
            critical: 640 << 10,
            normal: 640 << 10,
            bulk: 640 << 10,
        },
        linger: PerClass {
            critical: Duration::ZERO,
            normal: Duration::ZERO,
            bulk: Duration::ZERO,
        },
        disk: Arc::new(disk.clone()),
        ..Options::default()
    }
}

fn open(disk: &SimDisk) -> (Spool, Recovered) {
    Spool::open(Path::new(DIR), options(disk)).unwrap()
}

fn open_image(image: &Image) -> (Spool, Stream, Recovered) {
    let (spool, recovered) = open(&SimDisk::of(image.clone()));
    let stream = strict(&spool);
    (spool, stream, recovered)
}

fn strict(spool: &Spool) -> Stream {
    spool.stream("s", Durability::Strict, Class::Normal).unwrap()
}

fn read_all(stream: &Stream, mut after: u64) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let more = stream.read(after, 10_000).unwrap();
        let Some(last) = more.last() else { return records };
        after = last.seq;
        records.extend(more);
    }
}

fn notices(spool: &Spool) -> Vec<Notice> {
    spool.flush().wait().unwrap();
    let stream = spool
        .stream(NOTICES, Durability::Strict, Class::Critical)
        .unwrap();
    read_all(&stream, 0)
        .iter()
        .map(|record| serde_json::from_slice(&record.payload).unwrap())
        .collect()
}

/// Bytes that name their number and do not compress.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < len.max(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    bytes
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// How often a random test repeats; `SPOOL_ROUNDS` makes a soak of it.
fn rounds(usual: u32) -> u32 {
    std::env::var("SPOOL_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}
