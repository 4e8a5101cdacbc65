//! A device's session: records out, acknowledgements, questions and intents in.

use super::connect::{ConnectError, Connection, HubAddress, open_metered};
use super::meter::Meter;
use crate::codec::{FrameError, FrameReader, encode};
use crate::frame::{
    Accounts, Ack, Ask, Chunk, Cursor, Done, Hello, Question, Records, ToDevice, ToHub, Welcome,
};
use crate::server::FrameBody;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::Signed;
use rustls::ClientConfig;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// The hub must say `Welcome` within this time.
const WELCOME_WITHIN: Duration = Duration::from_secs(20);
/// Frames that wait for the connection; each batch is bounded by the codec.
const OUT_SLOTS: usize = 8;
/// Orders that wait for the device.
const ORDER_SLOTS: usize = 32;
/// Answers go out in pieces of at most this many bytes, so that records are not kept waiting.
const PIECE: usize = 16 * 1024;

/// What the hub wants of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Answer by [`SessionSender::chunk`] and [`SessionSender::done`].
    Ask {
        /// Names the answer.
        id: u64,
        /// What is asked.
        what: Question,
    },
    /// The one who asked has gone: stop answering.
    Cancel {
        /// Which question.
        id: u64,
    },
    /// To be verified by `identity` before it is read.
    Intent(Signed),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The hub said so.
    #[error("the hub ended the session: {reason}")]
    ByHub {
        /// In its words.
        reason: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// Nothing came for three heartbeats.
    #[error("the hub was silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The connection broke, or the hub sent what is no frame.
    #[error("the session broke: {0}")]
    Broken(String),
}

/// The session has ended; [`Session::ended`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct Closed;

/// An open session. Dropped, it closes its connection.
#[derive(Debug)]
pub struct Session {
    welcome: Welcome,
    sender: SessionSender,
    acks: watch::Receiver<BTreeMap<String, Cursor>>,
    ahead: watch::Receiver<BTreeMap<String, u64>>,
    ended: watch::Receiver<Option<Ended>>,
    _reader: AbortOnDropHandle<()>,
    _connection: Connection,
}

/// Orders in the order in which they came; ends with the session.
pub type Orders = mpsc::Receiver<Order>;

/// Sends frames of a session; clones share it.
#[derive(Debug, Clone)]
pub struct SessionSender {
    out: mpsc::Sender<Bytes>,
    /// What each open question still grants, in bytes.
    grants: Arc<Mutex<HashMap<u64, Arc<Semaphore>>>>,
}

