//! A stream's records to one receiver, in order, with a cursor of its own.

use super::answer::{Answer, Written};
use super::write::{Version, families, request};
use crate::metrics::{Batch, Series};
use jiff::Timestamp;
use kit::Clock;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use spool::{Patience, Stream};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Form 1.0 tells of each metric once in this time.
const METADATA_EVERY: Duration = Duration::from_secs(600);
/// A receiver that did not speak 2.0 is asked again after this, as it may have been updated.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
/// A stream that cannot be read is tried again after this.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// What became of samples, histograms counted as such.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The receiver has them.
    pub delivered: u64,
    /// The receiver refuses them for good.
    pub refused: u64,
    /// Bytes of bodies that were sent.
    pub bytes: u64,
    /// Requests that were sent.
    pub requests: u64,
}

/// One receiver.
#[derive(Debug)]
pub struct Exporter {
    client: reqwest::Client,
    url: String,
    authorization: Option<String>,
    extra: Vec<(String, String)>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    /// What the user has fixed.
    fixed: Option<Version>,
    /// What the receiver seems to speak, and until when that is believed.
    speaks: Version,
    ask_again: Option<Instant>,
    told: HashSet<String>,
    tell_again: Instant,
    tally: Tally,
}

impl Exporter {
    /// `extra` are labels that say where samples are from; `version` is found out where it is not given.
    pub fn new(
        client: reqwest::Client,
        url: &str,
        extra: Vec<(String, String)>,
        version: Option<Version>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client,
            url: url.to_owned(),
            authorization: None,
            extra,
            clock,
            patience: Patience::default(),
            fixed: version,
            speaks: version.unwrap_or(Version::V2),
            ask_again: None,
            told: HashSet::new(),
            tell_again: Instant::now() + METADATA_EVERY,
            tally: Tally::default(),
        }
    }

    /// Sends this as `Authorization`.
    #[must_use]
    pub fn authorized(mut self, authorization: Option<String>) -> Self {
        self.authorization = authorization;
        self
    }

    /// Waits so between tries.
    #[must_use]
    pub fn patient(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// What it did so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Delivers a batch and returns once every series of it is stored or refused for good: minutes or days later
    /// where the receiver is away. May be dropped at any await.
    pub async fn deliver(&mut self, batch: &Batch) {
        let mut open: Vec<&[Series]> = vec![&batch.series];
        let mut waits = 0_u32;
        while let Some(series) = open.pop() {
            if series.is_empty() {
                continue;
            }
            match self.send(series).await {
                Answer::Done => {
                    waits = 0;
                    self.tally.delivered += count(series);
                }
                Answer::Partial(written, why) => {
                    waits = 0;
                    self.partial(series, written, &why);
                }
                Answer::OtherVersion if self.fixed.is_none() && self.speaks == Version::V2 => {
                    tracing::info!(url = self.url, "the receiver speaks remote write 1.0");
                    self.speaks = Version::V1;
                    self.ask_again = Some(Instant::now() + ASK_AGAIN);
                    open.push(series);
                }
                Answer::OtherVersion => self.refuse(series, "the receiver does not speak this version"),
                Answer::Later(asked, why) => {
                    waits += 1;
                    let wait = self.wait(waits, asked);
                    tracing::warn!(url = self.url, why, ?wait, "samples wait for their receiver");
                    open.push(series);
                    tokio::time::sleep(wait).await;
                }
                Answer::TooLarge | Answer::Bad(_) if series.len() > 1 => {
                    let (first, second) = series.split_at(series.len() / 2);
                    open.push(second);
                    open.push(first);
                }
                Answer::TooLarge => self.refuse(series, "one series alone is too large for the receiver"),
                Answer::Bad(why) => self.refuse(series, &why),
            }
        }
    }

    fn partial(&mut self, series: &[Series], written: Written, why: &str) {
        let stored = written.samples + written.histograms;
        let refused = count(series).saturating_sub(stored);
        self.tally.delivered += stored;
        self.tally.refused += refused;
        tracing::warn!(
            url = self.url,
            refused,
            why,
            "the receiver refuses samples for good"
        );
    }

    fn refuse(&mut self, series: &[Series], why: &str) {
        let refused = count(series);
        self.tally.refused += refused;
        let first = series.first().map(|one| one.labels.to_string());
        tracing::warn!(
            url = self.url,
            refused,
            first,
            why,
            "the receiver refuses a series for good"
        );
    }

    fn wait(&self, waits: u32, asked: Option<Duration>) -> Duration {
        let doubled = self
            .patience
            .first
            .saturating_mul(1 << waits.saturating_sub(1).min(20));
        let wait = match asked {
            Some(asked) => asked.clamp(self.patience.first, self.patience.most_asked),
            None => doubled.min(self.patience.most),
        };
        wait.mul_f64(rand::random_range(1.0..=1.25))
    }

    async fn send(&mut self, series: &[Series]) -> Answer {
        let now = Instant::now();
        if self.fixed.is_none() && self.ask_again.is_some_and(|at| now >= at) {
            self.speaks = Version::V2;
            self.ask_again = None;
        }
        if now >= self.tell_again {
            self.told.clear();
            self.tell_again = now + METADATA_EVERY;
        }
        let version = self.speaks;
        let named = families(series);
        let news = version == Version::V1 && named.iter().any(|name| !self.told.contains(*name));
        let body = request(version, series, &self.extra, news);
        self.tally.bytes += body.len() as u64;
        self.tally.requests += 1;
        let answer = self.post(version, body).await;
        if news && answer == Answer::Done {
            self.told.extend(named.into_iter().map(str::to_owned));
        }
        answer
    }

    async fn post(&self, version: Version, body: Vec<u8>) -> Answer {
        let mut request = self
            .client
            .post(&self.url)
            .timeout(TIMEOUT)
            .header(CONTENT_TYPE, version.content_type())
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", version.header())
            .body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(err) => return Answer::Later(None, kit::chain(&err)),
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        // Whatever it adds, the status has said it.
        let text = if status >= 300 {
            response.text().await.unwrap_or_default()
        } else {
            String::new()
        };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let now: Timestamp = self.clock.now();
        Answer::read(version, status, header, &text, now)
    }
}

