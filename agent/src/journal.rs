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

/// Moves what the engine's journals hold into the spool, each event once: its position rides in the same block.
pub async fn pump<E: Engine>(engine: Arc<E>, journal: Journal, spool: Spool, look: Arc<Notify>) {
    loop {
        let after: BTreeMap<String, u64> = spool.positions();
        match engine.events(&after).await {
            Ok(events) => {
                for told in events {
                    if !journal
                        .write(&told.event, Some((&told.source, told.position)))
                        .await
                    {
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
