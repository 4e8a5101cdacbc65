//! A record as the hub holds it, and what is in it.

use crate::error::Unreadable;
use crate::table::Signal;
use crate::{alerts, metrics, otlp};
use bytes::Bytes;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::TimestampNanosecondType;
use jiff::Timestamp;
use std::sync::Arc;

/// One record of a telemetry stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who sent it.
    pub device: Arc<str>,
    /// Its number in the device's stream.
    pub sequence: u64,
    /// When the hub got it.
    pub received_at: Timestamp,
    /// Its bytes as sent.
    pub payload: Bytes,
}

/// What a readable record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Rows.
    pub rows: u64,
    /// Earliest and latest time in it, in nanoseconds since 1970; none where it has no row.
    pub times: Option<(i64, i64)>,
}

/// Says what a record holds; one that cannot be read is to be set aside.
///
/// # Errors
/// Why it is not what its stream says.
pub fn check(signal: Signal, record: &Record) -> Result<Contents, Unreadable> {
    Ok(contents(&rows(signal, record)?))
}

pub(crate) fn contents(batch: &RecordBatch) -> Contents {
    let times = batch
        .column_by_name("time")
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    Contents {
        rows: batch.num_rows() as u64,
        times: times.and_then(|times| Some((min(times)?, max(times)?))),
    }
}

/// A record's rows, by the schema of its signal.
pub(crate) fn rows(signal: Signal, record: &Record) -> Result<RecordBatch, Unreadable> {
    match signal {
        Signal::Metrics => metrics::samples(record),
        Signal::Logs => otlp::logs(record),
        Signal::Traces => otlp::spans(record),
        Signal::Alerts => alerts::alerts(record),
    }
}

/// Nanoseconds since 1970 as a column holds them; times beyond the year 2262 are held at its end.
pub(crate) fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}