impl SessionSender {
    /// Sends records; waits while the connection is full. Stored is what [`Session::acks`] says.
    ///
    /// A batch beyond the bound of a frame goes in parts. A record that no frame can hold is told as lost: it would come
    /// back at every try and hold everything behind it for ever.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn records(&self, batch: Records) -> Result<(), Closed> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match encode_records(&mut part) {
                Part::Frame(bytes) => self.out.send(bytes).await.map_err(|_| Closed)?,
                Part::Halves(halves) => {
                    let [first, rest] = *halves;
                    parts.extend([rest, first]);
                }
            }
        }
        Ok(())
    }

    /// Sends a part of an answer; waits until the hub wants it and the connection takes it.
    ///
    /// # Errors
    /// [`Closed`] where the session ended or the question was cancelled: there is no more use in answering.
    pub async fn chunk(&self, id: u64, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let grant = self.grant(id).ok_or(Closed)?;
            // Below PIECE, so it fits.
            let granted = grant.acquire_many(piece.len() as u32).await;
            granted.map_err(|_| Closed)?.forget();
            self.send(&ToHub::Chunk(Chunk { id, data: piece })).await?;
        }
        Ok(())
    }

    /// Ends an answer.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn done(&self, id: u64, error: Option<String>) -> Result<(), Closed> {
        self.forget(id);
        self.send(&ToHub::Done(Done { id, error })).await
    }

    /// Says that an intent was accepted: its number is on disk.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn accepted(&self, intent: u64) -> Result<(), Closed> {
        self.send(&ToHub::Accepted { intent }).await
    }

    /// Tells where every record is.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn accounts(&self, accounts: Accounts) -> Result<(), Closed> {
        self.send(&ToHub::Accounts(accounts)).await
    }

    fn grant(&self, id: u64) -> Option<Arc<Semaphore>> {
        self.grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    fn allow(&self, id: u64, bytes: u32) {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = grants.entry(id).or_insert_with(|| Arc::new(Semaphore::new(0)));
        // The hub grants what it has room for; a sum beyond the semaphore's bound would be a mistake there.
        if grant.available_permits() < Semaphore::MAX_PERMITS / 2 {
            grant.add_permits(bytes as usize);
        }
    }

    fn forget(&self, id: u64) {
        if let Some(grant) = self
            .grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id)
        {
            grant.close();
        }
    }

    async fn send(&self, frame: &ToHub) -> Result<(), Closed> {
        let Ok(bytes) = encode(frame) else {
            // A batch beyond the bound is a mistake of the caller that no later try would mend.
            tracing::error!("a frame over the bound was not sent");
            return Err(Closed);
        };
        self.out.send(bytes).await.map_err(|_| Closed)
    }

    /// Sends if there is room now. The reader must never wait for the way out: while it waits nothing is read, and the
    /// hub may be waiting for just that.
    fn send_now(&self, frame: &ToHub) {
        if let Ok(bytes) = encode(frame) {
            let _ = self.out.try_send(bytes);
        }
    }
}

/// A batch on its way out.
enum Part {
    Frame(Bytes),
    /// It is too long for one frame.
    Halves(Box<[Records; 2]>),
}

fn encode_records(batch: &mut Records) -> Part {
    loop {
        if let Ok(bytes) = encode(&ToHub::Records(batch.clone())) {
            return Part::Frame(bytes);
        }
        match batch.halves() {
            Some((first, rest)) => return Part::Halves(Box::new([first, rest])),
            None => {
                let (stream, number) = (&batch.stream, batch.first);
                tracing::error!(
                    stream,
                    number,
                    "a record is too long for a frame; it is told as lost"
                );
                *batch = batch.told_lost();
            }
        }
    }
}

impl Session {
    /// Opens a session. `tls` shows the operational certificate.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] with reason `Revoked`, `CertificateRequired`, `UnsupportedVersion`, `Busy` (with a time to
    /// come back); [`ConnectError::tls`] tells an expired certificate of either side.
    pub async fn connect(
        hub: &HubAddress,
        tls: Arc<ClientConfig>,
        hello: Hello,
    ) -> Result<(Self, Orders), ConnectError> {
        Self::connect_metered(hub, tls, hello, &Meter::default()).await
    }

