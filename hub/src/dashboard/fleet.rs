//! `/`: the whole fleet at a glance.

use super::charts::ChartQuery;
use super::layout::{self, Place};
use super::live::{Fragment, Look};
use super::login::{Viewer, percent_encode};
use super::parts::{self, Tone};
use super::{Dashboard, PageError};
use crate::store::{Device, DeviceFilter, Fleet, Health, HeldEvent, Link, Store};
use axum::extract::{Query, State};
use maud::{Markup, html};
use model::Status;
use serde::Deserialize;

/// Devices on one page.
const PAGE: usize = 100;
/// Events below the table.
const EVENTS: usize = 12;

/// Which part of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct FleetQuery {
    /// Text to search for.
    #[serde(default)]
    pub q: String,
    /// A word of [`Health`]; anything else means all.
    #[serde(default)]
    pub health: String,
    /// Pages to skip, as text: within the tagged query of the event stream, serde reads no number.
    #[serde(default)]
    pub page: String,
}

impl FleetQuery {
    fn filter(&self) -> DeviceFilter {
        DeviceFilter {
            search: self.q.clone(),
            health: self.health(),
            offset: self.page().saturating_mul(PAGE),
            limit: PAGE,
        }
    }

    fn page(&self) -> usize {
        self.page.parse().unwrap_or(0)
    }

    fn health(&self) -> Option<Health> {
        Health::ALL
            .into_iter()
            .find(|health| health.word() == self.health)
    }

    fn query(&self, health: Option<Health>, page: usize) -> String {
        let mut pairs = Vec::new();
        if !self.q.is_empty() {
            pairs.push(format!("q={}", percent_encode(&self.q)));
        }
        pairs.extend(health.map(|health| format!("health={}", health.word())));
        if page > 0 {
            pairs.push(format!("page={page}"));
        }
        pairs.join("&")
    }

    fn link(&self, health: Option<Health>, page: usize) -> String {
        match self.query(health, page) {
            query if query.is_empty() => "/".to_owned(),
            query => format!("/?{query}"),
        }
    }
}

/// `GET /`.
pub(super) async fn page(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Query(query): Query<FleetQuery>,
    Query(past): Query<ChartQuery>,
) -> Result<Markup, PageError> {
    let shown = look(&dashboard.store, &query).await?;
    let charts = dashboard.chart_section(None, past.window, "/").await;
    let live = format!("view=fleet&{}", query.query(query.health(), query.page()));
    let fragment = |id: &str| shown.markup(id);
    let content = html! {
        h1 .hidden { "Fleet" }
        (fragment("summary"))
        form .filter role="search" method="get" action="/" {
            label for="q" .hidden { "Search devices" }
            input #q type="search" name="q" value=(query.q) placeholder="Search name, class, site or label" autocomplete="off" spellcheck="false";
            @if let Some(health) = query.health() { input type="hidden" name="health" value=(health.word()); }
            button type="submit" { "Search" }
        }
        (table(fragment("rows")))
        (fragment("pager"))
        (fragment("recent"))
        (charts)
    };
    Ok(layout::page(
        &viewer,
        Place::Fleet,
        "Fleet",
        Some(&live),
        &content,
    ))
}

/// Everything on the page that can change.
pub(super) async fn look(store: &Store, query: &FleetQuery) -> Result<Look, PageError> {
    let fleet = store.fleet(query.filter()).await?;
    let events = store.fleet_events(EVENTS).await?;
    let mut look = Look::default();
    look.add(Fragment::of(
        "summary",
        |id, hash, inner| {
            html! { section id=(id) data-hash=(hash) .summary aria-label="Health of the fleet" { (inner) } }
        },
        summary(&fleet, query),
    ));
    let rows: Vec<Fragment> = fleet.devices.iter().map(row).collect();
    look.add(Fragment::list(
        "rows",
        &rows,
        |id, hash, inner| {
            html! { tbody id=(id) data-hash=(hash) role="rowgroup" { (inner) } }
        },
        nothing(&fleet, query),
    ));
    rows.into_iter().for_each(|row| look.add(row));
    look.add(Fragment::of(
        "pager",
        |id, hash, inner| {
            html! { nav id=(id) data-hash=(hash) .pager aria-label="Pages" { (inner) } }
        },
        pager(&fleet, query),
    ));
    look.add(Fragment::section("recent", "Recent events", recent(&events)));
    for device in &fleet.devices {
        look.states.insert(
            device.name.to_string(),
            parts::health_word(device.health).to_owned(),
        );
    }
    Ok(look)
}

