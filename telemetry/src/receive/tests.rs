//! The server, spoken to as clients do, and as they should not.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use reqwest::Client;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(60);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Answers as it is told to, and counts.
#[derive(Default)]
struct Told {
    answer: Mutex<Option<Result<Taken, Refused>>>,
    spans: AtomicUsize,
    stranger: std::sync::atomic::AtomicBool,
    /// Where set, a request waits for the other.
    held: Mutex<Option<(Arc<Notify>, Arc<Notify>)>>,
}

struct Desk(Arc<Told>);

impl Sink for Desk {
    fn admits(&self, _: IpAddr) -> bool {
        !self.0.stranger.load(Ordering::Relaxed)
    }

    async fn take(&self, _: IpAddr, request: Request) -> Result<Taken, Refused> {
        let held = self.0.held.lock().unwrap().clone();
        if let Some((here, go)) = held {
            here.notify_one();
            go.notified().await;
        }
        let answer = self
            .0
            .answer
            .lock()
            .unwrap()
            .clone()
            .unwrap_or_else(|| Ok(Taken::default()));
        if answer.is_ok() {
            self.0.spans.fetch_add(traces::count(&request), Ordering::SeqCst);
        }
        answer
    }
}

struct Server {
    url: String,
    address: std::net::SocketAddr,
    told: Arc<Told>,
}

