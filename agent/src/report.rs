//! What the device says of itself: strict records when something changed, sampled ones as a heartbeat.

use crate::converge::View;
use crate::uplink::Link;
use device::FactsReader;
use jiff::Timestamp;
use kit::Clock;
use model::{
    ClassName, Condition, DeviceName, Heartbeat, ImageRef, KustomizationStatus, Phase, SourceStatus, Status,
    WorkloadProgress, WorkloadState, WorkloadStatus,
};
use runtime::{PullProgress, Pulls};
use spool::Stream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the stream of statuses.
pub const STATUS: &str = "status";
/// Name of the stream of heartbeats, in memory while the link is up.
pub const HEARTBEAT: &str = "heartbeat";

/// While the link is down, heartbeats are history that costs flash: one in this time is enough.
const EVERY_WHILE_DOWN: Duration = Duration::from_secs(600);

/// Changes within this time are one report.
const TOGETHER: Duration = Duration::from_millis(300);

/// How far a pull is, is told this often.
const PULL_NEWS: Duration = Duration::from_secs(2);

/// The `reason` of a workload one of whose images is on its way.
pub const PULLING: &str = "Pulling";

/// A status with its place in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// As written.
    pub status: Status,
    /// Sequence in the `status` stream of the last one written there.
    pub sequence: u64,
}

/// Everything that reporting needs.
#[derive(Debug)]
pub struct Inputs {
    /// Who.
    pub device: DeviceName,
    /// Its class.
    pub class: ClassName,
    /// Random id of this boot.
    pub boot_id: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// From the loop.
    pub view: watch::Receiver<View>,
    /// From the source.
    pub source: watch::Receiver<SourceStatus>,
    /// From the machine.
    pub facts: FactsReader,
    /// Strict.
    pub status: Stream,
    /// Sampled.
    pub heartbeat: Stream,
    /// How the link is.
    pub link: watch::Receiver<Link>,
    /// Workloads of a generation whose images are being brought.
    pub coming: watch::Receiver<Vec<WorkloadStatus>>,
    /// Rules that are not evaluated, and why.
    pub rules: watch::Receiver<Vec<String>>,
    /// Images on their way.
    pub pulls: watch::Receiver<Pulls>,
    /// Time between two heartbeats.
    pub every: Duration,
}

