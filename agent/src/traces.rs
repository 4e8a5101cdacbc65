//! Spans of pods: taken by OTLP on the pod network's gateway, marked with whose they are, and into the spool.
//!
//! Without sampling a client is answered when its spans are on disk. With it, when they are in memory: what is kept is
//! decided later, and goes to disk then.

use crate::journal::Journal;
use crate::logs;
use ::telemetry::receive::{Bounds, Receiver, Refused, Sink, Taken};
use ::telemetry::traces::{self, Figures, Keeper, Rate, Request, Rules, Tail};
use device::Page;
use jiff::SignedDuration;
use kit::{Clock, Tasks};
use model::Severity;
use runtime::Engine;
use runtime::embedded::network::Cidr;
use serde::Deserialize;
use spool::{Retention, Spool, Stream, WhenFull};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Name of the stream.
pub const TRACES: &str = "traces";
/// A port that is taken is tried again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// A spool that refuses is tried again after this.
const REST: Duration = Duration::from_secs(1);
/// What sampling left out is noted in the spool this often.
const NOTE_EVERY: Duration = Duration::from_secs(600);
/// Requests decided early that wait for the disk.
const SLOTS: usize = 4;
/// Senders that are remembered beside those that are sending.
const REMEMBERED: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawTraces {
    collect: Option<bool>,
    ports: Option<Vec<u16>>,
    spans_per_second: Option<u32>,
    disk: Option<String>,
    sampling: Option<RawSampling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSampling {
    keep: f64,
    slow: Option<SignedDuration>,
    wait: Option<SignedDuration>,
    memory: Option<String>,
}

/// Whether traces are taken, and which are kept.
#[derive(Debug, Clone)]
pub struct Traces {
    /// False: nothing listens.
    pub collect: bool,
    /// Where, on the pod network's gateway. The first is what pods are told.
    pub ports: Vec<u16>,
    /// Spans a second of each pod, over a burst.
    pub per_second: u32,
    /// Most bytes on disk; then the oldest go.
    pub disk: u64,
    /// All are kept where absent.
    pub sampling: Option<Rules>,
}

impl RawTraces {
    /// Puts in what is left out.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub(crate) fn resolve(self) -> Result<Traces, (&'static str, String)> {
        let ports = self.ports.unwrap_or_else(|| vec![4317, 4318]);
        if ports.is_empty() || ports.contains(&0) {
            let why = "name at least one port above 0; collect: false switches traces off";
            return Err(("traces.ports", why.to_owned()));
        }
        let bytes = |field, text: Option<String>, otherwise: u64| match text {
            None => Ok(otherwise),
            Some(text) => model::parse_bytes(&text)
                .ok()
                .filter(|bytes| *bytes >= 1 << 20)
                .ok_or_else(|| {
                    (
                        field,
                        format!("{text:?}: write a size of 1Mi or more, such as 64Mi"),
                    )
                }),
        };
        let time = |field, given: Option<SignedDuration>| match given.map(Duration::try_from) {
            None => Ok(None),
            Some(Ok(given)) if !given.is_zero() => Ok(Some(given)),
            Some(_) => Err((field, "must be above zero, such as 500ms or 10s".to_owned())),
        };
        let sampling = match self.sampling {
            None => None,
            Some(raw) if !(0.0..=1.0).contains(&raw.keep) => {
                let why = "a share from 0 (only errors and slow ones) to 1 (all)".to_owned();
                return Err(("traces.sampling.keep", why));
            }
            Some(raw) => Some(Rules {
                share: raw.keep,
                slow: time("traces.sampling.slow", raw.slow)?,
                wait: time("traces.sampling.wait", raw.wait)?.unwrap_or(Duration::from_secs(10)),
                memory: usize::try_from(bytes("traces.sampling.memory", raw.memory, 8 << 20)?)
                    .unwrap_or(usize::MAX),
            }),
        };
        Ok(Traces {
            collect: self.collect.unwrap_or(true),
            ports,
            per_second: self.spans_per_second.unwrap_or(500).max(1),
            disk: bytes("traces.disk", self.disk, 64 << 20)?,
            sampling,
        })
    }
}