    /// [`Session::connect`], counting bytes at the socket.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_metered(
        hub: &HubAddress,
        tls: Arc<ClientConfig>,
        hello: Hello,
        meter: &Meter,
    ) -> Result<(Self, Orders), ConnectError> {
        let mut connection = open_metered(hub, tls, meter).await?;
        let (out, body) = FrameBody::channel(OUT_SLOTS);
        let first = encode(&ToHub::Hello(Box::new(hello)))
            .map_err(|err| connection.nonsense("a hello of ours", err.into()))?;
        // The channel is new and has room.
        let _ = out.try_send(first);
        let request = connection
            .request(Method::POST, "/v1/session")
            .body(body.boxed_unsync())
            .map_err(|err| connection.nonsense("a request of ours", err.into()))?;
        let opening = async {
            let answer = connection.call(request).await?;
            let mut frames = FrameReader::<_, ToDevice>::new(answer.into_body());
            let welcome = first_frame(&connection, &mut frames).await?;
            Ok((frames, welcome))
        };
        let opened = tokio::time::timeout(WELCOME_WITHIN, opening).await;
        let (frames, welcome) = match opened {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(ConnectError::Silent {
                    hub: hub.to_string(),
                    after: WELCOME_WITHIN,
                });
            }
        };
        let (orders_in, orders) = mpsc::channel(ORDER_SLOTS);
        let (acks_in, acks) = watch::channel(welcome.cursors.clone());
        let (ahead_in, ahead) = watch::channel(BTreeMap::new());
        let (ended_in, ended) = watch::channel(None);
        let patience = Duration::from_millis(welcome.heartbeat_ms.max(100)) * 3;
        let sender = SessionSender {
            out,
            grants: Arc::default(),
        };
        let reader = Reader {
            frames,
            sender: sender.clone(),
            orders: orders_in,
            acks: acks_in,
            ahead: ahead_in,
            patience,
        };
        let task = tokio::spawn(async move {
            let why = reader.run().await;
            ended_in.send_replace(Some(why));
        });
        let session = Self {
            welcome,
            sender,
            acks,
            ahead,
            ended,
            _reader: AbortOnDropHandle::new(task),
            _connection: connection,
        };
        Ok((session, orders))
    }

    /// What the hub said at the start.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends frames.
    pub fn sender(&self) -> &SessionSender {
        &self.sender
    }

    /// Last stored record of each stream; starts with the cursors of the welcome.
    pub fn acks(&self) -> watch::Receiver<BTreeMap<String, Cursor>> {
        self.acks.clone()
    }

    /// Of streams that were sent ahead of their order: the last number stored so.
    pub fn ahead(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.ahead.clone()
    }

    /// Waits until the hub has stored everything of `stream` up to `cursor`.
    ///
    /// # Errors
    /// [`Closed`] where the session ended before.
    pub async fn acked(&self, stream: &str, cursor: Cursor) -> Result<(), Closed> {
        let mut acks = self.acks.clone();
        match acks
            .wait_for(|held| {
                held.get(stream)
                    .is_some_and(|at| at.epoch == cursor.epoch && at.upto >= cursor.upto)
            })
            .await
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Closed),
        }
    }

    /// Waits for the end, and says why it came.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_else(|| Ended::Broken("unknown".into())),
            Err(_) => Ended::Broken("its task ended".into()),
        }
    }
}

async fn first_frame(
    connection: &Connection,
    frames: &mut FrameReader<Incoming, ToDevice>,
) -> Result<Welcome, ConnectError> {
    let hub = || connection.hub.to_string();
    match frames.next().await {
        Ok(Some(ToDevice::Welcome(welcome))) => Ok(*welcome),
        Ok(Some(ToDevice::Bye { reason, retry_after })) => Err(ConnectError::Refused {
            hub: hub(),
            status: 200,
            problem: crate::api::Problem {
                reason: "Bye".into(),
                message: reason,
            },
            retry_after: retry_after.map(Duration::from_secs),
        }),
        Ok(_) => Err(connection.nonsense("a welcome", "another frame".into())),
        Err(err) => Err(connection.nonsense("a welcome", err.into())),
    }
}

struct Reader {
    frames: FrameReader<Incoming, ToDevice>,
    sender: SessionSender,
    orders: mpsc::Sender<Order>,
    acks: watch::Sender<BTreeMap<String, Cursor>>,
    ahead: watch::Sender<BTreeMap<String, u64>>,
    patience: Duration,
}

impl Reader {
    async fn run(mut self) -> Ended {
        loop {
            let frame = match tokio::time::timeout(self.patience, self.frames.next()).await {
                Err(_) => return Ended::Silent(self.patience),
                Ok(Err(err)) => return Ended::Broken(told(&err)),
                Ok(Ok(None)) => return Ended::Broken("the hub closed the connection".into()),
                Ok(Ok(Some(frame))) => frame,
            };
            if let Some(why) = self.take(frame) {
                return why;
            }
        }
    }

