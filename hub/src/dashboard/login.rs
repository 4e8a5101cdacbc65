//! Who is looking: a bearer token or a one-time code becomes a session cookie that scripts cannot read.

use super::{Dashboard, PageError, layout};
use crate::store::{Act, PassKind, Person, StoreError};
use axum::extract::{FromRequestParts, OptionalFromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json, http::Uri};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use maud::html;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use wire::api::{LoginLink, Problem};

/// A session's length.
const SESSION: SignedDuration = SignedDuration::from_hours(12);
/// Failed log-ins within [`WINDOW`] that are written down.
const MAX_TRIES: usize = 20;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// How long a link opens a session.
const LINK: SignedDuration = SignedDuration::from_mins(15);

/// Failed log-ins of late, so that guessing cannot flood the audit trail.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<Vec<Timestamp>>);

impl Tries {
    /// Notes one; true where there were too many of late for one more to be written down.
    fn failed(&self, now: Timestamp) -> bool {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|at| now.duration_since(*at).abs() < WINDOW);
        let spent = failed.len() >= MAX_TRIES;
        if !spent {
            failed.push(now);
        }
        spent
    }
}

/// A value among the request's cookies.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn cookie_name(secure: bool) -> &'static str {
    // The prefix makes browsers refuse the cookie from anybody but this very host, over TLS.
    if secure { "__Host-leeward" } else { "leeward" }
}

fn session_cookie(secure: bool, secret: &str, seconds: i64) -> String {
    let name = cookie_name(secure);
    let tls = if secure { "; Secure" } else { "" };
    format!("{name}={secret}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{tls}")
}

/// Somebody who has logged in; a page that takes one sends everybody else to the log-in.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    /// Who.
    pub person: Person,
    /// The theme that they chose.
    pub theme: Option<&'static str>,
}

impl OptionalFromRequestParts<Dashboard> for Viewer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Dashboard) -> Result<Option<Self>, Infallible> {
        let Some(secret) = cookie(&parts.headers, cookie_name(state.secure)) else {
            return Ok(None);
        };
        let person = state.store.session_of(secret).await.unwrap_or_else(|err| {
            tracing::error!(%err, "sessions cannot be read");
            None
        });
        let theme = layout::theme_of(&parts.headers);
        Ok(person.map(|person| Self { person, theme }))
    }
}

impl FromRequestParts<Dashboard> for Viewer {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, state: &Dashboard) -> Result<Self, Redirect> {
        let Ok(viewer) = <Self as OptionalFromRequestParts<_>>::from_request_parts(parts, state).await;
        viewer.ok_or_else(|| {
            let wanted = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            Redirect::to(&format!("/login?next={}", percent_encode(wanted)))
        })
    }
}

/// As a value within a query.
pub(super) fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// A place on this hub to go to; anything else leads to the start page, so that a link cannot lead elsewhere.
fn local(next: Option<&str>) -> String {
    next.filter(|path| path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\n', '\r']))
        .filter(|path| path.parse::<Uri>().is_ok_and(|uri| uri.authority().is_none()))
        .unwrap_or("/")
        .to_owned()
}

/// What a link to the log-in carries.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    next: Option<String>,
    code: Option<String>,
}

