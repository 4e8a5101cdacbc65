//! `leeward get`.

use crate::people::AccessArgs;
use crate::print::{Output, Table, age, bytes, list, or_dash, seconds};
use anyhow::Result;
use clap::ValueEnum;
use model::{DeviceName, KustomizationStatus, Phase, WorkloadStatus};
use serde::Serialize;
use wire::ApiClient;
use wire::api::{DeviceSummary, Link, Proof};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only this device's
    #[arg(short, long)]
    #[cfg_attr(feature = "hub", arg(add = clap_complete::ArgValueCandidates::new(super::completions::devices)))]
    device: Option<DeviceName>,
    /// How many of the newest (events, audit, rollouts)
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    #[value(alias = "device")]
    Devices,
    #[value(alias = "workload")]
    Workloads,
    #[value(alias = "kustomization", alias = "ks")]
    Kustomizations,
    #[value(alias = "generation")]
    Generations,
    #[value(alias = "event")]
    Events,
    Audit,
    #[value(alias = "token")]
    Tokens,
    #[value(alias = "forwarder")]
    Forwarders,
    #[value(alias = "rollout")]
    Rollouts,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let hub = access.client()?;
        match self.what {
            What::Devices => devices(&hub, &self).await,
            What::Workloads => workloads(&hub, &self).await,
            What::Kustomizations => kustomizations(&hub, &self).await,
            What::Generations => generations(&hub, &self).await,
            What::Events => events(&hub, &self).await,
            What::Audit => audit(&hub, &self).await,
            What::Tokens => tokens(&hub, &self).await,
            What::Forwarders => forwarders(&hub, &self).await,
            What::Rollouts => super::rollout::get(&hub, self.limit, self.output).await,
        }
    }
}

async fn devices(hub: &ApiClient, args: &Args) -> Result<()> {
    let mut devices = hub.devices().await?;
    devices.retain(|device| args.device.as_ref().is_none_or(|name| name == &device.name));
    list(args.output, &devices, || Table {
        head: &[
            "NAME",
            "CLASS",
            "SITE",
            "LINK",
            "HEALTH",
            "PHASE",
            "GENERATION",
            "WORKLOADS",
            "SEEN",
            "CPU",
            "MEMORY",
            "TEMP",
            "BACKLOG",
            "RECORDS",
            "REVISION",
            "AGENT",
            "MESSAGE",
        ],
        wide: 8,
        rows: devices.iter().map(device_row).collect(),
    })
}

fn device_row(device: &DeviceSummary) -> Vec<String> {
    let facts = &device.facts;
    let mib = |bytes: u64| bytes >> 20;
    vec![
        device.name.to_string(),
        device.class.to_string(),
        if device.site.is_empty() {
            "-".to_owned()
        } else {
            device.site.clone()
        },
        link(device.link).to_owned(),
        device.health.clone(),
        or_dash(device.phase.as_ref().map(phase)),
        or_dash(device.generation.current.as_ref()),
        format!("{}/{}", device.workloads_ready, device.workloads),
        or_dash(device.last_seen.map(age)),
        or_dash(facts.cpu_percent.map(|percent| format!("{percent:.0}%"))),
        format!("{}/{}Mi", mib(facts.memory_used), mib(facts.memory_total)),
        or_dash(facts.temperature_celsius.map(|celsius| format!("{celsius:.0}°C"))),
        backlog(device),
        records(device.proof.as_ref()),
        or_dash(device.generation.revision.as_ref()),
        or_dash(device.agent.as_ref()),
        device.message.clone(),
    ]
}

/// What waits at a device: records, and while a backlog is on its way its bytes and the time that it takes.
pub fn backlog(device: &DeviceSummary) -> String {
    let records = device.backlog.or_else(|| {
        let proof = device.proof.as_ref()?;
        Some(proof.streams.iter().map(|row| row.waiting).sum())
    });
    let Some(records) = records else {
        return "-".to_owned();
    };
    match &device.proof {
        Some(proof) if records > 0 && proof.seconds_left.is_some() => format!(
            "{records} ({}, {} left)",
            bytes(proof.waiting_bytes),
            or_dash(proof.seconds_left.map(seconds))
        ),
        _ => records.to_string(),
    }
}