    fn take(&self, frame: ToDevice) -> Option<Ended> {
        match frame {
            ToDevice::Ack(ack) => self.acknowledged(ack),
            // Where there is no room, other frames are on their way and tell the same.
            ToDevice::Ping { nonce } => self.sender.send_now(&ToHub::Pong { nonce }),
            ToDevice::Ask(Ask { id, window, what }) => {
                self.sender.allow(id, window);
                if self.orders.try_send(Order::Ask { id, what }).is_err() {
                    self.sender.forget(id);
                    let error = Some("the device is busy with other questions".into());
                    self.sender.send_now(&ToHub::Done(Done { id, error }));
                }
            }
            ToDevice::More { id, bytes } => {
                if self.sender.grant(id).is_some() {
                    self.sender.allow(id, bytes);
                }
            }
            ToDevice::Cancel { id } => {
                self.sender.forget(id);
                return self.order(Order::Cancel { id });
            }
            ToDevice::Intent { signed } => return self.order(Order::Intent(signed)),
            ToDevice::Bye { reason, retry_after } => {
                return Some(Ended::ByHub {
                    reason,
                    retry_after: retry_after.map(Duration::from_secs),
                });
            }
            ToDevice::Welcome(_) => return Some(Ended::Broken("a second welcome".into())),
        }
        None
    }

    fn acknowledged(&self, ack: Ack) {
        if ack.ahead > 0 {
            self.ahead.send_modify(|held| {
                held.insert(ack.stream.clone(), ack.ahead);
            });
        }
        self.acks.send_modify(|held| {
            let at = held.entry(ack.stream).or_default();
            // Epochs have no order: the newest acknowledgement says which one is in use.
            let upto = if at.epoch == ack.epoch {
                at.upto.max(ack.upto)
            } else {
                ack.upto
            };
            *at = Cursor {
                epoch: ack.epoch,
                upto,
            };
        });
    }

    fn order(&self, order: Order) -> Option<Ended> {
        match self.orders.try_send(order) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Some(Ended::Broken("the device takes no orders".into()))
            }
            // Where nobody listens any more, the session is about to be dropped.
            _ => None,
        }
    }
}

fn told(err: &FrameError) -> String {
    let mut text = err.to_string();
    let mut next = std::error::Error::source(err);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{MAX_BODY, decode};
    use bytes::BytesMut;

    async fn sent(batch: Records) -> Vec<Records> {
        let (out, mut frames) = mpsc::channel(64);
        let sender = SessionSender {
            out,
            grants: Arc::default(),
        };
        sender.records(batch).await.unwrap();
        drop(sender);
        let mut got = Vec::new();
        while let Some(bytes) = frames.recv().await {
            match decode(&mut BytesMut::from(&bytes[..])).unwrap() {
                Some(ToHub::Records(records)) => got.push(records),
                other => panic!("{other:?}"),
            }
        }
        got
    }

    #[tokio::test]
    async fn a_batch_too_long_for_a_frame_goes_in_parts_in_order() {
        let record = |size: usize| Bytes::from(vec![b'x'; size]);
        let records = vec![record(MAX_BODY / 2); 5];
        let got = sent(Records::new("events", 7, 10, records)).await;
        let numbers: Vec<_> = got
            .iter()
            .flat_map(|part| part.first..part.first + part.records().len() as u64)
            .collect();
        assert_eq!(numbers, [10, 11, 12, 13, 14]);
        assert!(got.iter().all(|part| part.lost.is_empty()));
    }

    #[tokio::test]
    async fn a_record_that_no_frame_holds_is_told_as_lost_and_blocks_nothing() {
        let records = vec![
            Bytes::from_static(b"before"),
            Bytes::from(vec![0; MAX_BODY + 1]),
            Bytes::from_static(b"after"),
        ];
        let got = sent(Records::new("events", 7, 10, records)).await;
        let lost: Vec<_> = got.iter().flat_map(|part| part.lost.clone()).collect();
        assert_eq!(lost, [(11, 11)]);
        let kept: Vec<_> = got.iter().flat_map(|part| part.records().to_vec()).collect();
        assert_eq!(kept, ["before", "after"]);
    }
}
