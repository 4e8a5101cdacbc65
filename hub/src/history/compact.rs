//! One turn: file what waits, merge small files, drop the oldest, delete what nothing names.
//!
//! Whatever happens between two steps, a row counts once: a file counts from the transaction that names it, and the
//! same transaction counts its records as filed. A file without a name is deleted at the next start.

use super::{HistoryError, record};
use crate::Hub;
use crate::store::{Act, HistoryFile, StagedRecord};
use history::{FileError, Signal};
use std::collections::BTreeSet;
use std::path::Path;

/// So many small files of a stream become one.
const MERGE: usize = 12;
/// A file of so many bytes is no longer small.
const LARGE: u64 = 32 << 20;

pub(super) async fn turn(hub: &Hub) -> Result<(), HistoryError> {
    file_what_waits(hub).await?;
    merge(hub).await?;
    drop_old(hub).await?;
    delete_free(hub).await
}

async fn file_what_waits(hub: &Hub) -> Result<(), HistoryError> {
    let config = &hub.config.history;
    for waiting in hub.store.unfiled().await? {
        let Some(signal) = Signal::of_stream(&waiting.stream) else {
            continue;
        };
        let age = hub.now().duration_since(waiting.since).unsigned_abs();
        let mut left = waiting.bytes;
        let due = |left: u64| left >= config.file_bytes as u64 || age >= config.file_after;
        while left > 0 && due(left) {
            let records = hub
                .store
                .unfiled_records(&waiting.stream, config.file_bytes)
                .await?;
            let filed: usize = records.iter().map(|record| record.payload.len()).sum();
            if records.is_empty() {
                break;
            }
            file(hub, signal, records).await?;
            left = left.saturating_sub(filed as u64);
        }
    }
    Ok(())
}

fn name(stream: &str, (first, last): (u64, u64)) -> String {
    format!("{stream}/{first:020}-{last:020}.parquet")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<Result<T, FileError>, HistoryError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| HistoryError::Thread)
}

async fn file(hub: &Hub, signal: Signal, staged: Vec<StagedRecord>) -> Result<(), HistoryError> {
    let (Some(first), Some(last)) = (staged.first(), staged.last()) else {
        return Ok(());
    };
    let (ids, received_at) = ((first.id, last.id), last.received_at);
    let name = name(signal.name(), ids);
    let records: Vec<_> = staged.iter().map(record).collect();
    let (root, at) = (hub.history.root.clone(), name.clone());
    let written = blocking(move || history::write_file(&root, &at, signal, &records)).await?;
    let written = match written {
        Ok(written) => written,
        Err(FileError::Unreadable {
            device,
            sequence,
            source,
        }) => {
            // It was readable when it came; it must not hold up those behind it.
            let bad = staged
                .into_iter()
                .find(|record| record.device.as_str() == device && record.sequence == sequence);
            if let Some(bad) = bad {
                tracing::error!(device, sequence, why = %source, "a staged record cannot be read; it is set aside");
                hub.store.set_staged_aside(bad, source.to_string()).await?;
            }
            return Ok(());
        }
        Err(err) => return Err(err.into()),
    };
    let file = HistoryFile {
        name,
        stream: signal.name().to_owned(),
        ids,
        bytes: written.bytes,
        rows: written.contents.rows,
        // Without a row it overlaps with no query.
        times: written.contents.times.unwrap_or((i64::MAX, i64::MIN)),
        received_at,
    };
    tracing::debug!(
        file = file.name,
        rows = file.rows,
        bytes = file.bytes,
        "telemetry filed"
    );
    Ok(hub.store.name_file(file).await?)
}

/// Neighbours that are small become one file, so that a query of a day opens dozens of files and not hundreds.
async fn merge(hub: &Hub) -> Result<(), HistoryError> {
    let files = hub.store.history_files().await?;
    for signal in Signal::ALL {
        let of_stream: Vec<&HistoryFile> = files
            .iter()
            .filter(|file| file.stream == signal.name() && file.bytes < LARGE / MERGE as u64)
            .collect();
        // Neighbours in time of arrival; a large file between two small ones parts them no more than a gap does.
        for group in of_stream.chunks_exact(MERGE) {
            merge_group(hub, signal, group).await?;
        }
    }
    Ok(())
}

