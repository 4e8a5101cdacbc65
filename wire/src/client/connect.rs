//! One HTTP/2 connection over TLS, small in memory.

use super::meter::Meter;
use super::watched::{TlsFailure, Watched};
use crate::api::Problem;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Address, TCP and TLS together may take this long.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A hub that took a question must answer it within this time; sessions and log streams have clocks of their own.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// An HTTP/2 ping goes out after this much silence of the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Where a hub listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubAddress {
    host: String,
    port: u16,
}

/// Not the address of a hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hub address; write https://HOST:PORT")]
pub struct BadHubAddress(String);

impl HubAddress {
    /// The port where none is given.
    pub const DEFAULT_PORT: u16 = 7443;

    /// Name or IP address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` as in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for HubAddress {
    type Err = BadHubAddress;
    fn from_str(text: &str) -> Result<Self, BadHubAddress> {
        let bad = || BadHubAddress(text.to_owned());
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: http::uri::Authority = rest.parse().map_err(|_| bad())?;
        if rest.contains('@') || authority.host().is_empty() {
            return Err(bad());
        }
        // `Authority` takes any text after the colon as "no port".
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => Self::DEFAULT_PORT,
            None => return Err(bad()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Why a hub could not be reached, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer from the name, the address or the port.
    #[error("connect to {hub}")]
    Tcp {
        /// The hub.
        hub: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The handshake failed: see [`ConnectError::tls`].
    #[error("TLS with {hub}")]
    Tls {
        /// The hub.
        hub: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{hub} did not answer within {} s", after.as_secs())]
    Silent {
        /// The hub.
        hub: String,
        /// How long it was given.
        after: Duration,
    },
    /// The connection broke while talking.
    #[error("talk to {hub}")]
    Http {
        /// The hub.
        hub: String,
        /// What hyper said.
        #[source]
        source: hyper::Error,
        /// What TLS said before.
        tls: Option<rustls::Error>,
    },
    /// The hub understood and refused.
    #[error("{hub} refused ({status}): {problem}")]
    Refused {
        /// The hub.
        hub: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The hub's answer makes no sense.
    #[error("{hub} answered with something else than {what}")]
    Nonsense {
        /// The hub.
        hub: String,
        /// What was expected.
        what: &'static str,
        /// Why it is not that.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ConnectError {
    /// What TLS itself said: an alert of the hub, or why its certificate was refused.
    pub fn tls(&self) -> Option<&rustls::Error> {
        match self {
            Self::Tls { source, .. } => source.get_ref()?.downcast_ref(),
            Self::Http { tls, .. } => tls.as_ref(),
            _ => None,
        }
    }

    /// The machine's word for a refusal.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.reason),
            _ => None,
        }
    }

    /// When the hub wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

pub(crate) type OutBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn body_of(data: Bytes) -> OutBody {
    Full::new(data).boxed_unsync()
}

/// An open connection; dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) hub: HubAddress,
    requests: http2::SendRequest<OutBody>,
    failure: TlsFailure,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a connection.
///
/// The name in the TLS hello is the host's; the verifier in `tls` decides what the certificate must say.
pub(crate) async fn open(
    hub: &HubAddress,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Connection, ConnectError> {
    open_metered(hub, tls, &Meter::default()).await
}

/// As [`open`], counting bytes.
pub(crate) async fn open_metered(
    hub: &HubAddress,
    tls: Arc<rustls::ClientConfig>,
    meter: &Meter,
) -> Result<Connection, ConnectError> {
    match tokio::time::timeout(CONNECT_WITHIN, open_slowly(hub, tls, meter)).await {
        Ok(opened) => opened,
        Err(_) => Err(ConnectError::Silent {
            hub: hub.to_string(),
            after: CONNECT_WITHIN,
        }),
    }
}

async fn open_slowly(
    hub: &HubAddress,
    tls: Arc<rustls::ClientConfig>,
    meter: &Meter,
) -> Result<Connection, ConnectError> {
    let tcp_error = |source| ConnectError::Tcp {
        hub: hub.to_string(),
        source,
    };
    let tcp = TcpStream::connect((hub.host(), hub.port()))
        .await
        .map_err(tcp_error)?;
    tcp.set_nodelay(true).map_err(tcp_error)?;
    if let Ok(peer) = tcp.peer_addr() {
        meter.connected_to(peer);
    }
    let name = ServerName::try_from(hub.host().to_owned())
        .map_err(|err| tcp_error(io::Error::new(io::ErrorKind::InvalidInput, err)))?;
    let stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, meter.on(tcp))
        .await
        .map_err(|source| ConnectError::Tls {
            hub: hub.to_string(),
            source,
        })?;
    let (stream, failure) = Watched::new(stream);
    // Windows are what the hub may have under way to us: frames are small, and a device has little memory.
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(128 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(KEEP_ALIVE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http {
            hub: hub.to_string(),
            source,
            tls: failure.get().cloned(),
        })?;
    let driver = tokio::spawn(async move {
        if let Err(err) = connection.await {
            tracing::debug!(
                error = &err as &dyn std::error::Error,
                "the connection to the hub ended"
            );
        }
    });
    Ok(Connection {
        hub: hub.clone(),
        requests,
        failure,
        driver,
    })
}

impl Connection {
    pub(crate) fn http_error(&self, source: hyper::Error) -> ConnectError {
        ConnectError::Http {
            hub: self.hub.to_string(),
            source,
            tls: self.failure.get().cloned(),
        }
    }

    /// Sends a request; an answer beyond 299 is a [`ConnectError::Refused`].
    pub(crate) async fn call(
        &mut self,
        request: http::Request<OutBody>,
    ) -> Result<http::Response<Incoming>, ConnectError> {
        self.requests
            .ready()
            .await
            .map_err(|source| self.http_error(source))?;
        let answer = self
            .requests
            .send_request(request)
            .await
            .map_err(|source| self.http_error(source))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let retry_after = retry_after(answer.headers());
        let body = self.read(answer.into_body(), 64 * 1024).await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            reason: status.canonical_reason().unwrap_or("Unknown").replace(' ', ""),
            message: String::from_utf8_lossy(&body).trim().to_owned(),
        });
        Err(ConnectError::Refused {
            hub: self.hub.to_string(),
            status: status.as_u16(),
            problem,
            retry_after,
        })
    }

    /// Reads a body of at most `most` bytes.
    pub(crate) async fn read(&self, body: Incoming, most: usize) -> Result<Bytes, ConnectError> {
        match read_bounded(body, most).await {
            Ok(Some(data)) => Ok(data),
            Ok(None) => Err(self.nonsense(
                "an answer of bounded length",
                format!("more than {most} bytes").into(),
            )),
            Err(source) => Err(self.http_error(source)),
        }
    }

    /// Sends a request and reads the whole answer, of at most `most` bytes.
    pub(crate) async fn exchange(
        &mut self,
        request: http::Request<OutBody>,
        most: usize,
    ) -> Result<Bytes, ConnectError> {
        let hub = self.hub.to_string();
        let exchange = async {
            let answer = self.call(request).await?;
            self.read(answer.into_body(), most).await
        };
        match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectError::Silent {
                hub,
                after: ANSWER_WITHIN,
            }),
        }
    }

    pub(crate) fn nonsense(
        &self,
        what: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> ConnectError {
        ConnectError::Nonsense {
            hub: self.hub.to_string(),
            what,
            source,
        }
    }

    /// A request to `path` of this hub.
    pub(crate) fn request(&self, method: http::Method, path: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.hub))
    }
}

/// `Retry-After` in both its forms (RFC 9110, 10.2.3): seconds, or a date. A date is measured from the answer's own
/// `Date`: the device's clock may be wrong. What is neither is as good as absent.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let asked = text(http::header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = http_date(asked)?;
    let now = text(http::header::DATE)
        .and_then(http_date)
        .unwrap_or_else(jiff::Timestamp::now);
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

/// An HTTP date in the form that must be sent; the two obsolete ones are not read.
fn http_date(text: &str) -> Option<jiff::Timestamp> {
    let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
}

/// Reads a whole body; `None` where it is longer than `most`.
pub(crate) async fn read_bounded(mut body: Incoming, most: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if all.len() + data.len() > most {
                return Ok(None);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(Some(all.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let read = |asked: &str, date: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, asked.parse().unwrap());
            headers.insert(http::header::DATE, date.parse().unwrap());
            retry_after(&headers)
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (asked, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            // In the past: now.
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-5", None),
            ("1e3", None),
            ("soon", None),
            ("", None),
            ("Sun, 32 Nov 1994 08:51:37 GMT", None),
        ] {
            assert_eq!(read(asked, date), seconds.map(Duration::from_secs), "{asked:?}");
        }
        assert_eq!(retry_after(&http::HeaderMap::new()), None);
    }

    #[test]
    fn addresses_are_read_with_and_without_a_scheme() {
        let read = |text: &str| text.parse::<HubAddress>().map(|hub| hub.to_string()).ok();
        assert_eq!(
            read("https://hub.example:1"),
            Some("https://hub.example:1".into())
        );
        assert_eq!(read("10.0.0.1"), Some("https://10.0.0.1:7443".into()));
        assert_eq!(read("https://[fd00::1]:9/"), Some("https://[fd00::1]:9".into()));
        for bad in [
            "",
            "http://a",
            "https://a/b",
            "https://u@a:1",
            "a:port",
            "a:99999",
            "a b",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
