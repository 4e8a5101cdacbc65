//! The device's DNS for pods: cluster names from memory, all others forwarded.
//!
//! Takes: questions at the gateway's address, UDP and TCP. Gives: an answer within three seconds, whatever the
//! state of the link: cluster names at once, other names from the resolvers, from the cache, from the cache past
//! its time, or SERVFAIL. Never: answers anybody but the device and its pods, as nobody else can reach the address
//! from a link that is not the bridge.

mod cache;
mod upstream;
mod zone;

pub use upstream::Upstreams;
pub use zone::{NamedPort, Zone, ZoneService};

use cache::{Cache, Cached, Key};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::DNSClass;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use upstream::SAFE_PAYLOAD;
use zone::Said;

/// Questions worked on at once; more are dropped, and clients ask again.
const MOST_AT_ONCE: usize = 256;
/// Open TCP connections.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may be idle (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long the resolvers are waited for while an old answer is at hand.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often a busy port is tried again.
const TRIES: u32 = 20;
/// How far apart.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// What every client takes by UDP (RFC 1035 section 2.3.4).
const CLASSIC_PAYLOAD: u16 = 512;

#[derive(Debug)]
struct Resolver {
    zone: Arc<RwLock<Zone>>,
    upstreams: Arc<Upstreams>,
    cache: Arc<Mutex<Cache>>,
    slots: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Answers at `listen` until dropped, or until it cannot listen.
pub async fn serve(listen: SocketAddr, zone: Arc<RwLock<Zone>>, upstreams: Upstreams) {
    let resolver = Arc::new(Resolver {
        zone,
        upstreams: Arc::new(upstreams),
        cache: Arc::default(),
        slots: Arc::new(Semaphore::new(MOST_AT_ONCE)),
        connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
    });
    match bind(listen).await {
        Ok((udp, tcp)) => {
            tokio::join!(resolver.clone().serve_udp(Arc::new(udp)), resolver.serve_tcp(tcp));
        }
        Err(err) => tracing::error!(%listen, error = %err, "pods' DNS cannot listen"),
    }
}

/// Listens at `listen`. The sockets of one that was just dropped may be open for a moment longer.
async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0..TRIES;
    loop {
        let both =
            async { io::Result::Ok((UdpSocket::bind(listen).await?, TcpListener::bind(listen).await?)) };
        match both.await {
            Err(err) if err.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            done => return done,
        }
    }
}

impl Resolver {
    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut tasks = tokio::task::JoinSet::new();
        let mut buffer = [0; 4096];
        loop {
            while tasks.try_join_next().is_some() {}
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(err) => {
                    // One client's fault (a port that is closed by now), not the socket's.
                    tracing::debug!(error = %err, "receive a question");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Ok(slot) = self.slots.clone().try_acquire_owned() else {
                continue;
            };
            let (resolver, socket) = (self.clone(), socket.clone());
            let question = buffer[..length].to_vec();
            tasks.spawn(async move {
                if let Some(answer) = resolver.reply(&question, true).await
                    && let Err(err) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%client, error = %err, "send an answer");
                }
                drop(slot);
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(slot) = self.connections.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(err) => {
                    tracing::debug!(error = %err, "accept a connection");
                    // Out of file descriptors, mostly: give it time.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let resolver = self.clone();
            tasks.spawn(async move {
                // A client that hangs up or sends nonsense is done with.
                let _ended = resolver.serve_connection(stream).await;
                drop(slot);
            });
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await??;
            let mut question = vec![0; usize::from(length)];
            timeout(IDLE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.reply(&question, false).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// The answer's bytes; `None` for what is no question.
    async fn reply(&self, bytes: &[u8], by_udp: bool) -> Option<Vec<u8>> {
        let question = match Message::from_vec(bytes) {
            Ok(message) if message.metadata.message_type == MessageType::Query => message,
            Ok(_) => return None,
            Err(_) => {
                let id = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
                return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
                    .to_vec()
                    .ok();
            }
        };
        let mut answer = self.answer(&question).await;
        answer.metadata.id = question.metadata.id;
        answer.queries.clone_from(&question.queries);
        answer.edns = question.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(SAFE_PAYLOAD)
                .set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        let encoded = answer.to_vec().ok()?;
        let fits = question.edns.as_ref().map_or(CLASSIC_PAYLOAD, |edns| {
            edns.max_payload().clamp(CLASSIC_PAYLOAD, SAFE_PAYLOAD)
        });
        if by_udp && encoded.len() > usize::from(fits) {
            return answer.truncate().to_vec().ok();
        }
        Some(encoded)
    }

    async fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(0, question.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&question.metadata);
        answer.metadata.recursion_available = true;
        let [query] = question.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        if question.metadata.op_code != OpCode::Query || query.query_class != DNSClass::IN {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        if self.answer_from_zone(query, &mut answer) {
            return answer;
        }
        let dnssec = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        match self.ask_outside(query, dnssec).await {
            Some(found) => {
                answer.metadata.response_code = found.metadata.response_code;
                answer.metadata.authentic_data = found.metadata.authentic_data;
                answer.answers = found.answers;
                answer.authorities = found.authorities;
                answer.additionals = found.additionals;
            }
            None => answer.metadata.response_code = ResponseCode::ServFail,
        }
        answer
    }

    /// Whether the name is the cluster's; then `answer` is complete.
    fn answer_from_zone(&self, query: &Query, answer: &mut Message) -> bool {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        match zone.answer(&query.name, query.query_type) {
            Said::NotOurs => return false,
            Said::Records(answers, additionals) => {
                answer.answers = answers;
                answer.additionals = additionals;
            }
            Said::NoData => answer.authorities = vec![zone.authority()],
            Said::NoName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities = vec![zone.authority()];
            }
        }
        answer.metadata.authoritative = true;
        true
    }

    async fn ask_outside(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let key = Key::of(query, dnssec);
        let cached = held(&self.cache).get(&key, Instant::now());
        let old = match cached {
            Cached::Fresh(message) => return Some(message),
            Cached::Stale(message) => Some(message),
            Cached::Nothing => None,
        };
        let refresh = refresh(
            self.upstreams.clone(),
            self.cache.clone(),
            key,
            query.clone(),
            dnssec,
        );
        let Some(old) = old else { return refresh.await };
        // A task of its own: where it comes too late for this client, it is in time for the next one. It ends by
        // itself, within the resolvers' deadline.
        let new = timeout(PATIENCE, tokio::spawn(refresh)).await;
        match new {
            Ok(Ok(Some(new))) if new.metadata.response_code != ResponseCode::ServFail => Some(new),
            // A resolver that fails or is silent knows less than we did (RFC 8767 section 4).
            _ => Some(old),
        }
    }
}

/// Asks the resolvers and keeps what they say.
async fn refresh(
    upstreams: Arc<Upstreams>,
    cache: Arc<Mutex<Cache>>,
    key: Key,
    query: Query,
    dnssec: bool,
) -> Option<Message> {
    let answer = upstreams.ask(&query, dnssec).await?;
    held(&cache).put(key, &answer, Instant::now());
    Some(answer)
}

fn held(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
