//! The round of scrapes: each target at its own moment of the interval, each with a deadline, none waiting for another.

use super::ingest::{Ingest, ScrapeError};
use super::labels::Labels;
use super::target::{Access, Job, Source, Target};
use super::text::{ACCEPT, Format};
use super::{Batch, Sample};
use crate::http::{ClientError, Trust, client};
use flate2::read::GzDecoder;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kit::Clock;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A scrape that is not later than this carries the time that it was due: equal distances need no bytes.
const TOLERANCE_MS: i64 = 10;
/// First scrapes of a new target are spread over this.
const FIRST_WITHIN: Duration = Duration::from_millis(200);
/// How long the first samples after a start wait for others.
const FIRST_WINDOW: Duration = Duration::from_millis(300);

/// How much is gathered before it is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// For how long; what a crash may cost.
    pub time: Duration,
    /// Or how many samples.
    pub samples: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            samples: 50_000,
        }
    }
}

/// Is called for each sample, with its series.
pub type EachSample<'a> = &'a mut dyn FnMut(&Labels, Sample);

/// Sees each sample at once, before it is gathered with others.
pub trait Tap: Send + Sync + std::fmt::Debug {
    /// A target was scraped, or failed, or is gone: `samples` calls its argument for each new sample, ends of series
    /// among them.
    fn scraped(&self, samples: &mut dyn FnMut(EachSample<'_>));
}

/// Scrapes targets and hands out batches.
#[derive(Debug)]
pub struct Scraper {
    clock: Arc<dyn Clock>,
    window: Window,
    /// Makes two devices scrape at different moments.
    salt: String,
    clients: HashMap<Trust, reqwest::Client>,
    running: BTreeMap<u64, Running>,
    keys: HashMap<(String, Labels), u64>,
    next_id: u64,
    flush_at: Instant,
    /// What targets that are gone had gathered.
    left: Batch,
    tap: Option<Arc<dyn Tap>>,
}

#[derive(Debug)]
struct Running {
    ingest: Ingest,
    due: Instant,
    /// Wall time of the next scrape in milliseconds, if nothing is late.
    expected: Option<i64>,
    busy: bool,
    /// For the log: a target that fails is told once.
    failing: bool,
}

/// What a fetch gave.
struct Fetched {
    id: u64,
    time: i64,
    took: Duration,
    answer: Result<(Vec<u8>, Format), ScrapeError>,
}

type Fetch = Pin<Box<dyn Future<Output = Fetched> + Send>>;

impl Scraper {
    /// Scrapes nothing yet. `salt` is the device's name.
    pub fn new(clock: Arc<dyn Clock>, window: Window, salt: &str) -> Self {
        Self {
            clock,
            window,
            salt: salt.to_owned(),
            clients: HashMap::new(),
            running: BTreeMap::new(),
            keys: HashMap::new(),
            next_id: 0,
            flush_at: Instant::now() + FIRST_WINDOW,
            left: Batch::default(),
            tap: None,
        }
    }

    /// Shows each sample to `tap` as well.
    #[must_use]
    pub fn tapped(mut self, tap: Arc<dyn Tap>) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Follows the targets until `stop`, then hands out what was gathered. A target that leaves the list ends: its
    /// series get their staleness markers.
    pub async fn run(
        mut self,
        mut targets: watch::Receiver<Arc<Vec<Target>>>,
        stop: CancellationToken,
        mut out: impl FnMut(Batch) + Send,
    ) {
        let mut fetches: FuturesUnordered<Fetch> = FuturesUnordered::new();
        let mut list_ends = false;
        let first = targets.borrow_and_update().clone();
        self.follow(&first);
        loop {
            let due = self
                .running
                .values()
                .filter(|one| !one.busy)
                .map(|one| one.due)
                .min();
            let wake = due.map_or(self.flush_at, |due| due.min(self.flush_at));
            tokio::select! {
                () = stop.cancelled() => break,
                changed = targets.changed(), if !list_ends => {
                    list_ends = changed.is_err();
                    let list = targets.borrow_and_update().clone();
                    self.follow(&list);
                }
                Some(fetched) = fetches.next() => self.taken(fetched),
                () = sleep_until(wake) => {}
            }
            for fetch in self.begin_due() {
                fetches.push(fetch);
            }
            let pending: usize = self.running.values().map(|one| one.ingest.pending()).sum();
            if Instant::now() >= self.flush_at || pending >= self.window.samples {
                self.flush(&mut out);
            }
        }
        self.flush(&mut out);
    }

    fn flush(&mut self, out: &mut impl FnMut(Batch)) {
        self.flush_at = Instant::now() + self.window.time;
        let mut batch = std::mem::take(&mut self.left);
        for one in self.running.values_mut() {
            one.ingest.drain(&mut batch);
            if batch.samples() >= self.window.samples {
                out(std::mem::take(&mut batch));
            }
        }
        if !batch.series.is_empty() {
            out(batch);
        }
    }

    /// Begins what is new in the list, ends what is no more in it.
    fn follow(&mut self, list: &[Target]) {
        let wanted: HashMap<_, _> = list.iter().map(|target| (target.key(), target)).collect();
        let gone: Vec<_> = self
            .keys
            .iter()
            .filter(|(key, _)| !wanted.contains_key(*key))
            .map(|(key, id)| (key.clone(), *id))
            .collect();
        let now = self.clock.now().as_millisecond();
        for (key, id) in gone {
            self.keys.remove(&key);
            if let Some(mut one) = self.running.remove(&id) {
                one.ingest.end(now);
                show(self.tap.as_ref(), &mut one.ingest);
                one.ingest.drain(&mut self.left);
            }
        }
        for (key, target) in wanted {
            if self.keys.contains_key(&key) {
                continue;
            }
            let first = FIRST_WITHIN.mul_f64(self.place(&key));
            let one = Running {
                ingest: Ingest::new(Arc::new(target.clone())),
                due: Instant::now() + first,
                expected: None,
                busy: false,
                failing: false,
            };
            self.running.insert(self.next_id, one);
            self.keys.insert(key, self.next_id);
            self.next_id += 1;
        }
    }

    /// A target's place in its interval, from 0 to 1; always the same one.
    fn place(&self, key: &(String, Labels)) -> f64 {
        let mut hasher = DefaultHasher::new();
        (&self.salt, key).hash(&mut hasher);
        // Of the 64 bits the upper 53 matter.
        hasher.finish() as f64 / u64::MAX as f64
    }

    fn begin_due(&mut self) -> Vec<Fetch> {
        let now = Instant::now();
        let wall = self.clock.now().as_millisecond();
        let due: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, one)| !one.busy && one.due <= now)
            .map(|(id, _)| *id)
            .collect();
        due.into_iter()
            .filter_map(|id| self.begin(id, now, wall))
            .collect()
    }

