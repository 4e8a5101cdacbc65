//! `/events/stream`: the parts of a page that changed, as server-sent events.
//!
//! The server renders a page's parts again when the store says that something moved, or when a few seconds have
//! passed (a device that falls silent moves nothing), and sends those whose content is not what it sent last. The
//! page replaces an element by id, unless its `data-hash` says that it has this content already: so a stream that
//! broke off picks up where it was, and a page that was rendered before the stream began misses nothing.

use super::fleet::{self, FleetQuery};
use super::login::Viewer;
use super::{Dashboard, PageError, assets, audit, device, rollouts};
use crate::store::{AuditCheck, Change, Store};
use axum::extract::{Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use maud::{Markup, PreEscaped, html};
use model::{DeviceName, Digest};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// Silence becomes visible this long after it became true, at the latest.
const TICK: Duration = Duration::from_secs(3);
/// The least time between two renderings for one page.
const CALM: Duration = Duration::from_millis(250);

/// A part of a page that is replaced as a whole.
#[derive(Debug, Clone)]
pub(super) struct Fragment {
    id: String,
    hash: String,
    html: Markup,
    /// Fragments within this one: sent with it.
    holds: Vec<String>,
}

fn hash_of(text: &str) -> String {
    Digest::of(text.as_bytes()).short()
}

impl Fragment {
    /// `frame` makes the element around `inner`; it puts the id and the hash on it.
    pub(super) fn of(id: &str, frame: impl Fn(&str, &str, &Markup) -> Markup, inner: Markup) -> Self {
        // The frame counts too: a row's colour is a class of its element.
        let hash = hash_of(&frame(id, "", &inner).0);
        Self {
            id: id.to_owned(),
            html: frame(id, &hash, &inner),
            hash,
            holds: Vec::new(),
        }
    }

    /// A fragment that changes only when other things are in it, or in another order; `empty` where none is.
    pub(super) fn list(
        id: &str,
        rows: &[Self],
        frame: impl Fn(&str, &str, &Markup) -> Markup,
        empty: Markup,
    ) -> Self {
        let holds: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let inner = if rows.is_empty() {
            empty
        } else {
            html! { @for row in rows { (row.html) } }
        };
        let hash = hash_of(&holds.join(" "));
        Self {
            id: id.to_owned(),
            html: frame(id, &hash, &inner),
            hash,
            holds,
        }
    }

    /// A section with a heading.
    pub(super) fn section(id: &str, title: &str, inner: Markup) -> Self {
        let heading = format!("{id}-title");
        Self::of(
            id,
            |id, hash, inner| {
                html! {
                    section id=(id) data-hash=(hash) aria-labelledby=(heading) { h2 id=(heading) { (title) } (inner) }
                }
            },
            inner,
        )
    }
}

/// What a page shows now.
#[derive(Debug, Default)]
pub(super) struct Look {
    fragments: Vec<Fragment>,
    /// A word for each thing whose changes are said aloud.
    pub states: BTreeMap<String, String>,
}

impl Look {
    /// Adds a fragment; one that holds others comes before them.
    pub(super) fn add(&mut self, fragment: Fragment) {
        self.fragments.push(fragment);
    }

    /// A fragment, to be put into the page.
    pub(super) fn markup(&self, id: &str) -> Markup {
        let found = self.fragments.iter().find(|fragment| fragment.id == id);
        found.map_or_else(|| PreEscaped(String::new()), |fragment| fragment.html.clone())
    }
}

/// Which page is looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "view", rename_all = "lowercase")]
pub(super) enum View {
    Fleet(FleetQuery),
    Device { name: DeviceName },
    Audit,
    Rollouts,
}

impl View {
    async fn look(&self, store: &Store, checked: &mut Option<AuditCheck>) -> Result<Look, PageError> {
        match self {
            Self::Fleet(query) => fleet::look(store, query).await,
            Self::Device { name } => device::look(store, name).await,
            Self::Rollouts => rollouts::look(store).await,
            Self::Audit => {
                // The page itself looked at the whole chain; from here on only what is new is followed.
                let check = match checked.as_ref() {
                    Some(earlier) => store.check_audit_since(earlier).await?,
                    None => store.check_audit().await?,
                };
                let look = audit::look(store, None, &check).await;
                *checked = Some(check);
                look
            }
        }
    }

    fn shows(&self, change: &Change) -> bool {
        match (self, change) {
            (Self::Fleet(_), Change::Device(_) | Change::Events(_))
            | (Self::Audit, Change::Audit)
            | (Self::Rollouts, Change::Rollouts) => true,
            (Self::Device { name }, Change::Device(moved) | Change::Events(moved)) => name == moved,
            _ => false,
        }
    }
}

/// What a stream has sent so far.
#[derive(Debug, Default)]
struct Sent {
    hashes: HashMap<String, String>,
    states: Option<BTreeMap<String, String>>,
}

impl Sent {
    /// The fragments that differ from what was sent, and the sentences that say what changed.
    fn news(&mut self, look: Look) -> (Vec<Fragment>, Vec<String>) {
        let mut news = Vec::new();
        let mut covered: Vec<String> = Vec::new();
        for fragment in look.fragments {
            let old = self.hashes.insert(fragment.id.clone(), fragment.hash.clone());
            if old.as_ref() == Some(&fragment.hash) || covered.contains(&fragment.id) {
                continue;
            }
            covered.extend(fragment.holds.iter().cloned());
            news.push(fragment);
        }
        let before = self.states.replace(look.states);
        let said = match (&before, &self.states) {
            (Some(before), Some(now)) => now
                .iter()
                .filter(|(name, word)| before.get(*name).is_some_and(|old| old != *word))
                .map(|(name, word)| format!("{name} is now {word}"))
                .collect(),
            _ => Vec::new(),
        };
        (news, said)
    }
}

/// `GET /events/stream?view=...`.
pub(super) async fn stream(
    viewer: Option<Viewer>,
    State(dashboard): State<Dashboard>,
    Query(view): Query<View>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (out, events) = mpsc::channel(16);
    tokio::spawn(async move {
        // A refusal would make the browser give up; this tells the page to log in again.
        if viewer.is_none() {
            let _ = out.send(Event::default().event("gone").data("log in")).await;
            return;
        }
        let store = dashboard.store;
        dashboard.stop.run_until_cancelled(follow(store, view, out)).await;
    });
    let stream = tokio_stream::StreamExt::map(ReceiverStream::new(events), Ok);
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Ends when the browser has gone away.
async fn follow(store: Store, view: View, out: mpsc::Sender<Event>) {
    let mut changes = store.changes();
    let mut sent = Sent::default();
    let mut checked = None;
    let hello = Event::default().event("hello").data(&*assets::VERSION);
    if out.send(hello).await.is_err() {
        return;
    }
    loop {
        let began = Instant::now();
        match view.look(&store, &mut checked).await {
            Ok(look) => {
                let (news, said) = sent.news(look);
                for event in news.iter().map(fragment_event).chain(said_event(&said)) {
                    if out.send(event).await.is_err() {
                        return;
                    }
                }
            }
            Err(err) => tracing::warn!(?err, "a live page could not be rendered"),
        }
        let took = began.elapsed();
        tokio::select! {
            () = out.closed() => return,
            () = moved(&mut changes, &view) => {}
            () = tokio::time::sleep(TICK) => {}
        }
        // What moves together is shown together; and where looking is dear, it is done less often.
        tokio::time::sleep(CALM.max(took * 4)).await;
    }
}

fn fragment_event(fragment: &Fragment) -> Event {
    let data = serde_json::json!({ "id": fragment.id, "hash": fragment.hash, "html": fragment.html.0 });
    Event::default().event("fragment").data(data.to_string())
}

fn said_event(said: &[String]) -> Option<Event> {
    let text = match said {
        [] => return None,
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one}, and {} more changed", rest.len()),
    };
    Some(Event::default().event("say").data(text))
}

/// Returns once something moved that `view` shows.
async fn moved(changes: &mut broadcast::Receiver<Change>, view: &View) {
    loop {
        match changes.recv().await {
            Ok(change) if view.shows(&change) => return,
            Ok(_) => {}
            // Something was missed: look at everything.
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}
