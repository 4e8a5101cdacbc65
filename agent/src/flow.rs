//! Where the stages meet, top to bottom.

use crate::alerts::{self, ALERTS};
use crate::config::Config;
use crate::converge::{self, Converger};
use crate::generations::Generations;
use crate::journal::{self, EVENTS, Journal};
use crate::local::{self, Desk};
use crate::logs::{self, LOGS};
use crate::orders::Orders;
use crate::prepare::{self, Preparer};
use crate::remotes;
use crate::report::{self, HEARTBEAT, STATUS};
use crate::secret_keys::SecretKeys;
use crate::telemetry::{self, METRICS};
use crate::traces::{self, Door, TRACES};
use crate::uplink::{self, Link};
use anyhow::{Context as _, Result};
use device::FactsReader;
use identity::{DeviceKeys, EnrolToken, Seal};
use kit::{Clock, Tasks};
use plan::Limits;
use runtime::Engine;
use source::Source;
use spool::{Class, Durability, NOTICES, Retention, Spool, Stream};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, watch};
use wire::client::HubAddress;

/// Requests that wait for the loop; more is an answer ("busy").
const REQUEST_SLOTS: usize = 8;
/// Heartbeats that are kept while the link is down.
const HEARTBEAT_BYTES: u64 = 256 * 1024;
/// How long a stop waits for tasks to end.
const GRACE: Duration = Duration::from_secs(5);
/// How often memory is given back that the work before needed.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// Something that runs beside the stages for as long as the agent does.
pub struct Task {
    name: &'static str,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Task {
    /// `work` is meant to run for ever.
    pub fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name,
            work: Box::pin(work),
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Task").field(&self.name).finish()
    }
}

/// What an agent stands on.
#[derive(Debug)]
pub struct Seams<E> {
    /// Runs the pods.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keys and certificates.
    pub keys: Arc<Mutex<DeviceKeys>>,
    /// What the device gives to workloads.
    pub limits: Limits,
    /// Folder of the tree that is this device's.
    pub path: String,
    /// Counts renewals of the certificate.
    pub renewed: watch::Sender<u64>,
    /// Where pods may send spans; none where there is no pod network.
    pub door: Option<Door>,
    /// What else is to run.
    pub beside: Vec<Task>,
}

/// An agent that has opened and bound everything.
#[derive(Debug)]
pub struct Agent<E> {
    config: Config,
    seams: Seams<E>,
    spool: Spool,
    streams: Streams,
    source: Source,
    generations: Generations,
    facts: FactsReader,
    hub: Option<(HubAddress, Option<EnrolToken>)>,
    listener: UnixListener,
}

#[derive(Debug, Clone)]
struct Streams {
    status: Stream,
    events: Stream,
    heartbeat: Stream,
    /// What the spool says of itself: drops, losses.
    notices: Stream,
    alerts: Stream,
    traces: Stream,
    logs: Stream,
    metrics: Stream,
}

impl Streams {
    /// All of them, most urgent first.
    fn all(&self) -> Vec<Stream> {
        [
            &self.notices,
            &self.alerts,
            &self.status,
            &self.events,
            &self.heartbeat,
            &self.traces,
            &self.logs,
            &self.metrics,
        ]
        .map(Clone::clone)
        .to_vec()
    }
}

