//! From Git to a generation that is ready to run: fetch, render, check against the device, pull the images.
//!
//! Everything that can fail does so here, before anything that runs is touched. A newer revision supersedes one
//! that is still being prepared.

use crate::config::HistoryPolicy;
use crate::converge::{Command, Prepared, Request};
use crate::journal::Journal;
use crate::remotes::{self, Followed, Remotes};
use crate::secret_keys::SecretKeys;
use kit::{Backoff, Clock};
use model::{
    Action, Admission, Because, Desired, Moved, ObjectKey, Observed, Revision, Severity, SourceStatus, Step,
    Tree, WorkloadStatus,
};
use plan::{Limits, Wanted, WantedImage, expand};
use render::RenderError;
use runtime::Engine;
use serde::{Deserialize, Serialize};
use sops::Keys;
use source::{Fetched, Pins, RemotesSpec, Source, SourceError, SourceSpec};
use std::collections::BTreeMap;
use std::path::Path;
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
    /// What SOPS files are decrypted with.
    pub secret_keys: SecretKeys,
    /// How repositories and files are fetched that kustomizations name.
    pub remotes: RemotesSpec,
    /// What it follows itself.
    pub own: SourceSpec,
    /// What the device can give.
    pub limits: Limits,
    /// Time between two looks.
    pub interval: Duration,
    /// See [`HistoryPolicy`].
    pub history: HistoryPolicy,
    /// Which revisions may be prepared.
    pub admission: watch::Receiver<Admission>,
    /// Look now.
    pub look: Arc<Notify>,
    /// Towards the loop.
    pub requests: mpsc::Sender<Request>,
}

/// The source's side of the agent.
#[derive(Debug)]
pub struct Preparer<E> {
    inputs: Inputs<E>,
    source: Arc<Mutex<Source>>,
    offers: watch::Sender<Option<Arc<Prepared>>>,
    status: watch::Sender<SourceStatus>,
    coming: watch::Sender<Vec<WorkloadStatus>>,
    /// The error in `status` is that of the last fetch.
    unreachable: AtomicBool,
    /// The sources that its objects name, as they were read, with when each is looked at next (since boot).
    followed: Mutex<Vec<(Followed, Duration)>>,
}

/// What preparing publishes.
#[derive(Debug)]
pub struct Outputs {
    /// The newest generation that is ready to run.
    pub offers: watch::Receiver<Option<Arc<Prepared>>>,
    /// How the source is.
    pub status: watch::Receiver<SourceStatus>,
    /// The workloads whose images are being brought, as they will be.
    pub coming: watch::Receiver<Vec<WorkloadStatus>>,
}

/// What came, and whether the policy on rewritten history lets it through.
#[derive(Debug)]
struct Arrived {
    fetched: Fetched,
    /// How history was changed, for people; absent where it moved forward or not at all.
    rewritten: Option<String>,
    refused: bool,
}

/// Fetches, and applies the policy at once. What is refused is not held: the next fetch compares with the last
/// accepted revision again, across restarts too, until the reference is back there or moves forward from there.
fn fetch_by_policy(
    source: &mut Source,
    policy: HistoryPolicy,
    stop: &AtomicBool,
) -> Result<Arrived, SourceError> {
    let before = source.held().cloned();
    let fetched = source.fetch(stop)?;
    let how = match &fetched.moved {
        Moved::Backward { .. } => "rolled back",
        Moved::Rewritten { .. } => "rewritten (force-pushed)",
        Moved::First | Moved::Unchanged | Moved::Forward => {
            return Ok(Arrived {
                fetched,
                rewritten: None,
                refused: false,
            });
        }
    };
    let refused = policy == HistoryPolicy::Refuse && before.is_some();
    let from = before.as_ref().map_or("nothing", |revision| revision.short());
    let rewritten = Some(format!(
        "history was {how}: from {from} to {}",
        fetched.revision.short()
    ));
    if let Some(before) = before.filter(|_| refused) {
        source.hold(&before)?;
    }
    Ok(Arrived {
        fetched,
        rewritten,
        refused,
    })
}

