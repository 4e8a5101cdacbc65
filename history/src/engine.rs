//! SQL over what is kept: parsed, checked to be a reading, planned and run within bounds.
//!
//! Queries run on threads of their own, so that a heavy one holds up no session; a query that nobody waits for any
//! more is stopped.

use crate::answer::{Answer, Collect};
use crate::error::QueryError;
use crate::scan::{HistoryTable, STORE, Sources};
use crate::table::Signal;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::object_store::local::LocalFileSystem;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures_util::StreamExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// What all queries together may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory, all queries together.
    pub memory: usize,
    /// For one query; below the patience of who asks over the network.
    pub time: Duration,
    /// Queries at the same time.
    pub queries: usize,
    /// Threads that run them.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            time: Duration::from_secs(15),
            queries: 4,
            threads: 2,
        }
    }
}

/// How much of an answer is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows.
    pub rows: usize,
    /// Bytes of JSON.
    pub bytes: usize,
}

/// Answers queries.
#[derive(Debug)]
pub struct Engine {
    environment: Arc<RuntimeEnv>,
    limits: Limits,
    places: Semaphore,
    /// None only while it is being dropped.
    threads: Option<Runtime>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // A runtime may not wait for its threads within another one.
            threads.shutdown_background();
        }
    }
}

/// A query that was understood: it reads, and names these tables.
#[derive(Debug)]
pub struct Prepared {
    statement: Statement,
    tables: Vec<String>,
}

impl Prepared {
    /// The tables that it names, without those of `information_schema`.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }
}

impl Engine {
    /// For files below `root`.
    ///
    /// # Errors
    /// The folder or the threads cannot be made.
    pub fn open(root: &Path, limits: Limits) -> std::io::Result<Self> {
        kit::disk::create_dir_all(root)?;
        let other = std::io::Error::other::<DataFusionError>;
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory)))
            // The hub's disk holds the fleet's records: no query fills it.
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(other)?;
        let files = LocalFileSystem::new_with_prefix(root).map_err(std::io::Error::other)?;
        let url = ObjectStoreUrl::parse(STORE).map_err(other)?;
        environment.register_object_store(url.as_ref(), Arc::new(files));
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.threads)
            .thread_name("query")
            .enable_time()
            .build()?;
        Ok(Self {
            environment,
            limits,
            places: Semaphore::new(limits.queries),
            threads: Some(threads),
        })
    }

    fn context(&self) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.limits.threads)
            .with_information_schema(true);
        // Errors then know their place in the text.
        config.options_mut().sql_parser.collect_spans = true;
        SessionContext::new_with_config_rt(config, self.environment.clone())
    }

    /// Parses one statement.
    ///
    /// # Errors
    /// See [`QueryError::Sql`].
    pub fn prepare(&self, sql: &str) -> Result<Prepared, QueryError> {
        let context = self.context();
        let state = context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state
            .sql_to_statement(sql, &dialect)
            .map_err(|err| self.told(&err))?;
        let named = state
            .resolve_table_references(&statement)
            .map_err(|err| self.told(&err))?;
        let tables = named
            .iter()
            .filter(|name| name.schema().is_none_or(|schema| schema == "public"))
            .map(|name| name.table().to_owned())
            .collect();
        Ok(Prepared { statement, tables })
    }

    /// Answers a query from `sources`, which hold the tables that it names. Dropped, it stops.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run(
        self: &Arc<Self>,
        query: Prepared,
        sources: Sources,
        bounds: Bounds,
    ) -> Result<Answer, QueryError> {
        let patience = self.limits.time;
        let place = tokio::time::timeout(patience, self.places.acquire()).await;
        let _place = place
            .map_err(|_| QueryError::Busy)?
            .map_err(|_| QueryError::Busy)?;
        let Some(threads) = &self.threads else {
            return Err(QueryError::Busy);
        };
        let engine = self.clone();
        let mut task = StopOnDrop(threads.spawn(async move { engine.answer(query, sources, bounds).await }));
        match tokio::time::timeout(patience, &mut task.0).await {
            Err(_) => Err(QueryError::Time(patience.as_secs())),
            Ok(Ok(answer)) => answer,
            Ok(Err(err)) => Err(QueryError::Failed(err.to_string())),
        }
    }

    async fn answer(
        &self,
        query: Prepared,
        mut sources: Sources,
        bounds: Bounds,
    ) -> Result<Answer, QueryError> {
        let context = self.context();
        for signal in Signal::ALL {
            let (files, staged) = sources.signals.remove(&signal).unwrap_or_default();
            context
                .register_table(signal.name(), Arc::new(HistoryTable::new(signal, files, staged)))
                .map_err(|err| self.told(&err))?;
        }
        for (name, table) in sources.facts.tables().map_err(|err| self.told(&err))? {
            context
                .register_table(name, Arc::new(table))
                .map_err(|err| self.told(&err))?;
        }
        let state = context.state();
        let plan = state
            .statement_to_plan(query.statement)
            .await
            .map_err(|err| self.told(&err))?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|err| QueryError::ReadOnly(plain(&err)))?;
        let mut stream = DataFrame::new(state, plan)
            .execute_stream()
            .await
            .map_err(|err| self.told(&err))?;
        let mut collect = Collect::new(&stream.schema(), bounds);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|err| self.told(&err))?;
            let more = collect
                .take(&batch)
                .map_err(|err| QueryError::Failed(err.to_string()))?;
            if !more {
                break;
            }
        }
        Ok(collect.done())
    }

    /// An error of the planner or the run in our words, with its place in the text where it is known.
    fn told(&self, err: &DataFusionError) -> QueryError {
        if let Some(diagnostic) = err.diagnostic() {
            let hints = diagnostic.notes.iter().map(|note| &note.message);
            let hints = hints.chain(diagnostic.helps.iter().map(|help| &help.message));
            let hints: String = hints.map(|hint| format!("; {hint}")).collect();
            let place = diagnostic.span.map(|span| (span.start.line, span.start.column));
            let (what, _) = split_place(&diagnostic.message);
            return QueryError::Sql(placed(place, &format!("{}{hints}", of_ours(what))));
        }
        match err.find_root() {
            DataFusionError::SQL(parser, _) => {
                let text = parser.to_string();
                let (what, place) = split_place(text.strip_prefix("sql parser error: ").unwrap_or(&text));
                QueryError::Sql(placed(place, what))
            }
            DataFusionError::ResourcesExhausted(_) => QueryError::Memory(self.limits.memory),
            DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::ExecutionJoin(_)
            | DataFusionError::External(_)
            | DataFusionError::Internal(_) => QueryError::Failed(plain(err)),
            other => QueryError::Sql(plain(other)),
        }
    }
}

fn placed(place: Option<(u64, u64)>, what: &str) -> String {
    match place {
        Some((line, column)) if line > 0 => format!("line {line}, column {column}: {what}"),
        _ => what.to_owned(),
    }
}

/// The parser writes the place behind what it says.
fn split_place(text: &str) -> (&str, Option<(u64, u64)>) {
    let split = || {
        let (what, place) = text.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((what, (line.parse().ok()?, column.parse().ok()?)))
    };
    split().map_or((text, None), |(what, place)| (what, Some(place)))
}

/// Tables are called here as people call them.
fn of_ours(text: &str) -> String {
    text.replace("datafusion.public.", "")
}

/// Without the planner's name for the kind of error, and without a backtrace.
fn plain(err: &DataFusionError) -> String {
    of_ours(&err.message())
}

struct StopOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for StopOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
