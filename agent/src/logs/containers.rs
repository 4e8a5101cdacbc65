//! What containers write: their log files are the buffer, the spool holds what is on its way.

use super::followed::Followed;
use super::{Intake, Logs, PERIOD};
use kit::Clock;
use model::{ObjectKey, PodId};
use runtime::logs::{Retention, keep};
use runtime::{Engine, LogFile};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use telemetry::logs::{Collector, Format, Rules, Source, is_taken};

/// In front of a file's name where the spool keeps places.
pub(super) const PLACES: &str = "log:";

/// Reads and keeps the logs of all containers.
#[derive(Debug)]
pub(super) struct Containers<E> {
    engine: Arc<E>,
    clock: Arc<dyn Clock>,
    /// Absent where logs stay on the device.
    followed: Option<Followed<LogFile>>,
    rules: Arc<Rules>,
    retention: Retention,
    /// The last trouble with keeping, told once.
    trouble: Option<String>,
    /// Rounds that were made.
    rounds: u64,
}

/// Rotated files are put away every so many rounds.
const KEEP: u64 = 5;

impl<E: Engine> Containers<E> {
    pub(super) fn new(engine: Arc<E>, clock: Arc<dyn Clock>, intake: Option<Intake>, config: &Logs) -> Self {
        Self {
            engine,
            followed: intake.map(|intake| Followed::new(Arc::clone(&clock), intake)),
            clock,
            rules: Arc::new(config.rules(Format::Cri)),
            retention: config.local,
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
        if let Some(followed) = &mut self.followed {
            let rules = Arc::clone(&self.rules);
            followed
                .round(move |collectors| {
                    for file in &listed {
                        if !collectors.contains_key(file) {
                            let source = Source {
                                path: file.path.clone(),
                                attributes: attributes(file),
                            };
                            collectors.insert(file.clone(), Collector::new(source, Rules::clone(&rules)));
                        }
                    }
                    (listed, ())
                })
                .await;
        }
        if self.rounds.is_multiple_of(KEEP) {
            self.keep(paths).await;
        }
        self.rounds += 1;
    }

    /// Puts away what was rotated, once the spool or the hub has all of it.
    async fn keep(&mut self, logs: Vec<PathBuf>) {
        let intake = self.followed.as_ref().map(|followed| followed.intake().clone());
        let (clock, retention) = (Arc::clone(&self.clock), self.retention);
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