impl<E: Engine> Preparer<E> {
    /// Makes it, with what it publishes.
    pub fn new(inputs: Inputs<E>, source: Source) -> (Self, Outputs) {
        let (offers, offered) = watch::channel(None);
        let (coming, workloads) = watch::channel(Vec::new());
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
            coming,
            unreachable: AtomicBool::new(false),
            followed: Mutex::default(),
        };
        let outputs = Outputs {
            offers: offered,
            status: watching,
            coming: workloads,
        };
        (this, outputs)
    }

    /// Looks, prepares, waits, for ever. Every await is safe to be dropped at: a fetch in its thread is told to stop.
    pub async fn run(self) {
        let most = self.inputs.interval.max(Duration::from_secs(5));
        let mut fetching = Backoff::new(Duration::from_secs(1), most);
        let mut preparing = Backoff::new(Duration::from_secs(2), Duration::from_secs(300));
        let mut done: Option<String> = None;
        let mut admission = self.inputs.admission.clone();
        loop {
            let wait = match self.fetch().await {
                Ok(arrived) => {
                    fetching.succeeded();
                    let tip = arrived.fetched.revision.commit.clone();
                    let goal = self.goal(&tip, &admission.borrow_and_update());
                    if let Some(goal) = goal {
                        if done.as_ref() == Some(&goal) && self.others_moved().await {
                            done = None;
                        }
                        if done.as_ref() != Some(&goal) && self.acceptable(&arrived).await {
                            // A look at the source goes on beside the preparation: what is newer supersedes it.
                            tokio::select! {
                                finished = self.prepare(arrived.fetched, &goal) => done = finished.then_some(goal),
                                () = self.superseded(&goal, &tip) => {
                                    preparing.succeeded();
                                    continue;
                                }
                                Ok(()) = admission.changed() => {
                                    preparing.succeeded();
                                    continue;
                                }
                            }
                        }
                        if done.is_some() {
                            preparing.succeeded();
                            self.inputs.interval.min(self.next_look())
                        } else {
                            preparing.failed()
                        }
                    } else {
                        // What runs goes on, and the next look comes in its time.
                        self.inputs.interval
                    }
                }
                Err(err) => {
                    self.unreachable(&kit::chain(&err));
                    fetching.failed()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inputs.look.notified() => {}
                Ok(()) = admission.changed() => {}
            }
        }
    }

    /// The commit to prepare: what the source names, or what a roll-out admits instead. Tells whether the tip waits.
    fn goal(&self, tip: &str, admission: &Admission) -> Option<String> {
        let waits = !admission.admits(tip);
        self.status.send_if_modified(|status| {
            let news = status.waits != waits;
            status.waits = waits;
            news
        });
        match admission {
            Admission::Any => Some(tip.to_owned()),
            Admission::Only { revision } => revision.clone(),
        }
    }

    fn unreachable(&self, why: &str) {
        self.unreachable.store(true, Ordering::Relaxed);
        self.status.send_if_modified(|status| {
            let news = status.error.as_deref() != Some(why);
            status.error = Some(why.to_owned());
            news
        });
    }

    fn followed(&self) -> MutexGuard<'_, Vec<(Followed, Duration)>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until one of the other sources is to be looked at.
    fn next_look(&self) -> Duration {
        let now = self.inputs.clock.since_boot();
        let next = self.followed().iter().map(|(_, due)| *due).min();
        next.map_or(Duration::MAX, |due| due.saturating_sub(now))
            .max(Duration::from_millis(100))
    }

    /// Looks at those of the other sources whose time has come. One that cannot be reached has not moved.
    async fn others_moved(&self) -> bool {
        let now = self.inputs.clock.since_boot();
        let mut due = Vec::new();
        for (followed, next) in self.followed().iter_mut().filter(|(_, next)| *next <= now) {
            *next = now + followed.other.interval;
            if !followed.other.suspended {
                due.push(followed.clone());
            }
        }
        if due.is_empty() {
            return false;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(Arc::clone(&stop));
        let (artifacts, patience) = (
            remotes::artifacts(&self.inputs.remotes),
            self.inputs.remotes.patience,
        );
        let moved = tokio::task::spawn_blocking(move || {
            due.iter().any(
                |followed| match artifacts.revision(&followed.other.spec, patience, &stop) {
                    Ok(revision) => revision.commit != followed.commit,
                    Err(err) => {
                        tracing::warn!(err = kit::chain(&err), "a source cannot be fetched");
                        false
                    }
                },
            )
        });
        // A thread that panicked has no news.
        moved.await.unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the source has moved away from the tip that is prepared. What a roll-out admits stays admitted
    /// wherever the tip goes.
    async fn superseded(&self, goal: &str, tip: &str) {
        if goal == tip {
            self.newer_than(tip).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once the source has moved away from `commit`.
    async fn newer_than(&self, commit: &str) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inputs.interval) => {}
                () = self.inputs.look.notified() => {}
            }
            if let Ok(arrived) = self.fetch().await
                && !arrived.refused
                && arrived.fetched.revision.commit != commit
            {
                return;
            }
        }
    }

    /// Does something with the source in a thread that may wait for the network.
    async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Source, &AtomicBool) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let stop = Arc::new(AtomicBool::new(false));
        // Dropping this future must not leave a thread talking to the network.
        let _guard = StopOnDrop(Arc::clone(&stop));
        let source = Arc::clone(&self.source);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut source.lock().unwrap_or_else(PoisonError::into_inner), &stop)
        });
        match done.await {
            Ok(done) => done,
            // The thread panicked or the runtime is going down; neither has an answer to give.
            Err(_) => std::future::pending().await,
        }
    }

    async fn fetch(&self) -> Result<Arrived, SourceError> {
        let policy = self.inputs.history;
        let arrived = self
            .in_thread(move |source, stop| fetch_by_policy(source, policy, stop))
            .await?;
        let fetched = &arrived.fetched;
        let now = self.inputs.clock.now();
        self.status.send_modify(|status| {
            status.fetched_at = Some(now);
            // What was wrong with the revision itself stays until there is another one.
            if self.unreachable.swap(false, Ordering::Relaxed)
                || status.revision.as_ref() != Some(&fetched.revision)
            {
                status.error = None;
            }
            status.revision = Some(fetched.revision.clone());
        });
        Ok(arrived)
    }

    /// Tells what the policy did.
    async fn acceptable(&self, arrived: &Arrived) -> bool {
        match &arrived.rewritten {
            None => true,
            Some(told) if arrived.refused => {
                let why = format!("{told}; refused by policy (source.onHistoryRewrite)");
                self.refuse(None, &arrived.fetched.revision, why).await;
                false
            }
            Some(told) => {
                self.note(
                    Severity::Warning,
                    "HistoryMoved",
                    format!("{told}; followed by policy"),
                )
                .await;
                true
            }
        }
    }

    /// The goal's files, where the tip is another commit.
    async fn at(&self, tip: Fetched, goal: &str) -> Result<Fetched, SourceError> {
        if tip.revision.commit == goal {
            return Ok(tip);
        }
        let goal = goal.to_owned();
        self.in_thread(move |source, stop| source.fetch_commit(&goal, stop))
            .await
    }

    /// Says whether this revision is done with, for better or worse; an image that cannot be pulled now is not.
    async fn prepare(&self, tip: Fetched, goal: &str) -> bool {
        let inputs = &self.inputs;
        let fetched = match self.at(tip, goal).await {
            Ok(fetched) => fetched,
            Err(err) => {
                self.unreachable(&format!("revision {goal} is admitted: {}", kit::chain(&err)));
                return false;
            }
        };
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
        let keys = match inputs.secret_keys.load() {
            Ok(keys) => keys,
            Err(err) => {
                self.refuse(None, revision, kit::chain(&err)).await;
                return false;
            }
        };
        let desired = match self.render(tree, revision, keys).await {
            Ok(desired) => desired,
            // A key may be added at any moment.
            Err(err) if err.details().problem == render::Problem::Sealed => {
                self.refuse(None, revision, kit::chain(&err)).await;
                return false;
            }
            Err(err) => {
                self.refuse(None, revision, kit::chain(&err)).await;
                // A repository or server elsewhere may be back any time, with this revision as it is.
                return err.details().problem != render::Problem::Unreachable;
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
        self.coming
            .send_replace(plan::workloads(&wanted, &Observed::default()));
        let brought = self.bring(&wanted, &desired).await;
        self.coming.send_replace(Vec::new());
        if let Err(why) = brought {
            self.refuse(Some(desired.id()), revision, why).await;
            return false;
        }
        self.status
            .send_if_modified(|status| status.error.take().is_some());
        self.offers
            .send_replace(Some(Arc::new(Prepared { desired, wanted })));
        true
    }

    /// Renders in a thread that may wait for the network, and remembers what the revision's addresses meant.
    async fn render(&self, tree: Tree, revision: &Revision, keys: Keys) -> Result<Desired, RenderError> {
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(Arc::clone(&stop));
        let (spec, revision) = (self.inputs.remotes.clone(), revision.clone());
        let (path, vars) = (self.inputs.path.clone(), self.inputs.vars.clone());
        let own = self.inputs.own.clone();
        let rendered = tokio::task::spawn_blocking(move || {
            let pinned = Pinned::read(&spec.dir, &revision.commit);
            let remotes = Remotes::of_device(spec.clone(), pinned.pins.clone(), own, stop);
            let given = render::Given {
                vars: &vars,
                keys: &keys,
                remotes: &remotes,
            };
            let rendered = render::render_for(&tree, &revision, &path, &given);
            let now = Pinned {
                revision: revision.commit,
                pins: remotes.pins(),
            };
            if rendered.is_ok() && now != pinned {
                now.write(&spec.dir)?;
            }
            remotes.notes().iter().for_each(|note| tracing::warn!("{note}"));
            rendered.map(|mut desired| {
                desired.warnings.extend(remotes.notes());
                (desired, remotes.followed())
            })
        });
        match rendered.await {
            Ok(rendered) => {
                let (desired, read) = rendered?;
                let now = self.inputs.clock.since_boot();
                let due = |followed: Followed| {
                    let due = now + followed.other.interval;
                    (followed, due)
                };
                *self.followed() = read.into_iter().map(due).collect();
                Ok(desired)
            }
            Err(gone) => match gone.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Brings all images that are not here.
    async fn bring(&self, wanted: &Wanted, desired: &Desired) -> Result<(), String> {
        for WantedImage {
            image,
            policy,
            secrets,
            workloads,
        } in wanted.images()
        {
            let about = ObjectKey {
                group: String::new(),
                kind: "Image".to_owned(),
                namespace: String::new(),
                name: image.to_string(),
            };
            let action = Action::Pull {
                image,
                policy,
                secrets,
            };
            let step = Step {
                action,
                about,
                because: Because::Missing,
            };
            // The engine tells of a failure itself.
            let brought = self.inputs.engine.apply(&step).await;
            brought.map_err(|err| format!("{}{}", wanted_by(&workloads, desired), kit::chain(&err)))?;
        }
        Ok(())
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

/// The first workload that wants an image, and where it was read, in front of what is wrong with the image.
fn wanted_by(workloads: &[ObjectKey], desired: &Desired) -> String {
    let Some(key) = workloads.first() else {
        return String::new();
    };
    let at = desired.objects.iter().position(|object| object.key() == *key);
    match at.and_then(|at| desired.origins.get(at)?.as_ref()) {
        Some(origin) => format!("{origin}: {key}: "),
        None => format!("{key}: "),
    }
}

/// What the addresses of a revision meant when it was prepared, so that it means the same ever after.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pinned {
    revision: String,
    pins: Pins,
}

impl Pinned {
    /// Of this revision; nothing where another was prepared last.
    fn read(dir: &Path, revision: &str) -> Self {
        let nothing = || Self {
            revision: revision.to_owned(),
            pins: Pins::new(),
        };
        let read = kit::disk::read_if_there(&dir.join("pins.json")).ok().flatten();
        read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|pinned| pinned.revision == revision)
            .unwrap_or_else(nothing)
    }

    fn write(&self, dir: &Path) -> Result<(), RenderError> {
        let path = dir.join("pins.json");
        let bytes = serde_json::to_vec_pretty(self).expect("plain data always serialises");
        kit::disk::create_dir_all(dir)
            .and_then(|()| kit::disk::replace(&path, &bytes))
            .map_err(|err| RenderError::cannot_read(format!("cannot write {}: {err}", path.display())))
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
