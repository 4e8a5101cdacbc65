//! A table of a signal for the planner: files and staged records of one moment, as one.

use crate::facts::{DeviceFact, EventFact, StatusFact, WorkloadFact, batch};
use crate::file::FileRef;
use crate::record::{Record, rows};
use crate::table::Signal;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a query may see: all of it of one moment, so that no row is in a file and staged at once.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Of each signal that the query names: its files, and the records that are in no file yet.
    pub signals: BTreeMap<Signal, (Vec<FileRef>, Vec<Record>)>,
    /// What the hub knows itself.
    pub facts: Facts,
}

/// Rows of the tables that the hub fills itself; those that a query does not name may be left empty.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Of `devices`.
    pub devices: Vec<DeviceFact>,
    /// Of `workloads`.
    pub workloads: Vec<WorkloadFact>,
    /// Of `events`.
    pub events: Vec<EventFact>,
    /// Of `status`.
    pub status: Vec<StatusFact>,
}

impl Facts {
    pub(crate) fn tables(&self) -> Result<Vec<(&'static str, MemTable)>> {
        let table = |name, batch: std::result::Result<RecordBatch, ArrowError>| {
            let batch = batch.map_err(DataFusionError::from)?;
            MemTable::try_new(batch.schema(), vec![vec![batch]]).map(|table| (name, table))
        };
        Ok(vec![
            table("devices", batch(&self.devices))?,
            table("workloads", batch(&self.workloads))?,
            table("events", batch(&self.events))?,
            table("status", batch(&self.status))?,
        ])
    }
}

/// Where the files are, for the planner; the engine registers the folder under it.
pub(crate) const STORE: &str = "history://files";

#[derive(Debug)]
pub(crate) struct HistoryTable {
    signal: Signal,
    files: Vec<FileRef>,
    staged: Vec<Record>,
}

impl HistoryTable {
    pub(crate) fn new(signal: Signal, files: Vec<FileRef>, staged: Vec<Record>) -> Self {
        Self {
            signal,
            files,
            staged,
        }
    }

    fn file_scan(
        &self,
        within: &Within,
        projection: Option<&Vec<usize>>,
        partitions: usize,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); partitions.max(1)];
        let wanted = self.files.iter().filter(|file| within.overlaps(file.times));
        for (index, file) in wanted.enumerate() {
            let at = index % groups.len();
            groups[at].push(PartitionedFile::new(file.name.clone(), file.bytes));
        }
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() {
            return Ok(None);
        }
        let source = ParquetSource::new(self.signal.schema());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    fn staged_scan(
        &self,
        within: &Within,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = |record: &&Record| match &within.devices {
            Some(names) => names.iter().any(|name| **name == *record.device),
            None => true,
        };
        let staged = Staged {
            signal: self.signal,
            schema: self.signal.schema(),
            records: self.staged.iter().filter(wanted).cloned().collect(),
        };
        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(staged)];
        let scan =
            StreamingTableExec::try_new(self.signal.schema(), partitions, projection, [], false, None)?;
        Ok(Arc::new(scan))
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        self.signal.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Files are skipped by them, and row groups; rows are judged by the query itself.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let within = Within::of(filters);
        let staged = self.staged_scan(&within, projection)?;
        let partitions = state.config().target_partitions();
        match self.file_scan(&within, projection, partitions)? {
            Some(files) => UnionExec::try_new(vec![files, staged]),
            None => Ok(staged),
        }
    }
}

/// Staged records, read one at a time as the query takes their rows.
#[derive(Debug)]
struct Staged {
    signal: Signal,
    schema: SchemaRef,
    records: Vec<Record>,
}

impl PartitionStream for Staged {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let signal = self.signal;
        let read = move |record: Record| {
            rows(signal, &record).map_err(|err| DataFusionError::External(Box::new(err)))
        };
        let batches = self.records.clone().into_iter().map(read);
        let stream = futures_util::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// What the filters of a query leave possible, by device and time: an outer bound, not the exact one.
#[derive(Debug, PartialEq, Eq)]
struct Within {
    low: i64,
    high: i64,
    devices: Option<Vec<String>>,
}

impl Within {
    fn of(filters: &[Expr]) -> Self {
        let mut within = Self {
            low: i64::MIN,
            high: i64::MAX,
            devices: None,
        };
        filters.iter().for_each(|filter| within.narrow(filter));
        within
    }

    fn overlaps(&self, (low, high): (i64, i64)) -> bool {
        low <= self.high && high >= self.low
    }

    fn narrow(&mut self, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => {
                self.narrow(left);
                self.narrow(right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(&column.name, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    if let Some(op) = op.swap() {
                        self.compare(&column.name, op, value);
                    }
                }
                _ => {}
            },
            Expr::Between(between) if !between.negated => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (&*between.expr, &*between.low, &*between.high)
                {
                    self.compare(&column.name, Operator::GtEq, low);
                    self.compare(&column.name, Operator::LtEq, high);
                }
            }
            Expr::InList(list) if !list.negated => {
                if let Expr::Column(column) = &*list.expr
                    && column.name == "device"
                {
                    let names = list.list.iter().map(|item| match item {
                        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
                        _ => None,
                    });
                    self.only(names.collect());
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) {
        match (column, op, value) {
            ("device", Operator::Eq, value) => {
                self.only(value.try_as_str().flatten().map(|name| vec![name.to_owned()]));
            }
            ("time", op, ScalarValue::TimestampNanosecond(Some(at), _)) => {
                if matches!(op, Operator::Gt | Operator::GtEq | Operator::Eq) {
                    self.low = self.low.max(*at);
                }
                if matches!(op, Operator::Lt | Operator::LtEq | Operator::Eq) {
                    self.high = self.high.min(*at);
                }
            }
            _ => {}
        }
    }

    fn only(&mut self, names: Option<Vec<String>>) {
        let Some(names) = names else { return };
        match &mut self.devices {
            Some(held) => held.retain(|name| names.contains(name)),
            None => self.devices = Some(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn at(nanos: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(
            Some(nanos),
            Some("+00:00".into()),
        ))
    }

    #[test]
    fn filters_narrow_what_is_opened_and_never_more_than_they_say() {
        let within = Within::of(&[
            col("time").gt(at(10)).and(at(20).gt_eq(col("time"))),
            col("device").in_list(vec![lit("a"), lit("b")], false),
            col("device").eq(lit("b")),
            col("value").gt(lit(80.0)),
        ]);
        assert_eq!(
            within,
            Within {
                low: 10,
                high: 20,
                devices: Some(vec!["b".into()])
            }
        );
        assert!(within.overlaps((20, 30)) && within.overlaps((0, 10)));
        assert!(!within.overlaps((21, 30)) && !within.overlaps((0, 9)));
        // What is not understood leaves everything possible.
        let open = Within::of(&[
            col("time").gt(at(10)).or(col("device").eq(lit("a"))),
            col("device").in_list(vec![lit("a")], true),
            col("device").not_eq(lit("a")),
            col("time").not_eq(at(3)),
        ]);
        assert_eq!(open, Within::of(&[]));
    }
}
