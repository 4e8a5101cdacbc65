//! The listener: TLS 1.3, HTTP/2 and HTTP/1.1, one router for devices and people.

use crate::caller::Caller;
use crate::problem::Refusal;
use crate::{Hub, api, authority, enrol, forward, history, logs, pages, registry, rollouts, session};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{any, delete, get, post};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use identity::Peer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;

/// A peer that does not finish its handshake in this time is dropped.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The certificate of the listener is renewed this often; it is valid for much longer.
const REFRESH_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Sessions and requests may end by themselves for this long at a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Request bodies of the API; sessions and the registry have bounds of their own.
const MAX_REQUEST: usize = 256 * 1024;

fn router(hub: Arc<Hub>) -> Router {
    let pages = pages::router(&hub);
    let devices = Router::new()
        .route("/v1/enrol", post(enrol::enrol))
        .route("/v1/renew", post(enrol::renew))
        .route("/v1/time", get(enrol::time))
        .route("/v1/session", post(session::open));
    let people = Router::new()
        .route("/v1/devices", get(api::devices))
        .route("/v1/devices/{name}", get(api::device).delete(api::revoke))
        .route("/v1/devices/{name}/intents", get(api::intents).post(api::intend))
        .route("/v1/devices/{name}/logs", get(logs::logs))
        .route("/v1/workloads", get(api::workloads))
        .route("/v1/generations", get(api::generations))
        .route("/v1/events", get(api::events))
        .route("/v1/audit", get(api::audit))
        .route("/v1/forwarders", get(forward::list))
        .route("/v1/query", post(history::query))
        .route("/v1/query/tables", get(history::tables))
        .route("/v1/authority", get(authority::state).post(authority::step))
        .route("/v1/tokens", get(api::tokens).post(api::create_token))
        .route("/v1/tokens/{id}", delete(api::cancel_token))
        .route("/v1/rollouts", get(rollouts::list).post(rollouts::begin))
        .route("/v1/rollouts/{id}", get(rollouts::one).post(rollouts::act))
        .route(
            "/v1/rollout-policy",
            get(rollouts::policy)
                .put(rollouts::set_policy)
                .delete(rollouts::remove_policy),
        );
    let images = Router::new()
        .route("/v2", any(registry::serve))
        .route("/v2/", any(registry::serve))
        .route("/v2/{*rest}", any(registry::serve));
    let anyone = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/v1/ca", get(async |State(hub): State<Arc<Hub>>| hub.ca()));
    devices
        .merge(people)
        .merge(images)
        .merge(anyone)
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path does not take this method",
            )
        })
        .fallback(async || Refusal::not_found("there is nothing at this path"))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(hub)
        .merge(pages)
}

/// Serves until `stop` ends.
pub(crate) async fn run(hub: Arc<Hub>, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
    let router = router(hub.clone());
    let connections = Arc::new(Semaphore::new(hub.config().connections));
    let handshakes = Arc::new(Semaphore::new(hub.config().handshakes));
    raise_file_limit();
    refresh_certificate(&hub);
    hub.collect_images();
    history::start(&hub);
    rollouts::start(&hub);
    forward::start(&hub);
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => {
                    let Ok(place) = connections.clone().try_acquire_owned() else {
                        tracing::warn!(%address, "too many connections; this one is closed");
                        continue;
                    };
                    let (hub, router, handshakes) = (hub.clone(), router.clone(), handshakes.clone());
                    hub.tasks.clone().spawn_to_end("connection", async move {
                        let stop = hub.tasks.stop();
                        let opening = handshake(&hub, tcp, address, &handshakes);
                        if let Some(Some(stream)) = stop.run_until_cancelled(opening).await {
                            serve(&hub, router, stream, address).await;
                        }
                        drop(place);
                    });
                }
                Err(err) => {
                    // Out of file descriptors, for instance: existing connections must go on, and may free some.
                    tracing::warn!(%err, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    drop(listener);
    hub.sessions.bye_all("the hub stops", 2);
    if let Err(left) = hub.tasks.shut_down(GRACE).await {
        tracing::warn!(?left, "some connections did not end in time");
    }
}

/// A device is a socket; the usual soft limit of 1024 files would end the fleet there.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(err) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%err, "the limit of open files could not be raised to its maximum");
    }
}

