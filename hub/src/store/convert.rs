//! Between our types and SQLite's columns.

use super::StoreError;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

/// From the milliseconds of a column, written by [`millis`].
pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// To the milliseconds of a column.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// A count or sequence as a column holds it; those beyond 2^63 are held at its end.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count or sequence from a column.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A row limit as a column holds it.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// As JSON text.
pub(super) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|err| StoreError::Stored {
        what,
        why: err.to_string(),
    })
}

/// From JSON text or a name that the store wrote.
pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|err| StoreError::Stored {
        what,
        why: err.to_string(),
    })
}

/// A name that the store wrote.
pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|err: T::Err| StoreError::Stored {
        what,
        why: err.to_string(),
    })
}
