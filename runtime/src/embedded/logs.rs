//! Reading containers' logs from where their shims write them.

use super::Inner;
use crate::logs::{Cursor, Lines};
use crate::shim::protocol::{LOGS, ShimState};
use crate::{EngineError, LogFile, LogQuery};
use bytes::Bytes;
use model::PodObserved;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a followed log is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Begins to read; the lines come through the receiver.
pub(super) fn open(inner: &Arc<Inner>, query: &LogQuery) -> Result<mpsc::Receiver<Bytes>, EngineError> {
    let table = inner.table();
    let pod = table
        .pods
        .get(&query.pod)
        .ok_or_else(|| EngineError::NotFound(format!("pod {}", query.pod)))?;
    let (container, run) = wanted(&pod.state.pod, pod.state.init_containers, query)?;
    let reading = Reading {
        inner: Arc::downgrade(inner),
        dir: pod.dir.clone(),
        folder: pod.dir.join(LOGS).join(&container),
        container,
        query: query.clone(),
        run,
    };
    drop(table);
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(reading.send_all(sender));
    Ok(receiver)
}

/// Which container's output is asked for, and of which of its runs.
fn wanted(pod: &PodObserved, init_containers: usize, query: &LogQuery) -> Result<(String, u32), EngineError> {
    let containers = &pod.containers;
    let wanted = match &query.container {
        Some(name) => containers
            .iter()
            .find(|c| c.name == *name)
            .ok_or_else(|| EngineError::NotFound(format!("container {name} of pod {}", query.pod)))?,
        None => match &containers[init_containers.min(containers.len())..] {
            [only] => only,
            several => {
                let names: Vec<&str> = several.iter().map(|c| c.name.as_str()).collect();
                return Err(EngineError::Refused {
                    pod: query.pod.clone(),
                    container: None,
                    what: "it has several containers, each with a log".to_owned(),
                    remedy: format!("name one of {}", names.join(", ")),
                });
            }
        },
    };
    match (query.previous, wanted.restarts) {
        (false, run) => Ok((wanted.name.clone(), run)),
        (true, 0) => Err(EngineError::NotFound(format!(
            "an earlier run of container {}",
            wanted.name
        ))),
        (true, run) => Ok((wanted.name.clone(), run - 1)),
    }
}

/// A log that is read where it lies, by whoever may read it: no engine need be open. Lines come in pieces of many.
#[derive(Debug)]
pub struct StoredLog {
    place: (Cursor, Lines),
    more: bool,
}

/// The pods whose remains lie below the engine's folder, ended ones among them.
pub fn stored_pods(root: &Path) -> Vec<PodObserved> {
    states(root).into_iter().map(|(_, state)| state.pod).collect()
}

fn states(root: &Path) -> Vec<(PathBuf, ShimState)> {
    let entries = std::fs::read_dir(root.join("pods"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| Some((entry.path(), ShimState::read(&entry.path())?)))
        .collect()
}

impl StoredLog {
    /// Opens what is there of a pod's output; `follow` means nothing here.
    ///
    /// # Errors
    /// Where there is no such pod or container, or its files cannot be read.
    pub fn open(root: &Path, query: &LogQuery) -> Result<Self, EngineError> {
        let found = states(root)
            .into_iter()
            .filter(|(_, state)| state.pod.id == query.pod);
        let (dir, state) = found
            .max_by_key(|(_, state)| state.pod.created_at)
            .ok_or_else(|| EngineError::NotFound(format!("pod {}", query.pod)))?;
        let (container, run) = wanted(&state.pod, state.init_containers, query)?;
        let path = dir.join(LOGS).join(&container).join(format!("{run}.log"));
        let mut place = (Cursor::new(path.clone()), Lines::new(query, &container, run));
        place.0.begin(&mut place.1).map_err(|source| EngineError::Disk {
            doing: "reading",
            path,
            source,
        })?;
        Ok(Self { place, more: true })
    }
}

impl Iterator for StoredLog {
    type Item = io::Result<Vec<Bytes>>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.more {
            return None;
        }
        match self.place.0.read(&mut self.place.1) {
            Ok((chunks, more)) => {
                self.more = more;
                Some(Ok(chunks))
            }
            Err(err) => {
                self.more = false;
                Some(Err(err))
            }
        }
    }
}

/// The logs of all containers' present runs, and of the ones before.
pub(super) fn files(inner: &Inner) -> Vec<LogFile> {
    let table = inner.table();
    let mut files = Vec::new();
    for (id, pod) in &table.pods {
        for container in &pod.state.pod.containers {
            let folder = pod.dir.join(LOGS).join(&container.name);
            // A run's log is kept until the next but one begins.
            for run in container.restarts.saturating_sub(1)..=container.restarts {
                files.push(LogFile {
                    pod: id.clone(),
                    owner: pod.state.pod.owner.clone(),
                    container: container.name.clone(),
                    run,
                    path: folder.join(format!("{run}.log")),
                });
            }
        }
    }
    files
}

/// A log on its way.
#[derive(Debug)]
struct Reading {
    inner: Weak<Inner>,
    dir: PathBuf,
    folder: PathBuf,
    container: String,
    query: LogQuery,
    run: u32,
}

impl Reading {
    async fn send_all(mut self, sender: mpsc::Sender<Bytes>) {
        let lines = Lines::new(&self.query, &self.container, self.run);
        let mut place = (Cursor::new(self.path()), lines);
        let follow = self.query.follow && !self.query.previous;
        let mut first = true;
        loop {
            // Looked at before the read, so that nothing written before the end is missed.
            let (run, over) = self.now();
            let begins = std::mem::take(&mut first);
            let reading = tokio::task::spawn_blocking(move || {
                let (mut cursor, mut lines) = place;
                if begins {
                    cursor.begin(&mut lines)?;
                }
                let read = cursor.read(&mut lines)?;
                Ok::<_, io::Error>((read, (cursor, lines)))
            });
            let more;
            let chunks;
            ((chunks, more), place) = match reading.await {
                Ok(Ok(read)) => read,
                Ok(Err(err)) => {
                    tracing::warn!(pod = %self.query.pod, %err, "a log cannot be read");
                    return;
                }
                Err(_) => return,
            };
            for chunk in chunks {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
            if more {
                continue;
            }
            if !follow || over {
                return;
            }
            if run > self.run {
                self.run = run;
                place.0 = Cursor::new(self.path());
                place.1.of_run(run);
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => return,
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.run))
    }

    /// The container's present run, and whether no more will be written.
    fn now(&self) -> (u32, bool) {
        let Some(inner) = self.inner.upgrade() else {
            return (self.run, true);
        };
        let table = inner.table();
        match table.pods.get(&self.query.pod).filter(|pod| pod.dir == self.dir) {
            Some(pod) => {
                let seen = pod.state.pod.containers.iter().find(|c| c.name == self.container);
                (seen.map_or(self.run, |c| c.restarts), pod.state.ended)
            }
            None => (self.run, true),
        }
    }
}
