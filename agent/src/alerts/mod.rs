//! Rules of the generation that runs, evaluated on the device: the link may be down.

mod book;
mod config;
mod feed;
mod told;
mod webhook;

use crate::config::Config;
use crate::converge::View;
use crate::journal::Journal;
use crate::telemetry::keep;
use ::telemetry::metrics::{Batch, Labels as Scraped, Sample, Series};
use book::Book;
use kit::{Clock, Tasks};
use model::{Object, Severity};
use rules::{Change, RuleError, Store};
use spool::Stream;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use told::{Told, record};
use webhook::Queue;

pub(crate) use config::RawAlerts;
pub use config::{AlertsConfig, Receiver};
pub(crate) use feed::Feed;

/// Name of the stream.
pub(crate) const ALERTS: &str = "alerts";
/// Old samples are let go of this often.
const TRIM: Duration = Duration::from_secs(60);
/// Wall time that moves by more than this against the time since boot was set.
const JUMP_MS: i64 = 30_000;

/// Everything that evaluating needs.
pub(crate) struct Inputs<'a> {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For rules that cannot be evaluated.
    pub journal: Journal,
    /// Who the device is, and who is told.
    pub config: &'a Config,
    /// What alerts do.
    pub alerts: Stream,
    /// Where recorded series go; absent where nobody gets them.
    pub metrics: Option<Stream>,
    /// The generation's objects.
    pub objects: watch::Receiver<Arc<Vec<Object>>>,
    /// What runs.
    pub view: watch::Receiver<View>,
}

/// What others need of the rules.
pub(crate) struct Rules {
    /// Is to see each sample.
    pub feed: Arc<Feed>,
    /// Whether samples are needed at all.
    pub needed: watch::Receiver<bool>,
    /// Rules that are not evaluated, for the status.
    pub notes: watch::Receiver<Vec<String>>,
}

/// Starts to evaluate.
pub(crate) fn start(inputs: Inputs<'_>, tasks: &Tasks) -> Rules {
    let config = &inputs.config.alerts;
    let feed = Arc::new(Feed::new(Store::new(config.memory)));
    let (needed_in, needed) = watch::channel(false);
    let (notes_in, notes) = watch::channel(Vec::new());
    let rules = Rules {
        feed: Arc::clone(&feed),
        needed,
        notes,
    };
    if !config.enabled || !inputs.config.metrics.enabled {
        return rules;
    }
    let mut receivers = Vec::new();
    for receiver in &config.webhooks {
        let queue = Arc::new(Queue::default());
        tasks.spawn_vital("webhook", webhook::deliver(receiver.clone(), Arc::clone(&queue)));
        receivers.push((receiver.clone(), queue));
    }
    let desk = Desk {
        book: Book::open(&inputs.config.state),
        feed,
        receivers,
        place: place(inputs.config),
        every: milliseconds(config.interval),
        settle: 2 * milliseconds(inputs.config.metrics.interval),
        recorded: HashMap::new(),
        flush_every: inputs.config.metrics.window,
        offset: None,
        failing: BTreeMap::new(),
        told: BTreeSet::new(),
        needed: needed_in,
        notes: notes_in,
        clock: inputs.clock,
        journal: inputs.journal,
        alerts: inputs.alerts,
        metrics: inputs.metrics,
        objects: inputs.objects,
        view: inputs.view,
    };
    let stop = tasks.stop();
    tasks.spawn_to_end("rules", async move {
        desk.run(async move { stop.cancelled().await }).await;
    });
    rules
}

