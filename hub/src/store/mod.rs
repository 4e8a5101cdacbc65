//! What the hub knows, in SQLite: devices, what they sent, who may join, who said what.
//!
//! Takes: records, enrolments and acts, through async calls that never block a runtime worker.
//! Gives: devices as they may be believed now, the proof of what was received, and an audit trail that shows
//! tampering. A write that has returned is on disk: it may be acknowledged.
//! Never: speaks to a device, decides what one should run, keeps a secret in the clear.
//!
//! One thread writes and commits waiting writes together; readers see committed state only ([`front`]).

mod access;
mod accounts;
mod audit;
mod content;
mod convert;
mod devices;
mod error;
mod forwarded;
mod front;
mod health;
mod intents;
mod people;
mod ranges;
mod records;
mod rollouts;
mod schema;
mod staged;
mod status;

pub use access::{Certificate, NewCertificate, NewToken, Token, TokenRefusal};
pub use audit::{Act, AuditCheck, AuditRow};
pub use devices::{Device, DeviceFilter, Fleet, HeldStatus, NewSession, SeenGeneration, SessionId};
pub use error::StoreError;
pub use forwarded::{Forwarded, Passed};
pub use health::{Health, Link};
pub use intents::Intent;
pub use people::{PassKind, Person, Role};
pub use ranges::Ranges;
pub use records::{Appended, Batch, Cursor, EVENTS_STREAM, HeldEvent, HeldRecord, STATUS_STREAM, SetAside};
pub use rollouts::{Admitted, HeldPolicy};
pub use staged::{Forgotten, HistoryFile, Kept, StagedRecord, TELEMETRY_STREAMS, Unfiled};

use bytes::Bytes;
use devices::SeenTable;
use front::Front;
use jiff::Timestamp;
use kit::{Clock, SystemClock};
use model::DeviceName;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;

/// Says why a record of a telemetry stream, received at this time, cannot be read.
pub type Check = fn(&str, &DeviceName, Timestamp, &Bytes) -> Result<(), String>;

/// Bounds and periods.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's time.
    pub clock: Arc<dyn Clock>,
    /// How often a device with an open session is heard of at least.
    pub heartbeat: Duration,
    /// Heartbeats missed before nothing is believed any more.
    pub missed: u32,
    /// How often last-seen times are written down.
    pub flush_seen: Duration,
    /// Events kept of each device, newest.
    pub events_per_device: usize,
    /// Payloads kept of each stream that the hub does not read itself, newest.
    pub records_per_stream: usize,
    /// Unreadable records kept of each stream, newest.
    pub set_aside_per_stream: usize,
    /// Reads a telemetry record, so that what nobody can read is set aside as it comes.
    pub check: Check,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            heartbeat: Duration::from_secs(15),
            missed: 3,
            flush_seen: Duration::from_secs(30),
            events_per_device: 5_000,
            records_per_stream: 10_000,
            set_aside_per_stream: 100,
            check: |_, _, _, _| Ok(()),
        }
    }
}

impl Options {
    /// Silence after which a device's health is unknown.
    pub fn stale_after(&self) -> Duration {
        self.heartbeat * self.missed
    }

    /// Whether something heard at `at` is still believed at `now`; a clock that was set back since believes it.
    fn fresh(&self, at: Timestamp, now: Timestamp) -> bool {
        now.duration_since(at).as_secs() <= i64::try_from(self.stale_after().as_secs()).unwrap_or(i64::MAX)
    }
}

/// Something moved; whoever shows it looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A device's row, session or status.
    Device(DeviceName),
    /// A device has new events.
    Events(DeviceName),
    /// Telemetry was staged.
    Telemetry,
    /// A roll-out, or the policy of roll-outs.
    Rollouts,
    /// The audit trail has a new row.
    Audit,
}

/// The hub's state; a handle that is cheap to clone.
#[derive(Clone)]
pub struct Store {
    front: Arc<Front>,
    options: Arc<Options>,
    seen_table: Arc<Mutex<SeenTable>>,
    next_session: Arc<AtomicI64>,
    flushed_at: Arc<AtomicI64>,
    /// Locked for as long as a handle lives.
    _lock: Arc<File>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens (or makes) the state below `dir`, with the usual bounds.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Options::default())
    }

    /// Opens (or makes) the state below `dir`; blocks while an older schema is brought up to date.
    pub fn open_with(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder {
            dir: dir.to_owned(),
            source,
        };
        kit::disk::create_dir_all(dir).map_err(folder)?;
        let taken = kit::disk::take(&dir.join("hub.lock")).map_err(folder)?;
        let lock = taken.ok_or_else(|| StoreError::InUse { dir: dir.to_owned() })?;
        let path = dir.join("hub.db");
        let mut sql = front::connect(&path, true)?;
        schema::migrate(&mut sql, &path)?;
        // Whoever held a session did so with an earlier process.
        sql.execute("UPDATE devices SET session = NULL, session_since = NULL", [])?;
        let options = Arc::new(options);
        Ok(Self {
            front: Arc::new(Front::start(&path, sql, options.clone()).map_err(folder)?),
            options,
            seen_table: Arc::default(),
            next_session: Arc::new(AtomicI64::new(1)),
            flushed_at: Arc::default(),
            _lock: Arc::new(lock),
        })
    }

    /// What moves from now on; a listener that is too slow is told so and looks at everything again.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.front.changes()
    }

    /// The bounds and periods that this store keeps to.
    pub fn options(&self) -> &Options {
        &self.options
    }
}
