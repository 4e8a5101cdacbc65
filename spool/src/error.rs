//! One type per operation, each condition with what it is about.

use crate::record::{Class, Durability};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// A spool or a stream could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("spool {dir} is in use by another process: stop that one, or give this one its own folder")]
    InUse {
        /// The spool's folder.
        dir: PathBuf,
    },
    /// A later version of this program has written it.
    #[error(
        "spool {dir} has format {found}, and this program knows up to {known}: start the newer version, or give this \
         one its own folder"
    )]
    Newer {
        /// The spool's folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// The file system refused something that opening needs.
    #[error("spool: {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A name that cannot be stored.
    #[error("spool stream name {name:?}: 1 to 128 bytes, without control characters")]
    BadName {
        /// The name.
        name: String,
    },
    /// The stream exists with another class.
    #[error(
        "spool stream {name} is of class {held}, not {asked}: a stream keeps its class; use another name"
    )]
    OtherClass {
        /// The stream.
        name: String,
        /// What it is.
        held: Class,
        /// What was asked for.
        asked: Class,
    },
    /// The stream exists with another durability.
    #[error(
        "spool stream {name} is {held:?}, not {asked:?}: a stream keeps its durability; use another name"
    )]
    OtherDurability {
        /// The stream.
        name: String,
        /// What it is.
        held: Durability,
        /// What was asked for.
        asked: Durability,
    },
    /// The disk refused to note which numbers a sampled stream will use.
    #[error("spool stream {name}: reserve its numbers")]
    Reserve {
        /// The stream.
        name: String,
        /// What went wrong.
        source: AppendError,
    },
    /// The options contradict one another.
    #[error("spool options: {0}")]
    Options(String),
}

/// A record was not taken, or a cursor not moved.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// The class's budget is full of records that may not be dropped.
    #[error("spool class {class} is full: its {budget} bytes hold records that no receiver has acknowledged")]
    Full {
        /// The class.
        class: Class,
        /// Its budget in bytes.
        budget: u64,
    },
    /// The disk is slower than the producers; try again.
    #[error("spool class {class}: the disk is behind the producers; try again")]
    Busy {
        /// The class.
        class: Class,
    },
    /// The record does not fit.
    #[error("record of {len} bytes is larger than the spool takes ({most} bytes): split it")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The most.
        most: usize,
    },
    /// The disk failed twice in a row; the spool tries again by itself after a while.
    #[error("spool class {class}: the disk refused to store the record: {reason}")]
    Disk {
        /// The class.
        class: Class,
        /// What the system answered.
        reason: String,
    },
    /// A source's or sink's name cannot be stored.
    #[error("spool name {name:?}: 1 to 128 bytes, without control characters")]
    BadName {
        /// The name.
        name: String,
    },
    /// Acknowledged beyond what there is: the receiver knows records that this spool does not.
    #[error("{sink} acknowledges {stream} up to {upto}, but it ends at {last}")]
    Beyond {
        /// The stream.
        stream: String,
        /// The sink.
        sink: String,
        /// What was acknowledged.
        upto: u64,
        /// What there is.
        last: u64,
    },
    /// The spool has been closed.
    #[error("the spool is closed")]
    Closed,
}

/// Records could not be read. Damage is no error: it is skipped and counted.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file system refused to read; the same call may succeed later.
    #[error("spool: read {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}