fn count(series: &[Series]) -> u64 {
    let of = |one: &Series| one.samples.len() + one.histograms.len();
    series.iter().map(of).sum::<usize>() as u64
}

/// Delivers a stream of records for ever; `told` hears what was done after each record.
pub async fn deliver_stream(
    stream: Stream,
    sink: String,
    mut exporter: Exporter,
    told: impl Fn(Tally) + Send,
) {
    loop {
        let after = stream.acked(&sink);
        let records = match stream.batch(after) {
            Ok(records) => records,
            Err(err) => {
                tracing::warn!(err = kit::chain(&err), "metrics cannot be read from the spool");
                tokio::time::sleep(READ_AGAIN).await;
                continue;
            }
        };
        if records.is_empty() {
            let last = stream.last();
            stream.changed(last.max(after)).await;
            continue;
        }
        for record in records {
            match Batch::decode(&record.payload) {
                Ok(batch) => exporter.deliver(&batch).await,
                Err(err) => {
                    let why = err.to_string();
                    tracing::error!(seq = record.seq, why, "a record of metrics is damaged");
                    set_aside(&stream, &sink, record.seq, why).await;
                }
            }
            if let Err(err) = stream.ack(&sink, record.seq) {
                tracing::error!(err = kit::chain(&err), sink, "a delivery is not remembered");
            }
            told(exporter.tally());
        }
    }
}

/// Blocks for a write to the disk.
async fn set_aside(stream: &Stream, sink: &str, seq: u64, why: String) {
    let (stream, sink) = (stream.clone(), sink.to_owned());
    let work = move || {
        if let Err(err) = stream.set_aside(&sink, seq, &why) {
            tracing::error!(err = kit::chain(&err), "a damaged record is not set aside");
        }
    };
    // It only fails where the process is ending.
    let _ = tokio::task::spawn_blocking(work).await;
}