async fn merge_group(hub: &Hub, signal: Signal, group: &[&HistoryFile]) -> Result<(), HistoryError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Ok(());
    };
    let ids = (first.ids.0, last.ids.1);
    let name = name(signal.name(), ids);
    let old: Vec<String> = group.iter().map(|file| file.name.clone()).collect();
    let (root, at, from) = (hub.history.root.clone(), name.clone(), old.clone());
    let written = blocking(move || history::merge_files(&root, &at, signal, &from)).await??;
    let new = HistoryFile {
        name,
        stream: signal.name().to_owned(),
        ids,
        bytes: written.bytes,
        rows: written.contents.rows,
        times: written.contents.times.unwrap_or((i64::MAX, i64::MIN)),
        received_at: last.received_at,
    };
    hub.store.merge_files(old.clone(), new).await?;
    hub.history.pins.doom(old);
    Ok(())
}

/// Age first, then bytes; what goes is told.
async fn drop_old(hub: &Hub) -> Result<(), HistoryError> {
    let config = &hub.config.history;
    let before = hub.now().saturating_sub(config.keep).unwrap_or_default();
    let mut files = hub.store.history_files().await?;
    files.sort_by_key(|file| file.received_at);
    let mut held: u64 = files.iter().map(|file| file.bytes).sum();
    let mut gone: Vec<HistoryFile> = Vec::new();
    for file in files {
        let why = file.received_at < before || held > config.keep_bytes;
        if !why {
            break;
        }
        held -= file.bytes;
        gone.push(file);
    }
    if let Some(last) = gone.last() {
        let rows: u64 = gone.iter().map(|file| file.rows).sum();
        let bytes: u64 = gone.iter().map(|file| file.bytes).sum();
        let detail = format!(
            "{} files, {rows} rows, {bytes} bytes, received up to {}; kept are {} hours and {} bytes",
            gone.len(),
            last.received_at,
            config.keep.as_hours(),
            config.keep_bytes
        );
        tracing::info!(detail, "the oldest telemetry was dropped");
        let names: Vec<String> = gone.into_iter().map(|file| file.name).collect();
        hub.store
            .drop_files(names.clone(), dropped("history", detail))
            .await?;
        hub.history.pins.doom(names);
    }
    let forgotten = hub
        .store
        .bound_staged(before, config.staged_bytes, config.keep_bytes)
        .await?;
    if forgotten.unsent + forgotten.unfiled > 0 {
        let detail = format!(
            "{} records that a forwarder had not sent, {} that no file held: they were too old or too many",
            forgotten.unsent, forgotten.unfiled
        );
        tracing::warn!(detail, "staged telemetry was dropped");
        hub.store.audit(dropped("staged", detail)).await?;
    }
    Ok(())
}

fn dropped(what: &str, detail: String) -> Act {
    Act {
        who: "hub".into(),
        action: "telemetry.drop".into(),
        target: what.into(),
        outcome: "ok".into(),
        detail,
    }
}

async fn delete_free(hub: &Hub) -> Result<(), HistoryError> {
    for name in hub.history.pins.free() {
        let path = hub.history.root.join(name);
        let removed = kit::disk::remove_if_there(&path);
        removed.map_err(|source| HistoryError::Folder { path, source })?;
    }
    Ok(())
}

/// Deletes files that a process before this one wrote and did not name, or dropped and did not delete.
pub(super) async fn clear_orphans(hub: &Hub) -> Result<(), HistoryError> {
    let named: BTreeSet<String> = hub
        .store
        .history_files()
        .await?
        .into_iter()
        .map(|file| file.name)
        .collect();
    let root = hub.history.root.clone();
    tokio::task::spawn_blocking(move || clear(&root, &named))
        .await
        .map_err(|_| HistoryError::Thread)?
}

fn clear(root: &Path, named: &BTreeSet<String>) -> Result<(), HistoryError> {
    for signal in Signal::ALL {
        let dir = root.join(signal.name());
        let failed = |source| HistoryError::Folder {
            path: dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&dir) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = format!("{}/{}", signal.name(), entry.file_name().to_string_lossy());
            if !named.contains(&name) {
                tracing::info!(file = name, "a file that nothing names is deleted");
                kit::disk::remove_if_there(&entry.path()).map_err(failed)?;
            }
        }
    }
    Ok(())
}