fn refresh_certificate(hub: &Arc<Hub>) {
    let weak = Arc::downgrade(hub);
    hub.tasks.spawn("certificate", kit::OnEnd::Restart, move || {
        let weak = weak.clone();
        async move {
            loop {
                tokio::time::sleep(REFRESH_EVERY).await;
                let Some(hub) = weak.upgrade() else { return };
                if let Err(err) =
                    hub.with_authority(|authority| hub.tls.refresh(authority, &hub.config.all_names()))
                {
                    tracing::error!(error = kit::chain(&err), "the listener keeps its old certificate");
                }
            }
        }
    });
}

/// TLS. A place among the handshakes is taken only once the peer has spoken: who connects and says nothing keeps
/// nobody out.
async fn handshake(
    hub: &Hub,
    tcp: TcpStream,
    address: SocketAddr,
    places: &Semaphore,
) -> Option<TlsStream<TcpStream>> {
    // Answers are small and wait for nothing.
    let _ = tcp.set_nodelay(true);
    // Peeked, not asked for readiness, which may be told without a byte being there.
    tokio::time::timeout(HANDSHAKE_WITHIN, tcp.peek(&mut [0]))
        .await
        .ok()?
        .ok()?;
    let place = places.acquire().await.ok()?;
    let accepting = tokio_rustls::TlsAcceptor::from(hub.tls.config())
        .accept(tcp)
        .into_fallible();
    let outcome = tokio::time::timeout(HANDSHAKE_WITHIN, accepting).await;
    drop(place);
    match outcome {
        Err(_) => {
            tracing::debug!(%address, "the TLS handshake took too long");
            None
        }
        Ok(Err((err, tcp))) => {
            let_the_alert_through(tcp).await;
            handshake_failed(hub, address, &err).await;
            None
        }
        Ok(Ok(stream)) => Some(stream),
    }
}

async fn serve(hub: &Hub, router: Router, stream: TlsStream<TcpStream>, address: SocketAddr) {
    let stop = hub.tasks.stop();
    let service = Named {
        router: TowerToHyperService::new(router),
        caller: caller_of(&stream, address),
    };
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    server
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(512 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_streams(64)
        .keep_alive_interval(Duration::from_secs(60));
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(err) = ended {
                tracing::debug!(%address, error = %err, "connection ended");
            }
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Closing a socket with unread bytes resets the connection, and a reset may overtake the alert that tells the device
/// to renew. So read what it still sends, for a moment.
async fn let_the_alert_through(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let (mut rest, mut nowhere) = (tcp.take(64 * 1024), tokio::io::sink());
    let drain = tokio::io::copy(&mut rest, &mut nowhere);
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}

/// The router with the caller of one connection. The router is shared; a layer of its own for each connection would
/// copy every route.
#[derive(Debug, Clone)]
struct Named {
    router: TowerToHyperService<Router>,
    caller: Caller,
}

impl hyper::service::Service<Request<Incoming>> for Named {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as hyper::service::Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.caller.clone());
        self.router.call(request)
    }
}

fn caller_of(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Caller {
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let certificate = shown.map(|certificate| certificate.clone().into_owned());
    // A certificate of our authority that names no device is none of a device: treated as if none was shown.
    let peer = certificate
        .as_ref()
        .and_then(|certificate| Peer::of(certificate).ok());
    Caller {
        address,
        peer,
        certificate,
    }
}

async fn handshake_failed(hub: &Hub, address: SocketAddr, err: &std::io::Error) {
    tracing::debug!(%address, %err, "TLS handshake failed");
    let forged = err
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(why)) = forged {
        let caller = Caller {
            address,
            peer: None,
            certificate: None,
        };
        let message = format!("the certificate shown was not accepted: {why}");
        let refusal = Refusal::new(StatusCode::FORBIDDEN, "Certificate", message);
        hub.refused(&caller, "unknown", "device.connect", "hub", &refusal)
            .await;
    }
}
