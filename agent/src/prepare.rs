//! From Git to a generation that is ready to run: fetch, render, check against the device, pull the images.
//!
//! Everything that can fail does so here, before anything that runs is touched. A newer revision supersedes one
//! that is still being prepared.

use crate::config::HistoryPolicy;
use crate::converge::{Command, Prepared, Request};
use crate::journal::Journal;
use kit::{Backoff, Clock};
use model::{Action, Because, Moved, ObjectKey, Revision, Severity, SourceStatus, Step};
use plan::{Limits, expand};
use runtime::Engine;
use source::{Fetched, GitSource, SourceError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Everything that preparing needs.
#[derive(Debug)]
pub struct Inputs<E> {
    /// Pulls images.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub journal: Journal,
    /// Its address for people.
    pub url: String,
    /// Folder of the tree that is this device's.
    pub path: String,
    /// What `postBuild` may substitute.
    pub vars: BTreeMap<String, String>,
    /// What the device can give.
    pub limits: Limits,
    /// Time between two looks.
    pub interval: Duration,
    /// See [`HistoryPolicy`].
    pub history: HistoryPolicy,
    /// Remembers the last revision that the policy let through.
    pub accepted: PathBuf,
    /// Look now.
    pub look: Arc<Notify>,
    /// Towards the loop.
    pub requests: mpsc::Sender<Request>,
}

/// The source's side of the agent.
#[derive(Debug)]
pub struct Preparer<E> {
    inputs: Inputs<E>,
    source: Arc<Mutex<GitSource>>,
    offers: watch::Sender<Option<Arc<Prepared>>>,
    status: watch::Sender<SourceStatus>,
}

impl<E: Engine> Preparer<E> {
    /// Makes it, with what it publishes.
    pub fn new(
        inputs: Inputs<E>,
        source: GitSource,
    ) -> (
        Self,
        watch::Receiver<Option<Arc<Prepared>>>,
        watch::Receiver<SourceStatus>,
    ) {
        let (offers, offered) = watch::channel(None);
        let held = SourceStatus {
            url: inputs.url.clone(),
            revision: source.held().cloned(),
            ..Default::default()
        };
        let (status, watching) = watch::channel(held);
        let this = Self {
            inputs,
            source: Arc::new(Mutex::new(source)),
            offers,
            status,
        };
        (this, offered, watching)
    }

    /// Looks, prepares, waits, for ever. Every await is safe to be dropped at: a fetch in its thread is told to stop.
    pub async fn run(self) {
        let mut backoff = Backoff::new(
            Duration::from_secs(1),
            self.inputs.interval.max(Duration::from_secs(5)),
        );
        let mut done: Option<String> = None;
        loop {
            let wait = match self.fetch().await {
                Ok((before, fetched)) => {
                    backoff.succeeded();
                    let commit = fetched.revision.commit.clone();
                    if done.as_ref() != Some(&commit) && self.acceptable(before.as_deref(), &fetched).await {
                        // A look at the source goes on beside the preparation: what is newer supersedes it.
                        tokio::select! {
                            finished = self.prepare(fetched) => {
                                done = finished.then_some(commit);
                            }
                            () = self.newer_than(&commit) => continue,
                        }
                    }
                    if done.is_some() {
                        self.inputs.interval
                    } else {
                        backoff.failed()
                    }
                }
                Err(err) => {
                    let text = kit::chain(&err);
                    self.status.send_if_modified(|status| {
                        let news = status.error.as_ref() != Some(&text);
                        status.error = Some(text.clone());
                        news
                    });
                    backoff.failed()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inputs.look.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, GitSource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the source has moved away from `commit`.
    async fn newer_than(&self, commit: &str) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inputs.interval) => {}
                () = self.inputs.look.notified() => {}
            }
            if let Ok((_, fetched)) = self.fetch().await
                && fetched.revision.commit != commit
            {
                return;
            }
        }
    }

    /// The commit held before, and what came.
    async fn fetch(&self) -> Result<(Option<String>, Fetched), SourceError> {
        let stop = Arc::new(AtomicBool::new(false));
        // Dropping this future must not leave a thread talking to the network.
        let _guard = StopOnDrop(Arc::clone(&stop));
        let source = Arc::clone(&self.source);
        let fetched = tokio::task::spawn_blocking(move || {
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let before = source.held().map(|revision| revision.commit.clone());
            source.fetch(&stop).map(|fetched| (before, fetched))
        })
        .await;
        let (before, fetched) = match fetched {
            Ok(fetched) => fetched?,
            // The thread panicked or the runtime is going down; neither has an answer to give.
            Err(_) => std::future::pending().await,
        };
        let now = self.inputs.clock.now();
        self.status.send_modify(|status| {
            status.fetched_at = Some(now);
            if status.revision.as_ref() != Some(&fetched.revision) {
                status.error = None;
            }
            status.revision = Some(fetched.revision.clone());
        });
        Ok((before, fetched))
    }

    /// Applies the policy on rewritten history. What was let through is remembered on disk, so that a refusal holds
    /// across restarts, until the reference is back at that commit or moves forward from it.
    async fn acceptable(&self, before: Option<&str>, fetched: &Fetched) -> bool {
        let commit = &fetched.revision.commit;
        let how = match &fetched.moved {
            Moved::Backward { .. } => "rolled back",
            Moved::Rewritten { .. } => "rewritten (force-pushed)",
            Moved::First | Moved::Unchanged | Moved::Forward => "moved on from a refused commit",
        };
        let accepted = self.accepted();
        let from = accepted.as_deref().or(before).unwrap_or_default();
        let told = format!(
            "history was {how}: from {} to {}",
            from.get(..12).unwrap_or(from),
            fetched.revision.short()
        );
        let jumped = matches!(fetched.moved, Moved::Backward { .. } | Moved::Rewritten { .. });
        match self.inputs.history {
            HistoryPolicy::Follow if jumped => {
                self.note(
                    Severity::Warning,
                    "HistoryMoved",
                    format!("{told}; followed by policy"),
                )
                .await;
            }
            HistoryPolicy::Follow => {}
            HistoryPolicy::Refuse => {
                let builds_on_accepted =
                    matches!(fetched.moved, Moved::Forward) && before == accepted.as_deref();
                if accepted.as_ref().is_some_and(|accepted| accepted != commit) && !builds_on_accepted {
                    let why = format!("{told}; refused by policy (source.onHistoryRewrite)");
                    self.refuse(None, &fetched.revision, why).await;
                    return false;
                }
            }
        }
        if accepted.as_ref() != Some(commit)
            && let Err(err) = kit::disk::replace(&self.inputs.accepted, commit.as_bytes())
        {
            tracing::error!(%err, path = %self.inputs.accepted.display(), "cannot remember the accepted revision");
        }
        true
    }

    fn accepted(&self) -> Option<String> {
        // An unreadable file is as good as none: the policy starts over from what comes next.
        let bytes = kit::disk::read_if_there(&self.inputs.accepted).ok().flatten()?;
        String::from_utf8(bytes).ok()
    }

    /// Says whether this revision is done with, for better or worse; an image that cannot be pulled now is not.
    async fn prepare(&self, fetched: Fetched) -> bool {
        let inputs = &self.inputs;
        let revision = &fetched.revision;
        // An unchanged source sends no tree along; here it is read again, for an earlier try did not come to its end.
        let tree = match fetched
            .tree
            .map_or_else(|| self.lock().load(&revision.commit), Ok)
        {
            Ok(tree) => tree,
            Err(err) => {
                self.refuse(None, revision, kit::chain(&err)).await;
                return false;
            }
        };
        let rendered = render::render(&tree, revision, &inputs.path, &inputs.vars);
        drop(tree);
        let desired = match rendered {
            Ok(desired) => desired,
            Err(err) => {
                self.refuse(None, revision, kit::chain(&err)).await;
                return true;
            }
        };
        let wanted = match expand(&desired, &inputs.limits) {
            Ok(wanted) => wanted,
            Err(refusals) => {
                let mut told: Vec<String> = refusals.iter().take(5).map(ToString::to_string).collect();
                if refusals.len() > told.len() {
                    told.push(format!("and {} more", refusals.len() - told.len()));
                }
                self.refuse(Some(desired.id()), revision, told.join("\n")).await;
                return true;
            }
        };
        for (image, policy) in wanted.images() {
            let about = ObjectKey {
                group: String::new(),
                kind: "Image".to_owned(),
                namespace: String::new(),
                name: image.to_string(),
            };
            let step = Step {
                action: Action::Pull { image, policy },
                about,
                because: Because::Missing,
            };
            if let Err(err) = inputs.engine.apply(&step).await {
                let why = kit::chain(&err);
                self.note(Severity::Warning, "FailedPull", why.clone()).await;
                self.refuse(Some(desired.id()), revision, why).await;
                return false;
            }
        }
        self.status
            .send_if_modified(|status| status.error.take().is_some());
        self.offers
            .send_replace(Some(Arc::new(Prepared { desired, wanted })));
        true
    }

    async fn refuse(&self, id: Option<model::GenerationId>, revision: &Revision, reason: String) {
        self.status
            .send_modify(|status| status.error = Some(reason.clone()));
        let (reply, answer) = oneshot::channel();
        let command = Command::Refused {
            id,
            revision: Box::new(revision.clone()),
            reason,
        };
        if self.inputs.requests.send((command, reply)).await.is_ok() {
            // The loop logs its own failures.
            let _ = answer.await;
        }
    }

    async fn note(&self, severity: Severity, reason: &str, message: String) {
        self.inputs
            .journal
            .note(severity, reason, "source", message, None)
            .await;
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
