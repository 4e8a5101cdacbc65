//! The durable segmented log through which everything a device sends goes.
//!
//! Takes: opaque records, each with the position of its source if it has one; acknowledgements of sinks.
//! Gives: numbered records in order per stream, across crashes and power cuts, within a fixed room on disk, and an
//! [`Account`] that says where every record ever appended is.
//! Never: parses what it stores, sends anything, refuses to start because of damage, deletes what it cannot read.
//!
//! One I/O thread writes; a log per [`Class`]; blocks of whole 4 KiB pages are what is committed and what can tear.
//! `docs/decisions/` tells why it is built so; `walk` holds the rule that tells a tear from rot.

mod aside;
mod block;
mod compose;
mod core;
mod disk;
mod error;
mod identify;
mod inspect;
mod ledger;
mod memory;
mod notice;
mod options;
mod outcome;
mod pending;
mod place;
mod read;
mod record;
mod recover;
mod retention;
mod room;
#[cfg(test)]
mod sim;
mod snapshot;
mod spool;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use aside::{Aside, SetAsideError};
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{AppendError, OpenError, ReadError};
pub use inspect::{BlockInfo, Inspection, Listing, LogInfo, SegmentInfo, StreamInfo, Verdict};
pub use ledger::{Account, DropReason};
pub use notice::{NOTICES, Notice};
pub use options::{Options, PerClass};
pub use outcome::{Delivery, Outcome, Patience, Step};
pub use pending::Pending;
pub use place::Placed;
pub use record::{BootId, Class, Durability, Record, Stamp};
pub use recover::{LostRange, Recovered, Torn};
pub use retention::{Retention, WhenFull};
pub use snapshot::{LogFigures, SYNC_BOUNDS, SinkFigures, Snapshot, StreamFigures, Writes};
pub use spool::Spool;
pub use stream::Stream;