fn summary(fleet: &Fleet, query: &FleetQuery) -> Markup {
    let total = fleet.total();
    let counts: Vec<(Health, usize)> = Health::ALL
        .into_iter()
        .filter_map(|health| fleet.counts.get(&health).map(|count| (health, *count)))
        .collect();
    html! {
        p .figures {
            span .figure { strong { (total) } " " (if total == 1 { "device" } else { "devices" }) }
            span .figure { strong { (fleet.connected) } " connected" }
        }
        (bar(&counts, total))
        ul .chips aria-label="Filter by health" {
            li { a .chip href=(query.link(None, 0)) aria-current=[query.health().is_none().then_some("true")] { "All " span .count { (total) } } }
            @for (health, count) in &counts {
                li {
                    a class=(format!("chip {}", parts::tone(*health).class())) href=(query.link(Some(*health), 0))
                        aria-current=[(query.health() == Some(*health)).then_some("true")] {
                        (parts::health_icon(*health)) (parts::health_word(*health)) " " span .count { (count) }
                    }
                }
            }
        }
    }
}

/// One bar for the whole fleet, a piece for each health.
fn bar(counts: &[(Health, usize)], total: usize) -> Markup {
    let pieces = counts.iter().scan(0, |left, &(health, count)| {
        let from = *left;
        *left += count;
        Some((health, from, count))
    });
    html! {
        svg .fleetbar viewBox=(format!("0 0 {} 8", total.max(1))) preserveAspectRatio="none" aria-hidden="true" {
            @for (health, from, count) in pieces {
                rect class=(parts::tone(health).class()) x=(from) width=(count) height="8" {}
            }
        }
    }
}

/// Columns of the table: heading, and whether numbers stand in it.
const COLUMNS: [(&str, bool); 10] = [
    ("Device", false),
    ("Health", false),
    ("Link", false),
    ("Generation", false),
    ("Workloads", true),
    ("Last seen", false),
    ("CPU", true),
    ("Memory", true),
    ("Temp.", true),
    ("Spool", true),
];

// The narrow form lays rows out as cards, which takes a table's own roles away: they are stated.
fn table(rows: Markup) -> Markup {
    html! {
        table .fleet role="table" {
            caption .hidden { "Devices: health, link, what they run and how they fare" }
            thead role="rowgroup" {
                tr role="row" {
                    @for (heading, number) in COLUMNS {
                        th scope="col" role="columnheader" .number[number] { (heading) }
                    }
                }
            }
            (rows)
        }
    }
}

fn nothing(fleet: &Fleet, query: &FleetQuery) -> Markup {
    let why = if fleet.total() == 0 {
        "No device has joined yet. `leeward token create` makes a token; `leeward agent enrol` uses it."
    } else if query.page() > 0 {
        "No more devices."
    } else {
        "No device matches."
    };
    html! { tr role="row" { td role="cell" colspan=(COLUMNS.len()) .empty { (why) } } }
}

fn row(device: &Device) -> Fragment {
    let status = device.status.as_ref().map(|held| &held.status);
    // What was said before the link went down is history: shown, but not as if it held now.
    let stale = matches!(device.health, Health::Unknown | Health::Revoked);
    let cells = [
        html! {
            a .name href=(format!("/devices/{}", device.name)) id=(format!("link-{}", device.name)) { (device.name) }
            span .sub { (device.class) " · " (device.site) }
        },
        html! {
            (parts::health_badge(device.health))
            @if device.health != Health::Ready { span .sub title=(device.message) { (device.message) } }
            @else if let Some(error) = status.and_then(|s| s.source.error.as_deref()) {
                // It runs what it has, and cannot follow what Git says now.
                span .sub.is-warn title=(error) { (parts::icon(Tone::Warn)) " Source: " (error) }
            }
        },
        link(&device.link),
        generation(status),
        workloads(status),
        last_seen(device),
        status
            .and_then(|s| s.facts.cpu_percent)
            .map_or_else(parts::none, |busy| {
                parts::share(busy, 85.0, "busy share of all cores")
            }),
        memory(status),
        status
            .and_then(|s| s.facts.temperature_celsius)
            .map_or_else(parts::none, temperature),
        device.backlog.map_or_else(
            parts::none,
            |waiting| html! { span title="records that wait on the device" { (waiting) } },
        ),
    ];
    let inner = html! {
        @for ((heading, number), cell) in COLUMNS.iter().zip(&cells) {
            @if *heading == "Device" {
                th scope="row" role="rowheader" { (cell) }
            } @else {
                td role="cell" data-label=(heading) .number[*number] .then[stale && is_telling(heading)] { (cell) }
            }
        }
    };
    Fragment::of(
        &format!("row-{}", device.name),
        |id, hash, inner| {
            let class = parts::tone(device.health).class();
            html! { tr id=(id) data-hash=(hash) role="row" class=(class) { (inner) } }
        },
        inner,
    )
}

