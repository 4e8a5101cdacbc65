//! What the agent tells of the machine and of itself, as targets that are asked without a network.

use super::Tallies;
use crate::config::Config;
use crate::converge::View;
use crate::traces::Shelf;
use crate::uplink::{Link, SINK};
use ::telemetry::metrics::{Job, Labels, Source, Target};
use device::{ContainerMetrics, HostMetrics, Page, process_metrics};
use runtime::Engine;
use spool::{Class, Spool, Stream};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Where the agent's own figures are.
#[derive(Debug)]
pub(super) struct Own {
    pub spool: Spool,
    pub streams: Vec<Stream>,
    /// Cursors beside the hub's.
    pub exports: Vec<String>,
    pub traces: Option<Arc<Shelf>>,
    pub view: watch::Receiver<View>,
    pub link: watch::Receiver<Link>,
    pub tallies: Tallies,
}

impl Own {
    /// The machine and the agent.
    pub(super) fn targets<E: Engine>(self, config: &Config, engine: Arc<E>) -> Vec<Target> {
        let host = Mutex::new(HostMetrics::new(&config.sysroot, &config.state));
        let host = move || host.lock().unwrap_or_else(PoisonError::into_inner).text();
        // The engine's groups are the machine's own, whatever root the rest is read below.
        let containers = ContainerMetrics::new(Path::new("/"));
        let containers = move || containers.text(&engine.groups());
        let target = |job: &str, more: &[(&str, &str)], source: Source| {
            let labels = [("job", job), ("instance", config.device.as_str())];
            Target {
                source,
                labels: Labels::new(labels.iter().chain(more).copied()).unwrap_or_default(),
                job: Arc::new(Job::new(job, config.metrics.interval)),
            }
        };
        // Named as kubelet's, so that dashboards and alerts made for Kubernetes find them.
        let kubelet = [
            ("metrics_path", "/metrics/cadvisor"),
            ("node", config.device.as_str()),
        ];
        vec![
            target("node", &[], Source::Own("node", Arc::new(host))),
            target(
                "leeward",
                &[],
                Source::Own("leeward", Arc::new(move || self.text())),
            ),
            target(
                "kubelet",
                &kubelet,
                Source::Own("containers", Arc::new(containers)),
            ),
        ]
    }

    fn text(&self) -> String {
        let mut page = Page::default();
        process_metrics(&mut page);
        self.generation(&mut page);
        let up = f64::from(*self.link.borrow() == Link::Up);
        page.one(
            "leeward_link_up",
            "gauge",
            "Whether a session with the hub is open.",
            Some(up),
        );
        self.spool(&mut page);
        self.exports(&mut page);
        if let Some(traces) = &self.traces {
            traces.tell(&mut page);
        }
        page.text()
    }

    fn generation(&self, page: &mut Page) {
        let view = self.view.borrow().clone();
        let labels = vec![
            ("generation", view.generation.current.clone().unwrap_or_default()),
            (
                "revision",
                view.generation
                    .revision
                    .map(|revision| revision.to_string())
                    .unwrap_or_default(),
            ),
        ];
        page.gauges("leeward_generation_info", "What runs.", [(labels, 1.0)]);
        let phase = vec![("phase", format!("{:?}", view.phase))];
        page.gauges("leeward_phase_info", "How the device is.", [(phase, 1.0)]);
        let mut states: BTreeMap<String, f64> = BTreeMap::new();
        for workload in &view.workloads {
            *states.entry(format!("{:?}", workload.state)).or_default() += 1.0;
        }
        let samples = states
            .into_iter()
            .map(|(state, count)| (vec![("state", state)], count));
        page.gauges("leeward_workloads", "Workloads by state.", samples);
    }

    fn spool(&self, page: &mut Page) {
        let sinks = std::iter::once(SINK).chain(self.exports.iter().map(String::as_str));
        let accounts: Vec<_> = sinks
            .flat_map(|sink| self.streams.iter().map(move |stream| (sink, stream)))
            .filter(|(sink, stream)| *sink == SINK || stream.name() == super::METRICS)
            .flat_map(|(sink, stream)| {
                let account = stream.account(sink);
                let states = [
                    ("appended", account.appended),
                    ("acked", account.acked),
                    ("dropped", account.dropped_total()),
                    ("set_aside", account.set_aside),
                    ("lost", account.lost),
                    ("resident", account.resident),
                ];
                states.map(|(state, count)| {
                    let labels = vec![
                        ("stream", stream.name().to_owned()),
                        ("sink", sink.to_owned()),
                        ("state", state.to_owned()),
                    ];
                    // Far below 2^53.
                    (labels, count as f64)
                })
            })
            .collect();
        let help = "Records of a stream by what became of them: appended is the sum of the others.";
        page.gauges("leeward_spool_records", help, accounts);
        let sizes = Class::ALL.map(|class| {
            let labels = vec![("class", class.name().to_owned())];
            (labels, self.spool.disk_bytes(class) as f64)
        });
        page.gauges("leeward_spool_disk_bytes", "Bytes of the spool's files.", sizes);
    }

    fn exports(&self, page: &mut Page) {
        let tallies = self
            .tallies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (name, help, value) in [
            (
                "leeward_export_delivered_samples_total",
                "Samples that a receiver has.",
                0,
            ),
            (
                "leeward_export_refused_samples_total",
                "Samples that a receiver refuses for good.",
                1,
            ),
            (
                "leeward_export_bytes_total",
                "Bytes of requests to a receiver.",
                2,
            ),
            ("leeward_export_requests_total", "Requests to a receiver.", 3),
        ] {
            if !tallies.is_empty() {
                page.family(name, "counter", help);
            }
            for (export, tally) in &tallies {
                let values = [tally.delivered, tally.refused, tally.bytes, tally.requests];
                // Far below 2^53.
                page.sample(name, &[("export", export)], values[value] as f64);
            }
        }
    }
}
