//! What can go wrong, one condition each.

use std::path::PathBuf;

/// A record that is not what its stream says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// A file could not be written; nothing of it counts.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A record in it cannot be read.
    #[error("record {sequence} of {device}: {source}")]
    Unreadable {
        /// Whose.
        device: String,
        /// Its number.
        sequence: u64,
        /// Why.
        source: Unreadable,
    },
    /// The rows cannot be encoded.
    #[error("encode {name}")]
    Encode {
        /// Which file.
        name: String,
        /// What the encoder said.
        #[source]
        source: datafusion::parquet::errors::ParquetError,
    },
    /// A file cannot be opened.
    #[error("open {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it was.
    #[error("read {name}")]
    Decode {
        /// Which file.
        name: String,
        /// What the decoder said.
        #[source]
        source: datafusion::parquet::errors::ParquetError,
    },
    /// The disk did not take it.
    #[error("write {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A query that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query that is understood here; with its place where known.
    #[error("{0}")]
    Sql(String),
    /// It would change something.
    #[error("only reading is possible here: {0}")]
    ReadOnly(String),
    /// More memory than a query may use.
    #[error(
        "the query needs more than the {} MiB that queries may use together; narrow the time range, or aggregate earlier",
        .0 >> 20
    )]
    Memory(usize),
    /// More time than a query may take.
    #[error("the query took longer than {0} s and was stopped; narrow the time range, or name the devices")]
    Time(u64),
    /// Too many at once.
    #[error("too many queries run already; try again")]
    Busy,
    /// Something failed inside.
    #[error("the query failed: {0}")]
    Failed(String),
}