/// Columns that repeat what the device said, rather than what the hub sees itself.
fn is_telling(heading: &str) -> bool {
    matches!(heading, "Generation" | "Workloads" | "CPU" | "Memory" | "Temp.")
}

/// The link in one or two words.
pub(super) fn link(link: &Link) -> Markup {
    match link {
        Link::Up { since, address } => html! {
            span .link.is-up { "Up" } span .sub title=(address) { "for " (parts::when(*since)) }
        },
        Link::Silent => html! { span .link.is-silent { "Silent" } },
        Link::Down => html! { span .link.is-down { "Down" } },
        Link::Never => html! { span .link.is-down { "Never" } },
    }
}

fn last_seen(device: &Device) -> Markup {
    match (&device.link, device.last_seen) {
        (Link::Up { .. }, _) => html! { "now" },
        (_, Some(at)) => parts::when(at),
        (_, None) => html! { span .muted { "never" } },
    }
}

fn generation(status: Option<&Status>) -> Markup {
    let Some(status) = status else {
        return parts::none();
    };
    let held = &status.generation;
    // What is on trial was rendered from what was fetched last.
    let told = match held.candidate {
        Some(_) => status.source.revision.as_ref(),
        None => held.revision.as_ref(),
    };
    html! {
        @match (&held.candidate, &held.current) {
            (Some(next), Some(now)) if next != now => {
                (parts::code(now)) span .arrow { " → " span .hidden { "trying " } } (parts::code(next))
            }
            (_, Some(now)) => { (parts::code(now)) }
            (Some(next), None) => { span .muted { "trying " } (parts::code(next)) }
            (None, None) => { (parts::none()) }
        }
        @if let Some(revision) = told {
            span .sub title=(format!("{} by {}", revision.summary, revision.author)) {
                (revision.short()) " " (revision.summary)
            }
        }
    }
}

fn workloads(status: Option<&Status>) -> Markup {
    let Some(status) = status else {
        return parts::none();
    };
    let all = status.workloads.len();
    let good = status
        .workloads
        .iter()
        .filter(|w| w.state == model::WorkloadState::Current)
        .count();
    html! {
        span title=(format!("{good} of {all} are as wanted")) .is-short[good < all] { (good) "/" (all) }
    }
}

fn memory(status: Option<&Status>) -> Markup {
    let Some(facts) = status.map(|s| &s.facts) else {
        return parts::none();
    };
    let title = format!(
        "{} of {}",
        parts::bytes(facts.memory_used),
        parts::bytes(facts.memory_total)
    );
    parts::percent(facts.memory_used, facts.memory_total)
        .map_or_else(parts::none, |used| parts::share(used, 90.0, &title))
}

/// Degrees of the hottest zone.
pub(super) fn temperature(celsius: f64) -> Markup {
    html! { span .temperature .is-high[celsius >= 75.0] .is-hot[celsius >= 85.0] { (format!("{celsius:.0}")) "\u{202f}°C" } }
}

fn pager(fleet: &Fleet, query: &FleetQuery) -> Markup {
    let pages = fleet.matched.div_ceil(PAGE);
    let health = query.health();
    html! {
        @if pages > 1 {
            @if query.page() > 0 { a rel="prev" href=(query.link(health, query.page() - 1)) { "Previous" } }
            span { "Page " (query.page() + 1) " of " (pages) }
            @if query.page() + 1 < pages { a rel="next" href=(query.link(health, query.page() + 1)) { "Next" } }
        }
    }
}

fn recent(events: &[HeldEvent]) -> Markup {
    html! {
        @if events.is_empty() { p .empty { "Nothing has happened yet." } }
        @else {
            ol .events {
                @for held in events {
                    li {
                        (parts::when(held.event.time))
                        a href=(format!("/devices/{}", held.device)) { (held.device) }
                        (event(held))
                    }
                }
            }
        }
    }
}

/// An event in one line.
pub(super) fn event(held: &HeldEvent) -> Markup {
    let (tone, word) = parts::severity_tone(held.event.severity);
    html! {
        span .reason {
            @if tone == Tone::Quiet { (held.event.reason) }
            @else { span class=(format!("badge {}", tone.class())) { (parts::icon(tone)) span .hidden { (word) ": " } (held.event.reason) } }
        }
        span .text { (held.event.message) " " span .muted { (held.event.about) } }
    }
}
