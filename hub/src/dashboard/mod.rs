//! Pages for people: server-rendered, live by server-sent events, every asset in the binary.
//!
//! Takes: the [`Store`] to read from, and a [`LogSource`] that reaches a device's containers.
//! Gives: a [`router`] to be merged into the hub's server. Pages work without scripts; with them, what changes is
//! sent as the fragment of the page that changed ([`live`]).
//! Never: changes what a device runs. A page loads nothing from anywhere else, so that it works where the internet
//! does not, and its policy forbids inline script, so that what devices say cannot become code.

mod assets;
mod audit;
pub mod charts;
mod device;
mod fleet;
mod layout;
mod live;
mod login;
mod logs;
mod parts;
mod rollouts;
pub mod search;

use crate::store::{Store, StoreError};
use axum::Router;
use axum::extract::FromRef;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use maud::{Markup, html};
use model::DeviceName;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Which container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTail {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Only so many of the last lines.
    #[serde(default = "usual_tail")]
    pub lines: u32,
    /// Go on with what is written later.
    #[serde(skip)]
    pub follow: bool,
}

fn usual_tail() -> u32 {
    200
}

/// The output as it comes; an error, in words for people, is the last item.
pub type LogChunks = mpsc::Receiver<Result<Bytes, String>>;

/// Reaches the output of a device's containers; the hub's sessions do.
pub trait LogSource: Send + Sync + 'static {
    /// Asks the device; each line starts with its RFC 3339 time. The question is taken back when the receiver is
    /// dropped. The error says in words for people why the device cannot be asked.
    fn tail(
        &self,
        device: &DeviceName,
        tail: LogTail,
    ) -> Pin<Box<dyn Future<Output = Result<LogChunks, String>> + Send + '_>>;
}

/// What the pages need.
#[derive(Clone)]
pub struct Dashboard {
    store: Store,
    logs: Arc<dyn LogSource>,
    secure: bool,
    stop: CancellationToken,
    tries: Arc<login::Tries>,
    charts: Option<Arc<dyn charts::ChartSource>>,
    lines: Option<Arc<dyn search::LogSearch>>,
}

impl std::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dashboard")
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

impl Dashboard {
    /// `secure` marks the session's cookie for TLS only: true unless the hub is served as plain HTTP on loopback.
    /// Streams end with `stop`, so that a page left open holds up no one.
    pub fn new(store: Store, logs: Arc<dyn LogSource>, secure: bool, stop: CancellationToken) -> Self {
        Self {
            store,
            logs,
            secure,
            stop,
            tries: Arc::default(),
            charts: None,
            lines: None,
        }
    }

    /// Shows charts of the recent past, too.
    #[must_use]
    pub fn with_charts(mut self, charts: Arc<dyn charts::ChartSource>) -> Self {
        self.charts = Some(charts);
        self
    }

    /// Searches log lines, too.
    #[must_use]
    pub fn with_lines(mut self, lines: Arc<dyn search::LogSearch>) -> Self {
        self.lines = Some(lines);
        self
    }

    /// The charts of a page; none where nobody knows the past.
    async fn chart_section(&self, device: Option<&DeviceName>, window: charts::Window, path: &str) -> Markup {
        let Some(source) = &self.charts else {
            return html! {};
        };
        let now = self.store.options().clock.now();
        let charts = source.charts(device, window, now).await;
        charts::section(&charts, window, now, path)
    }
}

impl FromRef<Dashboard> for Store {
    fn from_ref(dashboard: &Dashboard) -> Self {
        dashboard.store.clone()
    }
}

/// The routes of all pages: `/`, `/devices/{name}`, `/logs`, `/rollouts`, `/audit`, `/login`, `/logout`, `/theme`, `/events/stream`,
/// `/assets`; and `POST /v1/login-links`, by which a tool that holds a bearer token opens a browser for its person.
pub fn router(dashboard: Dashboard) -> Router {
    Router::new()
        .route("/", get(fleet::page))
        .route("/devices/{name}", get(device::page))
        .route("/devices/{name}/logs", get(logs::text))
        .route("/devices/{name}/logs/stream", get(logs::stream))
        .route("/events/stream", get(live::stream))
        .route("/audit", get(audit::page))
        .route("/logs", get(search::page))
        .route("/rollouts", get(rollouts::page))
        .route("/login", get(login::form).post(login::submit))
        .route("/logout", post(login::logout))
        .route("/v1/login-links", post(login::link))
        .route("/theme", post(layout::set_theme))
        .route("/assets/{version}/{file}", get(assets::serve))
        .layer(map_response(harden))
        .with_state(dashboard)
}

/// Headers that every answer of the dashboard carries.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages hold what only those who logged in may see; only assets may be kept.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A page that cannot be shown.
#[derive(Debug)]
enum PageError {
    /// The store did not answer.
    Store(StoreError),
    /// No device has this name.
    NoSuchDevice(String),
}

impl From<StoreError> for PageError {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (code, title, message) = match self {
            Self::Store(err) => {
                tracing::error!(%err, "a page could not be shown");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The hub's store did not answer",
                    err.to_string(),
                )
            }
            Self::NoSuchDevice(name) => (
                StatusCode::NOT_FOUND,
                "No such device",
                format!("No device called {name} is enrolled at this hub."),
            ),
        };
        (code, layout::plain(title, &message)).into_response()
    }
}
