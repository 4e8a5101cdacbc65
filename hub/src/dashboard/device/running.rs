//! What a device runs, why, and what it ran before.

use super::{condition_tone, fact, unsaid};
use crate::dashboard::login::percent_encode;
use crate::dashboard::parts::{self, Tone};
use crate::store::SeenGeneration;
use maud::{Markup, html};
use model::{DeviceName, PodStatus, Revision, Status, WorkloadStatus};

/// Workloads, each with its pods.
pub(super) fn workloads(device: &DeviceName, status: Option<&Status>) -> Markup {
    let Some(status) = status else { return unsaid() };
    let table = html! {
        table .workloads {
            caption .hidden { "Workloads and their pods" }
            thead { tr {
                th scope="col" { "Workload" } th scope="col" { "State" } th scope="col" .number { "Ready" }
                th scope="col" .number { "Restarts" } th scope="col" { "Image and message" } th scope="col" { "Logs" }
            } }
            @for workload in &status.workloads {
                tbody {
                    (workload_row(workload))
                    @for pod in &workload.pods { (pod_row(device, &workload.key.namespace, pod)) }
                }
            }
        }
    };
    html! {
        @if status.workloads.is_empty() { p .empty { "The generation names no workload." } }
        @else { (parts::scrolling("Workloads with pods", &table)) }
    }
}

fn workload_row(workload: &WorkloadStatus) -> Markup {
    let (tone, word) = parts::workload_tone(workload.state);
    let restarts: u32 = workload.pods.iter().map(|pod| pod.restarts).sum();
    html! {
        tr .workload {
            th scope="rowgroup" { (workload.key.name) span .sub { (workload.key.kind) " · " (workload.key.namespace) } }
            td { (parts::badge(tone, word)) @if let Some(reason) = &workload.reason { span .sub { (reason) } } }
            td .number { span .is-short[workload.ready < workload.desired] { (workload.ready) "/" (workload.desired) } }
            td .number { (restarts) }
            td .wide {
                @for image in &workload.images { code .image { (image) } }
                @if !workload.message.is_empty() { span .sub { (workload.message) } }
            }
            td {}
        }
    }
}

fn pod_row(device: &DeviceName, namespace: &str, pod: &PodStatus) -> Markup {
    html! {
        tr .pod {
            th scope="row" { (pod.name) @if let Some(ip) = &pod.ip { span .sub { (ip) } } }
            td { (parts::pod_word(pod.phase)) @if !pod.ready { span .sub { "not ready" } } }
            td {}
            td .number { (pod.restarts) }
            td .wide { @if let Some(trouble) = &pod.trouble { span .trouble { (trouble) } } }
            td .nowrap {
                @for container in &pod.containers {
                    a .log href=(log_link(device, namespace, &pod.name, container)) id=(format!("log-{}-{container}", pod.name))
                        data-log=(format!("{}/{container}", pod.name)) aria-label=(format!("Log of {container} in {}", pod.name)) { (container) }
                }
            }
        }
    }
}

fn log_link(device: &DeviceName, namespace: &str, pod: &str, container: &str) -> String {
    format!(
        "/devices/{device}/logs?namespace={}&pod={}&container={}",
        percent_encode(namespace),
        percent_encode(pod),
        percent_encode(container)
    )
}

/// The planner's account.
pub(super) fn plan(status: Option<&Status>) -> Markup {
    let Some(status) = status else { return unsaid() };
    let table = html! {
        table {
            caption .hidden { "What the planner decided, object by object" }
            thead { tr { th scope="col" { "Object" } th scope="col" { "Verdict" } th scope="col" { "Because" } } }
            tbody {
                @for line in &status.why.lines {
                    tr { th scope="row" { (line.about) } td .nowrap { (parts::code(&line.verdict)) } td .wide { (line.because) } }
                }
            }
        }
    };
    html! {
        @if status.why.lines.is_empty() { p .empty { "Nothing to decide." } }
        @else { (parts::scrolling("Plan, object by object", &table)) }
        @if !status.notes.is_empty() {
            h3 { "Notes on what Git says" }
            ul .plain { @for remark in &status.notes { li { (remark) } } }
        }
    }
}

fn revision(revision: &Revision) -> Markup {
    html! {
        span title=(revision) { @if !revision.reference.is_empty() { (revision.reference) " @ " } (parts::code(revision.short())) }
        @if !revision.summary.is_empty() { span .sub { (revision.summary) } }
        @if !revision.author.is_empty() { span .sub { (revision.author.split(" <").next().unwrap_or_default()) ", " (parts::when(revision.committed_at)) } }
    }
}

/// Current, last good, on trial and failed, then those before.
pub(super) fn generations(status: Option<&Status>, seen: &[SeenGeneration]) -> Markup {
    let Some(held) = status.map(|s| &s.generation) else {
        return unsaid();
    };
    let id = |id: &Option<String>| id.as_deref().map(parts::code);
    html! {
        dl .facts {
            (fact("Current", held.current.as_deref().map(|current| html! {
                (parts::code(current)) @if let Some(of) = &held.revision { span .sub { (revision(of)) } }
            })))
            (fact("Last good", id(&held.last_good)))
            (fact("On trial", held.candidate.as_deref().map(|id| html! { (parts::code(id)) " " (parts::icon(Tone::Busy)) })))
            (fact("Failed", held.failed.as_ref().map(|(id, why)| html! { (parts::code(id)) span .trouble { (why) } })))
        }
        @if seen.len() > 1 {
            details #generation-history {
                summary { "History (" (seen.len()) ")" }
                ul .plain {
                    @for one in seen {
                        li {
                            (parts::code(&one.id)) " " (outcome(&one.outcome)) " since " (parts::when(one.first_seen))
                            @if let Some(of) = &one.revision { span .sub { (of.short()) " " (of.summary) } }
                            @if let Some(why) = &one.reason { span .trouble { (why) } }
                        }
                    }
                }
            }
        }
    }
}

fn outcome(word: &str) -> &str {
    match word {
        "lastGood" => "last good",
        "onTrial" => "on trial",
        other => other,
    }
}

/// Where the generations come from.
pub(super) fn source(status: Option<&Status>) -> Markup {
    let Some(source) = status.map(|s| &s.source) else {
        return unsaid();
    };
    html! {
        dl .facts {
            (fact("Repository", Some(html! { span .break { (source.url) } })))
            (fact("Fetched", source.fetched_at.map(parts::when)))
            (fact("Revision", source.revision.as_ref().map(revision)))
        }
        @if let Some(error) = &source.error { p .trouble { (error) } }
    }
}

/// Kubernetes conditions.
pub(super) fn conditions(status: Option<&Status>) -> Markup {
    let Some(status) = status else { return unsaid() };
    html! {
        @if status.conditions.is_empty() { p .empty { "None." } }
        @else {
            ul .plain.conditions {
                @for one in &status.conditions {
                    li {
                        div { (parts::badge(condition_tone(&one.status), &one.kind)) " " span .muted { (one.reason) " · " (parts::when(one.last_transition_time)) } }
                        span .sub.pre { (one.message) }
                    }
                }
            }
        }
    }
}
