//! What the hub wants of a device beside Git: answers for people, and signed intents.

use crate::converge::{Command, Request};
use crate::journal::Journal;
use bytes::Bytes;
use identity::DeviceKeys;
use model::{IntentKind, PodId, PodObserved, Severity, Signed};
use runtime::embedded::{StoredLog, stored_pods};
use runtime::logs::Grep;
use runtime::{Engine, LogQuery};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wire::client::{Order, SessionSender};
use wire::frame::{LogAsk, Question};

/// The engine's folder below the agent's.
pub(crate) const ENGINE: &str = "runtime";

/// Answers and follows orders.
#[derive(Debug)]
pub struct Orders<E> {
    engine: Arc<E>,
    journal: Journal,
    requests: mpsc::Sender<Request>,
    look: Arc<Notify>,
    /// Questions under way; a dropped handle stops the answer.
    asked: BTreeMap<u64, AbortOnDropHandle<()>>,
}

impl<E: Engine> Orders<E> {
    /// `look` wakes the source; `requests` leads to the loop.
    pub fn new(engine: Arc<E>, journal: Journal, requests: mpsc::Sender<Request>, look: Arc<Notify>) -> Self {
        Self {
            engine,
            journal,
            requests,
            look,
            asked: BTreeMap::new(),
        }
    }

    /// Takes one order.
    pub async fn take(&mut self, order: Order, sender: &SessionSender, keys: &Mutex<DeviceKeys>) {
        match order {
            Order::Ask {
                id,
                what: Question::Logs(ask),
            } => {
                self.asked.retain(|_, handle| !handle.is_finished());
                let answering = answer_logs(Arc::clone(&self.engine), ask, id, sender.clone());
                self.asked
                    .insert(id, AbortOnDropHandle::new(tokio::spawn(answering)));
            }
            Order::Cancel { id } => {
                self.asked.remove(&id);
            }
            Order::Intent(signed) => self.intent(&signed, keys).await,
        }
    }

    /// The session has ended: nobody waits for answers any more.
    pub fn forget_questions(&mut self) {
        self.asked.clear();
    }

    async fn intent(&self, signed: &Signed, keys: &Mutex<DeviceKeys>) {
        let accepted = keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accept_intent(signed);
        let intent = match accepted {
            Ok(intent) => intent,
            Err(err) => {
                let told = format!("an intent was refused: {}", kit::chain(&err));
                self.journal
                    .note(Severity::Warning, "IntentRefused", "device", told, None)
                    .await;
                return;
            }
        };
        let told = format!("intent {} of {}: {:?}", intent.id, intent.by, intent.kind);
        self.journal
            .note(Severity::Normal, "IntentAccepted", "device", told, None)
            .await;
        let command = match intent.kind {
            IntentKind::SyncNow => {
                self.look.notify_one();
                return;
            }
            IntentKind::Pause => Command::Pause,
            IntentKind::Resume => Command::Resume,
            IntentKind::Restart { workload } => Command::Restart(workload),
            IntentKind::Admit(admission) => Command::Admit(admission),
        };
        let (reply, answer) = oneshot::channel();
        if self.requests.send((command, reply)).await.is_err() {
            return;
        }
        if let Ok(Err(why)) = answer.await {
            let told = format!("intent {} failed: {why}", intent.id);
            self.journal
                .note(Severity::Warning, "IntentFailed", "device", told, None)
                .await;
        }
    }
}

async fn answer_logs<E: Engine>(engine: Arc<E>, ask: LogAsk, id: u64, sender: SessionSender) {
    let error = logs(&*engine, ask, id, &sender).await.err();
    // The session may have ended; then nobody asks any more.
    let _ = sender.done(id, error).await;
}

async fn logs<E: Engine>(engine: &E, ask: LogAsk, id: u64, sender: &SessionSender) -> Result<(), String> {
    let mut lines = open_logs(engine, ask).await?;
    while let Some(data) = lines.recv().await {
        sender.chunk(id, data).await.map_err(|err| err.to_string())?;
    }
    Ok(())
}

/// The output that is asked for; errors are for people.
pub(crate) async fn open_logs<E: Engine>(engine: &E, ask: LogAsk) -> Result<mpsc::Receiver<Bytes>, String> {
    let seen = engine.observe().await.map_err(|err| kit::chain(&err))?;
    let pod = find_pod(&seen.pods, &ask)?;
    let query = log_query(pod, ask)?;
    engine.logs(&query).await.map_err(|err| kit::chain(&err))
}

fn log_query(pod: PodId, ask: LogAsk) -> Result<LogQuery, String> {
    let grep = ask.grep.map(|text| {
        Grep::parse(&text).map_err(|err| format!("grep {text:?} is no regular expression: {err}"))
    });
    Ok(LogQuery {
        pod,
        container: ask.container,
        follow: ask.follow,
        tail: ask.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        previous: ask.previous,
        since: ask.since,
        until: ask.until,
        grep: grep.transpose()?,
        timestamps: ask.timestamps,
        json: ask.json,
    })
}

/// Output of containers as it lies on the device, where no agent runs: containers go on without one.
///
/// # Errors
/// In words for people.
pub fn stored_logs(state: &Path, ask: LogAsk) -> Result<StoredLog, String> {
    let root = state.join(ENGINE);
    let pod = find_pod(&stored_pods(&root), &ask)?;
    StoredLog::open(&root, &log_query(pod, ask)?).map_err(|err| kit::chain(&err))
}

/// A pod by its own name, or the newest one of a workload of that name.
fn find_pod(pods: &[PodObserved], ask: &LogAsk) -> Result<PodId, String> {
    let here = || pods.iter().filter(|pod| pod.id.namespace == ask.namespace);
    let found = here().find(|pod| pod.id.name == ask.pod).or_else(|| {
        here()
            .filter(|pod| pod.owner.name == ask.pod)
            .max_by_key(|pod| pod.created_at)
    });
    found.map(|pod| pod.id.clone()).ok_or_else(|| {
        let names: Vec<&str> = here().map(|pod| pod.id.name.as_str()).collect();
        format!(
            "there is no pod or workload {}/{}; pods here: {}",
            ask.namespace,
            ask.pod,
            names.join(", ")
        )
    })
}
