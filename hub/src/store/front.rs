//! The async front: one thread writes, a few connections read, no runtime worker ever waits for the disk.
//!
//! Writes that wait together are committed together: each runs in its own savepoint (one that fails takes back
//! only itself), one commit makes all of them durable, and only then do their callers hear of it. With
//! `synchronous=FULL` a commit is one sync of the log, so a hundred devices that report at once cost one sync.

use super::{Change, Options, StoreError};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// Writes that may wait before callers are held back.
const QUEUE: usize = 1024;
/// Writes in one commit at most; bounds how long the first of them waits.
const GROUP: usize = 256;
/// Connections for reading.
const READERS: usize = 4;

type Finish = Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>;
type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> Finish + Send>;

/// One write in progress.
pub(super) struct Tx<'a> {
    /// The statement runner; within a savepoint.
    pub sql: &'a Connection,
    /// The hub's time of this write.
    pub now: Timestamp,
    /// See [`Options`].
    pub options: &'a Options,
    changes: Vec<Change>,
}

impl Tx<'_> {
    /// Tells `change` to everyone who listens, once the write is durable.
    pub fn tell(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }
}

/// Opens a connection as every connection of the store is set up.
pub(super) fn connect(path: &Path, write: bool) -> Result<Connection, rusqlite::Error> {
    let access = if write {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let sql = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    sql.busy_timeout(Duration::from_secs(10))?;
    sql.set_prepared_statement_cache_capacity(64);
    if write {
        sql.pragma_update(None, "journal_mode", "wal")?;
        // What is acknowledged to a device is dropped there: it must outlive a power cut here.
        sql.pragma_update(None, "synchronous", "full")?;
        sql.pragma_update(None, "foreign_keys", true)?;
    }
    Ok(sql)
}

/// The queue to the writing thread and the connections for reading.
pub(super) struct Front {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    changes: broadcast::Sender<Change>,
    options: Arc<Options>,
}

impl Front {
    pub fn start(path: &Path, sql: Connection, options: Arc<Options>) -> Result<Self, std::io::Error> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(sql, queue))?;
        Ok(Self {
            jobs,
            path: path.to_owned(),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
            changes: broadcast::channel(1024).0,
            options,
        })
    }

    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Tells a change that no transaction carries.
    pub fn tell(&self, change: Change) {
        // No listener is no error.
        let _ = self.changes.send(change);
    }

    /// Runs `work` in the next commit; returns once it is durable, or with nothing of it written.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = self.job(work);
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Like [`Front::write`] without waiting; false where the queue is full or closed.
    pub fn try_write<F>(&self, work: F) -> bool
    where
        F: FnOnce(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        self.jobs.try_send(self.job(work).0).is_ok()
    }

    fn job<T, F>(&self, work: F) -> (Job, oneshot::Receiver<Result<T, StoreError>>)
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let options = self.options.clone();
        let changes = self.changes.clone();
        let job: Job = Box::new(move |transaction| {
            let done = in_savepoint(transaction, &options, work);
            Box::new(move |committed| {
                let told = match committed {
                    Ok(()) => done.map(|(value, happened)| {
                        for change in happened {
                            let _ = changes.send(change);
                        }
                        value
                    }),
                    Err(err) => Err(StoreError::Commit(err)),
                };
                // A caller that went away does not hear; the write stands.
                let _ = reply.send(told);
            })
        });
        (job, answer)
    }

    /// Runs `work` on a connection that sees everything committed so far.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let held = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let path = self.path.clone();
        let (sql, done) = tokio::task::spawn_blocking(move || {
            let sql = match held {
                Some(sql) => sql,
                None => connect(&path, false)?,
            };
            // One transaction, so that all statements of one answer see the same moment.
            sql.execute_batch("BEGIN")?;
            let done = work(&sql);
            sql.execute_batch("COMMIT")?;
            Ok::<_, StoreError>((sql, done))
        })
        .await
        .map_err(|_| StoreError::Closed)??;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sql);
        done
    }
}

fn in_savepoint<T>(
    transaction: &mut Transaction<'_>,
    options: &Options,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
) -> Result<(T, Vec<Change>), StoreError> {
    // Dropped without a commit, a savepoint takes back what was done in it.
    let savepoint = transaction.savepoint()?;
    let mut tx = Tx {
        sql: &savepoint,
        now: options.clock.now(),
        options,
        changes: Vec::new(),
    };
    let value = work(&mut tx)?;
    let changes = tx.changes;
    savepoint.commit()?;
    Ok((value, changes))
}

/// The writing thread: ends when the last handle is gone and the queue is empty.
fn write_all(mut sql: Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut finish = Vec::new();
        let committed = commit_group(&mut sql, first, &mut queue, &mut finish).map_err(Arc::new);
        if let Err(err) = &committed {
            tracing::error!(%err, writes = finish.len(), "commit failed; their senders are told");
        }
        for one in finish {
            one(committed.clone());
        }
    }
}

fn commit_group(
    sql: &mut Connection,
    first: Job,
    queue: &mut mpsc::Receiver<Job>,
    finish: &mut Vec<Finish>,
) -> Result<(), rusqlite::Error> {
    let mut transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut next = Some(first);
    while let Some(job) = next {
        finish.push(job(&mut transaction));
        // A full or failing disk makes SQLite take back the whole transaction, not the savepoint alone. What was
        // written in it before is gone, and what came after would be on its own: nobody may be told that it stands.
        if transaction.is_autocommit() {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK);
            let why = "a write in the same transaction failed, and all of it was taken back";
            return Err(rusqlite::Error::SqliteFailure(code, Some(why.into())));
        }
        next = (finish.len() < GROUP).then(|| queue.try_recv().ok()).flatten();
    }
    transaction.commit()
}
