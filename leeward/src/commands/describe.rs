//! `leeward describe`.

use super::get::{backlog, link, phase, records, state};
use crate::people::AccessArgs;
use crate::print::{Output, age, one, or_dash};
use anyhow::Result;
use model::{DeviceName, Status};
use std::fmt::Write as _;
use wire::api::{DeviceDetail, EventRow, Proof};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The word `device` may stand before the name, as in kubectl
    #[arg(value_name = "DEVICE", num_args = 1..=2)]
    #[cfg_attr(feature = "hub", arg(add = clap_complete::ArgValueCandidates::new(super::completions::devices)))]
    words: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let name: DeviceName = match self.words.as_slice() {
            [kind, name] if kind.as_str() == "device" => name.parse()?,
            [name] => name.trim_start_matches("device/").parse()?,
            _ => anyhow::bail!("only devices can be described: leeward describe device NAME"),
        };
        let hub = access.client()?;
        let device = hub.device(&name).await?;
        let events = hub.events(Some(&name), 15).await?;
        one(self.output, &device, || told(&device, &events))
    }
}

fn told(device: &DeviceDetail, events: &[EventRow]) -> String {
    let mut text = String::new();
    let summary = &device.summary;
    let mut row = |name: &str, value: String| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    };
    row("Name", summary.name.to_string());
    row("Class", summary.class.to_string());
    row(
        "Link",
        format!(
            "{}, seen {} ago",
            link(summary.link),
            or_dash(summary.last_seen.map(age))
        ),
    );
    row(
        "Health",
        format!("{} ({}) {}", summary.health, summary.reason, summary.message),
    );
    row("Phase", or_dash(summary.phase.as_ref().map(phase)));
    row("Agent", or_dash(summary.agent.as_ref()));
    row("Waiting", backlog(summary));
    row("Records", records(summary.proof.as_ref()));
    row("Enrolled", format!("{} ago", age(device.enrolled_at)));
    for certificate in &device.certificates {
        let state = if certificate.revoked_at.is_some() {
            "revoked"
        } else {
            "valid"
        };
        row(
            "Certificate",
            format!("{} until {} ({state})", certificate.kind, certificate.not_after),
        );
    }
    if let Some(proof) = &summary.proof {
        proof_text(&mut text, proof);
    }
    if let Some(status) = &device.status {
        status_text(&mut text, status);
    }
    if !events.is_empty() {
        text.push_str("Events:\n");
        for event in events {
            let e = &event.event;
            let _ = writeln!(
                text,
                "  {:>5}  {:<9} {:<14} {}: {}",
                age(e.time),
                format!("{:?}", e.severity),
                e.reason,
                e.about,
                e.message
            );
        }
    }
    text
}

/// What became of every record, as the device says and as the hub has it.
fn proof_text(text: &mut String, proof: &Proof) {
    let _ = writeln!(
        text,
        "Streams ({} ago):      appended   delivered     at hub    given up    waiting",
        age(proof.at)
    );
    for row in &proof.streams {
        let missing = match row.missing {
            0 if row.balanced => String::new(),
            0 => "  THE ACCOUNT DOES NOT BALANCE".to_owned(),
            count => format!("  {count} MISSING AT THE HUB"),
        };
        let _ = writeln!(
            text,
            "  {:<20} {:>10}  {:>10} {:>10}  {:>10} {:>10}{missing}",
            row.stream, row.appended, row.acked, row.held, row.gone, row.waiting
        );
    }
}

/// A status as text; the same at the hub and at the device.
pub fn status_text(text: &mut String, status: &Status) {
    let facts = &status.facts;
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    };
    row("Board", or_dash(facts.board.as_ref()));
    row(
        "CPU",
        format!(
            "{:.1} cores, {} busy",
            facts.cpus,
            or_dash(facts.cpu_percent.map(|p| format!("{p:.0}%")))
        ),
    );
    row(
        "Memory",
        format!("{} of {} Mi", facts.memory_used >> 20, facts.memory_total >> 20),
    );
    row(
        "Disk",
        format!("{} of {} Mi", facts.disk_used >> 20, facts.disk_total >> 20),
    );
    row(
        "Temperature",
        or_dash(facts.temperature_celsius.map(|c| format!("{c:.1} °C"))),
    );
    row("Source", status.source.url.clone());
    row("  revision", or_dash(status.source.revision.as_ref()));
    row(
        "  fetched",
        or_dash(status.source.fetched_at.map(|at| format!("{} ago", age(at)))),
    );
    if let Some(error) = &status.source.error {
        row("  error", error.replace('\n', "\n              "));
    }
    row("Generation", or_dash(status.generation.current.as_ref()));
    row("  last good", or_dash(status.generation.last_good.as_ref()));
    row("  candidate", or_dash(status.generation.candidate.as_ref()));
    if let Some((id, why)) = &status.generation.failed {
        row(
            "  failed",
            format!("{id}: {}", why.replace('\n', "\n              ")),
        );
    }
    text.push_str("Conditions:\n");
    for condition in &status.conditions {
        let since = age(condition.last_transition_time);
        let _ = writeln!(
            text,
            "  {:<12} {:<8} {:<16} {since:>5}  {}",
            condition.kind, condition.status, condition.reason, condition.message
        );
    }
    if !status.kustomizations.is_empty() {
        text.push_str("Kustomizations:\n");
    }
    for kustomization in &status.kustomizations {
        let _ = writeln!(
            text,
            "  {}/{}  {} objects  {}",
            kustomization.namespace,
            kustomization.name,
            kustomization.objects,
            or_dash(kustomization.last_applied_revision.as_ref())
        );
        for condition in &kustomization.conditions {
            let since = age(condition.last_transition_time);
            let _ = writeln!(
                text,
                "    {:<12} {:<8} {:<24} {since:>5}  {}",
                condition.kind, condition.status, condition.reason, condition.message
            );
        }
    }
    if !status.notes.is_empty() {
        text.push_str("Notes:\n");
        for remark in &status.notes {
            let _ = writeln!(text, "  {remark}");
        }
    }
    text.push_str("Workloads:\n");
    for workload in &status.workloads {
        let _ = writeln!(
            text,
            "  {}  {}/{}  {}: {}",
            workload.key,
            workload.ready,
            workload.desired,
            state(workload),
            workload.message
        );
        for pod in &workload.pods {
            let ready = if pod.ready { "ready" } else { "not ready" };
            let _ = writeln!(
                text,
                "    {}  {:?}, {ready}, {} restarts, {}{}",
                pod.name,
                pod.phase,
                pod.restarts,
                or_dash(pod.ip.as_ref()),
                pod.trouble
                    .as_ref()
                    .map(|trouble| format!("; {trouble}"))
                    .unwrap_or_default()
            );
        }
    }
    text.push_str("Plan:\n");
    for why in &status.why.lines {
        let _ = writeln!(text, "  {:<8} {}: {}", why.verdict, why.about, why.because);
    }
}
