//! Events into the spool: those of the agent itself, and those that the engine's journals hold.

use kit::Clock;
use model::{Event, Severity};
use runtime::Engine;
use spool::{Spool, Stream};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Name of the stream of events.
pub const EVENTS: &str = "events";

/// Writes events; clones share the stream.
#[derive(Debug, Clone)]
pub struct Journal {
    stream: Stream,
    clock: Arc<dyn Clock>,
}

impl Journal {
    /// Writes to `stream`.
    pub fn new(stream: Stream, clock: Arc<dyn Clock>) -> Self {
        Self { stream, clock }
    }

    /// Tells that something happened; returns once it is on disk. A spool that refuses is logged: the device goes on.
    pub async fn note(
        &self,
        severity: Severity,
        reason: &str,
        about: &str,
        message: impl Into<String>,
        generation: Option<String>,
    ) {
        let message = message.into();
        match severity {
            Severity::Normal => tracing::info!(reason, about, "{message}"),
            Severity::Warning | Severity::Critical => tracing::warn!(reason, about, "{message}"),
        }
        let time = self.clock.now();
        let event = Event {
            time,
            severity,
            reason: reason.to_owned(),
            about: about.to_owned(),
            message,
            generation,
        };
        self.write(&event, None).await;
    }

    async fn write(&self, event: &Event, position: Option<(&str, u64)>) -> bool {
        // Serialising plain data to memory cannot fail.
        let payload = serde_json::to_vec(event).unwrap_or_default();
        let written = match self.stream.append(&payload, position) {
            Ok(pending) => pending.await.map(|_| ()),
            Err(err) => Err(err),
        };
        if let Err(err) = &written {
            tracing::error!(
                err = kit::chain(err),
                reason = event.reason,
                "an event was not kept"
            );
        }
        written.is_ok()
    }
}

/// In front of a journal's name among the positions that the spool holds: other producers have theirs there too.
const OURS: &str = "journal/";

/// Moves what the engine's journals hold into the spool, each event once: its position rides in the same block.
pub async fn pump<E: Engine>(engine: Arc<E>, journal: Journal, spool: Spool, look: Arc<Notify>) {
    loop {
        let after: BTreeMap<String, u64> = spool
            .positions()
            .into_iter()
            .filter_map(|(name, position)| Some((name.strip_prefix(OURS)?.to_owned(), position)))
            .collect();
        match engine.events(&after).await {
            Ok(events) => {
                forget_gone(&*engine, &spool, &after).await;
                for told in events {
                    let source = format!("{OURS}{}", told.source);
                    if !journal.write(&told.event, Some((&source, told.position))).await {
                        // A spool that is full or broken must not be asked in a tight loop; the engine keeps the rest.
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        break;
                    }
                }
            }
            Err(err) => tracing::warn!(err = kit::chain(&err), "the engine's journals cannot be read"),
        }
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
    }
}

/// Forgets the positions of journals that are no more: an engine drops one once all of it is covered. Otherwise the
/// table of positions would grow with every pod that ever was.
async fn forget_gone<E: Engine>(engine: &E, spool: &Spool, known: &BTreeMap<String, u64>) {
    match engine.sources().await {
        Ok(there) => known
            .keys()
            .filter(|source| !there.contains(*source))
            .for_each(|source| spool.forget(&format!("{OURS}{source}"))),
        Err(err) => tracing::warn!(err = kit::chain(&err), "the engine's journals cannot be listed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::SystemClock;
    use model::{Action, Because, ObjectKey, Step};
    use runtime::fake::FakeEngine;
    use serde_json::json;
    use spool::{Class, Durability};

    fn step(action: Action) -> Step {
        Step {
            action,
            about: ObjectKey {
                group: String::new(),
                kind: "Pod".to_owned(),
                namespace: "default".to_owned(),
                name: "p".to_owned(),
            },
            because: Because::Missing,
        }
    }

    #[tokio::test]
    async fn positions_of_pods_that_are_gone_are_forgotten_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (spool, _) = Spool::open(dir.path(), spool::Options::default()).unwrap();
        let stream = spool.stream(EVENTS, Durability::Strict, Class::Normal).unwrap();
        let foreign = stream.append(b"{}", Some(("meter/7", 1))).unwrap();
        foreign.await.unwrap();
        let engine = Arc::new(FakeEngine::new(Arc::clone(&clock), Duration::from_secs(1)));
        let look = Arc::new(Notify::new());
        let pumping = tokio::spawn(pump(
            Arc::clone(&engine),
            Journal::new(stream, clock),
            spool.clone(),
            Arc::clone(&look),
        ));
        let pod: model::PodRun = serde_json::from_value(json!({
            "id": {"namespace": "default", "name": "p"}, "template": model::Digest::of(b""),
            "owner": {"kind": "Pod", "namespace": "default", "name": "p"}, "labels": {}, "annotations": {},
            "hostNetwork": false, "shareProcessNamespace": false, "restart": "Always", "graceSeconds": 1,
            "initContainers": [], "containers": [], "volumes": [], "hostAliases": []
        }))
        .unwrap();
        for _ in 0..20 {
            let pod = Box::new(pod.clone());
            let id = pod.id.clone();
            engine.apply(&step(Action::StartPod { pod })).await.unwrap();
            let stop = Action::StopPod {
                pod: id,
                grace_seconds: 1,
            };
            engine.apply(&step(stop)).await.unwrap();
        }
        let told = async {
            loop {
                look.notify_one();
                tokio::time::sleep(Duration::from_millis(10)).await;
                let all_told = engine.sources().await.unwrap().is_empty();
                if all_told && spool.positions().into_keys().eq(["meter/7"]) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), told).await;
        assert!(in_time.is_ok(), "{:?}", spool.positions());
        pumping.abort();
    }
}
