//! What is measured, and where that goes: targets out of the generation that runs, batches into the spool, and from
//! there to the hub (by `uplink`) and to receivers of remote write.

mod config;
mod own;

use crate::alerts::Feed;
use crate::config::Config;
use crate::converge::View;
use crate::journal::Journal;
use crate::telemetry::own::Own;
use crate::traces::Shelf;
use crate::uplink::Link;
use ::telemetry::metrics::discover::{self, discover};
use ::telemetry::metrics::remote::{Exporter, Tally, deliver_stream};
use ::telemetry::metrics::{Batch, Scraper, Target, Window};
use anyhow::Result;
use kit::{Clock, Tasks};
use model::{Object, Severity};
use runtime::Engine;
use spool::{Spool, Stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) use config::RawMetrics;
pub use config::{BadMetrics, Export, MetricsConfig};

/// Name of the stream.
pub(crate) const METRICS: &str = "metrics";

/// Pods are looked at again after this, when nothing said that something moved.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where samples went, by receiver.
type Tallies = Arc<Mutex<BTreeMap<String, Tally>>>;

/// Everything that measuring needs.
pub(crate) struct Inputs<'a, E> {
    /// Knows the pods.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For what cannot be scraped.
    pub journal: Journal,
    /// Who the device is, and what is to be measured.
    pub config: &'a Config,
    /// Whether anybody gets what is measured.
    pub exported: bool,
    /// Sees each sample.
    pub feed: Arc<Feed>,
    /// Whether rules need samples, where nobody else does.
    pub needed: watch::Receiver<bool>,
    /// For its own figures.
    pub spool: Spool,
    /// As above.
    pub streams: Vec<Stream>,
    /// Where batches go.
    pub metrics: Stream,
    /// Knows what became of spans, where they are taken.
    pub traces: Option<Arc<Shelf>>,
    /// What is wanted of the pods, monitors among it.
    pub objects: watch::Receiver<Arc<Vec<Object>>>,
    /// What runs.
    pub view: watch::Receiver<View>,
    /// How the link is.
    pub link: watch::Receiver<Link>,
}

/// Name of a receiver's cursor.
fn sink(export: &Export) -> String {
    format!("export-{}", export.name)
}

/// Makes the receivers known, so that samples wait for them.
pub(crate) fn attach(config: &MetricsConfig, metrics: &Stream) -> Result<()> {
    for export in &config.exports {
        metrics.attach(&sink(export))?;
    }
    Ok(())
}

/// Starts to measure, unless that is switched off or nobody would get it.
pub(crate) fn start<E: Engine>(inputs: Inputs<'_, E>, tasks: &Tasks) {
    let config = &inputs.config.metrics;
    if !config.enabled {
        return;
    }
    let tallies = Tallies::default();
    for export in &config.exports {
        let exporter = match exporter(export, inputs.config, &inputs.clock) {
            Ok(exporter) => exporter,
            Err(err) => {
                tracing::error!(
                    export = export.name,
                    err = kit::chain(&err),
                    "metrics are not exported"
                );
                continue;
            }
        };
        let (stream, sink) = (inputs.metrics.clone(), sink(export));
        let (tallies, name) = (Arc::clone(&tallies), export.name.clone());
        let told = move |tally| {
            let mut held = tallies.lock().unwrap_or_else(PoisonError::into_inner);
            held.insert(name.clone(), tally);
        };
        tasks.spawn_vital("export", deliver_stream(stream, sink, exporter, told));
    }
    let own = Own {
        spool: inputs.spool,
        streams: inputs.streams,
        exports: config.exports.iter().map(sink).collect(),
        traces: inputs.traces,
        view: inputs.view.clone(),
        link: inputs.link,
        tallies,
    };
    let own = own.targets(inputs.config, Arc::clone(&inputs.engine));
    let (list, targets) = watch::channel(Arc::new(if inputs.exported { own.clone() } else { Vec::new() }));
    let window = Window {
        time: config.window,
        ..Window::default()
    };
    let scraper = Scraper::new(inputs.clock, window, inputs.config.device.as_str()).tapped(inputs.feed);
    let metrics = inputs.exported.then_some(inputs.metrics);
    let stop = tasks.stop();
    tasks.spawn_to_end(
        "scrape",
        scraper.run(targets, stop, move |batch| {
            if let Some(metrics) = &metrics {
                keep(metrics, &batch);
            }
        }),
    );
    let finder = Finder {
        engine: inputs.engine,
        journal: inputs.journal,
        config: config.clone(),
        node: inputs.config.device.to_string(),
        objects: inputs.objects,
        view: inputs.view,
        own,
        exported: inputs.exported,
        needed: inputs.needed,
        warned: BTreeSet::new(),
    };
    tasks.spawn_vital("targets", finder.run(list));
}

