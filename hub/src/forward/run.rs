//! One task for each forwarder: take the next records, send them, move the cursor.

use super::client::{Client, SendError};
use super::config::{ForwarderConfig, ForwarderKind};
use super::labels::Places;
use super::{
    Item, Outcome, Reply, Request, Unfit, alertmanager, fluent, loki, opensearch, otlp, remote_write,
};
use crate::Hub;
use crate::store::{Change, Passed, Store, StoreError};
use jiff::Timestamp;
use kit::{Backoff, OnEnd};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of records in one request, as they were sent by devices.
const REQUEST_BYTES: usize = 512 * 1024;
/// Looked at so often without being woken.
const IDLE: Duration = Duration::from_secs(5);

/// What forwarders say of themselves, by name.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<String, Trouble>>);

/// Why a forwarder waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub why: String,
    /// Tries in a row that failed.
    pub tries: u32,
    pub retry_at: Option<Timestamp>,
}

impl Board {
    pub(super) fn of(&self, name: &str) -> Option<Trouble> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    fn note(&self, name: &str, trouble: Option<Trouble>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => held.insert(name.to_owned(), trouble),
            None => held.remove(name),
        };
    }
}

/// Starts every forwarder of the configuration; their cursors are made before.
pub(crate) fn start(hub: &Arc<Hub>) {
    for config in &hub.config.forwarders {
        let (owner, config) = (hub.clone(), config.clone());
        let name = format!("forwarder {}", config.name);
        hub.tasks.spawn(&name, OnEnd::Restart, move || {
            let (hub, config) = (owner.clone(), config.clone());
            async move {
                let name = config.name.clone();
                if let Err(err) = forward(&hub, config).await {
                    let why = kit::chain(&err);
                    tracing::error!(forwarder = name, why, "forwarding stopped");
                    let trouble = Trouble {
                        why,
                        ..Trouble::default()
                    };
                    hub.board.note(&name, Some(trouble));
                }
            }
        });
    }
}

/// Why a forwarder cannot go on; it is started again.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] SendError),
}

async fn forward(hub: &Hub, config: ForwarderConfig) -> Result<(), ForwardError> {
    let mut forwarder = Forwarder {
        store: hub.store(),
        board: &hub.board,
        way: match config.kind {
            ForwarderKind::Fluent => Way::Fluent(fluent::Sender::new(config.clone())?),
            _ => Way::Http(Client::new(config.clone())?),
        },
        backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60)),
        config,
    };
    let mut changes = hub.store().changes();
    loop {
        let records = forwarder
            .store
            .to_forward(&forwarder.config.name, REQUEST_BYTES)
            .await?;
        if records.is_empty() {
            let woken = async {
                // Too many changes at once wake it, too.
                while matches!(changes.recv().await, Ok(change) if change != Change::Telemetry) {}
            };
            let _ = tokio::time::timeout(IDLE, woken).await;
            continue;
        }
        let mut places = Places::new(forwarder.store, &forwarder.config.labels);
        let mut items = Vec::with_capacity(records.len());
        for record in records {
            let place = places.of(&record.device).await?;
            items.push(Item { record, place });
        }
        forwarder.deliver(&items).await?;
    }
}

/// How a receiver is spoken to.
enum Way {
    Http(Client),
    Fluent(fluent::Sender),
}

struct Forwarder<'a> {
    store: &'a Store,
    board: &'a Board,
    way: Way,
    backoff: Backoff,
    config: ForwarderConfig,
}