/// How long the stream keeps what the hub does not have: a pod that floods must not hold up what else the class has.
pub(crate) fn retention(config: &Traces) -> Retention {
    Retention {
        when_full: WhenFull::DropOldest,
        max_age: None,
        max_bytes: Some(config.disk),
        thin: false,
    }
}

/// Where pods find the device.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// The address to listen at, and the device's own as a caller.
    pub address: Ipv4Addr,
    /// Who else may call.
    pub pods: Cidr,
}

/// What taking spans needs.
pub(crate) struct Inputs<E> {
    pub engine: Arc<E>,
    pub clock: Arc<dyn Clock>,
    pub journal: Journal,
    pub spool: Spool,
    pub stream: Stream,
    pub config: Traces,
    pub door: Door,
}

/// Listens from now on; gives what there is to tell of it.
pub(crate) fn start<E: Engine>(inputs: Inputs<E>, tasks: &Tasks) -> Arc<Shelf> {
    let Inputs {
        engine,
        clock,
        journal,
        spool,
        stream,
        config,
        door,
    } = inputs;
    let (early, decided) = mpsc::channel(SLOTS);
    let shelf = Arc::new(Shelf {
        most: spool::Options::default().most_record(),
        keeper: Keeper::new(stream),
        tail: config.sampling.map(|rules| Mutex::new(Tail::new(rules))),
        woken: Notify::new(),
        counts: Counts::default(),
    });
    if shelf.tail.is_some() {
        let sampler = Sampler {
            shelf: Arc::clone(&shelf),
            clock: Arc::clone(&clock),
            spool,
            noted: Figures::default(),
            note_at: clock.since_boot() + NOTE_EVERY,
        };
        tasks.spawn_to_end("sample", sampler.run(decided, tasks.stop()));
    }
    let desk = Desk {
        engine,
        clock,
        door,
        per_second: config.per_second,
        shelf: Arc::clone(&shelf),
        early,
        senders: Mutex::default(),
    };
    let receiver = Receiver::new(desk, Bounds::default());
    for port in config.ports {
        let address = SocketAddr::from((door.address, port));
        tasks.spawn_vital("otlp", listen(receiver.clone(), address, journal.clone()));
    }
    shelf
}