fn exporter(
    export: &Export,
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<Exporter, ::telemetry::http::ClientError> {
    let client = ::telemetry::http::client(&export.trust)?;
    let mut labels = export.labels.clone();
    let mut say = |name: &str, value: String| {
        labels.entry(name.to_owned()).or_insert(value);
    };
    say("device", config.device.to_string());
    say("class", config.class.to_string());
    if let Some(site) = &config.site {
        say("site", site.clone());
    }
    let labels = labels.into_iter().collect();
    let exporter = Exporter::new(client, &export.url, labels, export.version, Arc::clone(clock));
    Ok(exporter.authorized(export.authorization.clone()))
}

/// Appends a batch, in parts where it is too large for one record. Sampled: nobody waits for a disk.
pub(crate) fn keep(stream: &Stream, batch: &Batch) {
    let appended = match batch.encode() {
        Ok(record) => match stream.append(&record, None) {
            Err(spool::AppendError::TooLarge { .. }) if batch.series.len() > 1 => {
                return keep_halves(stream, batch);
            }
            appended => appended.map(drop).map_err(|err| kit::chain(&err)),
        },
        Err(_) if batch.series.len() > 1 => return keep_halves(stream, batch),
        Err(err) => Err(kit::chain(&err)),
    };
    if let Err(err) = appended {
        tracing::warn!(err, samples = batch.samples(), "metrics were not kept");
    }
}

fn keep_halves(stream: &Stream, batch: &Batch) {
    let (first, second) = batch.series.split_at(batch.series.len() / 2);
    for series in [first, second] {
        let half = Batch {
            series: series.to_vec(),
        };
        keep(stream, &half);
    }
}

/// Finds targets again whenever pods or the generation moved.
struct Finder<E> {
    engine: Arc<E>,
    journal: Journal,
    config: MetricsConfig,
    node: String,
    objects: watch::Receiver<Arc<Vec<Object>>>,
    view: watch::Receiver<View>,
    own: Vec<Target>,
    exported: bool,
    needed: watch::Receiver<bool>,
    warned: BTreeSet<String>,
}

impl<E: Engine> Finder<E> {
    async fn run(mut self, list: watch::Sender<Arc<Vec<Target>>>) {
        loop {
            let generation = self.view.borrow_and_update().generation.current.clone();
            let objects = self.objects.borrow_and_update().clone();
            let needed = *self.needed.borrow_and_update() || self.exported;
            match self.engine.observe().await {
                Ok(seen) => {
                    let found = discover(&discover::Inputs {
                        objects: &objects,
                        pods: &seen.pods,
                        node: &self.node,
                        configs: &self.config.scrape_configs,
                        interval: self.config.interval,
                    });
                    self.tell(found.warnings, generation).await;
                    let mut targets = self.own.clone();
                    targets.extend(found.targets);
                    targets.retain(|_| needed);
                    list.send_replace(Arc::new(targets));
                }
                Err(err) => tracing::debug!(err = kit::chain(&err), "pods cannot be looked at"),
            }
            tokio::select! {
                Ok(()) = self.view.changed() => {}
                Ok(()) = self.objects.changed() => {}
                Ok(()) = self.needed.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Each warning once, for as long as it holds.
    async fn tell(&mut self, warnings: Vec<String>, generation: Option<String>) {
        let now: BTreeSet<String> = warnings.into_iter().collect();
        for why in now.difference(&self.warned) {
            self.journal
                .note(
                    Severity::Warning,
                    "NotScraped",
                    "metrics",
                    why,
                    generation.clone(),
                )
                .await;
        }
        self.warned = now;
    }
}