/// Labels that say where an alert is from, for receivers at the device.
fn place(config: &Config) -> BTreeMap<String, String> {
    let mut place = BTreeMap::from([
        ("device".to_owned(), config.device.to_string()),
        ("class".to_owned(), config.class.to_string()),
    ]);
    place.extend(config.site.clone().map(|site| ("site".to_owned(), site)));
    place
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

struct Desk {
    book: Book,
    feed: Arc<Feed>,
    receivers: Vec<(Receiver, Arc<Queue>)>,
    place: BTreeMap<String, String>,
    every: i64,
    settle: i64,
    recorded: HashMap<Scraped, Vec<Sample>>,
    flush_every: Duration,
    /// Wall time less the time since boot, in milliseconds.
    offset: Option<i64>,
    /// Rules that could not be evaluated the last time, and why.
    failing: BTreeMap<String, String>,
    /// Of these and of faults, those that were told.
    told: BTreeSet<String>,
    needed: watch::Sender<bool>,
    notes: watch::Sender<Vec<String>>,
    clock: Arc<dyn Clock>,
    journal: Journal,
    alerts: Stream,
    metrics: Option<Stream>,
    objects: watch::Receiver<Arc<Vec<Object>>>,
    view: watch::Receiver<View>,
}

impl Desk {
    async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut trim = tokio::time::interval(TRIM);
        let mut flush = tokio::time::interval(self.flush_every);
        // Who is told on the spot has forgotten nothing that fires; they may hear it twice.
        let before = self.book.firing_before();
        let before: Vec<Told> = before
            .into_iter()
            .map(|alert| Told { alert, ended: None })
            .collect();
        self.tell_receivers(&before);
        loop {
            // Before there is a generation nothing says that rules are gone. Its objects are told before it is.
            let begun = self.view.borrow_and_update().generation.current.is_some();
            let objects = self.objects.borrow_and_update().clone();
            if begun {
                self.follow(&objects).await;
            }
            loop {
                let next = self.book.entries.iter().map(|entry| entry.due).min();
                let pause = next.map_or(TRIM, |due| {
                    let wait = (due - milliseconds(self.clock.since_boot())).max(0);
                    Duration::from_millis(wait.unsigned_abs())
                });
                tokio::select! {
                    () = &mut stop => return self.flush(),
                    Ok(()) = self.objects.changed() => break,
                    Ok(()) = self.view.changed(), if !begun => break,
                    _ = trim.tick() => self.feed.lock().store.trim(self.clock.now().as_millisecond()),
                    _ = flush.tick() => self.flush(),
                    () = tokio::time::sleep(pause) => self.evaluate_due().await,
                }
            }
        }
    }

    async fn follow(&mut self, objects: &[Object]) {
        let (now, boot) = (
            self.clock.now().as_millisecond(),
            milliseconds(self.clock.since_boot()),
        );
        let gone = {
            let mut held = self.feed.lock();
            let gone = self.book.follow(objects, &mut held.store, now, boot);
            held.forget_known();
            self.needed.send_replace(held.store.wants_any());
            gone
        };
        let gone: Vec<Told> = gone
            .into_iter()
            .map(|alert| Told {
                alert,
                ended: Some(now),
            })
            .collect();
        self.tell(&gone).await;
        if !gone.is_empty() {
            self.book.keep();
        }
        self.failing.clear();
        self.note().await;
    }

    async fn evaluate_due(&mut self) {
        let (now, boot) = (
            self.clock.now().as_millisecond(),
            milliseconds(self.clock.since_boot()),
        );
        self.notice_jump(now, boot);
        let mut told = Vec::new();
        let mut changed = false;
        for entry in self.book.entries.iter_mut().filter(|entry| entry.due <= boot) {
            let every = entry.group.interval.unwrap_or(self.every).max(1);
            // Moments that were missed are not made up for.
            entry.due = boot - (boot - entry.due) % every + every;
            let given = {
                let mut held = self.feed.lock();
                let memories = &mut entry.memories;
                entry.group.evaluate(memories, &mut held.store, now, self.settle)
            };
            for (rule, error) in entry.group.rules.iter().zip(given.errors) {
                let name = format!(
                    "PrometheusRule {}: {}/{}",
                    entry.object, entry.group.name, rule.name
                );
                match error {
                    None => self.failing.remove(&name),
                    // It is only a matter of time.
                    Some(RuleError::NotReady(rules::NotReady::Gathering { .. })) => None,
                    Some(error) => self.failing.insert(name, error.to_string()),
                };
            }
            changed |= !given.changes.is_empty();
            for (change, alert) in given.changes {
                let ended = match change {
                    Change::Pending => continue,
                    Change::Firing => None,
                    Change::Resolved => Some(now),
                };
                told.push(Told { alert, ended });
            }
            if self.metrics.is_some() {
                for (labels, sample) in given.samples {
                    let labels = Scraped::new(labels.iter()).unwrap_or_default();
                    let rules::Sample { time, value } = sample;
                    self.recorded
                        .entry(labels)
                        .or_default()
                        .push(Sample { time, value });
                }
            }
        }
        // A record first: what is told twice after a crash is the same alert, what is told never is lost.
        self.tell(&told).await;
        if changed {
            self.book.keep();
        }
        self.note().await;
    }

    /// A clock that was set makes nothing older or younger: samples are gathered anew, alerts keep their age.
    fn notice_jump(&mut self, now: i64, boot: i64) {
        let offset = now - boot;
        let by = offset - self.offset.unwrap_or(offset);
        self.offset = Some(offset);
        if by.abs() <= JUMP_MS {
            return;
        }
        tracing::info!(
            milliseconds = by,
            "the clock was set; samples for rules are gathered anew"
        );
        self.book.shift(by);
        let mut held = self.feed.lock();
        held.store = Store::new(held.store.most());
        let entries = &self.book.entries;
        let exprs = entries
            .iter()
            .flat_map(|entry| &entry.group.rules)
            .map(|rule| &rule.expr);
        held.store.follow(exprs, now);
    }

    /// Into the spool, and to who is told on the spot.
    async fn tell(&self, told: &[Told]) {
        if told.is_empty() {
            return;
        }
        for one in told {
            let (alert, over) = (&one.alert.labels, one.ended.is_some());
            tracing::warn!(%alert, over, "alert");
        }
        let kept = match self.alerts.append(&record(told), None) {
            Ok(pending) => pending.await.map(|_| ()),
            Err(err) => Err(err),
        };
        if let Err(err) = kept {
            tracing::error!(err = kit::chain(&err), "alerts were not kept for the hub");
        }
        self.tell_receivers(told);
    }

    fn tell_receivers(&self, told: &[Told]) {
        for (receiver, queue) in &self.receivers {
            queue.tell(told, receiver, &self.place);
        }
    }

    /// Says in status and events what is not evaluated: each once, for as long as it holds.
    async fn note(&mut self) {
        let failing = self.failing.iter().map(|(rule, why)| format!("{rule}: {why}"));
        let notes: Vec<String> = self.book.faults.iter().cloned().chain(failing).collect();
        let now: BTreeSet<String> = notes.iter().cloned().collect();
        if now == self.told {
            return;
        }
        let generation = self.view.borrow().generation.current.clone();
        for why in now.difference(&self.told) {
            let journal = &self.journal;
            journal
                .note(
                    Severity::Warning,
                    "RuleNotEvaluated",
                    "rules",
                    why,
                    generation.clone(),
                )
                .await;
        }
        self.told = now;
        self.notes.send_replace(notes);
    }

    /// What was recorded goes the way of what was scraped.
    fn flush(&mut self) {
        let Some(stream) = &self.metrics else { return };
        if self.recorded.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for (labels, samples) in self.recorded.drain() {
            let mut series = Series::new(labels);
            series.samples = samples;
            batch.series.push(series);
        }
        keep(stream, &batch);
    }
}
