//! A server for OTLP (1.x): HTTP/1.1 and HTTP/2 without TLS on one port, gRPC and `/v1/traces` in protobuf and JSON.
//!
//! Takes: what strangers to the device's own code send; every size and time is bounded before it is used.
//! Gives: requests to a [`Sink`], one answer each, in the words that OTLP's clients act on.
//! Never: answers "taken" before the sink has said so, or keeps anything itself.

mod answer;
mod body;
mod grpc;

use crate::traces::{self, Request};
use answer::{Answer, Form};
use body::{Coding, Held};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Where requests go.
pub trait Sink: Send + Sync + 'static {
    /// Whether somebody at this address may speak to the server at all.
    fn admits(&self, peer: IpAddr) -> bool;

    /// Takes the spans, or says why not. A client that goes away does not end this call.
    fn take(&self, peer: IpAddr, request: Request) -> impl Future<Output = Result<Taken, Refused>> + Send;
}

/// The sink has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans that it will never take, and which are not to be sent again.
    pub rejected: u64,
    /// Why.
    pub why: String,
}

/// The request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not now; none of it is to be thrown away.
    Later {
        /// When to try again.
        after: Duration,
        /// What is in the way.
        why: String,
    },
    /// This sender sends too much.
    TooFast {
        /// When to try again.
        after: Duration,
        /// How much it may send.
        why: String,
    },
    /// Never as it is.
    Bad(String),
    /// Larger than is taken.
    TooLarge(String),
    /// A coding or form that is not spoken here.
    Unsupported(String),
    /// Not a thing that is taken here.
    Unknown(String),
}

/// What the server may take of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a request, packed or unpacked.
    pub request: usize,
    /// Bytes of all requests that are being read or taken.
    pub in_flight: usize,
    /// Connections.
    pub connections: usize,
    /// Connections from one address.
    pub of_one: usize,
    /// Time in which a request must have arrived.
    pub reading: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            request: 4 << 20,
            in_flight: 8 << 20,
            connections: 128,
            of_one: 16,
            reading: Duration::from_secs(30),
        }
    }
}

/// Requests that one HTTP/2 connection may have open.
const STREAMS: u32 = 16;
/// A connection that says nothing for so long is closed.
const QUIET: Duration = Duration::from_secs(120);
/// A server that cannot accept (no descriptors left, say) rests for so long.
const REST: Duration = Duration::from_millis(100);
/// For a budget that is spent.
const SOON: Duration = Duration::from_secs(1);

/// One receiver; it may serve several ports, and its bounds are for all of them together.
#[derive(Debug)]
pub struct Receiver<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Receiver<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<S> {
    sink: S,
    bounds: Bounds,
    budget: Arc<Semaphore>,
    /// One request at a time is in the form that takes the most memory.
    decoding: Semaphore,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl<S: Sink> Receiver<S> {
    /// Gives to `sink`.
    pub fn new(sink: S, bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                sink,
                bounds,
                budget: Arc::new(Semaphore::new(bounds.in_flight)),
                decoding: Semaphore::new(1),
                open: Mutex::default(),
            }),
        }
    }

    /// Serves for ever.
    pub async fn serve(&self, listener: TcpListener) {
        // Ends with this call.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let peer = peer.ip().to_canonical();
                        if let Some(place) = Place::take(&self.shared, peer) {
                            connections.spawn(connection(Arc::clone(&self.shared), stream, peer, place));
                        }
                    }
                    Err(err) => {
                        tracing::debug!(%err, "OTLP: no connection could be accepted");
                        tokio::time::sleep(REST).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// A connection's place among those that may be open.
struct Place<S> {
    shared: Arc<Shared<S>>,
    peer: IpAddr,
}

impl<S: Sink> Place<S> {
    fn take(shared: &Arc<Shared<S>>, peer: IpAddr) -> Option<Self> {
        if !shared.sink.admits(peer) {
            return None;
        }
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let of_one = open.entry(peer).or_default();
        if all >= shared.bounds.connections || *of_one >= shared.bounds.of_one {
            return None;
        }
        *of_one += 1;
        Some(Self {
            shared: Arc::clone(shared),
            peer,
        })
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

async fn connection<S: Sink>(shared: Arc<Shared<S>>, stream: TcpStream, peer: IpAddr, _place: Place<S>) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(QUIET)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(QUIET)
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(&shared, peer, request).await) }
    });
    if let Err(err) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, err, "OTLP: a connection ended early");
    }
}

