//! What containers write: their log files are the buffer, the spool holds what is on its way.

use super::{Intake, Logs, PERIOD};
use kit::Clock;
use model::{ObjectKey, PodId};
use runtime::logs::keep;
use runtime::{Engine, LogFile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use telemetry::logs::{Batch, Collector, Format, Source, is_taken};

/// In front of a file's name where the spool keeps places.
pub(super) const PLACES: &str = "log:";

/// Reads and keeps the logs of all containers.
#[derive(Debug)]
pub(super) struct Containers<E> {
    engine: Arc<E>,
    clock: Arc<dyn Clock>,
    /// Absent where logs stay on the device.
    intake: Option<Intake>,
    config: Logs,
    collectors: BTreeMap<LogFile, Collector>,
    /// The last trouble with keeping, told once.
    trouble: Option<String>,
    /// Rounds that were made.
    rounds: u64,
}

/// Rotated files are put away every so many rounds.
const KEEP: u64 = 5;

impl<E: Engine> Containers<E> {
    pub(super) fn new(engine: Arc<E>, clock: Arc<dyn Clock>, intake: Option<Intake>, config: Logs) -> Self {
        Self {
            engine,
            clock,
            intake,
            config,
            collectors: BTreeMap::new(),
            trouble: None,
            rounds: 0,
        }
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        loop {
            self.round().await;
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn round(&mut self) {
        let listed = match self.engine.log_files().await {
            Ok(files) => files.into_iter().collect::<BTreeSet<_>>(),
            Err(err) => {
                tracing::warn!(err = kit::chain(&err), "the containers' logs cannot be listed");
                return;
            }
        };
        let paths = listed.iter().map(|file| file.path.clone()).collect();
        if self.intake.is_some() {
            self.collect(listed).await;
        }
        if self.rounds.is_multiple_of(KEEP) {
            self.keep(paths).await;
        }
        self.rounds += 1;
    }

    async fn collect(&mut self, listed: BTreeSet<LogFile>) {
        for file in &listed {
            if !self.collectors.contains_key(file) {
                let source = Source {
                    path: file.path.clone(),
                    attributes: attributes(file),
                };
                self.collectors.insert(
                    file.clone(),
                    Collector::new(source, self.config.rules(Format::Cri)),
                );
            }
        }
        let batches = self.read(listed).await;
        let Some(intake) = &mut self.intake else { return };
        if intake.take(batches).await.is_err() {
            // What was read and not taken is read again.
            self.collectors.clear();
            return;
        }
        intake.forget(self.collectors.values().flat_map(Collector::files));
    }

    /// Reads all files, on a thread where it may block.
    async fn read(&mut self, listed: BTreeSet<LogFile>) -> Vec<Batch> {
        let mut collectors = std::mem::take(&mut self.collectors);
        let (intake, clock) = (self.intake.clone(), Arc::clone(&self.clock));
        let reading = tokio::task::spawn_blocking(move || {
            let mut batches = Vec::new();
            collectors.retain(|file, collector| {
                let over = !listed.contains(file);
                let position = |name: &str| intake.as_ref()?.position(name);
                match collector.poll(clock.now(), clock.since_boot(), over, position) {
                    Ok(more) => batches.extend(more),
                    Err(err) => tracing::warn!(path = %file.path.display(), %err, "a log cannot be read"),
                }
                !(over && collector.is_over())
            });
            (collectors, batches)
        });
        match reading.await {
            Ok((collectors, batches)) => {
                self.collectors = collectors;
                batches
            }
            Err(err) => {
                tracing::error!(%err, "reading logs ended");
                Vec::new()
            }
        }
    }

    /// Puts away what was rotated, once the spool or the hub has all of it.
    async fn keep(&mut self, logs: Vec<PathBuf>) {
        let (intake, clock, retention) = (self.intake.clone(), Arc::clone(&self.clock), self.config.local);
        let keeping = tokio::task::spawn_blocking(move || {
            keep(&logs, &retention, clock.now(), |path| {
                let Some(intake) = &intake else { return true };
                is_taken(path, |name| intake.settled(name)).unwrap_or(false)
            })
        });
        let trouble = match keeping.await {
            Ok(Ok(_)) => None,
            Ok(Err(err)) => Some(err.to_string()),
            Err(err) => Some(err.to_string()),
        };
        if trouble != self.trouble
            && let Some(err) = &trouble
        {
            tracing::warn!(err, "rotated logs are not put away now; it is tried again");
        }
        self.trouble = trouble;
    }
}

/// Of a container, by OpenTelemetry's semantic conventions for Kubernetes.
fn attributes(file: &LogFile) -> Vec<(String, String)> {
    let mut attributes = of_pod(&file.pod, &file.owner);
    let of_container = [
        ("k8s.container.name", file.container.clone()),
        ("k8s.container.restart_count", file.run.to_string()),
        ("service.name", file.owner.name.clone()),
    ];
    attributes.extend(of_container.map(|(key, value)| (key.to_owned(), value)));
    attributes
}

/// Of a pod, likewise.
pub(crate) fn of_pod(pod: &PodId, owner: &ObjectKey) -> Vec<(String, String)> {
    let workload = format!("k8s.{}.name", owner.kind.to_lowercase());
    vec![
        ("k8s.namespace.name".to_owned(), pod.namespace.clone()),
        ("k8s.pod.name".to_owned(), pod.name.clone()),
        (workload, owner.name.clone()),
    ]
}
