//! `/devices/{name}`: everything that the hub knows of one device.

mod machine;
mod running;

use super::charts::ChartQuery;
use super::layout::{self, Place};
use super::live::{Fragment, Look};
use super::login::Viewer;
use super::parts::{self, Tone};
use super::{Dashboard, PageError, fleet};
use crate::store::{Device, Health, HeldEvent, Link, Store};
use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use model::DeviceName;

/// Events on the page.
const EVENTS: usize = 100;
/// Unreadable records on the page.
const SET_ASIDE: usize = 10;

/// `GET /devices/{name}`.
pub(super) async fn page(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    Query(query): Query<ChartQuery>,
) -> Result<Markup, PageError> {
    let device: DeviceName = name.parse().map_err(|_| PageError::NoSuchDevice(name.clone()))?;
    let shown = look(&dashboard.store, &device).await?;
    let path = format!("/devices/{device}");
    let charts = dashboard.chart_section(Some(&device), query.window, &path).await;
    let fragment = |id: &str| shown.markup(id);
    let content = html! {
        (fragment("head"))
        div .columns {
            div .main {
                (fragment("workloads"))
                p .searchlink { a href=(format!("/logs?device={device}")) { "Search everything that it wrote" } }
                (log_panel(&device))
                (charts)
                (fragment("events"))
                (fragment("plan"))
            }
            div .side {
                (fragment("machine"))
                (fragment("generation"))
                (fragment("source"))
                (fragment("conditions"))
                (fragment("streams"))
                (fragment("trust"))
            }
        }
    };
    let live = format!("view=device&name={device}");
    Ok(layout::page(
        &viewer,
        Place::Device,
        device.as_str(),
        Some(&live),
        &content,
    ))
}

/// Everything on the page that can change.
pub(super) async fn look(store: &Store, name: &DeviceName) -> Result<Look, PageError> {
    let device = store
        .device(name)
        .await?
        .ok_or_else(|| PageError::NoSuchDevice(name.to_string()))?;
    let status = device.status.as_ref().map(|held| &held.status);
    let generations = store.generations(name).await?;
    let events = store.events(name, None, EVENTS).await?;
    let cursors = store.cursors(name).await?;
    let proof = store.proofs(Some(name)).await?.remove(name);
    let set_aside = store.set_aside(name, SET_ASIDE).await?;
    let certificates = store.certificates(name).await?;
    let intents = store.intents(name, 5).await?;

    let mut look = Look::default();
    let section = Fragment::section;
    let stale = is_stale(&device);
    look.add(Fragment::of(
        "head",
        |id, hash, inner| html! { div id=(id) data-hash=(hash) .title .stale[stale] { (inner) } },
        head(&device),
    ));
    look.add(section(
        "workloads",
        "Workloads",
        running::workloads(name, status),
    ));
    look.add(section("plan", "Plan and reasons", running::plan(status)));
    look.add(section("events", "Events", list_events(&events)));
    look.add(section("machine", "Machine", machine::machine(&device, status)));
    look.add(section(
        "generation",
        "Generations",
        running::generations(status, &generations),
    ));
    look.add(section("source", "Source", running::source(status)));
    look.add(section("conditions", "Conditions", running::conditions(status)));
    look.add(section(
        "streams",
        "Records received",
        machine::streams(&cursors, &set_aside, proof.as_ref()),
    ));
    look.add(section(
        "trust",
        "Trust",
        machine::trust(&device, &certificates, &intents),
    ));
    look.states
        .insert(name.to_string(), parts::health_word(device.health).to_owned());
    Ok(look)
}

/// Whether what the device said last may no longer hold.
fn is_stale(device: &Device) -> bool {
    matches!(device.health, Health::Unknown | Health::Revoked) && device.status.is_some()
}

fn head(device: &Device) -> Markup {
    html! {
        nav .crumbs aria-label="Breadcrumb" { a href="/" { "Fleet" } span aria-hidden="true" { "/" } span aria-current="page" { (device.name) } }
        div .headline {
            h1 { (device.name) }
            (parts::health_badge(device.health))
            span .muted { (device.class) " · " (device.site) }
            span .grow {}
            span .facts {
                span .muted { "Link " } (fleet::link(&device.link))
                @if !matches!(device.link, Link::Up { .. }) {
                    @if let Some(at) = device.last_seen { span .muted { "last seen " } (parts::when(at)) }
                }
            }
        }
        @if device.health != Health::Ready && !device.message.is_empty() {
            p class=(format!("notice {}", parts::tone(device.health).class())) {
                span { strong { (device.reason) } ": " (device.message) }
            }
        }
        @if let Some(error) = device.status.as_ref().and_then(|held| held.status.source.error.as_ref()) {
            p .notice.is-bad { (parts::icon(Tone::Bad)) span .pre { strong { "Source" } ": " (error) } }
        }
        @if is_stale(device) {
            @if let Some(held) = &device.status {
                p .notice.is-unknown {
                    span { "What follows is what the device said " (parts::when(held.received_at)) "; it may no longer hold." }
                }
            }
        }
    }
}

/// The log tail: no fragment, since it is filled by the page's script.
fn log_panel(device: &DeviceName) -> Markup {
    html! {
        section #log aria-labelledby="log-title" hidden data-device=(device) {
            div .loghead {
                h2 #log-title { "Log" }
                span #log-of .muted {}
                span #log-state .muted role="status" {}
                span .grow {}
                label { input #log-follow type="checkbox" checked; " Follow" }
                button #log-close type="button" { "Close" }
            }
            pre #log-lines tabindex="0" aria-label="Log lines" {}
        }
    }
}

fn list_events(events: &[HeldEvent]) -> Markup {
    html! {
        @if events.is_empty() { p .empty { "None received." } }
        @else {
            ol .events.tall tabindex="0" aria-label="Events, newest first" {
                @for held in events { li { (parts::when(held.event.time)) (fleet::event(held)) } }
            }
        }
    }
}

/// A word with what it means, in a list of facts; nothing where there is no value.
fn fact(term: &str, value: Option<Markup>) -> Markup {
    html! { @if let Some(value) = value { dt { (term) } dd { (value) } } }
}

/// What is shown where no status was received.
fn unsaid() -> Markup {
    html! { p .empty { "The device has not said yet." } }
}

fn condition_tone(status: &str) -> Tone {
    match status {
        "True" => Tone::Good,
        "False" => Tone::Bad,
        _ => Tone::Unknown,
    }
}
