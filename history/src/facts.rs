//! What the hub knows itself, as rows: devices, workloads, events, status.

use crate::table::{DEVICES, EVENTS, STATUS, TableInfo, WORKLOADS};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::ReaderBuilder;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A row of `devices`; see `table.rs` for what its columns say.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "told once, in the table of columns")]
pub struct DeviceFact {
    pub name: String,
    pub class: String,
    pub site: String,
    pub labels: BTreeMap<String, String>,
    pub enrolled_at: Timestamp,
    pub health: &'static str,
    pub message: String,
    pub connected: bool,
    pub last_seen: Option<Timestamp>,
    pub agent: Option<String>,
    pub backlog: Option<u64>,
}

/// A row of `workloads`.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "told once, in the table of columns")]
pub struct WorkloadFact {
    pub device: String,
    pub namespace: String,
    pub kind: String,
    pub name: String,
    pub state: String,
    pub ready: u32,
    pub desired: u32,
    pub restarts: u32,
    pub images: String,
    pub message: String,
    pub told_at: Timestamp,
}

/// A row of `events`.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "told once, in the table of columns")]
pub struct EventFact {
    pub device: String,
    pub time: Timestamp,
    pub received_at: Timestamp,
    pub severity: String,
    pub reason: String,
    pub about: String,
    pub message: String,
    pub generation: Option<String>,
}

/// A row of `status`.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "told once, in the table of columns")]
pub struct StatusFact {
    pub device: String,
    pub told_at: Timestamp,
    pub phase: String,
    pub generation: Option<String>,
    pub last_good: Option<String>,
    pub candidate: Option<String>,
    pub revision: Option<String>,
    pub source_error: Option<String>,
    pub cpu_percent: Option<f64>,
    pub temperature_celsius: Option<f64>,
    pub memory_used: u64,
    pub memory_total: u64,
    pub disk_used: u64,
    pub disk_total: u64,
}

pub(crate) trait Fact: Serialize {
    const TABLE: &'static TableInfo;
}

impl Fact for DeviceFact {
    const TABLE: &'static TableInfo = &DEVICES;
}

impl Fact for WorkloadFact {
    const TABLE: &'static TableInfo = &WORKLOADS;
}

impl Fact for EventFact {
    const TABLE: &'static TableInfo = &EVENTS;
}

impl Fact for StatusFact {
    const TABLE: &'static TableInfo = &STATUS;
}

/// Rows as columns.
pub(crate) fn batch<T: Fact>(rows: &[T]) -> Result<RecordBatch, ArrowError> {
    let schema = T::TABLE.schema();
    let mut decoder = ReaderBuilder::new(schema.clone())
        .with_batch_size(rows.len().max(1))
        .build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}
