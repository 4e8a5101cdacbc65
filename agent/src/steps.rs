//! Steps under way, and those that failed and wait for their next try.

use kit::Backoff;
use model::{Action, ObjectKey, PodId, Step};
use runtime::{Engine, EngineError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a step works on; one step at a time on each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Pod(PodId),
    Services,
    Image(String),
}

impl Place {
    fn of(action: &Action) -> Self {
        match action {
            Action::StartPod { pod } => Self::Pod(pod.id.clone()),
            Action::StopPod { pod, .. } | Action::RefreshFiles { pod, .. } => Self::Pod(pod.clone()),
            Action::Publish { .. } => Self::Services,
            Action::Pull { image, .. } => Self::Image(image.to_string()),
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    about: ObjectKey,
    /// What the engine said.
    pub text: String,
    /// Whether trying again is useless.
    pub final_word: bool,
    until: Duration,
    backoff: Backoff,
}

/// A finished step.
#[derive(Debug)]
pub(crate) struct Done {
    place: Place,
    about: ObjectKey,
    result: Result<(), EngineError>,
}

/// The table of both.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    running: JoinSet<Done>,
    places: BTreeSet<Place>,
    failures: BTreeMap<Place, Failure>,
}

impl Steps {
    /// Starts a step, unless one is under way at its place or its last failure is too fresh.
    pub(crate) fn launch<E: Engine>(&mut self, step: Step, engine: &Arc<E>, now: Duration) {
        let place = Place::of(&step.action);
        let resting = self
            .failures
            .get(&place)
            .is_some_and(|failure| failure.until > now);
        if resting || !self.places.insert(place.clone()) {
            return;
        }
        let engine = Arc::clone(engine);
        self.running.spawn(async move {
            let result = engine.apply(&step).await;
            Done {
                place,
                about: step.about,
                result,
            }
        });
    }

    /// The next step that ends; pending for ever while none is under way.
    pub(crate) async fn next(&mut self) -> Done {
        loop {
            match self.running.join_next().await {
                Some(Ok(done)) => return done,
                Some(Err(panicked)) => {
                    // The place stays taken until the agent restarts: a step that panics once would do it again.
                    tracing::error!(err = %panicked, "a step panicked");
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Records how a step ended. Returns what to tell people the first time that it fails in a row.
    pub(crate) fn settle(&mut self, done: Done, now: Duration) -> Option<String> {
        self.places.remove(&done.place);
        let Err(err) = done.result else {
            self.failures.remove(&done.place);
            return None;
        };
        let text = kit::chain(&err);
        let final_word = matches!(err, EngineError::Refused { .. });
        let failure = self.failures.entry(done.place).or_insert_with(|| Failure {
            about: done.about.clone(),
            text: String::new(),
            final_word,
            until: now,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        });
        let news = failure.text != text;
        failure.text = text.clone();
        failure.final_word = final_word;
        failure.about = done.about;
        failure.until = now + failure.backoff.failed();
        tracing::warn!(about = %failure.about, err = text, "step failed");
        news.then_some(text)
    }

    /// What stands in the way of an object.
    pub(crate) fn failure_of(&self, about: &ObjectKey) -> Option<&Failure> {
        self.failures.values().find(|failure| &failure.about == about)
    }

    /// A new generation starts without the grudges of the old one.
    pub(crate) fn forget_failures(&mut self) {
        self.failures.clear();
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    /// When the next failed step may be tried again.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        self.failures.values().map(|failure| failure.until).min()
    }
}