impl Forwarder<'_> {
    /// Sends `items`, in order, as far as the receiver takes them now; what it will never take is found by halving and
    /// set aside.
    async fn deliver(&mut self, items: &[Item]) -> Result<(), StoreError> {
        // What is still to be sent, the next on top.
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            let Some(last) = part.last() else { continue };
            let upto = last.record.id;
            match self.attempt(part).await {
                Outcome::Done => {
                    let sent = part.len() as u64;
                    self.pass(Passed {
                        upto,
                        sent,
                        ..Passed::default()
                    })
                    .await?;
                }
                Outcome::Partial(refused, why) => {
                    tracing::warn!(
                        forwarder = self.config.name,
                        refused,
                        why,
                        "the receiver refused some entries"
                    );
                    let sent = part.len() as u64;
                    let passed = Passed {
                        upto,
                        sent,
                        refused,
                        ..Passed::default()
                    };
                    self.pass(passed).await?;
                }
                Outcome::Later(after, why) => {
                    self.wait(after, why).await;
                    // Read anew: some of it may have become too old in the meantime.
                    return Ok(());
                }
                Outcome::Split | Outcome::Poison(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Outcome::Split => {
                    self.set_aside(last, "one record is more than the receiver takes".into())
                        .await?
                }
                Outcome::Poison(why) => self.set_aside(last, why).await?,
            }
        }
        Ok(())
    }

    async fn pass(&mut self, passed: Passed) -> Result<(), StoreError> {
        self.backoff.succeeded();
        self.board.note(&self.config.name, None);
        self.store.forwarded(&self.config.name, passed).await
    }

    async fn set_aside(&mut self, item: &Item, why: String) -> Result<(), StoreError> {
        let record = &item.record;
        tracing::warn!(
            forwarder = self.config.name,
            device = %record.device,
            stream = record.stream,
            sequence = record.sequence,
            why,
            "the receiver will not take a record; it is set aside"
        );
        let passed = Passed {
            upto: record.id,
            aside: vec![(record.clone(), why)],
            ..Passed::default()
        };
        self.pass(passed).await
    }

    async fn wait(&mut self, after: Option<Duration>, why: String) {
        let wait = self.backoff.failed().max(after.unwrap_or_default());
        let tries = self.backoff.failures();
        if tries == 1 {
            tracing::warn!(
                forwarder = self.config.name,
                why,
                "the receiver takes nothing now; it is tried again"
            );
        }
        let retry_at = Timestamp::now().saturating_add(wait).ok();
        let trouble = Trouble { why, tries, retry_at };
        self.board.note(&self.config.name, Some(trouble));
        tokio::time::sleep(wait).await;
    }

    async fn attempt(&mut self, part: &[Item]) -> Outcome {
        let client = match &mut self.way {
            Way::Fluent(sender) => return sender.attempt(part).await,
            Way::Http(client) => &*client,
        };
        let request = match encode(&self.config, part) {
            Ok(Some(request)) => request,
            // Nothing in it for this receiver.
            Ok(None) => return Outcome::Done,
            Err(Unfit(why)) => return Outcome::Poison(why),
        };
        match client.send(&request).await {
            Ok(reply) => judge(self.config.kind, &reply, part),
            Err(err) => Outcome::Later(None, kit::chain(&err)),
        }
    }
}

fn encode(config: &ForwarderConfig, part: &[Item]) -> Result<Option<Request>, Unfit> {
    match config.kind {
        ForwarderKind::RemoteWrite => remote_write::encode(part),
        ForwarderKind::Loki => loki::encode(part),
        ForwarderKind::Opensearch => {
            let index = config.index.as_deref().unwrap_or("leeward-logs");
            opensearch::encode(part, index)
        }
        ForwarderKind::Otlp => otlp::encode(part, traces(part)),
        ForwarderKind::Alertmanager => alertmanager::encode(part),
        ForwarderKind::Fluent => Err(Unfit("Fluentd's protocol is no HTTP".into())),
    }
}

fn judge(kind: ForwarderKind, reply: &Reply, part: &[Item]) -> Outcome {
    match kind {
        ForwarderKind::Opensearch => opensearch::judge(reply),
        ForwarderKind::Otlp => otlp::judge(reply, traces(part)),
        _ => reply.usual(),
    }
}

fn traces(part: &[Item]) -> bool {
    part.first().is_some_and(|item| item.record.stream == "traces")
}
