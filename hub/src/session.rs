//! One device's session: its records in, acknowledgements, questions and intents out.

use crate::Hub;
use crate::caller::{Caller, DeviceCaller};
use crate::enrol::check_nonce;
use crate::ingest::Progress;
use crate::problem::Refusal;
use crate::sessions::{Command, Piece, Pieces};
use crate::store::{NewSession, SessionId, StoreError};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use identity::Kind;
use jiff::Timestamp;
use model::{DeviceName, Signed};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use wire::codec::FrameReader;
use wire::frame::{Ask, Hello, Records, ToDevice, ToHub, Welcome};
use wire::server::{DeviceSender, FromDevice};

/// A device must say hello within this time of its request.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Frames that wait for the connection.
const OUT_SLOTS: usize = 16;
/// Bytes of one answer that may be under way.
const WINDOW: u32 = 256 * 1024;
/// Questions that one device answers at the same time.
const MAX_QUESTIONS: usize = 16;

/// `POST /v1/session`: both bodies stay open as long as the session.
pub(crate) async fn open(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    body: Body,
) -> Result<Response, Refusal> {
    let Ok(_opening) = hub.openings.clone().try_acquire_owned() else {
        return Err(Refusal::busy(2));
    };
    let device = hub.admit_device(&caller, Kind::Operational).await?;
    let mut frames = FrameReader::new(body);
    let hello = match tokio::time::timeout(HELLO_WITHIN, frames.next()).await {
        Ok(Ok(Some(ToHub::Hello(hello)))) => *hello,
        Ok(Ok(_)) => return Err(Refusal::bad_request("a session starts with a hello")),
        Ok(Err(err)) => return Err(Refusal::bad_request(kit::chain(&err))),
        Err(_) => return Err(Refusal::bad_request("no hello came")),
    };
    let checked = check(&hub, &device, &hello);
    if let Err(refusal) = &checked {
        let name = device.peer.name.as_str();
        hub.refused(&caller, name, "device.connect", hello.device.as_str(), refusal)
            .await;
    }
    let version = checked?;
    let session = begin(&hub, &device, hello, version, frames).await?;
    Ok(Response::new(Body::new(session)))
}

fn check(hub: &Hub, device: &DeviceCaller, hello: &Hello) -> Result<u32, Refusal> {
    if hello.device != device.peer.name {
        let message = format!(
            "the certificate is of {}, the hello of {}",
            device.peer.name, hello.device
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "WrongCertificate", message));
    }
    if device.peer.domain != hub.config().domain {
        let message = format!("the certificate is of domain {}", device.peer.domain);
        return Err(Refusal::new(StatusCode::FORBIDDEN, "WrongCertificate", message));
    }
    if hello
        .status
        .as_ref()
        .is_some_and(|status| status.device != hello.device)
    {
        return Err(Refusal::bad_request("the status is of another device"));
    }
    check_nonce(&hello.nonce)?;
    wire::OURS
        .common(hello.versions)
        .map_err(|err| Refusal::new(StatusCode::BAD_REQUEST, "UnsupportedVersion", err.to_string()))
}

/// Notes the session and starts it; the answer's body carries its frames.
async fn begin(
    hub: &Arc<Hub>,
    device: &DeviceCaller,
    hello: Hello,
    version: u32,
    frames: FromDevice<Body>,
) -> Result<wire::server::FrameBody, Refusal> {
    let name = &device.peer.name;
    let store = hub.store();
    let opened = NewSession {
        address: device.address.to_string(),
        agent: hello.agent.clone(),
    };
    let session = store.session_opened(name, opened).await?;
    if let (Some(status), Some(at)) = (hello.status, hello.status_at) {
        store.show_status(name, at.epoch, at.upto, status).await?;
    }
    for intent in store.pending_intents(name).await? {
        if intent.id <= hello.last_intent {
            store.intent_delivered(name, intent.id).await?;
        }
    }
    let progress = Progress::load(store, name).await?;
    let welcome = hub.with_authority(|authority| Welcome {
        version,
        cursors: progress.cursors(),
        heartbeat_ms: u64::try_from(hub.config().heartbeat.as_millis()).unwrap_or(u64::MAX),
        time: authority.sign_time(&hello.nonce),
        bundle: (authority.bundle_serial() > hello.bundle_serial).then(|| authority.bundle().clone()),
    });
    let (sender, body) = DeviceSender::channel(OUT_SLOTS);
    // The channel is new and has room; a welcome is far below the bound of a frame.
    let _ = sender.send(&ToDevice::Welcome(Box::new(welcome))).await;
    let (commands, orders) = mpsc::unbounded_channel();
    hub.sessions.add(name, session, commands);
    let live = LiveSession {
        hub: hub.clone(),
        name: name.clone(),
        until: device.peer.not_after,
        session,
        frames,
        sender,
        orders,
        progress,
        questions: HashMap::new(),
    };
    tracing::info!(device = %name, address = %device.address, agent = hello.agent, "session open");
    hub.tasks.spawn_to_end("session", live.run());
    Ok(body)
}