impl<E: Engine> Agent<E> {
    /// Opens all state and binds the local socket; talks to nobody.
    ///
    /// # Errors
    /// Where a folder cannot be used or the configuration names what cannot be.
    pub fn build(config: Config, seams: Seams<E>) -> Result<Self> {
        let state = &config.state;
        let (spool, recovered) = Spool::open(&state.join("spool"), spool::Options::default())
            .context("the spool cannot be opened")?;
        tracing::info!(?recovered, "spool open");
        let streams = Streams {
            status: spool.stream(STATUS, Durability::Strict, Class::Normal)?,
            events: spool.stream(EVENTS, Durability::Strict, Class::Normal)?,
            heartbeat: spool.stream(HEARTBEAT, Durability::Sampled, Class::Bulk)?,
            notices: spool.stream(NOTICES, Durability::Strict, Class::Critical)?,
            alerts: spool.stream(ALERTS, Durability::Strict, Class::Critical)?,
            traces: spool.stream(TRACES, Durability::Strict, Class::Bulk)?,
            logs: spool.stream(LOGS, Durability::Replayable, Class::Bulk)?,
            metrics: spool.stream(METRICS, Durability::Sampled, Class::Bulk)?,
        };
        // Readings of a device that was away are worth less than the flash they would wear.
        streams.heartbeat.retain(Retention {
            max_bytes: Some(HEARTBEAT_BYTES),
            ..Retention::usual(HEARTBEAT, Durability::Sampled)
        });
        streams.traces.retain(traces::retention(&config.traces));
        let source = Source::open(&state.join("source"), config.source.clone())
            .context("the source cannot be opened")?;
        let seal = Seal::open(&state.join("identity")).context("the device's key for sealing")?;
        let generations = Generations::open(&state.join("generations"), seal)?;
        let facts = FactsReader::new(&config.sysroot, state);
        let hub = match &config.hub {
            None => None,
            Some(hub) => {
                let address = hub.address.parse::<HubAddress>().context("hub.address")?;
                let token = hub
                    .token
                    .as_deref()
                    .map(str::parse::<EnrolToken>)
                    .transpose()
                    .context("hub.token")?;
                for stream in streams.all() {
                    stream.attach(uplink::SINK)?;
                }
                Some((address, token))
            }
        };
        telemetry::attach(&config.metrics, &streams.metrics)?;
        let listener = local::bind(state).context("the local socket cannot be bound")?;
        Ok(Self {
            config,
            seams,
            spool,
            streams,
            source,
            generations,
            facts,
            hub,
            listener,
        })
    }