/// Whether all is here that a device says it delivered.
pub fn records(proof: Option<&Proof>) -> String {
    match proof {
        None => "-".to_owned(),
        Some(proof) if proof.missing > 0 => format!("{} missing", proof.missing),
        Some(proof) if !proof.unbalanced.is_empty() => format!("unbalanced: {}", proof.unbalanced.join(",")),
        Some(_) => "complete".to_owned(),
    }
}

/// A link in one word.
pub fn link(link: Link) -> &'static str {
    match link {
        Link::Connected => "Connected",
        Link::Silent => "Silent",
        Link::Disconnected => "Disconnected",
        Link::Never => "Never",
    }
}

/// State of a workload, with the reason where it says more.
pub fn state(workload: &WorkloadStatus) -> String {
    match &workload.reason {
        Some(reason) => format!("{:?} ({reason})", workload.state),
        None => format!("{:?}", workload.state),
    }
}

/// A phase in one word.
pub fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::WaitingForSource => "WaitingForSource",
        Phase::Progressing => "Progressing",
        Phase::Ready => "Ready",
        Phase::RolledBack => "RolledBack",
        Phase::Degraded => "Degraded",
        Phase::Paused => "Paused",
    }
}

async fn workloads(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.workloads(args.device.as_ref()).await?;
    list(args.output, &rows, || Table {
        head: &[
            "DEVICE",
            "NAMESPACE",
            "KIND",
            "NAME",
            "READY",
            "STATE",
            "RESTARTS",
            "MESSAGE",
            "IMAGES",
        ],
        wide: 1,
        rows: rows
            .iter()
            .map(|row| {
                let workload = &row.workload;
                vec![
                    row.device.to_string(),
                    workload.key.namespace.clone(),
                    workload.key.kind.clone(),
                    workload.key.name.clone(),
                    format!("{}/{}", workload.ready, workload.desired),
                    state(workload),
                    workload
                        .pods
                        .iter()
                        .map(|pod| pod.restarts)
                        .sum::<u32>()
                        .to_string(),
                    workload.message.clone(),
                    workload.images.join(","),
                ]
            })
            .collect(),
    })
}

/// A `Kustomization` on one device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KustomizationRow {
    device: DeviceName,
    #[serde(flatten)]
    status: KustomizationStatus,
}

async fn kustomizations(hub: &ApiClient, args: &Args) -> Result<()> {
    let devices = match &args.device {
        Some(device) => vec![device.clone()],
        None => hub
            .devices()
            .await?
            .into_iter()
            .map(|device| device.name)
            .collect(),
    };
    let mut rows = Vec::new();
    for device in devices {
        let status = hub.device(&device).await?.status;
        rows.extend(
            status
                .into_iter()
                .flat_map(|status| status.kustomizations)
                .map(|status| KustomizationRow {
                    device: device.clone(),
                    status,
                }),
        );
    }
    list(args.output, &rows, || Table {
        head: &[
            "DEVICE",
            "NAMESPACE",
            "NAME",
            "READY",
            "REASON",
            "SINCE",
            "MESSAGE",
            "OBJECTS",
            "REVISION",
        ],
        wide: 2,
        rows: rows.iter().map(kustomization_row).collect(),
    })
}

fn kustomization_row(row: &KustomizationRow) -> Vec<String> {
    let status = &row.status;
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.kind == "Ready");
    vec![
        row.device.to_string(),
        status.namespace.clone(),
        status.name.clone(),
        or_dash(ready.map(|ready| &ready.status)),
        or_dash(ready.map(|ready| &ready.reason)),
        or_dash(ready.map(|ready| age(ready.last_transition_time))),
        or_dash(ready.map(|ready| ready.message.lines().next().unwrap_or_default())),
        status.objects.to_string(),
        or_dash(status.last_applied_revision.as_ref()),
    ]
}

