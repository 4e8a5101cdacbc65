//! `/audit`: who told the hub what, and whether the trail is whole.

use super::layout::{self, Place};
use super::live::{Fragment, Look};
use super::login::Viewer;
use super::parts::{self, Tone};
use super::{Dashboard, PageError};
use crate::store::{AuditCheck, AuditRow, Store};
use axum::extract::{Query, State};
use maud::{Markup, html};
use serde::Deserialize;

/// Rows on one page.
const PAGE: usize = 100;

/// Which page.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    before: Option<u64>,
}

/// `GET /audit`.
pub(super) async fn page(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Query(asked): Query<Asked>,
) -> Result<Markup, PageError> {
    let check = dashboard.store.check_audit().await?;
    let shown = look(&dashboard.store, asked.before, &check).await?;
    let content = html! {
        div .title { h1 { "Audit trail" } p .muted { "What people and devices told this hub to do. Each row carries the hash of the one before." } }
        (shown.markup("chain"))
        (shown.markup("trail"))
    };
    // Older pages do not move.
    let live = asked.before.is_none().then_some("view=audit");
    Ok(layout::page(&viewer, Place::Audit, "Audit", live, &content))
}

/// Everything on the page that can change; the chain was checked by whoever asks.
pub(super) async fn look(store: &Store, before: Option<u64>, check: &AuditCheck) -> Result<Look, PageError> {
    let rows = store.audit_rows(before, PAGE).await?;
    let mut look = Look::default();
    look.add(Fragment::of(
        "chain",
        |id, hash, inner| html! { div id=(id) data-hash=(hash) { (inner) } },
        chain(check),
    ));
    look.add(Fragment::of(
        "trail",
        |id, hash, inner| html! { div id=(id) data-hash=(hash) { (inner) } },
        trail(&rows),
    ));
    look.states.insert(
        "the audit trail".into(),
        match check {
            AuditCheck::Whole { .. } => "whole".into(),
            AuditCheck::Broken { .. } => "broken".into(),
        },
    );
    Ok(look)
}

fn chain(check: &AuditCheck) -> Markup {
    html! {
        @match check {
            AuditCheck::Whole { rows, head } => p .notice.is-good {
                (parts::icon(Tone::Good)) span { "The chain is whole: " (rows) " rows" @if *rows > 0 { ", head " (parts::code(head.get(..19).unwrap_or(head))) } "." }
            },
            AuditCheck::Broken { sequence, why } => p .notice.is-bad role="alert" {
                (parts::icon(Tone::Bad)) span { "The chain is broken at row " (sequence) ": " (why) ". What follows cannot be trusted." }
            },
        }
    }
}

fn trail(rows: &[AuditRow]) -> Markup {
    let table = html! {
        table {
            caption .hidden { "Audit rows, newest first" }
            thead { tr {
                th scope="col" .number { "Row" } th scope="col" { "Time" } th scope="col" { "Who" } th scope="col" { "Action" }
                th scope="col" { "Target" } th scope="col" { "Outcome" } th scope="col" { "Detail" } th scope="col" { "Hash" }
            } }
            tbody {
                @for row in rows {
                    tr {
                        td .number { (row.sequence) } td .nowrap { (parts::when(row.time)) } td .nowrap { (row.who) } td { (parts::code(&row.action)) }
                        td .nowrap { (row.target) }
                        td { @if row.outcome == "ok" { "ok" } @else { (parts::badge(Tone::Bad, "refused")) span .sub { (row.outcome) } } }
                        td .wide { (row.detail) }
                        td { code title=(row.hash) { (row.hash.get(7..15).unwrap_or(&row.hash)) } }
                    }
                }
            }
        }
    };
    html! {
        @if rows.is_empty() { p .empty { "No rows." } }
        @else { (parts::scrolling("Audit rows", &table)) }
        nav .pager aria-label="Pages" {
            @if let Some(last) = rows.last().filter(|row| row.sequence > 1) { a rel="next" href=(format!("/audit?before={}", last.sequence)) { "Older" } }
        }
    }
}
