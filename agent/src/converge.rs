//! The one loop: look, plan, act, judge.
//!
//! It is never told what changed; it is woken, and looks. What it holds beside the generations on disk (steps under
//! way, back-off of steps that failed, how long a trial has been healthy) may be lost at any moment.

mod commands;

pub use commands::{Command, Request};

use crate::generations::{Generations, Offer};
use crate::journal::Journal;
use crate::kustomizations::Seen;
use crate::steps::Steps;
use kit::Clock;
use model::{
    Admission, Desired, GenerationStatus, ImageRef, Object, Observed, Phase, Severity, WhyReport,
    WorkloadState, WorkloadStatus,
};
use plan::{Limits, Verdict, Wanted, expand, verdict};
use render::flux::{Health, Judge, Standing};
use runtime::Engine;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// A generation that rendered, that this device accepts, and whose images are here.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// As rendered.
    pub desired: Desired,
    /// As this device runs it.
    pub wanted: Wanted,
}

/// How a candidate is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// A candidate that is not healthy after this time is rolled back.
    pub deadline: Duration,
    /// It must be healthy for this long without a break.
    pub settle: Duration,
}

/// What the loop last saw and did, for status.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// See [`Phase`].
    pub phase: Phase,
    /// See [`GenerationStatus`].
    pub generation: GenerationStatus,
    /// State of each workload.
    pub workloads: Vec<WorkloadStatus>,
    /// The `Kustomization` objects of the generation.
    pub kustomizations: Vec<Seen>,
    /// The planner's account.
    pub why: WhyReport,
    /// Notes of the generation: objects that are accepted and not acted on.
    pub notes: Vec<String>,
    /// One sentence on the whole.
    pub message: String,
}

impl Default for View {
    fn default() -> Self {
        Self {
            phase: Phase::WaitingForSource,
            generation: GenerationStatus::default(),
            workloads: Vec::new(),
            kustomizations: Vec::new(),
            why: WhyReport::default(),
            notes: Vec::new(),
            message: "no generation yet".to_owned(),
        }
    }
}

/// Everything the loop needs.
#[derive(Debug)]
pub struct Inputs<E> {
    /// What runs the pods.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub journal: Journal,
    /// What is held on disk.
    pub generations: Generations,
    /// What the device can give.
    pub limits: Limits,
    /// See [`HealthPolicy`].
    pub health: HealthPolicy,
    /// Newest prepared generation.
    pub offers: watch::Receiver<Option<Arc<Prepared>>>,
    /// Small inbox; a full one is an answer.
    pub requests: mpsc::Receiver<Request>,
    /// Told at each look at the engine: there may be events in its journals.
    pub looked: Arc<Notify>,
    /// Told what the generation that is taken up wants, but for its Secrets.
    pub objects: watch::Sender<Arc<Vec<Object>>>,
    /// Told which revisions may be prepared.
    pub admission: watch::Sender<Admission>,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    deadline: Duration,
    healthy_since: Option<Duration>,
}

/// The loop's state.
#[derive(Debug)]
pub struct Converger<E> {
    engine: Arc<E>,
    clock: Arc<dyn Clock>,
    journal: Journal,
    generations: Generations,
    limits: Limits,
    health: HealthPolicy,
    offers: watch::Receiver<Option<Arc<Prepared>>>,
    requests: mpsc::Receiver<Request>,
    looked: Arc<Notify>,
    objects: watch::Sender<Arc<Vec<Object>>>,
    admission: watch::Sender<Admission>,
    wanted: Option<Wanted>,
    /// Of the same generation as `wanted`.
    judge: Option<Judge>,
    /// Of the renderer.
    notes: Vec<String>,
    trial: Option<Trial>,
    steps: Steps,
    view: watch::Sender<View>,
    kept: watch::Sender<BTreeSet<ImageRef>>,
}