async fn generations(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.generations(args.device.as_ref()).await?;
    list(args.output, &rows, || Table {
        head: &[
            "DEVICE",
            "GENERATION",
            "OUTCOME",
            "FIRST SEEN",
            "LAST SEEN",
            "REVISION",
            "SUMMARY",
            "REASON",
        ],
        wide: 1,
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    row.device.to_string(),
                    row.id.clone(),
                    row.outcome.clone(),
                    age(row.first_seen),
                    age(row.last_seen),
                    or_dash(row.revision.as_ref().map(|revision| revision.short())),
                    or_dash(
                        row.revision
                            .as_ref()
                            .map(|revision| first_line(&revision.summary)),
                    ),
                    or_dash(row.reason.as_deref().map(first_line)),
                ]
            })
            .collect(),
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

async fn events(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.events(args.device.as_ref(), args.limit).await?;
    list(args.output, &rows, || Table {
        head: &[
            "AGE", "DEVICE", "SEVERITY", "REASON", "ABOUT", "MESSAGE", "TIME", "RECEIVED",
        ],
        wide: 2,
        rows: rows
            .iter()
            .map(|row| {
                let event = &row.event;
                vec![
                    age(event.time),
                    row.device.to_string(),
                    format!("{:?}", event.severity),
                    event.reason.clone(),
                    event.about.clone(),
                    first_line(&event.message).to_owned(),
                    event.time.to_string(),
                    row.received_at.to_string(),
                ]
            })
            .collect(),
    })
}

async fn audit(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.audit(args.limit).await?;
    list(args.output, &rows, || Table {
        head: &["AGE", "WHO", "ACTION", "TARGET", "OUTCOME", "DETAIL", "TIME"],
        wide: 1,
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    age(row.time),
                    row.who.clone(),
                    row.action.clone(),
                    row.target.clone(),
                    row.outcome.clone(),
                    row.detail.clone(),
                    row.time.to_string(),
                ]
            })
            .collect(),
    })
}

async fn forwarders(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.forwarders().await?;
    list(args.output, &rows, || Table {
        head: &[
            "NAME",
            "KIND",
            "STREAMS",
            "STATE",
            "LAG",
            "WAITING",
            "SENT",
            "DROPPED",
            "SET ASIDE",
            "LAST SENT",
            "MESSAGE",
            "BYTES",
            "URL",
        ],
        wide: 2,
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    row.name.clone(),
                    row.kind.clone(),
                    row.streams.join(","),
                    row.state.clone(),
                    seconds(row.lag_seconds),
                    row.waiting.to_string(),
                    row.sent.to_string(),
                    row.dropped.to_string(),
                    row.set_aside.to_string(),
                    or_dash(row.last_sent_at.map(age)),
                    first_line(&row.message).to_owned(),
                    row.waiting_bytes.to_string(),
                    row.url.clone(),
                ]
            })
            .collect(),
    })
}

async fn tokens(hub: &ApiClient, args: &Args) -> Result<()> {
    let rows = hub.tokens().await?;
    list(args.output, &rows, || Table {
        head: &["ID", "CLASS", "SITE", "USES LEFT", "EXPIRES IN", "MADE BY"],
        wide: 0,
        rows: rows
            .iter()
            .map(|row| {
                let left = row.expires_at.duration_since(jiff::Timestamp::now()).as_secs();
                vec![
                    row.id.to_string(),
                    or_dash(row.class.as_ref()),
                    row.site.clone(),
                    row.uses_left.to_string(),
                    if left > 0 {
                        seconds(left.unsigned_abs())
                    } else {
                        "expired".to_owned()
                    },
                    row.created_by.clone(),
                ]
            })
            .collect(),
    })
}
