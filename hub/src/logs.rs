//! A container's output from the device through the hub to a person, as fast as the person takes it.

use crate::Hub;
use crate::caller::PersonCaller;
use crate::problem::Refusal;
use crate::sessions::{Command, Commands, Piece};
use crate::store::Act;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use model::DeviceName;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::api::ERROR_TRAILER;
use wire::frame::{LogAsk, Question};

/// A refusal of the device within this time becomes the answer's status; later ones come as its trailer.
const REFUSAL_WITHIN: Duration = Duration::from_secs(2);

/// `GET /v1/devices/{name}/logs`
pub(crate) async fn logs(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    Path(name): Path<DeviceName>,
    query: Result<Query<LogAsk>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ask) = query.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let target = format!("{name}/{}/{}", ask.namespace, ask.pod);
    let act = Act {
        who: person.name,
        action: "logs.read".into(),
        target,
        outcome: "ok".into(),
        ..Act::default()
    };
    let answer = hub.ask(&name, Question::Logs(ask)).await?;
    hub.store().audit(act).await?;
    let mut response = Response::new(Body::new(answer));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

impl Hub {
    /// Asks a device; the answer comes as it is read, and the device is told to stop when it is dropped.
    pub(crate) async fn ask(&self, name: &DeviceName, what: Question) -> Result<Answer, Refusal> {
        let Some(commands) = self.sessions.of(name) else {
            return Err(match self.store().device(name).await? {
                None => Refusal::not_found(format!(
                    "no device is called {name}; `leeward get devices` lists them"
                )),
                Some(_) => Refusal::new(
                    StatusCode::CONFLICT,
                    "Disconnected",
                    format!("device {name} has no session now"),
                ),
            });
        };
        let id = self.sessions.question();
        let (sender, pieces) = mpsc::unbounded_channel();
        let gone = || {
            Refusal::new(
                StatusCode::CONFLICT,
                "Disconnected",
                format!("the session of device {name} just ended"),
            )
        };
        commands
            .send(Command::Ask {
                id,
                what,
                pieces: sender,
            })
            .map_err(|_| gone())?;
        let mut answer = Answer {
            id,
            commands,
            pieces,
            first: None,
            done: false,
        };
        match tokio::time::timeout(REFUSAL_WITHIN, answer.pieces.recv()).await {
            Err(_) => {}
            Ok(None) => return Err(gone()),
            Ok(Some(Piece::Done { error: Some(error) })) => {
                answer.done = true;
                return Err(Refusal::new(
                    StatusCode::BAD_GATEWAY,
                    "DeviceRefused",
                    format!("device {name}: {error}"),
                ));
            }
            Ok(first) => answer.first = first,
        }
        Ok(answer)
    }
}

/// An answer as the body of a response.
#[derive(Debug)]
pub(crate) struct Answer {
    id: u64,
    commands: Commands,
    pieces: mpsc::UnboundedReceiver<Piece>,
    first: Option<Piece>,
    done: bool,
}

impl Answer {
    fn end(&mut self, error: Option<&str>) -> Option<Result<Frame<Bytes>, Infallible>> {
        self.done = true;
        let mut trailers = HeaderMap::new();
        // Newlines and the like cannot stand in a header.
        let clean: String = error?
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        trailers.insert(ERROR_TRAILER, HeaderValue::from_str(&clean).ok()?);
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => match self.pieces.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece,
            },
        };
        Poll::Ready(match piece {
            Some(Piece::Data(data)) => {
                // The connection asks for the next piece only when it has room: this is what it has taken.
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let _ = self.commands.send(Command::More { id: self.id, bytes });
                Some(Ok(Frame::data(data)))
            }
            Some(Piece::Done { error }) => self.end(error.as_deref()),
            None => self.end(Some("the session with the device ended")),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.commands.send(Command::Cancel { id: self.id });
        }
    }
}