async fn respond<S: Sink>(
    shared: &Arc<Shared<S>>,
    peer: IpAddr,
    request: hyper::Request<Incoming>,
) -> hyper::Response<Answer> {
    let form = Form::of(request.headers());
    if request.method() != Method::POST {
        let mut response = form.refused(&Refused::Unknown("OTLP is sent by POST".to_owned()));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("POST"));
        return response;
    }
    match tokio::time::timeout(shared.bounds.reading, read(shared, form, request)).await {
        Err(_) => form.refused(&Refused::Bad("the request did not arrive in time".to_owned())),
        Ok(Err(refused)) => form.refused(&refused),
        Ok(Ok((spans, held))) => {
            // A client that gives up and sends again must find what became of the first.
            let shared = Arc::clone(shared);
            let taking = tokio::spawn(async move {
                let taken = shared.sink.take(peer, spans).await;
                drop(held);
                taken
            });
            match taking.await {
                Ok(Ok(taken)) => form.taken(&taken),
                Ok(Err(refused)) => form.refused(&refused),
                Err(_) => form.refused(&later("the device's agent is stopping")),
            }
        }
    }
}

fn later(why: &str) -> Refused {
    Refused::Later {
        after: SOON,
        why: why.to_owned(),
    }
}

/// Reads and decodes.
async fn read<S: Sink>(
    shared: &Arc<Shared<S>>,
    form: Form,
    request: hyper::Request<Incoming>,
) -> Result<(Request, Held), Refused> {
    known(form, request.uri().path(), request.headers())?;
    let (parts, incoming) = request.into_parts();
    let mut held = Held::new(Arc::clone(&shared.budget), shared.bounds.request);
    let bytes = match form {
        Form::Grpc => {
            let coding = grpc::coding(&parts.headers)?;
            let framed = held.read(incoming, grpc::PREFIX).await?;
            let (packed, message) = grpc::message(framed)?;
            held.unpack(message, if packed { coding } else { Coding::Plain })?
        }
        Form::Protobuf | Form::Json => {
            let coding = match parts.headers.get(CONTENT_ENCODING) {
                None => Coding::Plain,
                Some(name) => Coding::named(name.as_bytes())?,
            };
            let packed = held.read(incoming, 0).await?;
            held.unpack(packed, coding)?
        }
    };
    let _one = shared.decoding.acquire().await;
    let decoded = if form == Form::Json {
        traces::from_json(&bytes)
    } else {
        traces::from_protobuf(&bytes)
    };
    let request = decoded.map_err(|err| match err {
        traces::Unreadable::TooManyParts { .. } => Refused::TooLarge(err.to_string()),
        _ => Refused::Bad(err.to_string()),
    })?;
    Ok((request, held))
}

/// Whether traces are sent there, in a form that is spoken.
fn known(form: Form, path: &str, headers: &HeaderMap) -> Result<(), Refused> {
    match (form, path) {
        (Form::Grpc, "/opentelemetry.proto.collector.trace.v1.TraceService/Export") => Ok(()),
        (Form::Grpc, path) => Err(Refused::Unknown(format!(
            "{path} is not served here: a device takes traces; metrics are scraped, logs are read from standard output"
        ))),
        (_, "/v1/traces") => {
            let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
            if form == Form::Json || kind.is_some_and(|kind| kind.starts_with(b"application/x-protobuf")) {
                return Ok(());
            }
            Err(Refused::Unsupported(
                "the Content-Type must be application/x-protobuf or application/json".to_owned(),
            ))
        }
        (_, "/v1/metrics") => Err(Refused::Unknown(
            "a device takes no metrics by OTLP: let it scrape the pod (annotation prometheus.io/scrape)"
                .to_owned(),
        )),
        (_, "/v1/logs") => Err(Refused::Unknown(
            "a device takes no logs by OTLP: write them to standard output".to_owned(),
        )),
        (_, path) => Err(Refused::Unknown(format!(
            "{path} is not served here; /v1/traces is"
        ))),
    }
}

#[cfg(test)]
mod tests;
