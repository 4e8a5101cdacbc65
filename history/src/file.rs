//! Rows as Parquet files.
//!
//! The local object store does not sync what it writes, and what a file holds is forgotten elsewhere once it is named.
//! So files are written by `kit::disk`, which does, and read through `object_store`.

use crate::error::FileError;
use crate::record::{Contents, Record, contents, rows};
use crate::table::Signal;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;

/// Rows of one row group; what a reader skips or reads at once.
const GROUP_ROWS: usize = 128 * 1024;

/// A file that the hub's store names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// Below the folder of all files.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Earliest and latest time in it, in nanoseconds since 1970.
    pub times: (i64, i64),
}

/// A file that is on disk, whole, and not named yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub contents: Contents,
}

fn writer(signal: Signal) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    ArrowWriter::try_new(Vec::new(), signal.schema(), Some(properties))
}

/// Writes the rows of `records` to `name` below `root`, in their order; returns once the file is durable.
///
/// # Errors
/// A record cannot be read, or the disk does not take the file. The file then counts for nothing.
pub fn write_file(root: &Path, name: &str, signal: Signal, records: &[Record]) -> Result<Written, FileError> {
    let encode = |source| FileError::Encode {
        name: name.to_owned(),
        source,
    };
    let mut writer = writer(signal).map_err(encode)?;
    let mut all = Contents::default();
    for record in records {
        let batch = rows(signal, record).map_err(|source| FileError::Unreadable {
            device: record.device.to_string(),
            sequence: record.sequence,
            source,
        })?;
        all = join(all, contents(&batch));
        writer.write(&batch).map_err(encode)?;
    }
    let data = writer.into_inner().map_err(encode)?;
    keep(root, name, &data)?;
    Ok(Written {
        bytes: data.len() as u64,
        contents: all,
    })
}

/// Writes the rows of the files `from` to `name`, in their order; returns once the file is durable.
///
/// # Errors
/// A file cannot be read, or the disk does not take the new one.
pub fn merge_files(root: &Path, name: &str, signal: Signal, from: &[String]) -> Result<Written, FileError> {
    let encode = |source| FileError::Encode {
        name: name.to_owned(),
        source,
    };
    let mut writer = writer(signal).map_err(encode)?;
    let mut all = Contents::default();
    for old in from {
        let path = root.join(old);
        let file = File::open(&path).map_err(|source| FileError::Read { path, source })?;
        let decode = |source| FileError::Decode {
            name: old.clone(),
            source,
        };
        let batches = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(decode)?;
        for batch in batches {
            let batch = batch.map_err(|err| decode(err.into()))?;
            all = join(all, contents(&batch));
            writer.write(&batch).map_err(encode)?;
        }
    }
    let data = writer.into_inner().map_err(encode)?;
    keep(root, name, &data)?;
    Ok(Written {
        bytes: data.len() as u64,
        contents: all,
    })
}

fn keep(root: &Path, name: &str, data: &[u8]) -> Result<(), FileError> {
    let path = root.join(name);
    let write = |source| FileError::Write {
        path: path.clone(),
        source,
    };
    if let Some(dir) = path.parent() {
        kit::disk::create_dir_all(dir).map_err(write)?;
    }
    kit::disk::replace(&path, data).map_err(write)
}

fn join(one: Contents, other: Contents) -> Contents {
    let times = match (one.times, other.times) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (times, None) | (None, times) => times,
    };
    Contents {
        rows: one.rows + other.rows,
        times,
    }
}