/// A port that somebody else has is no reason to end; it is told once, and tried again.
async fn listen<E: Engine>(receiver: Receiver<Desk<E>>, address: SocketAddr, journal: Journal) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => receiver.serve(listener).await,
            Err(err) => {
                if !std::mem::replace(&mut told, true) {
                    let why = format!(
                        "traces cannot be taken at {address}: {err}; free the port, or give others in traces.ports"
                    );
                    journal
                        .note(Severity::Warning, "TracesNotTaken", "traces", why, None)
                        .await;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Where spans go, and what became of them.
#[derive(Debug)]
pub(crate) struct Shelf {
    keeper: Keeper,
    /// Bytes of the longest record.
    most: usize,
    tail: Option<Mutex<Tail>>,
    /// Something waits that did not before.
    woken: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    rejected: AtomicU64,
    too_fast: AtomicU64,
    pushed_back: AtomicU64,
}

impl Shelf {
    fn tail(&self) -> Option<MutexGuard<'_, Tail>> {
        let tail = self.tail.as_ref()?;
        Some(tail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The figures for whoever scrapes the agent.
    pub(crate) fn tell(&self, page: &mut Page) {
        let figures = self.tail().map(|tail| tail.figures());
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut spans = vec![
            ("taken", count(&self.counts.taken)),
            ("rejected", count(&self.counts.rejected)),
        ];
        if let Some(figures) = figures {
            spans.extend([
                ("kept", figures.kept_spans),
                ("left_out", figures.left_out_spans),
                ("late", figures.late_spans),
            ]);
        }
        let counter = |name: &'static str, value: u64| {
            // Far below 2^53.
            (vec![("outcome", name.to_owned())], value as f64)
        };
        let spans = spans.into_iter().map(|(name, value)| counter(name, value));
        let help =
            "Spans of pods by what became of them; kept, left out and late ones where there is sampling.";
        page.many("leeward_traces_spans_total", "counter", help, spans);
        let refused = [
            counter("too_fast", count(&self.counts.too_fast)),
            counter("pushed_back", count(&self.counts.pushed_back)),
        ];
        let help = "Requests that a client was told to send again later.";
        page.many("leeward_traces_refused_requests_total", "counter", help, refused);
        let Some(figures) = figures else { return };
        let traces = [
            counter("kept", figures.kept_traces),
            counter("left_out", figures.left_out_traces),
            counter("early", figures.early_traces),
        ];
        let help = "Decisions on traces; early ones, for want of memory, among them.";
        page.many("leeward_traces_decisions_total", "counter", help, traces);
        let help = "Bytes of spans that wait for a decision.";
        let waiting = Some(figures.waiting_bytes as f64);
        page.one("leeward_traces_waiting_bytes", "gauge", help, waiting);
    }
}

/// Takes requests in.
struct Desk<E> {
    engine: Arc<E>,
    clock: Arc<dyn Clock>,
    door: Door,
    per_second: u32,
    shelf: Arc<Shelf>,
    early: mpsc::Sender<Request>,
    senders: Mutex<HashMap<IpAddr, Arc<Sender>>>,
}

/// What is known of somebody who sends.
struct Sender {
    /// One at a time is kept, so that what comes again finds what became of the first.
    turn: tokio::sync::Mutex<()>,
    limit: Mutex<Rate>,
}

impl<E: Engine> Sink for Desk<E> {
    fn admits(&self, peer: IpAddr) -> bool {
        match peer {
            // A route into the pod network from outside must lead nowhere.
            IpAddr::V4(peer) => peer == self.door.address || self.door.pods.contains(peer),
            IpAddr::V6(_) => false,
        }
    }

    async fn take(&self, peer: IpAddr, mut request: Request) -> Result<Taken, Refused> {
        let nameless = traces::take_out_nameless(&mut request);
        self.mark(peer, &mut request)?;
        let spans = traces::count(&request) as u64;
        let sender = self.sender(peer);
        let admitted = sender
            .limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admits(self.clock.since_boot(), spans);
        if let Err(after) = admitted {
            self.shelf.counts.too_fast.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::TooFast {
                after,
                why: format!(
                    "a pod may send {} spans a second (traces.spansPerSecond)",
                    self.per_second
                ),
            });
        }
        let too_large = {
            let _turn = sender.turn.lock().await;
            self.keep(request).await
        }
        .inspect_err(|_| {
            self.shelf.counts.pushed_back.fetch_add(1, Ordering::Relaxed);
        })?;
        let rejected = nameless + too_large;
        let counts = &self.shelf.counts;
        counts.taken.fetch_add(spans - too_large, Ordering::Relaxed);
        counts.rejected.fetch_add(rejected, Ordering::Relaxed);
        let why = [
            (nameless, "without valid ids"),
            (too_large, "too large to be kept"),
        ];
        let why: Vec<String> = why
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} spans {what}"))
            .collect();
        Ok(Taken {
            rejected,
            why: why.join(", "),
        })
    }
}

impl<E: Engine> Desk<E> {
    /// Says whose the spans are.
    fn mark(&self, peer: IpAddr, request: &mut Request) -> Result<(), Refused> {
        if peer == IpAddr::V4(self.door.address) {
            // Of the device itself, or a pod on its network: which one cannot be told.
            traces::mark(request, &[], None);
            return Ok(());
        }
        let Some((pod, owner)) = self.engine.pod_at(peer) else {
            return Err(Refused::Later {
                after: REST,
                why: format!("no pod of this device is known at {peer} yet"),
            });
        };
        traces::mark(request, &logs::of_pod(&pod, &owner), Some(&owner.name));
        Ok(())
    }