/// Looks again after this long even when nothing moved: a last resort against a lost wake.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl<E: Engine> Converger<E> {
    /// Takes up the generation on disk. No network is needed, and none is used.
    ///
    /// Gives the loop, what it sees, and the images that must stay on the device (for [`keep_images`]).
    pub fn new(inputs: Inputs<E>) -> (Self, watch::Receiver<View>, watch::Receiver<BTreeSet<ImageRef>>) {
        let (view, watching) = watch::channel(View::default());
        let (kept, keeping) = watch::channel(BTreeSet::new());
        let mut this = Self {
            engine: inputs.engine,
            clock: inputs.clock,
            journal: inputs.journal,
            generations: inputs.generations,
            limits: inputs.limits,
            health: inputs.health,
            offers: inputs.offers,
            requests: inputs.requests,
            looked: inputs.looked,
            objects: inputs.objects,
            admission: inputs.admission,
            wanted: None,
            judge: None,
            notes: Vec::new(),
            trial: None,
            steps: Steps::default(),
            view,
            kept,
        };
        this.take_up_current();
        (this, watching, keeping)
    }

    /// Runs until it is dropped; every await is safe to be dropped at.
    pub async fn run(mut self) {
        if self.generations.on_trial() && self.generations.trial_is_hopeless() {
            self.fail_trial("the agent was started again and again while this generation was on trial")
                .await;
        }
        loop {
            let wake = self.turn().await;
            let engine = Arc::clone(&self.engine);
            tokio::select! {
                // Closed inboxes mean that the rest of the agent is going down; the loop is dropped with it.
                Ok(()) = self.offers.changed() => {
                    let offer = self.offers.borrow_and_update().clone();
                    if let Some(prepared) = offer {
                        self.consider(&prepared).await;
                    }
                }
                Some((command, reply)) = self.requests.recv() => {
                    let answer = self.command(command).await.map_err(|err| kit::chain(&err));
                    // The one who asked may have gone.
                    let _ = reply.send(answer);
                }
                () = engine.changed() => {}
                done = self.steps.next() => self.steps_done(done).await,
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    fn take_up_current(&mut self) {
        let current = self.generations.load_current();
        self.judge = current.as_ref().map(Judge::new);
        let open = |object: &&Object| object.kind() != "Secret";
        let objects = current.iter().flat_map(|desired| &desired.objects).filter(open);
        self.objects.send_replace(Arc::new(objects.cloned().collect()));
        self.notes = current
            .as_ref()
            .map(|desired| desired.warnings.clone())
            .unwrap_or_default();
        self.wanted = current.and_then(|desired| match expand(&desired, &self.limits) {
            Ok(wanted) => Some(wanted),
            Err(refusals) => {
                // Only a new agent with stricter rules gets here; what runs goes on running, unmanaged, until the
                // next revision. Stopping it would be the worse answer.
                let why = refusals.first().map(ToString::to_string).unwrap_or_default();
                tracing::error!(why, "the current generation is refused by this version");
                None
            }
        });
        self.steps.forget_failures();
        self.note_images();
        self.trial = self.generations.on_trial().then(|| Trial {
            deadline: self.clock.since_boot() + self.health.deadline,
            healthy_since: None,
        });
    }

    /// What runs, and what the device would go back to, must not need a registry.
    fn note_images(&mut self) {
        let images = |wanted: &Wanted| wanted.images().into_iter().map(|wanted| wanted.image);
        let mut kept: BTreeSet<ImageRef> = self.wanted.iter().flat_map(images).collect();
        if let Some(good) = self.generations.load_last_good()
            && let Ok(good) = expand(&good, &self.limits)
        {
            kept.extend(images(&good));
        }
        self.kept.send_if_modified(|held| {
            let news = *held != kept;
            *held = kept;
            news
        });
    }

    /// One look, one plan, one launch of what is due. Returns how long to sleep at most.
    async fn turn(&mut self) -> Duration {
        let seen = match self.engine.observe().await {
            Ok(seen) => seen,
            Err(err) => {
                tracing::warn!(err = kit::chain(&err), "cannot observe");
                self.view.send_if_modified(|view| {
                    let message = format!("the engine does not answer: {}", kit::chain(&err));
                    std::mem::replace(&mut view.message, message.clone()) != message
                });
                return Duration::from_secs(2);
            }
        };
        self.looked.notify_one();
        let now = self.clock.now();
        let Some(wanted) = self.wanted.clone() else {
            self.publish(View {
                phase: self.phase(None),
                ..View::default()
            });
            return LOOK_AGAIN;
        };
        let (plan, why) = plan::plan(&wanted, &seen, now);
        let workloads = self.judged(&wanted, &seen);
        let standings = self
            .judge
            .as_ref()
            .map(|judge| judge.judge(&workloads))
            .unwrap_or_default();
        // `dependsOn` orders a roll-out. What was healthy once is started again whatever became of the others.
        let held_back = match (&self.judge, self.trial) {
            (Some(judge), Some(_)) => judge.held_back(&standings),
            _ => Default::default(),
        };
        for step in plan.steps {
            if !held_back.contains(&step.about) {
                self.steps.launch(step, &self.engine, self.clock.since_boot());
            }
        }
        let judgement = with_kustomizations(verdict(&workloads), &standings);
        let moved = self.judge(&judgement, plan_is_empty(&why)).await;
        if moved {
            return Duration::ZERO;
        }
        let message = match &judgement {
            Verdict::Healthy => "all workloads are as wanted".to_owned(),
            Verdict::Progressing(why) | Verdict::Failed(why) => why.clone(),
        };
        self.publish(View {
            phase: self.phase(Some(&judgement)),
            generation: self.generation_status(),
            workloads,
            kustomizations: self.seen(standings),
            why,
            notes: self.notes.iter().chain(&wanted.notes).cloned().collect(),
            message,
        });
        self.next_wake()
    }

    fn seen(&self, standings: Vec<Health>) -> Vec<Seen> {
        let kustomizations = self.judge.iter().flat_map(Judge::kustomizations);
        standings
            .into_iter()
            .zip(kustomizations)
            .map(|(health, kustomization)| Seen {
                health,
                objects: u32::try_from(kustomization.objects.len()).unwrap_or(u32::MAX),
                revision: kustomization.revision.clone(),
            })
            .collect()
    }

    /// Workloads with what the loop itself knows: steps that the engine refused.
    fn judged(&self, wanted: &Wanted, seen: &Observed) -> Vec<WorkloadStatus> {
        let mut workloads = plan::workloads(wanted, seen);
        for workload in &mut workloads {
            if workload.state == WorkloadState::Current {
                continue;
            }
            if let Some(failure) = self.steps.failure_of(&workload.key) {
                workload.message = failure.text.clone();
                if failure.final_word {
                    workload.state = WorkloadState::Failed;
                }
            }
        }
        workloads
    }

    /// Ends a trial where it is decided. Says whether what is wanted has changed.
    async fn judge(&mut self, judgement: &Verdict, at_rest: bool) -> bool {
        let now = self.clock.since_boot();
        let Some(trial) = &mut self.trial else {
            return false;
        };
        match judgement {
            Verdict::Healthy if at_rest && self.steps.is_idle() => {
                let since = *trial.healthy_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.health.settle {
                    self.pass_trial().await;
                }
                false
            }
            Verdict::Failed(why) => {
                let why = why.clone();
                self.fail_trial(&why).await;
                true
            }
            Verdict::Healthy | Verdict::Progressing(_) => {
                trial.healthy_since = None;
                if now < trial.deadline {
                    return false;
                }
                let waited = self.health.deadline.as_secs();
                let why = match judgement {
                    Verdict::Progressing(why) => format!("not healthy after {waited} s: {why}"),
                    _ => format!("not at rest after {waited} s"),
                };
                self.fail_trial(&why).await;
                true
            }
        }
    }

    async fn pass_trial(&mut self) {
        match self.generations.promote() {
            Ok(()) => {
                self.trial = None;
                self.note_images();
                let name = self.current_name();
                self.note(
                    Severity::Normal,
                    "Healthy",
                    format!("generation {name} is healthy and is the last good one"),
                )
                .await;
            }
            // The trial stays open, and is judged again at the next turn.
            Err(err) => tracing::error!(err = kit::chain(&err), "cannot record a healthy generation"),
        }
    }

    async fn fail_trial(&mut self, why: &str) {
        let name = self.current_name();
        match self.generations.roll_back(why) {
            Ok(true) => {
                self.take_up_current();
                let back = self.current_name();
                let message = format!("generation {name} failed ({why}); back on {back}");
                self.note(Severity::Critical, "RolledBack", message).await;
            }
            Ok(false) => {
                self.trial = None;
                let message =
                    format!("generation {name} failed ({why}); there is no earlier one to go back to");
                self.note(Severity::Critical, "Failed", message).await;
            }
            Err(err) => tracing::error!(err = kit::chain(&err), "cannot roll back"),
        }
    }

    async fn consider(&mut self, prepared: &Prepared) {
        if self.generations.paused() {
            return;
        }
        let result = match self.generations.offer(prepared.wanted.generation) {
            Offer::Same => {
                // Health checks may have changed where no object did.
                self.judge = Some(Judge::new(&prepared.desired));
                self.generations.renamed(&prepared.desired.revision)
            }
            Offer::KnownBad => Ok(()),
            Offer::New => self.generations.adopt(&prepared.desired),
        };
        if let Err(err) = result {
            tracing::error!(err = kit::chain(&err), "cannot keep a generation");
            return;
        }
        let taken = self.generations.current().map(|named| named.id) == Some(prepared.wanted.generation);
        let running =
            self.wanted.as_ref().map(|wanted| wanted.generation) == Some(prepared.wanted.generation);
        if taken && !running {
            self.take_up_current();
            let message = format!(
                "generation {} from {} goes on trial",
                prepared.wanted.generation, prepared.desired.revision
            );
            self.note(Severity::Normal, "Adopted", message).await;
        }
    }

    async fn steps_done(&mut self, done: crate::steps::Done) {
        let now = self.clock.since_boot();
        if let Some(failure) = self.steps.settle(done, now) {
            self.note(Severity::Warning, "FailedStep", failure).await;
        }
    }

    fn next_wake(&self) -> Duration {
        let now = self.clock.since_boot();
        let mut wake = LOOK_AGAIN;
        if let Some(trial) = self.trial {
            let next = trial
                .healthy_since
                .map_or(trial.deadline, |since| since + self.health.settle);
            wake = wake.min(next.saturating_sub(now));
        }
        if let Some(until) = self.steps.next_retry() {
            wake = wake.min(until.saturating_sub(now));
        }
        wake.max(Duration::from_millis(20))
    }

    fn phase(&self, judgement: Option<&Verdict>) -> Phase {
        let rolled_back = self.generations.failed().is_some_and(|failed| failed.tried)
            && self.generations.last_good().is_some()
            && self.generations.current() == self.generations.last_good();
        match judgement {
            _ if self.generations.paused() => Phase::Paused,
            None if self.generations.current().is_none() => Phase::WaitingForSource,
            _ if self.trial.is_some() => Phase::Progressing,
            Some(Verdict::Healthy) if rolled_back => Phase::RolledBack,
            Some(Verdict::Healthy) => Phase::Ready,
            _ => Phase::Degraded,
        }
    }

    fn generation_status(&self) -> GenerationStatus {
        let name = |named: Option<&crate::generations::Named>| named.map(|n| n.id.to_string());
        GenerationStatus {
            current: name(self.generations.current()),
            revision: self.generations.current().map(|n| n.revision.clone()),
            last_good: name(self.generations.last_good()),
            candidate: name(self.generations.current().filter(|_| self.trial.is_some())),
            failed: self.generations.failed().map(|failed| {
                let id = failed
                    .id
                    .map_or_else(|| failed.revision.short().to_owned(), |id| id.to_string());
                (id, failed.reason.clone())
            }),
            failed_commit: self
                .generations
                .failed()
                .map(|failed| failed.revision.commit.clone()),
        }
    }

    fn current_name(&self) -> String {
        self.generations
            .current()
            .map_or_else(|| "none".to_owned(), |named| named.id.to_string())
    }

    fn publish(&self, view: View) {
        let view = View {
            generation: self.generation_status(),
            ..view
        };
        self.view.send_if_modified(|held| {
            let changed = *held != view;
            *held = view;
            changed
        });
    }

    async fn note(&self, severity: Severity, reason: &str, message: impl Into<String>) {
        let generation = self.generations.current().map(|named| named.id.to_string());
        self.journal
            .note(severity, reason, "device", message.into(), generation)
            .await;
    }
}

/// Workloads that are as wanted may still be unhealthy by Flux's checks.
fn with_kustomizations(verdict: Verdict, standings: &[Health]) -> Verdict {
    if verdict != Verdict::Healthy {
        return verdict;
    }
    let told = |health: &Health| {
        let Health {
            namespace,
            name,
            message,
            ..
        } = health;
        format!("Kustomization/{namespace}/{name}: {message}")
    };
    let first = |wanted: &[Standing]| standings.iter().find(|health| wanted.contains(&health.standing));
    if let Some(failed) = first(&[Standing::Failed]) {
        return Verdict::Failed(told(failed));
    }
    match first(&[Standing::Progressing, Standing::Waiting]) {
        Some(moving) => Verdict::Progressing(told(moving)),
        None => Verdict::Healthy,
    }
}

/// Has the engine keep these images, whenever they change.
pub async fn keep_images<E: Engine>(engine: Arc<E>, mut images: watch::Receiver<BTreeSet<ImageRef>>) {
    loop {
        let wanted = images.borrow_and_update().clone();
        let again = match engine.keep(&wanted).await {
            Ok(()) => Duration::MAX,
            Err(err) => {
                tracing::warn!(
                    err = kit::chain(&err),
                    "the images of the last good generation are not pinned"
                );
                Duration::from_secs(60)
            }
        };
        tokio::select! {
            moved = images.changed() => if moved.is_err() {
                // The loop is gone, and with it the agent.
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Whether the planner left everything as it is.
fn plan_is_empty(why: &WhyReport) -> bool {
    why.lines.iter().all(|line| line.verdict == "keep")
}
