//! What containers write, into the spool: their log files are the buffer, the spool holds what is on its way.
//!
//! A record carries its place in its file. After a crash files are read from the last place that is known to have
//! arrived, so that some entries may be given again: the hub knows them by file and offset.

use crate::uplink;
use jiff::SignedDuration;
use kit::Clock;
use runtime::{Engine, LogFile};
use serde::Deserialize;
use spool::{AppendError, Spool, Stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use telemetry::logs::{Batch, Collector, Format, Redaction, Rules, Source, Together};

/// Name of the stream.
pub const LOGS: &str = "logs";
/// In front of a file's name where the spool keeps places.
const PLACE: &str = "log:";
/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawLogs {
    #[serde(default)]
    collect: Option<bool>,
    #[serde(default)]
    entries_per_second: Option<u32>,
    #[serde(default)]
    redact: Option<Vec<String>>,
    #[serde(default)]
    wait: Option<SignedDuration>,
}

/// Whether containers' logs go to the hub, and what of them.
#[derive(Debug, Clone)]
pub struct Logs {
    /// False: they stay on the device.
    pub collect: bool,
    /// Entries a second of each container, over a burst.
    pub per_second: u32,
    /// What must not leave the device.
    pub redactions: Vec<Redaction>,
    /// How long an entry waits for others.
    pub wait: Duration,
}

impl Logs {
    /// For logs of this form.
    pub fn rules(&self, format: Format) -> Rules {
        Rules {
            format,
            together: Together::Traces,
            redactions: self.redactions.clone(),
            per_second: self.per_second,
            wait: self.wait,
        }
    }
}

impl RawLogs {
    /// Puts in what is left out.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub(crate) fn resolve(self) -> Result<Logs, (&'static str, String)> {
        let redact = self
            .redact
            .unwrap_or_else(|| vec![":bearer".to_owned(), ":userinfo".to_owned()]);
        let wait = match self.wait.map(Duration::try_from) {
            None => Duration::from_secs(5),
            Some(Ok(wait)) if !wait.is_zero() => wait,
            Some(_) => return Err(("logs.wait", "must be above zero, such as 5s".to_owned())),
        };
        Ok(Logs {
            collect: self.collect.unwrap_or(true),
            per_second: self.entries_per_second.unwrap_or(500),
            redactions: redact
                .iter()
                .map(|text| Redaction::parse(text))
                .collect::<Result<_, _>>()
                .map_err(|err| ("logs.redact", kit::chain(&err)))?,
            wait,
        })
    }
}

/// What collecting needs.
#[derive(Debug)]
pub struct Inputs<E> {
    /// Knows where the files are.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keeps places.
    pub spool: Spool,
    /// Where records go.
    pub stream: Stream,
    /// How logs are read.
    pub config: Logs,
}

/// Collects for ever.
pub async fn run<E: Engine>(inputs: Inputs<E>) {
    // What an earlier process had in memory is read again, but may be cut into other records: new numbers.
    inputs.stream.skip_ahead();
    let mut desk = Desk {
        collectors: BTreeMap::new(),
        taken: BTreeMap::new(),
        first: true,
        inputs,
    };
    loop {
        desk.round().await;
        tokio::time::sleep(PERIOD).await;
    }
}

struct Desk<E> {
    inputs: Inputs<E>,
    collectors: BTreeMap<LogFile, Collector>,
    /// Places that the spool keeps for us, with the last record of each.
    taken: BTreeMap<String, u64>,
    first: bool,
}

impl<E: Engine> Desk<E> {
    async fn round(&mut self) {
        let listed = match self.inputs.engine.log_files().await {
            Ok(files) => files.into_iter().collect::<BTreeSet<_>>(),
            Err(err) => {
                tracing::warn!(err = kit::chain(&err), "the containers' logs cannot be listed");
                return;
            }
        };
        for file in &listed {
            if !self.collectors.contains_key(file) {
                let source = Source {
                    path: file.path.clone(),
                    attributes: attributes(file),
                };
                self.collectors.insert(
                    file.clone(),
                    Collector::new(source, self.inputs.config.rules(Format::Cri)),
                );
            }
        }
        let batches = self.read(listed).await;
        if self.take(batches).await.is_err() {
            // What was read and not taken is read again.
            self.collectors.clear();
            return;
        }
        self.forget();
    }

    /// Reads all files, on a thread where it may block.
    async fn read(&mut self, listed: BTreeSet<LogFile>) -> Vec<Batch> {
        let mut collectors = std::mem::take(&mut self.collectors);
        let (spool, clock) = (self.inputs.spool.clone(), Arc::clone(&self.inputs.clock));
        let reading = tokio::task::spawn_blocking(move || {
            let mut batches = Vec::new();
            collectors.retain(|file, collector| {
                let over = !listed.contains(file);
                let position = |name: &str| spool.position(&format!("{PLACE}{name}"));
                match collector.poll(clock.now(), clock.since_boot(), over, position) {
                    Ok(more) => batches.extend(more),
                    Err(err) => tracing::warn!(path = %file.path.display(), %err, "a log cannot be read"),
                }
                !(over && collector.is_over())
            });
            (collectors, batches)
        });
        match reading.await {
            Ok((collectors, batches)) => {
                self.collectors = collectors;
                batches
            }
            Err(err) => {
                tracing::error!(%err, "reading logs ended");
                Vec::new()
            }
        }
    }

    /// Into the spool, waiting for as long as it is full: nothing is read meanwhile.
    async fn take(&mut self, batches: Vec<Batch>) -> Result<(), AppendError> {
        for batch in batches {
            let place = format!("{PLACE}{}", batch.file);
            let seq = loop {
                match self
                    .inputs
                    .stream
                    .append(&batch.record, Some((&place, batch.upto)))
                {
                    Ok(pending) => break pending.await?,
                    Err(AppendError::Busy { .. }) => {
                        // The link is down for long: memory goes to the log, within its budget.
                        self.inputs.stream.spill();
                        tokio::time::sleep(PERIOD).await;
                    }
                    Err(err) => {
                        tracing::warn!(err = kit::chain(&err), "logs are not taken now");
                        return Err(err);
                    }
                }
            };
            self.taken.insert(place, seq);
        }
        Ok(())
    }

    /// Places in files that are gone, once the hub has all of them.
    fn forget(&mut self) {
        if std::mem::take(&mut self.first) {
            let before = self
                .inputs
                .spool
                .positions()
                .into_keys()
                .filter(|name| name.starts_with(PLACE));
            for name in before {
                self.taken.entry(name).or_insert(0);
            }
        }
        let held: BTreeSet<String> = self
            .collectors
            .values()
            .flat_map(Collector::files)
            .map(|file| format!("{PLACE}{file}"))
            .collect();
        let acked = self.inputs.stream.acked(uplink::SINK);
        let spool = &self.inputs.spool;
        self.taken.retain(|place, seq| {
            let needed = held.contains(place) || *seq > acked;
            if !needed {
                spool.forget(place);
            }
            needed
        });
    }
}

/// Of a container, by OpenTelemetry's semantic conventions for Kubernetes.
fn attributes(file: &LogFile) -> Vec<(String, String)> {
    let owner = format!("k8s.{}.name", file.owner.kind.to_lowercase());
    [
        ("k8s.namespace.name", file.pod.namespace.clone()),
        ("k8s.pod.name", file.pod.name.clone()),
        ("k8s.container.name", file.container.clone()),
        ("k8s.container.restart_count", file.run.to_string()),
        ("service.name", file.owner.name.clone()),
        (owner.as_str(), file.owner.name.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}
