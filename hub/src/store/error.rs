//! What can go wrong at the store, one condition each.

use super::access::TokenRefusal;
use model::DeviceName;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the store did not do what was asked; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state folder cannot be made or locked.
    #[error("cannot use the state folder {dir}: {source}; check its owner and permissions")]
    Folder {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error("the state folder {dir} is in use by another hub process; stop that one, or name another folder")]
    InUse {
        /// Which.
        dir: PathBuf,
    },
    /// The database was written by a newer version.
    #[error(
        "the database {path} has schema {found}, this version knows up to {known}; run the newer version"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// SQLite refused a statement.
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The transaction that held this write could not be made durable.
    #[error("the write could not be made durable: {0}")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// What is stored does not read back.
    #[error("the stored {what} does not read back: {why}")]
    Stored {
        /// Of what.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
    /// No device has this name.
    #[error("no device is called {0}; `leeward get devices` lists them")]
    NoSuchDevice(DeviceName),
    /// The device may not send any more.
    #[error("device {0} is revoked")]
    Revoked(DeviceName),
    /// The name is in use and the token does not allow to take it over.
    #[error(
        "a device called {0} is enrolled already; choose another name, or make a token that may replace it"
    )]
    NameTaken(DeviceName),
    /// The token does not let this device in.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// A record cannot have this number.
    #[error("stream {stream}: sequence {sequence} is not valid: sequences start at 1 and end at 2^63-1")]
    BadSequence {
        /// Of which stream.
        stream: String,
        /// The number.
        sequence: u64,
    },
    /// A stream cannot have this name.
    #[error("{0:?} is no stream name: use 1 to 63 lower-case letters, digits, '.', '_' and '-'")]
    BadStream(String),
    /// The device sends with more holes than the hub is ready to remember.
    #[error("stream {stream}: more than {limit} gaps; send in order, or state what is lost")]
    TooManyGaps {
        /// Of which stream.
        stream: String,
        /// The bound.
        limit: usize,
    },
}
