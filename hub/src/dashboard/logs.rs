//! The output of a container, asked of the device through its session.

use super::login::Viewer;
use super::{Dashboard, LogTail, PageError};
use crate::store::Act;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use bytes::Bytes;
use model::DeviceName;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of an unfinished line that are held back at most.
const MAX_LINE: usize = 64 * 1024;
/// Lines that a person is shown at most at once.
const MAX_LINES: u32 = 5000;

/// The device of this name; that its output is asked for is written into the audit trail.
async fn known(
    dashboard: &Dashboard,
    viewer: &Viewer,
    name: &str,
    tail: &LogTail,
) -> Result<DeviceName, PageError> {
    let missing = || PageError::NoSuchDevice(name.to_owned());
    let device = name.parse().map_err(|_| missing())?;
    dashboard.store.device(&device).await?.ok_or_else(missing)?;
    let act = Act {
        who: viewer.person.name.clone(),
        action: "logs.read".into(),
        target: format!("{device}/{}/{}", tail.namespace, tail.pod),
        outcome: "ok".into(),
        detail: format!("container {}, by the dashboard", tail.container),
    };
    dashboard.store.audit(act).await?;
    Ok(device)
}

/// `GET /devices/{name}/logs?namespace=&pod=&container=`: the last lines as plain text, for pages without scripts.
pub(super) async fn text(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    Query(mut tail): Query<LogTail>,
) -> Result<Response, PageError> {
    let device = known(&dashboard, &viewer, &name, &tail).await?;
    tail.lines = tail.lines.min(MAX_LINES);
    tail.follow = false;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok(match dashboard.logs.tail(&device, tail).await {
        Ok(chunks) => {
            let body = ReceiverStream::new(chunks).map(|chunk| {
                Ok::<_, Infallible>(chunk.unwrap_or_else(|err| Bytes::from(format!("\n{err}\n"))))
            });
            (kind, Body::from_stream(body)).into_response()
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, kind, format!("{why}\n")).into_response(),
    })
}

/// `GET /devices/{name}/logs/stream?namespace=&pod=&container=`: `lines` events, each a JSON list, then one `end`.
pub(super) async fn stream(
    viewer: Viewer,
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    Query(mut tail): Query<LogTail>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, PageError> {
    let device = known(&dashboard, &viewer, &name, &tail).await?;
    tail.lines = tail.lines.min(MAX_LINES);
    tail.follow = true;
    let (out, events) = mpsc::channel(16);
    let logs = dashboard.logs.clone();
    tokio::spawn(async move {
        let why = match logs.tail(&device, tail).await {
            Ok(chunks) => match pass_on(chunks, &out).await {
                Some(why) => why,
                None => return,
            },
            Err(why) => why,
        };
        let _ = out.send(Event::default().event("end").data(one_line(&why))).await;
    });
    let stream = ReceiverStream::new(events).map(Ok);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// Sends what comes as whole lines; says why it ended, or `None` where the browser has gone.
async fn pass_on(mut chunks: super::LogChunks, out: &mpsc::Sender<Event>) -> Option<String> {
    let mut lines = Lines::default();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            () = out.closed() => return None,
        };
        let (whole, end) = match chunk {
            Some(Ok(data)) => (lines.push(&data), None),
            Some(Err(why)) => (lines.rest(), Some(why)),
            None => (lines.rest(), Some("The output ended.".to_owned())),
        };
        if !whole.is_empty() {
            let data = serde_json::Value::from(whole).to_string();
            out.send(Event::default().event("lines").data(data)).await.ok()?;
        }
        if end.is_some() {
            return end;
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// Cuts a stream of bytes into lines, whatever the chunks.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, data: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(data);
        let Some(end) = self.0.iter().rposition(|b| *b == b'\n') else {
            // A line without end is shown in pieces rather than held in memory.
            return if self.0.len() > MAX_LINE {
                self.rest()
            } else {
                Vec::new()
            };
        };
        let tail = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, tail);
        split(&whole)
    }

    fn rest(&mut self) -> Vec<String> {
        split(&std::mem::take(&mut self.0))
    }
}

fn split(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_chunks(text in "[ab\n]{0,80}", cuts in prop::collection::vec(0_usize..80, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                got.extend(lines.push(&text.as_bytes()[pair[0]..pair[1]]));
            }
            got.extend(lines.rest());
            prop_assert_eq!(got, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; MAX_LINE + 1]).len(), 1);
        assert!(lines.0.is_empty());
    }
}