struct Question {
    pieces: Pieces,
    /// Bytes granted and not used yet.
    granted: u64,
}

struct LiveSession {
    hub: Arc<Hub>,
    name: DeviceName,
    /// End of the certificate that opened it.
    until: Timestamp,
    session: SessionId,
    frames: FromDevice<Body>,
    sender: DeviceSender,
    orders: mpsc::UnboundedReceiver<Command>,
    progress: Progress,
    questions: HashMap<u64, Question>,
}

/// The session ends: why.
struct End(String);

impl LiveSession {
    async fn run(mut self) {
        // Those that came while the device was away.
        let why = match self.send_intents().await {
            Ok(()) => self.serve().await,
            Err(end) => end.0,
        };
        tracing::info!(device = %self.name, why, "session closed");
        self.hub.sessions.remove(&self.name, self.session);
        for (_, question) in self.questions.drain() {
            let error = Some("the session with the device ended".into());
            let _ = question.pieces.send(Piece::Done { error });
        }
        if let Err(err) = self.hub.store().session_closed(&self.name, self.session).await {
            tracing::error!(device = %self.name, %err, "the end of a session was not noted");
        }
    }

    async fn serve(&mut self) -> String {
        let heartbeat = self.hub.config().heartbeat;
        let patience = heartbeat * self.hub.config().missed;
        let mut ping = tokio::time::interval(heartbeat);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                frame = self.frames.next() => match frame {
                    Ok(Some(frame)) => {
                        heard = Instant::now();
                        self.hub.store().seen(&self.name, None);
                        self.take(frame).await
                    }
                    Ok(None) => Err(End("the device closed it".into())),
                    Err(err) => Err(End(kit::chain(&err))),
                },
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => Err(End("it was given up".into())),
                },
                _ = ping.tick() => self.beat().await,
                () = tokio::time::sleep_until(heard + patience) => {
                    Err(End(format!("nothing was heard for {} s", patience.as_secs_f32())))
                }
                () = self.sender.closed() => Err(End("the device is gone".into())),
            };
            if let Err(End(why)) = step {
                return why;
            }
        }
    }

    async fn beat(&mut self) -> Result<(), End> {
        // TLS looks at the dates only when a connection opens; nobody stays in by never closing one.
        if self.until < self.hub.now() {
            return Err(self.bye("the certificate has expired; renew it", Some(1)).await);
        }
        self.send(ToDevice::Ping {
            nonce: rand::random(),
        })
        .await
    }

    async fn send(&mut self, frame: ToDevice) -> Result<(), End> {
        // A device that takes nothing must not hold this task for ever.
        let patience = self.hub.config().heartbeat * self.hub.config().missed;
        match tokio::time::timeout(patience, self.sender.send(&frame)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(End("the device is gone".into())),
            Ok(Err(err)) => Err(End(kit::chain(&err))),
            Err(_) => Err(End("the device takes nothing".into())),
        }
    }

    async fn bye(&mut self, reason: &str, retry_after: Option<u64>) -> End {
        let _ = self
            .send(ToDevice::Bye {
                reason: reason.into(),
                retry_after,
            })
            .await;
        End(reason.to_owned())
    }

    async fn take(&mut self, frame: ToHub) -> Result<(), End> {
        match frame {
            ToHub::Hello(_) => Err(self.bye("a second hello", None).await),
            ToHub::Records(records) => self.store(records).await,
            ToHub::Chunk(chunk) => {
                let Some(question) = self.questions.get_mut(&chunk.id) else {
                    // It was on its way when the question was cancelled.
                    return Ok(());
                };
                let size = chunk.data.len() as u64;
                if size > question.granted {
                    return Err(self.bye("more of an answer than was granted", None).await);
                }
                question.granted -= size;
                if question.pieces.send(Piece::Data(chunk.data)).is_err() {
                    self.questions.remove(&chunk.id);
                    return self.send(ToDevice::Cancel { id: chunk.id }).await;
                }
                Ok(())
            }
            ToHub::Done(done) => {
                if let Some(question) = self.questions.remove(&done.id) {
                    let _ = question.pieces.send(Piece::Done { error: done.error });
                }
                Ok(())
            }
            ToHub::Accepted { intent } => {
                if let Err(err) = self.hub.store().intent_delivered(&self.name, intent).await {
                    tracing::warn!(device = %self.name, intent, %err, "the delivery of an intent was not noted");
                }
                Ok(())
            }
            ToHub::Accounts(accounts) => {
                if let Err(err) = self.hub.store().take_accounts(&self.name, accounts).await {
                    tracing::warn!(device = %self.name, %err, "the device's accounts were not taken");
                }
                Ok(())
            }
            ToHub::Pong { .. } => Ok(()),
        }
    }

    async fn store(&mut self, records: Records) -> Result<(), End> {
        let stream = records.stream.clone();
        match self.progress.take(self.hub.store(), &self.name, records).await {
            Ok(ack) => self.send(ToDevice::Ack(ack)).await,
            Err(err @ StoreError::Revoked(_)) => Err(self.bye(&err.to_string(), None).await),
            Err(err) => {
                tracing::error!(device = %self.name, stream, %err, "records were not stored");
                Err(self
                    .bye(
                        "the hub could not store records; send them again",
                        Some(rand::random_range(5..=15)),
                    )
                    .await)
            }
        }
    }

    async fn obey(&mut self, order: Command) -> Result<(), End> {
        match order {
            Command::Ask { pieces, .. } if self.questions.len() >= MAX_QUESTIONS => {
                let error = Some(format!(
                    "the device answers {MAX_QUESTIONS} questions already; end one first"
                ));
                let _ = pieces.send(Piece::Done { error });
                Ok(())
            }
            Command::Ask { id, what, pieces } => {
                self.questions.insert(
                    id,
                    Question {
                        pieces,
                        granted: u64::from(WINDOW),
                    },
                );
                self.send(ToDevice::Ask(Ask {
                    id,
                    window: WINDOW,
                    what,
                }))
                .await
            }
            Command::More { id, bytes } => {
                let Some(question) = self.questions.get_mut(&id) else {
                    return Ok(());
                };
                question.granted += u64::from(bytes);
                self.send(ToDevice::More { id, bytes }).await
            }
            Command::Cancel { id } => match self.questions.remove(&id) {
                Some(_) => self.send(ToDevice::Cancel { id }).await,
                None => Ok(()),
            },
            Command::Intents => self.send_intents().await,
            Command::Bye { reason, retry_after } => Err(self.bye(&reason, retry_after).await),
        }
    }

    /// Sends what the device has not accepted; it refuses by number what it has seen already.
    async fn send_intents(&mut self) -> Result<(), End> {
        let pending = self.hub.store().pending_intents(&self.name).await;
        for intent in pending.map_err(|err| End(kit::chain(&err)))? {
            match serde_json::from_slice::<Signed>(&intent.signed) {
                Ok(signed) => self.send(ToDevice::Intent { signed }).await?,
                Err(err) => {
                    tracing::error!(device = %self.name, intent = intent.id, %err, "a stored intent does not parse")
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for LiveSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveSession({})", self.name)
    }
}
