//! The machine itself, and the hub's own book on it.

use super::{fact, unsaid};
use crate::dashboard::fleet::temperature;
use crate::dashboard::parts::{self, Tone};
use crate::store::{Certificate, Cursor, Device, Intent, Link, SetAside};
use maud::{Markup, html};
use model::Status;
use wire::api::Proof;

/// Facts, gauges and zones.
pub(super) fn machine(device: &Device, status: Option<&Status>) -> Markup {
    let Some(status) = status else { return unsaid() };
    let facts = &status.facts;
    let text = |value: &Option<String>| value.as_ref().map(|v| html! { (v) });
    let gauge = |used: u64, whole: u64| {
        parts::percent(used, whole).map(|percent| {
            let both = format!("{} of {}", parts::bytes(used), parts::bytes(whole));
            html! { (parts::share(percent, 90.0, &both)) span .sub { (both) } }
        })
    };
    html! {
        dl .facts {
            (fact("CPU", facts.cpu_percent.map(|busy| html! { (parts::share(busy, 85.0, "busy share of all cores")) span .sub { (facts.cpus) " cores" } })))
            (fact("GPU", facts.gpu_percent.map(|busy| parts::share(busy, 95.0, "busy share of the GPU"))))
            @for (rail, watts) in &facts.power_watts { (fact(rail, Some(html! { (format!("{watts:.1} W")) }))) }
            @if facts.under_voltage == Some(true) { (fact("Supply", Some(html! { span .trouble { "under voltage: check the power supply and its cable" } }))) }
            (fact("Memory", gauge(facts.memory_used, facts.memory_total)))
            (fact("Disk", gauge(facts.disk_used, facts.disk_total)))
            (fact("Temperature", facts.temperature_celsius.map(temperature)))
            @for (zone, celsius) in &facts.temperatures { (fact(zone, Some(temperature(*celsius)))) }
            (fact("Board", text(&facts.board)))
            (fact("Kernel", text(&facts.kernel)))
            (fact("Architecture", (!facts.architecture.is_empty()).then(|| html! { (facts.architecture) })))
            (fact("Uptime", (facts.uptime_seconds > 0).then(|| html! { (parts::length(facts.uptime_seconds)) })))
            (fact("Agent", Some(html! { (status.agent) })))
            (fact("Address", match &device.link { Link::Up { address, .. } => Some(parts::code(address)), _ => None }))
            (fact("Spool", device.backlog.map(|waiting| html! { (waiting) " records waiting" })))
            (fact("Boot", Some(parts::code(&status.boot_id))))
            (fact("Enrolled", Some(parts::when(device.enrolled_at))))
            @for (key, value) in &device.labels { (fact(key, Some(html! { (value) }))) }
        }
    }
}

/// The proof that nothing is missing.
pub(super) fn streams(cursors: &[Cursor], set_aside: &[SetAside], proof: Option<&Proof>) -> Markup {
    let missing = |cursor: &Cursor| {
        cursor
            .missing
            .iter()
            .map(|(low, high)| high - low + 1)
            .sum::<u64>()
    };
    let alarming =
        |count: u64| html! { td .number { @if count > 0 { span .is-short { (count) } } @else { "0" } } };
    let table = html! {
        table {
            caption .hidden { "Records by stream" }
            thead { tr {
                th scope="col" { "Stream" } th scope="col" .number { "Received" } th scope="col" .number title="the device gave them up" { "Lost" }
                th scope="col" .number title="not received and not explained" { "Missing" } th scope="col" .number title="sent again, stored once" { "Again" }
            } }
            tbody {
                @for cursor in cursors {
                    tr {
                        th scope="row" { (cursor.stream) span .sub title=(format!("spool {:016x}", cursor.epoch)) { "spool " (cursor.ordinal) " · up to " (cursor.upto) } }
                        td .number { (cursor.held.count()) } (alarming(cursor.lost.count())) (alarming(missing(cursor)))
                        td .number { (cursor.duplicates) }
                    }
                }
            }
        }
    };
    html! {
        @if cursors.is_empty() { p .empty { "None yet." } }
        @else { (parts::scrolling("Records by stream", &table)) }
        @if let Some(proof) = proof { (proven(proof)) }
        @if !set_aside.is_empty() {
            h3 { "Set aside: could not be read" }
            ul .plain {
                @for one in set_aside { li { (parts::code(&format!("{}/{}", one.stream, one.sequence))) " " (parts::when(one.received_at)) ": " (one.why) } }
            }
        }
    }
}

/// What the device's own account says, held against what is here.
fn proven(proof: &Proof) -> Markup {
    let short: Vec<_> = proof.streams.iter().filter(|row| row.missing > 0).collect();
    html! {
        @if let Some(left) = proof.seconds_left {
            p { "Catching up: " (parts::bytes(proof.waiting_bytes)) " wait on the device, about " (parts::length(left)) " left." }
        }
        @for row in &short {
            p .notice.is-bad { (row.missing) " records of " (row.stream) " were acknowledged once and are not here." }
        }
        @for stream in &proof.unbalanced {
            p .notice.is-bad { "The device cannot account for all records of " (stream) "." }
        }
        @if short.is_empty() && proof.unbalanced.is_empty() {
            p .sub { "Proof: everything that the device delivered is here, and it accounts for the rest, " (parts::when(proof.at)) "." }
        }
    }
}

/// Certificates and intents.
pub(super) fn trust(device: &Device, certificates: &[Certificate], intents: &[Intent]) -> Markup {
    html! {
        @if let Some((at, why)) = &device.revoked { p .notice.is-bad { "Revoked " (parts::when(*at)) ": " (why) } }
        @if certificates.is_empty() { p .empty { "No certificate on file." } }
        @else {
            ul .plain {
                @for one in certificates.iter().take(4) {
                    li {
                        (one.kind) " certificate " code title=(one.serial) { (one.serial.get(..12).unwrap_or(&one.serial)) }
                        @if let Some(at) = one.revoked_at { " " (parts::badge(Tone::Quiet, "revoked")) " " (parts::when(at)) }
                        @else { ", valid until " (one.not_after.strftime("%Y-%m-%d").to_string()) }
                    }
                }
            }
        }
        @if !intents.is_empty() {
            h3 { "Intents" }
            ul .plain {
                @for one in intents {
                    li {
                        (parts::code(&one.kind)) " by " (one.created_by) " " (parts::when(one.created_at)) ": "
                        @match one.delivered_at { Some(at) => { "delivered " (parts::when(at)) }, None => "waiting" }
                    }
                }
            }
        }
    }
}
