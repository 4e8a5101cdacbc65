//! One owner for all long-lived tasks of a process: each has a name and a fate, all have one stop.

use crate::Backoff;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What happens when a task's future ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// It was meant to end.
    Fine,
    /// Start it again, with back-off.
    Restart,
    /// The process cannot go on without it: stop everything.
    StopAll,
}

/// Spawns, names and stops tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Tasks {
    /// An empty owner.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when everything is to stop; hand it to tasks that finish their work first.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `make()` until it ends or the stop comes; a stop drops the future at its next await.
    ///
    /// A task that must finish something takes [`Tasks::stop`] and uses [`Tasks::spawn_to_end`].
    pub fn spawn<F, Fut>(&self, name: &str, on_end: OnEnd, mut make: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let owner = self.clone();
        let label = name.to_owned();
        self.run(name, async move {
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
            loop {
                if owner.stop.run_until_cancelled(make()).await.is_none() {
                    return;
                }
                match on_end {
                    OnEnd::Fine => return,
                    OnEnd::StopAll => {
                        tracing::error!(task = label, "ended; stopping");
                        owner.stop.cancel();
                        return;
                    }
                    OnEnd::Restart => {
                        let wait = backoff.failed();
                        tracing::warn!(task = label, ?wait, "ended; starting it again");
                        if owner
                            .stop
                            .run_until_cancelled(tokio::time::sleep(wait))
                            .await
                            .is_none()
                        {
                            return;
                        }
                    }
                }
            }
        });
    }

    /// Runs `work`, which is meant to run for ever, until the stop comes. Should it end or panic by itself, everything
    /// stops: half a daemon is worse than one that its supervisor starts again.
    pub fn spawn_vital(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let label = name.to_owned();
        self.run(name, async move {
            let inner = tokio::spawn(stop.clone().run_until_cancelled_owned(work));
            if !matches!(inner.await, Ok(None)) {
                tracing::error!(task = label, "ended; stopping");
                stop.cancel();
            }
        });
    }

    /// Runs `work` to its own end; it must watch [`Tasks::stop`] itself.
    pub fn spawn_to_end(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        self.run(name, work);
    }

    fn run(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        let entry = Running::enter(self.running.clone(), name);
        self.tracker.spawn(async move {
            work.await;
            drop(entry);
        });
    }

    /// Asks all to stop, waits for `grace`, and names those that did not end.
    pub async fn shut_down(&self, grace: Duration) -> Result<(), Vec<String>> {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .keys()
                .cloned()
                .collect()),
        }
    }
}

/// Keeps a task's name in the table for as long as it lives, however it ends.
#[derive(Debug)]
struct Running {
    table: Arc<Mutex<BTreeMap<String, usize>>>,
    name: String,
}

impl Running {
    fn enter(table: Arc<Mutex<BTreeMap<String, usize>>>, name: &str) -> Self {
        *table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_owned())
            .or_default() += 1;
        Self {
            table,
            name: name.to_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_names_those_who_did_not_end() {
        let tasks = Tasks::new();
        tasks.spawn("good", OnEnd::Restart, std::future::pending);
        tasks.spawn_to_end("deaf", std::future::pending());
        assert_eq!(
            tasks.shut_down(Duration::from_secs(1)).await,
            Err(vec!["deaf".to_owned()])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_task_that_panics_stops_all() {
        let tasks = Tasks::new();
        tasks.spawn_vital("heart", async { panic!("on purpose") });
        tasks.stop().cancelled().await;
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_all_depend_on_stops_all() {
        let tasks = Tasks::new();
        tasks.spawn("heart", OnEnd::StopAll, || async {});
        tasks.stop().cancelled().await;
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Ok(()));
    }
}