    fn begin(&mut self, id: u64, now: Instant, wall: i64) -> Option<Fetch> {
        let target = Arc::clone(self.running.get(&id)?.ingest.target());
        let interval = target.job.interval;
        let step = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let place = self.place(&target.key());
        let client = self.client_for(&target.job.access);
        let one = self.running.get_mut(&id)?;
        let time = match one.expected {
            Some(expected) if (wall - expected).abs() <= TOLERANCE_MS => expected,
            _ => wall,
        };
        // From the second scrape on each has its own moment; the first interval is half to one and a half long.
        let next = match one.expected {
            Some(_) if time != wall || one.expected == Some(wall) => time + step,
            _ => next_moment(time + step / 2, step, place),
        };
        one.expected = Some(next);
        one.due = now + Duration::from_millis(u64::try_from(next - wall).unwrap_or(0));
        one.busy = true;
        Some(Box::pin(fetch(id, time, target, client)))
    }

    fn taken(&mut self, fetched: Fetched) {
        let Some(one) = self.running.get_mut(&fetched.id) else {
            return;
        };
        one.busy = false;
        let answer = fetched.answer.as_ref();
        let answer = answer
            .map(|(body, format)| (body.as_slice(), *format))
            .map_err(Clone::clone);
        let taken = one.ingest.take(answer, fetched.time, fetched.took);
        show(self.tap.as_ref(), &mut one.ingest);
        let source = &one.ingest.target().source;
        match taken {
            Ok(_) if one.failing => tracing::info!(%source, "target is up again"),
            Err(ref err) if !one.failing => {
                tracing::warn!(%source, err = kit::chain(err), "target cannot be scraped")
            }
            _ => {}
        }
        one.failing = fetched.answer.is_err() || taken.is_err();
    }

