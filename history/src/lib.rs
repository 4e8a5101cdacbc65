//! The fleet's recent past at the hub: records as rows, rows as Parquet files, files and fresh records under one SQL.
//!
//! Takes: [`Record`]s of the telemetry streams as the hub staged them, and names of files written earlier.
//! Gives: [`check`] (can a record be read, and what it holds), [`write_file`] (a Parquet file, durable before its name
//! is told), and an [`Engine`] that answers SQL over files and staged records together, within bounds.
//! Never: decides what is kept, forgets a record, or changes anything because of a query. Which files are named is the
//! hub's store's to say, in one transaction with what it forgets.
//!
//! The tables are those of `docs/decisions/040-telemetry.md`; how a record becomes rows is in `metrics`, `otlp`
//! and `alerts`.

mod alerts;
mod answer;
mod engine;
mod error;
mod facts;
mod file;
mod metrics;
mod otlp;
mod record;
mod scan;
mod table;

pub use answer::{Answer, Column};
pub use engine::{Bounds, Engine, Limits, Prepared};
pub use error::{FileError, QueryError, Unreadable};
pub use facts::{DeviceFact, EventFact, StatusFact, WorkloadFact};
pub use file::{FileRef, Written, merge_files, write_file};
pub use otlp::{severity, text};
pub use record::{Contents, Record, check};
pub use scan::{Facts, Sources};
pub use table::{ColumnInfo, Kind, Signal, TableInfo, tables};