async fn server(bounds: Bounds) -> Server {
    let told = Arc::new(Told::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = Receiver::new(Desk(Arc::clone(&told)), bounds);
    tokio::spawn(async move { receiver.serve(listener).await });
    Server {
        url: format!("http://{address}"),
        address,
        told,
    }
}

fn spans(count: usize) -> Vec<u8> {
    let span = |index: usize| Span {
        trace_id: vec![1; 16],
        span_id: (index as u64 + 1).to_be_bytes().to_vec(),
        name: "work".to_owned(),
        ..Span::default()
    };
    Request {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: (0..count).map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn http1() -> Client {
    crate::http::client(&crate::http::Trust::Anybody).unwrap()
}

impl Server {
    async fn post(&self, headers: &[(&str, &str)], body: Vec<u8>) -> reqwest::Response {
        let mut request = http1().post(format!("{}/v1/traces", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Over HTTP/2 from the first byte: status, headers with trailers, body.
    async fn http2(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, HeaderMap, bytes::Bytes) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let (head, body) = client.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let mut headers = head.headers;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        (head.status, headers, body.to_bytes())
    }

    /// Status and message of a call, and the reply.
    async fn call(
        &self,
        path: &str,
        encoding: Option<&str>,
        framed: Vec<u8>,
    ) -> (String, String, bytes::Bytes) {
        let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        headers.extend(encoding.map(|encoding| ("grpc-encoding", encoding)));
        let (status, headers, body) = self.http2(path, &headers, framed).await;
        assert_eq!(status, 200);
        let text = |name: &str| {
            let value = headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        (text("grpc-status"), text("grpc-message"), body)
    }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

#[tokio::test]
async fn both_protocols_and_all_forms_are_taken_on_one_port() {
    let server = server(Bounds::default()).await;
    let reply = server.post(&[PROTOBUF], spans(3)).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "application/x-protobuf");
    assert_eq!(
        server.post(&[PROTOBUF, GZIP], gzip(&spans(3))).await.status(),
        200
    );
    let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02"}]}]}]}"#;
    let reply = server
        .post(
            &[("content-type", "application/json; charset=utf-8")],
            json.to_vec(),
        )
        .await;
    assert_eq!(reply.text().await.unwrap(), "{}");
    let (status, _, body) = server.call(EXPORT, None, grpc::framed(&spans(3)).to_vec()).await;
    assert_eq!((status.as_str(), &body[..]), ("0", &[0; 5][..]));
    let packed = gzip(&spans(3));
    let mut framed = vec![1];
    framed.extend_from_slice(&(packed.len() as u32).to_be_bytes());
    framed.extend_from_slice(&packed);
    assert_eq!(server.call(EXPORT, Some("gzip"), framed).await.0, "0");
    // OTLP over HTTP/2, too.
    assert_eq!(server.http2("/v1/traces", &[PROTOBUF], spans(2)).await.0, 200);
    assert_eq!(server.told.spans.load(Ordering::SeqCst), 3 + 3 + 1 + 3 + 3 + 2);
}

#[tokio::test]
async fn what_cannot_be_taken_is_told_in_the_words_of_otlp() {
    let server = server(Bounds::default()).await;
    for (headers, body, status, part) in [
        (vec![PROTOBUF], b"\xff\xff".to_vec(), 400, "protobuf"),
        (
            vec![JSON],
            b"{\"resourceSpans\":7}".to_vec(),
            400,
            "line 1 column",
        ),
        (
            vec![("content-type", "text/plain")],
            spans(1),
            415,
            "application/x-protobuf",
        ),
        (
            vec![PROTOBUF, ("content-encoding", "br")],
            spans(1),
            415,
            "use gzip",
        ),
        (vec![PROTOBUF, GZIP], spans(1), 400, "not gzip"),
        (
            vec![PROTOBUF],
            vec![0; (4 << 20) + 1],
            413,
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        ),
        // 8 MiB of nothing in 8 KiB.
        (vec![PROTOBUF, GZIP], gzip(&vec![0; 8 << 20]), 413, "fewer spans"),
    ] {
        let reply = server.post(&headers, body).await;
        assert_eq!(reply.status(), status, "{headers:?}");
        let told = String::from_utf8_lossy(&reply.bytes().await.unwrap()).into_owned();
        assert!(told.contains(part), "{headers:?}: {told}");
    }
    for (path, part) in [
        (
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            "standard output",
        ),
        (
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "scraped",
        ),
    ] {
        let (status, message, _) = server.call(path, None, grpc::framed(&[]).to_vec()).await;
        assert_eq!(status, "12", "{path}");
        assert!(message.contains(part), "{path}: {message}");
    }
    for (framed, part) in [
        (vec![0, 0], "missing"),
        (vec![0, 0, 0, 0, 9, 1], "cut off"),
        (vec![0, 0, 0, 0, 0, 1], "followed by another"),
    ] {
        let (status, message, _) = server.call(EXPORT, None, framed).await;
        assert_eq!(status, "3");
        assert!(message.contains(part), "{message}");
    }
    let get = http1()
        .get(format!("{}/v1/traces", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), 405);
    let metrics = http1()
        .post(format!("{}/v1/metrics", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(metrics.status(), 404);
    assert_eq!(server.told.spans.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn not_now_is_told_with_when() {
    let server = server(Bounds::default()).await;
    let later = Refused::Later {
        after: Duration::from_millis(2500),
        why: "100 % full".to_owned(),
    };
    *server.told.answer.lock().unwrap() = Some(Err(later));
    let reply = server.post(&[PROTOBUF], spans(1)).await;
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["retry-after"]),
        (503, &"3".parse().unwrap())
    );
    let (status, message, _) = server.call(EXPORT, None, grpc::framed(&spans(1)).to_vec()).await;
    assert_eq!((status.as_str(), message.as_str()), ("14", "100 %25 full"));
    let partly = Taken {
        rejected: 2,
        why: "2 spans without valid ids".to_owned(),
    };
    *server.told.answer.lock().unwrap() = Some(Ok(partly));
    let reply = server.post(&[JSON], b"{}".to_vec()).await;
    let told: serde_json::Value = reply.json().await.unwrap();
    assert_eq!(told["partialSuccess"]["rejectedSpans"], "2");
}

#[tokio::test]
async fn requests_beyond_the_budget_of_all_are_told_to_come_again() {
    let bounds = Bounds {
        in_flight: 100_000,
        ..Bounds::default()
    };
    let server = server(bounds).await;
    let (here, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    *server.told.held.lock().unwrap() = Some((Arc::clone(&here), Arc::clone(&go)));
    let first = {
        let url = server.url.clone();
        tokio::spawn(async move {
            let request = http1()
                .post(format!("{url}/v1/traces"))
                .header(PROTOBUF.0, PROTOBUF.1);
            request.body(spans(2000)).send().await.unwrap().status()
        })
    };
    tokio::time::timeout(PATIENCE, here.notified()).await.unwrap();
    *server.told.held.lock().unwrap() = None;
    assert_eq!(server.post(&[PROTOBUF], spans(2000)).await.status(), 503);
    go.notify_one();
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(server.post(&[PROTOBUF], spans(2000)).await.status(), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_end_the_keeping() {
    let server = server(Bounds::default()).await;
    let (here, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    *server.told.held.lock().unwrap() = Some((Arc::clone(&here), Arc::clone(&go)));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = spans(5);
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    tokio::time::timeout(PATIENCE, here.notified()).await.unwrap();
    drop(stream);
    go.notify_one();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.told.spans.load(Ordering::SeqCst) < 5 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn strangers_and_too_many_connections_are_closed_at_once() {
    let server = server(Bounds {
        of_one: 2,
        ..Bounds::default()
    })
    .await;
    let closed = async || {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // A reset is an end as well.
        matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_))
    };
    let _one = TcpStream::connect(server.address).await.unwrap();
    let _two = TcpStream::connect(server.address).await.unwrap();
    assert!(closed().await);
    server.told.stranger.store(true, Ordering::Relaxed);
    drop((_one, _two));
    assert!(closed().await);
    assert!(closed().await);
}

#[tokio::test]
async fn a_request_that_never_ends_is_answered() {
    let server = server(Bounds {
        reading: Duration::from_millis(200),
        ..Bounds::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\n1";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(
        told.starts_with("HTTP/1.1 400") && told.contains("in time"),
        "{told}"
    );
}