/// Reports for ever; publishes the newest status.
pub async fn run(mut inputs: Inputs, out: watch::Sender<Option<Reported>>) {
    let mut conditions: Vec<Condition> = Vec::new();
    let mut kustomizations: Vec<KustomizationStatus> = Vec::new();
    let mut last: Option<Status> = None;
    let mut sequence = inputs.status.last();
    loop {
        let status = compose(&mut inputs, &mut conditions, &mut kustomizations);
        if last.as_ref().is_none_or(|last| differs(last, &status)) {
            if let Some(written) = strict(&inputs.status, &status).await {
                sequence = written;
            }
        } else {
            beat(&inputs.heartbeat, &status);
        }
        last = Some(status.clone());
        out.send_replace(Some(Reported { status, sequence }));
        let up = *inputs.link.borrow_and_update() == Link::Up;
        let pause = if up {
            inputs.every
        } else {
            inputs.every.max(EVERY_WHILE_DOWN)
        };
        tokio::select! {
            Ok(()) = inputs.view.changed() => tokio::time::sleep(TOGETHER).await,
            Ok(()) = inputs.source.changed() => tokio::time::sleep(TOGETHER).await,
            Ok(()) = inputs.link.changed() => {}
            Ok(()) = inputs.rules.changed() => {}
            Ok(()) = inputs.coming.changed() => tokio::time::sleep(TOGETHER).await,
            // News of the device do not wait for the next byte count.
            Ok(()) = inputs.pulls.changed() => tokio::select! {
                () = tokio::time::sleep(PULL_NEWS) => {}
                Ok(()) = inputs.view.changed() => tokio::time::sleep(TOGETHER).await,
                Ok(()) = inputs.coming.changed() => tokio::time::sleep(TOGETHER).await,
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn strict(stream: &Stream, status: &Status) -> Option<u64> {
    // Serialising plain data to memory cannot fail.
    let payload = serde_json::to_vec(status).unwrap_or_default();
    let written = match stream.append(&payload, None) {
        Ok(pending) => pending.await,
        Err(err) => Err(err),
    };
    written
        .inspect_err(|err| tracing::error!(err = kit::chain(err), "a status was not kept"))
        .ok()
}

/// A sampled record is on its way to the hub or to memory; nobody waits for the disk.
fn beat(stream: &Stream, status: &Status) {
    let beat = Heartbeat {
        time: status.time,
        fetched_at: status.source.fetched_at,
        facts: status.facts.clone(),
        progress: status
            .workloads
            .iter()
            .filter(|workload| workload.reason.as_deref() == Some(PULLING))
            .map(|workload| WorkloadProgress {
                key: workload.key.clone(),
                reason: PULLING.to_owned(),
                message: workload.message.clone(),
            })
            .collect(),
    };
    let payload = serde_json::to_vec(&beat).unwrap_or_default();
    if let Err(err) = stream.append(&payload, None) {
        tracing::debug!(err = kit::chain(&err), "a heartbeat was not kept");
    }
}

fn compose(
    inputs: &mut Inputs,
    conditions: &mut Vec<Condition>,
    kustomizations: &mut Vec<KustomizationStatus>,
) -> Status {
    let now = inputs.clock.now();
    let view = inputs.view.borrow_and_update().clone();
    let source = inputs.source.borrow_and_update().clone();
    let (coming, pulls) = (
        inputs.coming.borrow_and_update().clone(),
        inputs.pulls.borrow_and_update().clone(),
    );
    let rules = inputs.rules.borrow_and_update().clone();
    refresh_conditions(conditions, &view, &source, now);
    *kustomizations = crate::kustomizations::statuses(
        kustomizations,
        &view.kustomizations,
        &view.generation,
        &source,
        now,
    );
    Status {
        device: inputs.device.clone(),
        class: inputs.class.clone(),
        time: now,
        boot_id: inputs.boot_id.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        phase: view.phase,
        conditions: conditions.clone(),
        source,
        generation: view.generation,
        notes: view.notes.into_iter().chain(rules).collect(),
        workloads: with_pulls(view.workloads, coming, &pulls),
        kustomizations: kustomizations.clone(),
        facts: inputs.facts.read(inputs.clock.since_boot()),
        why: view.why,
    }
}

/// Says of each workload whose images are on their way how far they are. One that is new to the device shows up with
/// that; one that runs in an older form goes on doing so meanwhile.
fn with_pulls(
    mut workloads: Vec<WorkloadStatus>,
    coming: Vec<WorkloadStatus>,
    pulls: &Pulls,
) -> Vec<WorkloadStatus> {
    for mut new in coming {
        let under_way: Vec<String> = pulls
            .iter()
            .filter(|(image, _)| new.images.contains(&image.to_string()))
            .map(|(image, progress)| pull_message(image, *progress))
            .collect();
        if under_way.is_empty() {
            continue;
        }
        let told = under_way.join("; ");
        match workloads.iter_mut().find(|held| held.key == new.key) {
            Some(held) => {
                held.reason = Some(PULLING.to_owned());
                held.message = format!("{}; next: {told}", held.message);
            }
            None => {
                new.reason = Some(PULLING.to_owned());
                new.message = told;
                workloads.push(new);
            }
        }
    }
    workloads
}

fn pull_message(image: &ImageRef, progress: PullProgress) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match progress.total {
        0 => format!("pulling {image}"),
        total => format!(
            "pulling {image}: {:.1} of {:.1} MiB",
            mib(progress.done),
            mib(total)
        ),
    }
}

/// Whether there is more between two statuses than time and readings.
fn differs(a: &Status, b: &Status) -> bool {
    let still = |status: &Status| {
        let mut still = status.clone();
        still.time = Timestamp::UNIX_EPOCH;
        still.facts = Default::default();
        still.source.fetched_at = None;
        for pulling in &mut still.workloads {
            if pulling.reason.as_deref() == Some(PULLING) {
                pulling.message.clear();
            }
        }
        still
    };
    still(a) != still(b)
}

/// kstatus' conditions; the time of a transition stays until the status moves.
fn refresh_conditions(held: &mut Vec<Condition>, view: &View, source: &SourceStatus, now: Timestamp) {
    let flag = |yes: bool| if yes { "True" } else { "False" };
    let (ready, reason) = match view.phase {
        Phase::Ready => ("True", "Healthy"),
        Phase::Paused => ("True", "Paused"),
        Phase::WaitingForSource => ("Unknown", "WaitingForSource"),
        Phase::Progressing => ("Unknown", "Progressing"),
        Phase::RolledBack => ("False", "RolledBack"),
        Phase::Degraded => ("False", "Degraded"),
    };
    let healthy = view.workloads.iter().all(|w| w.state == WorkloadState::Current);
    let failed = view
        .generation
        .failed
        .as_ref()
        .map(|(id, why)| format!("{id}: {why}"));
    let message = match (&view.phase, failed) {
        (Phase::RolledBack, Some(failed)) => format!("running the last good generation; {failed}"),
        _ => view.message.clone(),
    };
    let fetched = source.error.is_none();
    let source_message = match (&source.error, &source.revision) {
        (Some(err), _) => err.clone(),
        (None, Some(revision)) => format!("at {revision}"),
        (None, None) => "not fetched yet".to_owned(),
    };
    let source_reason = if fetched { "Fetched" } else { "Failed" };
    let wanted = [
        ("Ready", ready, reason, message),
        ("SourceReady", flag(fetched), source_reason, source_message),
        (
            "Healthy",
            flag(healthy),
            if healthy { "AllCurrent" } else { "NotAllCurrent" },
            view.message.clone(),
        ),
    ];
    *held = wanted
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = held.iter().find(|c| c.kind == kind && c.status == status);
            Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                last_transition_time: before.map_or(now, |c| c.last_transition_time),
            }
        })
        .collect();
}