    fn sender(&self, peer: IpAddr) -> Arc<Sender> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() > REMEMBERED {
            senders.retain(|_, sender| Arc::strong_count(sender) > 1);
        }
        let sender = senders.entry(peer).or_insert_with(|| {
            Arc::new(Sender {
                turn: tokio::sync::Mutex::new(()),
                limit: Mutex::new(Rate::new(self.per_second, self.clock.since_boot())),
            })
        });
        Arc::clone(sender)
    }

    /// On disk, or in memory where there is sampling; gives how many spans are too large for that.
    async fn keep(&self, request: Request) -> Result<u64, Refused> {
        if self.shelf.tail.is_none() {
            let (records, too_large) = traces::records(request, self.shelf.most);
            let kept = self.shelf.keeper.keep(&records).await;
            return kept.map(|()| too_large).map_err(|err| Refused::Later {
                after: REST,
                why: kit::chain(&err),
            });
        }
        let full = |_| Refused::Later {
            after: REST,
            why: "the device's spool takes none now".to_owned(),
        };
        let place = self.early.try_reserve().map_err(full)?;
        let kept = self
            .shelf
            .tail()
            .map(|mut tail| tail.add(request, self.clock.since_boot()));
        match kept {
            Some(kept) if !kept.resource_spans.is_empty() => place.send(kept),
            _ => drop(place),
        }
        self.shelf.woken.notify_one();
        Ok(0)
    }
}

/// Decides when it is time, and writes what is kept.
struct Sampler {
    shelf: Arc<Shelf>,
    clock: Arc<dyn Clock>,
    spool: Spool,
    /// What the spool has been told of.
    noted: Figures,
    note_at: Duration,
}

impl Sampler {
    async fn run(mut self, mut decided: mpsc::Receiver<Request>, stop: CancellationToken) {
        loop {
            let now = self.clock.since_boot();
            let next = self.shelf.tail().and_then(|tail| tail.next());
            let pause = next
                .map_or(NOTE_EVERY, |at| at.saturating_sub(now))
                .min(NOTE_EVERY);
            let kept = tokio::select! {
                () = stop.cancelled() => break,
                // The queue's other end lives as long as the server.
                Some(kept) = decided.recv() => Some(kept),
                () = self.shelf.woken.notified() => None,
                () = tokio::time::sleep(pause) => {
                    self.shelf.tail().map(|mut tail| tail.due(self.clock.since_boot()))
                }
            };
            if let Some(kept) = kept {
                self.write(kept, &stop).await;
            }
            self.note();
        }
        // What waits is worth its write: a stop is no crash.
        decided.close();
        while let Ok(kept) = decided.try_recv() {
            self.write(kept, &stop).await;
        }
        let rest = self.shelf.tail().map(|mut tail| tail.end());
        self.write(rest.unwrap_or_default(), &stop).await;
    }

    /// Waits for as long as the spool takes none: meanwhile clients are told to come again.
    async fn write(&self, kept: Request, stop: &CancellationToken) {
        let (records, too_large) = traces::records(kept, self.shelf.most);
        self.shelf.counts.rejected.fetch_add(too_large, Ordering::Relaxed);
        while let Err(err) = self.shelf.keeper.keep(&records).await {
            tracing::warn!(err = kit::chain(&err), "spans are not kept now");
            if stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn note(&mut self) {
        let now = self.clock.since_boot();
        if now < self.note_at {
            return;
        }
        self.note_at = now + NOTE_EVERY;
        let Some(figures) = self.shelf.tail().map(|tail| tail.figures()) else {
            return;
        };
        let left_out = figures.left_out_spans - self.noted.left_out_spans;
        self.noted = figures;
        if left_out > 0 {
            self.spool.left_out(TRACES, left_out, "spans", "sampling");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Traces, (&'static str, String)> {
        serde_saphyr::from_str::<RawTraces>(text).unwrap().resolve()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field) in [
            ("ports: []", "traces.ports"),
            ("ports: [0]", "traces.ports"),
            ("disk: 5", "traces.disk"),
            ("sampling: {keep: 10}", "traces.sampling.keep"),
            ("sampling: {keep: .nan}", "traces.sampling.keep"),
            ("sampling: {keep: 1, wait: 0s}", "traces.sampling.wait"),
            ("sampling: {keep: 1, memory: many}", "traces.sampling.memory"),
        ] {
            assert_eq!(resolve(text).unwrap_err().0, field, "{text}");
        }
        let rules = resolve("sampling: {keep: 0.1, slow: 2s}")
            .unwrap()
            .sampling
            .unwrap();
        assert_eq!((rules.wait.as_secs(), rules.memory), (10, 8 << 20));
        assert!(resolve("{}").unwrap().sampling.is_none());
    }
}