    fn client_for(&mut self, access: &Access) -> Result<reqwest::Client, ClientError> {
        let trust = match (&access.ca, access.insecure_skip_verify) {
            (_, true) => Trust::Anybody,
            (Some(pem), false) => Trust::Only(pem.clone()),
            (None, false) => Trust::System,
        };
        if let Some(held) = self.clients.get(&trust) {
            return Ok(held.clone());
        }
        let made = client(&trust)?;
        self.clients.insert(trust, made.clone());
        Ok(made)
    }
}

fn show(tap: Option<&Arc<dyn Tap>>, ingest: &mut Ingest) {
    if let Some(tap) = tap {
        tap.scraped(&mut |of| ingest.tap(of));
    }
}

/// The first moment at or after `from` that is this place in an interval.
fn next_moment(from: i64, step: i64, place: f64) -> i64 {
    // Below the interval.
    let offset = (step as f64 * place) as i64;
    from + (offset - from).rem_euclid(step)
}

async fn fetch(
    id: u64,
    time: i64,
    target: Arc<Target>,
    client: Result<reqwest::Client, ClientError>,
) -> Fetched {
    let start = Instant::now();
    let limit = target.job.timeout;
    let work = async {
        match &target.source {
            Source::Url(url) => {
                let client = client.map_err(|err| ScrapeError::Fetch(kit::chain(&err)))?;
                request(&client, url, &target.job).await
            }
            Source::Own(_, text) => {
                let text = Arc::clone(text);
                let read = tokio::task::spawn_blocking(move || text());
                let text = read.await.map_err(|err| ScrapeError::Fetch(err.to_string()))?;
                Ok((text.into_bytes(), Format::Text))
            }
        }
    };
    let answer = timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(ScrapeError::Fetch(format!("no answer within {limit:?}"))));
    Fetched {
        id,
        time,
        took: start.elapsed(),
        answer,
    }
}

async fn request(client: &reqwest::Client, url: &str, job: &Job) -> Result<(Vec<u8>, Format), ScrapeError> {
    let failed = |err: reqwest::Error| ScrapeError::Fetch(kit::chain(&err));
    let mut request = client.get(url).header(ACCEPT_HEADER, ACCEPT).header(
        "X-Prometheus-Scrape-Timeout-Seconds",
        job.timeout.as_secs_f64().to_string(),
    );
    if let Some(authorization) = &job.access.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let mut response = request.send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(ScrapeError::Fetch(format!(
            "the target answers {}",
            response.status()
        )));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let format = Format::of(header(CONTENT_TYPE));
    // It is not asked for: most targets are on this device, where compressing only costs.
    let gzip = header(CONTENT_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
    let most = job.limits.body_bytes;
    let too_large = |found| ScrapeError::Limit {
        what: "the body's size in bytes".to_owned(),
        found,
        most,
    };
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > most {
            return Err(too_large(body.len() + part.len()));
        }
        body.extend_from_slice(&part);
    }
    if gzip {
        let mut plain = Vec::new();
        let mut reader = GzDecoder::new(body.as_slice()).take(most as u64 + 1);
        reader
            .read_to_end(&mut plain)
            .map_err(|err| ScrapeError::Fetch(format!("the compressed body is damaged: {err}")))?;
        if plain.len() > most {
            return Err(too_large(plain.len()));
        }
        body = plain;
    }
    Ok((body, format))
}