    /// Runs until `stop` resolves, then stops its tasks. Pods go on running.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            config,
            seams,
            spool,
            streams,
            source,
            generations,
            facts,
            hub,
            listener,
        } = self;
        let Seams {
            engine,
            clock,
            keys,
            limits,
            path,
            renewed,
            door,
            beside,
        } = seams;
        let tasks = Tasks::new();
        let look = Arc::new(Notify::new());
        let drain = Arc::new(Notify::new());
        let journal = Journal::new(streams.events.clone(), Arc::clone(&clock));
        let (requests, inbox) = mpsc::channel(REQUEST_SLOTS);
        let (link_in, link) = watch::channel(Link::Down(match hub {
            Some(_) => "not connected yet".to_owned(),
            None => "there is no hub in the configuration".to_owned(),
        }));
        let (status_in, status) = watch::channel(None);
        // Without it (no procfs) each start of the agent counts as a boot.
        let boot_id = device::boot_id(&config.sysroot).unwrap_or_else(|_| clock.now().to_string());

        let (admission, admitted) = watch::channel(generations.admission().clone());
        let (preparer, prepared) = Preparer::new(
            prepare::Inputs {
                engine: Arc::clone(&engine),
                clock: Arc::clone(&clock),
                journal: journal.clone(),
                url: config.source.display_url(),
                path,
                vars: vars(&config),
                secret_keys: SecretKeys::of(&config.state),
                remotes: remotes::of_device(&config.state, &config.source),
                own: config.source.clone(),
                limits,
                interval: config.interval,
                history: config.history,
                admission: admitted,
                look: Arc::clone(&look),
                requests: requests.clone(),
            },
            source,
        );
        let (objects, wanted) = watch::channel(Arc::default());
        let (converger, view, kept) = Converger::new(converge::Inputs {
            engine: Arc::clone(&engine),
            clock: Arc::clone(&clock),
            journal: journal.clone(),
            generations,
            limits,
            health: config.health,
            offers: prepared.offers,
            requests: inbox,
            looked: Arc::clone(&drain),
            objects,
            admission,
        });
        tasks.spawn_vital("converge", converger.run());
        tasks.spawn_vital("keep", converge::keep_images(Arc::clone(&engine), kept));
        tasks.spawn_vital("prepare", preparer.run());
        tasks.spawn_vital(
            "journal",
            journal::pump(Arc::clone(&engine), journal.clone(), spool.clone(), drain),
        );
        let exported = hub.is_some() || !config.metrics.exports.is_empty();
        let rules = alerts::start(
            alerts::Inputs {
                clock: Arc::clone(&clock),
                journal: journal.clone(),
                config: &config,
                alerts: streams.alerts.clone(),
                metrics: exported.then(|| streams.metrics.clone()),
                objects: wanted.clone(),
                view: view.clone(),
            },
            &tasks,
        );
        let taking = door
            .filter(|_| hub.is_some() && config.traces.collect)
            .map(|door| {
                traces::start(
                    traces::Inputs {
                        engine: Arc::clone(&engine),
                        clock: Arc::clone(&clock),
                        journal: journal.clone(),
                        spool: spool.clone(),
                        stream: streams.traces.clone(),
                        config: config.traces.clone(),
                        door,
                    },
                    &tasks,
                )
            });
        telemetry::start(
            telemetry::Inputs {
                engine: Arc::clone(&engine),
                clock: Arc::clone(&clock),
                journal: journal.clone(),
                config: &config,
                exported,
                feed: rules.feed,
                needed: rules.needed,
                spool: spool.clone(),
                streams: streams.all(),
                metrics: streams.metrics.clone(),
                traces: taking,
                objects: wanted,
                view: view.clone(),
                link: link.clone(),
            },
            &tasks,
        );
        let report = report::Inputs {
            device: config.device.clone(),
            class: config.class.clone(),
            boot_id: boot_id.clone(),
            clock: Arc::clone(&clock),
            view,
            source: prepared.status,
            facts,
            status: streams.status.clone(),
            heartbeat: streams.heartbeat.clone(),
            link: link.clone(),
            coming: prepared.coming,
            rules: rules.notes,
            pulls: engine.pulls(),
            every: config.heartbeat,
        };
        tasks.spawn_vital("report", report::run(report, status_in));
        let desk = Desk {
            engine: Arc::clone(&engine),
            status: status.clone(),
            link,
            look: Arc::clone(&look),
            requests: requests.clone(),
            spool: spool.clone(),
            streams: streams.all(),
        };
        tasks.spawn_vital("local", local::serve(Arc::new(listener), desk));
        let logs = logs::Inputs {
            engine: Arc::clone(&engine),
            clock: Arc::clone(&clock),
            events: journal.clone(),
            spool: spool.clone(),
            stream: hub.is_some().then(|| streams.logs.clone()),
            config: config.logs.clone(),
        };
        logs::start(logs, &tasks);
        if let Some((hub, token)) = hub {
            let inputs = uplink::Inputs {
                hub,
                keys,
                token,
                device: config.device.clone(),
                class: config.class.clone(),
                boot_id,
                streams: streams.all(),
                epoch: spool.epoch(),
                links: uplink::Links::open(config.links.clone(), &config.sysroot, &config.state),
                clock,
                status,
                orders: Orders::new(engine, journal, requests, look),
                renewed,
                link: link_in,
            };
            tasks.spawn_vital("uplink", uplink::run(inputs));
        }

        for task in beside {
            tasks.spawn_vital(task.name, task.work);
        }
        tasks.spawn_vital("memory", give_back());

        let stopped = tasks.stop();
        tokio::select! {
            () = stop => {}
            () = stopped.cancelled() => {}
        }
        if let Err(left) = tasks.shut_down(GRACE).await {
            tracing::warn!(?left, "tasks did not end in time");
        }
        // What was sampled and not sent yet is worth its write now.
        if let Err(err) = spool.flush().await {
            tracing::warn!(err = kit::chain(&err), "the spool could not be flushed");
        }
    }
}

/// Lets go of what only the last minute's work needed.
async fn give_back() {
    loop {
        tokio::time::sleep(GIVE_BACK).await;
        kit::memory::settle();
    }
}

/// What `postBuild` may substitute, beside what the Kustomization names itself.
fn vars(config: &Config) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::from([
        ("DEVICE".to_owned(), config.device.to_string()),
        ("CLASS".to_owned(), config.class.to_string()),
        ("ARCH".to_owned(), model::Platform::host().architecture),
    ]);
    vars.extend(config.site.clone().map(|site| ("SITE".to_owned(), site)));
    vars
}
