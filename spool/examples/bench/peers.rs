//! fjall as a spool: one keyspace, keys in order, each commit synced.

use super::{Answer, BLOCK, COUNT, noise, per_second};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

/// Commits of 64 KiB per second into a new database.
pub fn fjall(dir: &Path) -> Answer<f64> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let database = Database::builder(dir).open()?;
    let records = database.keyspace("spool", KeyspaceCreateOptions::default)?;
    let blocks: Vec<Vec<u8>> = (0..16).map(|seed| noise(BLOCK, seed + 10)).collect();
    let rate = per_second(COUNT, |at| {
        records.insert((at as u64).to_be_bytes(), blocks[at % blocks.len()].as_slice())?;
        Ok(database.persist(PersistMode::SyncData)?)
    })?;
    Ok(rate)
}
