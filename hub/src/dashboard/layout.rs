//! The frame around every page.

use super::assets;
use super::login::{Viewer, cookie};
use crate::store::Role;
use axum::Form;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

const THEME_COOKIE: &str = "leeward_theme";

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Fleet,
    Device,
    Logs,
    Rollouts,
    Audit,
}

/// The theme that somebody chose; the system's where none.
pub(super) fn theme_of(headers: &HeaderMap) -> Option<&'static str> {
    match cookie(headers, THEME_COOKIE)? {
        "dark" => Some("dark"),
        "light" => Some("light"),
        _ => None,
    }
}

/// The product's sign: a sail with the wind on its back.
pub(super) fn mark() -> Markup {
    html! {
        svg .mark viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" {
            path .sail d="M13 2.5c4.6 3.6 7 8.3 7.3 13.5H13z" {}
            path .jib d="M11 6c-3.6 2.6-6.4 5.9-8 10h8z" {}
            path .hull d="M2.5 18h19c-.9 2.3-2.7 3.5-5.2 3.5H7.7C5.2 21.5 3.4 20.3 2.5 18z" {}
        }
    }
}

fn document(title: &str, theme: Option<&str>, live: Option<&str>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Leeward" }
                link rel="icon" href=(assets::path("mark.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(assets::path("dashboard.css"));
                script src=(assets::path("dashboard.js")) defer {}
            }
            body data-live=[live] data-version=(*assets::VERSION) {
                a .skip href="#main" { "Skip to content" }
                (body)
            }
        }
    }
}

/// A page without navigation.
pub(super) fn bare(title: &str, theme: Option<&str>, body: &Markup) -> Markup {
    document(title, theme, None, body)
}

/// A page that only says something.
pub(super) fn plain(title: &str, message: &str) -> Markup {
    let body = html! {
        main #main .login tabindex="-1" {
            (mark())
            h1 { (title) }
            p { (message) }
            p { a href="/" { "Back to the fleet" } }
        }
    };
    bare(title, None, &body)
}

/// A page with navigation; `live` is the query of its event stream.
pub(super) fn page(
    viewer: &Viewer,
    place: Place,
    title: &str,
    live: Option<&str>,
    content: &Markup,
) -> Markup {
    let current = |here: Place| (here == place).then_some("page");
    let body = html! {
        header .bar {
            a .home href="/" aria-label="Leeward: the fleet" { (mark()) span { "Leeward" } }
            nav aria-label="Main" {
                a href="/" aria-current=[current(Place::Fleet)] { "Fleet" }
                a href="/logs" aria-current=[current(Place::Logs)] { "Logs" }
                a href="/rollouts" aria-current=[current(Place::Rollouts)] { "Roll-outs" }
                a href="/audit" aria-current=[current(Place::Audit)] { "Audit" }
            }
            div .tools {
                @if live.is_some() {
                    span #live .live role="status" { span .dot aria-hidden="true" {} span .word { "Not live" } }
                }
                form #theme method="post" action="/theme" {
                    input type="hidden" name="to" value=(if viewer.theme == Some("dark") { "light" } else { "dark" });
                    button type="submit" title="Switch between light and dark" aria-label="Switch between light and dark" {
                        svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
                            circle cx="8" cy="8" r="6.25" fill="none" stroke="currentColor" stroke-width="1.5" {}
                            path d="M8 1.75a6.25 6.25 0 0 1 0 12.5z" fill="currentColor" {}
                        }
                    }
                }
                form method="post" action="/logout" {
                    span .who {
                        (viewer.person.name)
                        @if viewer.person.role == Role::Viewer { " (viewer)" }
                    }
                    button type="submit" { "Log out" }
                }
            }
        }
        main #main tabindex="-1" { (content) }
        // What changes is said here too, for those who do not see it move.
        div #said .hidden role="log" aria-live="polite" aria-label="Changes" {}
    };
    document(title, viewer.theme, live, &body)
}

/// What the theme's form sends.
#[derive(Debug, Deserialize)]
pub(super) struct Theme {
    to: String,
}

/// `POST /theme`: keeps the choice for a year. With scripts on, the page does this itself.
pub(super) async fn set_theme(headers: HeaderMap, Form(theme): Form<Theme>) -> Response {
    let to = if theme.to == "dark" { "dark" } else { "light" };
    let cookie = format!("{THEME_COOKIE}={to}; SameSite=Lax; Path=/; Max-Age=31536000");
    // Back to where the button was; only the path of it is used.
    let back = headers
        .get(header::REFERER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<axum::http::Uri>().ok())
        .map_or_else(|| "/".to_owned(), |uri| uri.path().to_owned());
    ([(header::SET_COOKIE, cookie)], Redirect::to(&back)).into_response()
}