/// `GET /login`: the form, or a session at once for a one-time code.
pub(super) async fn form(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    if let Some(code) = &asked.code {
        if let Some(person) = dashboard.store.use_login(code).await? {
            return Ok(open(&dashboard, &person, asked.next.as_deref()).await?);
        }
        let trouble = "This link was used already or is too old. Log in with a token, or ask for a new link.";
        return Ok(show(
            &headers,
            asked.next.as_deref(),
            Some(trouble),
            StatusCode::UNAUTHORIZED,
        ));
    }
    Ok(show(&headers, asked.next.as_deref(), None, StatusCode::OK))
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Filled {
    token: String,
    next: Option<String>,
}

/// `POST /login`.
pub(super) async fn submit(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> Result<Response, PageError> {
    let next = filled.next.as_deref();
    if let Some(person) = dashboard.store.person(filled.token.trim()).await? {
        return Ok(open(&dashboard, &person, next).await?);
    }
    // A good token always opens: nobody can shut others out by guessing.
    if dashboard.tries.failed(dashboard.store.options().clock.now()) {
        let trouble = "Too many failed log-ins. Try again in a minute.";
        return Ok(show(&headers, next, Some(trouble), StatusCode::TOO_MANY_REQUESTS));
    }
    let act = Act {
        who: "somebody".into(),
        action: "login".into(),
        target: "dashboard".into(),
        outcome: "the token is not known".into(),
        detail: String::new(),
    };
    dashboard.store.audit(act).await?;
    let trouble = "This token is not known, or it has expired. Whoever runs the hub can make a new one.";
    Ok(show(&headers, next, Some(trouble), StatusCode::UNAUTHORIZED))
}

/// `POST /v1/login-links` with a bearer token: the path of a link that opens one session, once, within a quarter of an hour.
pub(super) async fn link(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let person = match token {
        Some(token) => dashboard.store.person(token.trim()).await?,
        None => None,
    };
    let Some(person) = person else {
        let problem = Problem {
            reason: "Unauthorized".into(),
            message: "this needs a person's bearer token that is known and has not expired".into(),
        };
        return Ok((StatusCode::UNAUTHORIZED, Json(problem)).into_response());
    };
    let code = secret();
    let until = dashboard.store.options().clock.now() + LINK;
    dashboard
        .store
        .give_pass(&person.name, PassKind::Login, &code, until)
        .await?;
    let link = LoginLink {
        path: format!("/login?code={code}"),
        expires_at: until,
    };
    Ok(Json(link).into_response())
}

/// 256 random bits as text.
fn secret() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

async fn open(dashboard: &Dashboard, person: &Person, next: Option<&str>) -> Result<Response, StoreError> {
    let secret = secret();
    let until = dashboard.store.options().clock.now() + SESSION;
    dashboard
        .store
        .give_pass(&person.name, PassKind::Session, &secret, until)
        .await?;
    let act = Act {
        who: person.name.clone(),
        action: "login".into(),
        target: "dashboard".into(),
        outcome: "ok".into(),
        detail: String::new(),
    };
    dashboard.store.audit(act).await?;
    let cookie = session_cookie(dashboard.secure, &secret, SESSION.as_secs());
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&local(next))).into_response())
}

/// `POST /logout`.
pub(super) async fn logout(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    if let Some(secret) = cookie(&headers, cookie_name(dashboard.secure)) {
        dashboard.store.end_session(secret).await?;
    }
    let cookie = session_cookie(dashboard.secure, "", 0);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

fn show(headers: &HeaderMap, next: Option<&str>, trouble: Option<&str>, code: StatusCode) -> Response {
    let body = html! {
        main #main .login tabindex="-1" {
            (layout::mark())
            h1 { "Log in to Leeward" }
            @if let Some(trouble) = trouble {
                p .notice.is-bad role="alert" { (trouble) }
            }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(local(next));
                label for="token" { "Access token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password" spellcheck="false";
                button .primary type="submit" { "Log in" }
            }
            p .muted { "Tokens are made at the hub. Nothing is sent anywhere else." }
        }
    };
    (code, layout::bare("Log in", layout::theme_of(headers), &body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_cannot_lead_elsewhere() {
        for kept in ["/", "/devices/pi?x=1", "/?q=a%20b"] {
            assert_eq!(local(Some(kept)), kept);
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\r\nSet-Cookie: x",
            "evil",
        ] {
            assert_eq!(local(Some(bad)), "/", "{bad:?}");
        }
    }

    #[test]
    fn cookies_are_told_apart_by_whole_names() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            "xleeward=1; leeward=2;leeward_theme=dark".parse().unwrap(),
        );
        assert_eq!(cookie(&headers, "leeward"), Some("2"));
        assert_eq!(cookie(&headers, "leeward_theme"), Some("dark"));
        assert_eq!(cookie(&headers, "absent"), None);
    }

    #[test]
    fn guessing_is_slowed_and_forgiven() {
        let tries = Tries::default();
        let now = Timestamp::UNIX_EPOCH;
        assert!((0..MAX_TRIES).all(|_| !tries.failed(now)));
        assert!(tries.failed(now));
        assert!(!tries.failed(now + WINDOW));
    }
}
