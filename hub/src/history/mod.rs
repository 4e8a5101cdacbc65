//! The fleet's recent past: telemetry filed as Parquet, asked by SQL, bounded by age and bytes.
//!
//! The store says what counts ([`crate::store::HistoryFile`]), `history` reads and writes; here is when.

mod charts;
mod compact;
mod facts;
mod lines;
mod pins;
mod query;

pub(crate) use charts::charts;
pub(crate) use lines::lines;
pub(crate) use query::{query, tables};

use crate::Hub;
use crate::store::{StagedRecord, Store, StoreError, TELEMETRY_STREAMS};
use bytes::Bytes;
use history::{Engine, FileRef, Limits, Record, Signal, Sources};
use jiff::{SignedDuration, Timestamp};
use kit::OnEnd;
use model::DeviceName;
use pins::Pins;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is kept, and how long it waits for a file.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Rows are kept this long after they came.
    pub keep: SignedDuration,
    /// And while all files together are no larger.
    pub keep_bytes: u64,
    /// A stream's records are filed when this many bytes of them wait,
    pub file_bytes: usize,
    /// or when the oldest has waited this long.
    pub file_after: Duration,
    /// Records that a file holds may wait for a forwarder while they are no more bytes than this.
    pub staged_bytes: u64,
    /// How often all this is looked at.
    pub every: Duration,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            keep: SignedDuration::from_hours(7 * 24),
            keep_bytes: 10 << 30,
            file_bytes: 4 << 20,
            file_after: Duration::from_secs(300),
            staged_bytes: 1 << 30,
            every: Duration::from_secs(10),
        }
    }
}

/// Why what is kept could not be looked after; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] history::FileError),
    #[error("look after {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a thread that wrote a file ended early")]
    Thread,
}

/// The folder of files, and who reads it.
#[derive(Debug)]
pub(crate) struct History {
    root: PathBuf,
    engine: Arc<Engine>,
    pins: Pins,
}

impl History {
    pub(crate) fn open(data: &Path) -> std::io::Result<Self> {
        let root = data.join("history");
        let engine = Engine::open(&root, Limits::default())?;
        Ok(Self {
            root,
            engine: Arc::new(engine),
            pins: Pins::default(),
        })
    }
}

/// Why a telemetry record cannot be read, if it cannot; see [`crate::store::Options::check`].
pub(crate) fn check(stream: &str, device: &DeviceName, at: Timestamp, payload: &Bytes) -> Result<(), String> {
    let Some(signal) = Signal::of_stream(stream) else {
        return Ok(());
    };
    let record = Record {
        device: device.as_str().into(),
        sequence: 0,
        received_at: at,
        payload: payload.clone(),
    };
    history::check(signal, &record)
        .map(|_| ())
        .map_err(|err| err.to_string())
}

fn record(staged: &StagedRecord) -> Record {
    Record {
        device: staged.device.as_str().into(),
        sequence: staged.sequence,
        received_at: staged.received_at,
        payload: staged.payload.clone(),
    }
}

/// Starts what looks after the files, for as long as the hub runs.
pub(crate) fn start(hub: &Arc<Hub>) {
    let hub_of_task = hub.clone();
    hub.tasks.spawn("history", OnEnd::Restart, move || {
        let hub = hub_of_task.clone();
        async move {
            if let Err(err) = compact::clear_orphans(&hub).await {
                tracing::error!(error = kit::chain(&err), "files that nothing names stay");
            }
            loop {
                if let Err(err) = compact::turn(&hub).await {
                    tracing::error!(
                        error = kit::chain(&err),
                        "telemetry waits for its files; it is tried again"
                    );
                }
                tokio::time::sleep(hub.config.history.every).await;
            }
        }
    });
}

/// What the tables named in a query hold, of one moment for each signal.
async fn sources(
    store: &Store,
    named: &[String],
    staged_bytes: usize,
) -> Result<Option<Sources>, StoreError> {
    let mut sources = Sources {
        facts: facts::load(store, named).await?,
        ..Sources::default()
    };
    for stream in TELEMETRY_STREAMS {
        let (Some(signal), true) = (Signal::of_stream(stream), named.iter().any(|name| name == stream))
        else {
            continue;
        };
        let Some(kept) = store.telemetry(stream, staged_bytes).await? else {
            return Ok(None);
        };
        let file = |file: crate::store::HistoryFile| FileRef {
            name: file.name,
            bytes: file.bytes,
            times: file.times,
        };
        let files = kept.files.into_iter().map(file).collect();
        let staged = kept.staged.iter().map(record).collect();
        sources.signals.insert(signal, (files, staged));
    }
    Ok(Some(sources))
}
