//! People and programs at the device that are told at once.

use super::config::Receiver;
use super::told::{Told, notice};
use kit::Backoff;
use rules::ALERTNAME;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use telemetry::webhook::Refusal;
use tokio::sync::Notify;

/// Bodies that wait for a receiver; the oldest goes when there are more.
const MOST_WAITING: usize = 256;

/// Bodies for one receiver.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    more: Notify,
}

impl Queue {
    /// Tells of changes: one body for the alerts of one name.
    pub fn tell(&self, told: &[Told], receiver: &Receiver, place: &BTreeMap<String, String>) {
        let mut by_name: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
        for one in told
            .iter()
            .filter(|one| receiver.send_resolved || one.ended.is_none())
        {
            let name = one.alert.labels.get(ALERTNAME).unwrap_or_default();
            by_name.entry(name).or_default().push(one);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for told in by_name.values() {
            if waiting.len() >= MOST_WAITING {
                waiting.pop_front();
                tracing::warn!(
                    webhook = receiver.name,
                    "too much waits for a webhook; the oldest is dropped"
                );
            }
            waiting.push_back(notice(told, &receiver.name, place));
        }
        drop(waiting);
        self.more.notify_one();
    }

    fn next(&self) -> Option<Vec<u8>> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// Delivers for ever, in order. What is refused for good is told and left out.
pub(super) async fn deliver(receiver: Receiver, queue: Arc<Queue>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let Some(body) = queue.next() else {
            queue.more.notified().await;
            continue;
        };
        loop {
            match receiver.webhook.post(body.clone()).await {
                Ok(()) => {
                    backoff.succeeded();
                    break;
                }
                Err(Refusal::Never(why)) => {
                    tracing::warn!(webhook = receiver.name, why, "a webhook refuses an alert");
                    break;
                }
                Err(Refusal::Later(after, why)) => {
                    let wait = backoff
                        .failed()
                        .max(after.unwrap_or_default().min(Duration::from_secs(600)));
                    if backoff.failures() == 1 {
                        tracing::warn!(
                            webhook = receiver.name,
                            why,
                            "a webhook takes nothing now; it is tried again"
                        );
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}
