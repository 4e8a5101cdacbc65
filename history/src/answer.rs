//! Rows of an answer as JSON, as many as may be.

use crate::engine::Bounds;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::{LineDelimitedWriter, WriterBuilder};
use serde_json::Value;
use std::collections::HashMap;

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, in the planner's words.
    pub kind: String,
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In order.
    pub columns: Vec<Column>,
    /// A value for each column. Times are RFC 3339, maps objects, what is not a number (NaN) is null.
    pub rows: Vec<Vec<Value>>,
    /// There would have been more.
    pub truncated: bool,
}

/// An answer in the making.
pub(crate) struct Collect {
    answer: Answer,
    bounds: Bounds,
    bytes: usize,
}

impl Collect {
    pub fn new(schema: &SchemaRef, bounds: Bounds) -> Self {
        let column = |field: &datafusion::arrow::datatypes::FieldRef| Column {
            name: field.name().clone(),
            kind: field.data_type().to_string(),
        };
        Self {
            answer: Answer {
                columns: schema.fields().iter().map(column).collect(),
                rows: Vec::new(),
                truncated: false,
            },
            bounds,
            bytes: 0,
        }
    }

    /// Takes rows; false where no more may come.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<bool, ArrowError> {
        let room = self.bounds.rows - self.answer.rows.len();
        let batch = if batch.num_rows() > room {
            self.answer.truncated = true;
            batch.slice(0, room)
        } else {
            batch.clone()
        };
        let mut text = Vec::new();
        let mut writer: LineDelimitedWriter<_> =
            WriterBuilder::new().with_explicit_nulls(true).build(&mut text);
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.bytes += line.len();
            if self.bytes > self.bounds.bytes {
                self.answer.truncated = true;
                break;
            }
            let mut cells: HashMap<String, Value> =
                serde_json::from_slice(line).map_err(|err| ArrowError::JsonError(err.to_string()))?;
            let row = self
                .answer
                .columns
                .iter()
                .map(|column| cells.remove(&column.name).unwrap_or_default());
            self.answer.rows.push(row.collect());
        }
        Ok(!self.answer.truncated)
    }

    pub fn done(self) -> Answer {
        self.answer
    }
}
