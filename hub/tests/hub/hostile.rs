//! What no honest device does, and what many devices do at once.

use crate::rig::*;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::client::ConnectError;
use wire::codec::encode;
use wire::frame::{Chunk, Records, ToHub};
use wire::server::FrameBody;

/// Opens a session with exactly these bytes, and gives the status and the whole answer once the hub has ended it.
async fn session_of_bytes(rig: &Rig, device: &Device, parts: Vec<Bytes>) -> (http::StatusCode, Bytes) {
    let tcp = tokio::net::TcpStream::connect(rig.running.address).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(device.keys.session_tls().unwrap());
    let stream = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (sender, body) = FrameBody::channel(parts.len() + 1);
    for part in parts {
        sender.send(part).await.unwrap();
    }
    let request = http::Request::post(format!("https://{}/v1/session", rig.running.address))
        .body(body)
        .unwrap();
    let response = within("an answer", requests.send_request(request)).await.unwrap();
    let status = response.status();
    // The sender stays open: the hub has to end this by itself.
    let body = within("the end of the answer", response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    drop(sender);
    (status, body)
}

fn frame(header: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u32(header.len() as u32);
    bytes.put_u32(body.len() as u32);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

#[tokio::test]
async fn what_is_no_frame_ends_the_session_and_changes_nothing() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let hello = encode(&ToHub::Hello(Box::new(device.hello()))).unwrap();
    let good = encode(&ToHub::Records(device.batch(2))).unwrap();

    let mut oversized = BytesMut::new();
    oversized.put_u32(u32::MAX);
    oversized.put_u32(u32::MAX);
    let lying = frame(
        br#"{"frame":"records","stream":"events","epoch":7,"first":3,"sizes":[4294967295]}"#,
        b"x",
    );
    let zero = encode(&ToHub::Records(Records::new(
        "events",
        EPOCH,
        0,
        vec![json(&event(0))],
    )))
    .unwrap();
    let stream = encode(&ToHub::Records(Records::new(
        "../etc",
        EPOCH,
        1,
        vec![json(&event(0))],
    )))
    .unwrap();
    let last = encode(&ToHub::Records(Records::new(
        "events",
        EPOCH,
        u64::MAX,
        vec![json(&event(0)), json(&event(1))],
    )))
    .unwrap();
    let answer = encode(&ToHub::Chunk(Chunk {
        id: 1,
        data: Bytes::from_static(b"to nobody"),
    }))
    .unwrap();
    for bad in [
        oversized.freeze(),
        frame(b"not json", b""),
        frame(br#"{"frame":"unheardOf"}"#, b""),
        frame(br#"{"frame":"pong","nonce":1}"#, b"a body"),
        frame(
            br#"{"frame":"records","stream":"events","epoch":-1,"first":3,"sizes":[]}"#,
            b"",
        ),
        lying,
        zero,
        stream,
        last,
        hello.clone(),
    ] {
        // A stray answer alone is no offence: its question may just have been cancelled.
        let (status, _) = session_of_bytes(
            &rig,
            &device,
            vec![hello.clone(), answer.clone(), good.clone(), bad],
        )
        .await;
        assert_eq!(status, 200);
    }
    // Each one sent the same good batch; it is there once, and nothing else is.
    assert_eq!(rig.api.events(Some(&device.name), 100).await.unwrap().len(), 2);
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn a_session_starts_with_a_hello_that_holds() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let mut other_status = device.hello();
    other_status.status = Some(status(&name("b"), "g"));
    let mut odd_nonce = device.hello();
    odd_nonce.nonce = "\n{}".into();
    let mut future = device.hello();
    future.versions = wire::Versions {
        oldest: 77,
        newest: 99,
    };
    let cases = [
        (encode(&ToHub::Records(device.batch(1))).unwrap(), "BadRequest"),
        (frame(b"{", b""), "BadRequest"),
        (
            encode(&ToHub::Hello(Box::new(other_status))).unwrap(),
            "BadRequest",
        ),
        (encode(&ToHub::Hello(Box::new(odd_nonce))).unwrap(), "BadRequest"),
        (
            encode(&ToHub::Hello(Box::new(future))).unwrap(),
            "UnsupportedVersion",
        ),
    ];
    for (first, reason) in cases {
        let (status, body) = session_of_bytes(&rig, &device, vec![first]).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(
            status.is_client_error() && text.contains(reason),
            "{status} {text}"
        );
    }
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn only_tls_1_3_is_spoken_and_nothing_else() {
    let rig = Rig::new().await;
    // A ClientHello of TLS 1.2: record, handshake, version 0x0303, no extension that offers more.
    let hello: &[u8] = &[
        0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
        18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 0, 0, 4, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0,
    ];
    for opening in [hello, b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0"] {
        let mut tcp = tokio::net::TcpStream::connect(rig.running.address).await.unwrap();
        tcp.write_all(opening).await.unwrap();
        let _ = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the hub's refusal", tcp.read_to_end(&mut answer)).await;
        // An alert (0x15) or nothing; never a ServerHello (0x16).
        assert!(answer.first().is_none_or(|kind| *kind == 0x15), "{answer:?}");
    }
    rig.api.devices().await.unwrap();
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_an_older_one() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (old, _old_orders) = device.connect(&rig.at()).await.unwrap();
    let (new, _orders) = device.connect(&rig.at()).await.unwrap();
    within("the end of the old session", old.ended()).await;
    let batch = device.batch(1);
    new.sender().records(batch).await.unwrap();
    within("the acknowledgement", new.acked("events", at(1)))
        .await
        .unwrap();
    let row = rig.api.device(&device.name).await.unwrap().summary;
    assert_eq!(
        row.link,
        wire::api::Link::Connected,
        "the end of the old session closed the new one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_devices_gets_in_one_after_another() {
    const DEVICES: usize = 40;
    // Few at a time, so that the storm meets the bounds.
    let rig = Rig::with(|config| (config.handshakes, config.openings) = (2, 1)).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(rig.device(&format!("d{number}")).await);
    }
    let hub = rig.at();
    let gate = Arc::new(tokio::sync::Barrier::new(DEVICES));
    let tasks: Vec<_> = devices
        .into_iter()
        .map(|mut device| {
            let (hub, gate) = (hub.clone(), gate.clone());
            tokio::spawn(async move {
                gate.wait().await;
                let mut sent_away = 0;
                loop {
                    match device.connect(&hub).await {
                        Ok(open) => return (open, sent_away),
                        Err(err) => {
                            let wait = err.retry_after();
                            assert!(wait.is_some_and(|wait| !wait.is_zero()), "{err:?}");
                            sent_away += 1;
                            // The tests' time is short: what matters is that a time was named.
                            tokio::time::sleep(Duration::from_millis(20 + 10 * sent_away)).await;
                        }
                    }
                }
            })
        })
        .collect();
    let mut open = Vec::new();
    for task in tasks {
        open.push(within("a session of the storm", task).await.unwrap());
    }
    let connected = rig.api.devices().await.unwrap();
    assert_eq!(
        connected
            .iter()
            .filter(|row| row.link == wire::api::Link::Connected)
            .count(),
        DEVICES
    );
}

#[tokio::test]
async fn a_busy_hub_names_a_time_to_come_back() {
    let rig = Rig::with(|config| config.openings = 0).await;
    let mut device = rig.device("a").await;
    match device.connect(&rig.at()).await {
        Err(err @ ConnectError::Refused { status: 503, .. }) => {
            assert_eq!(err.reason(), Some("Busy"));
            assert!(
                err.retry_after()
                    .is_some_and(|wait| (1..=6).contains(&wait.as_secs()))
            );
        }
        other => panic!("{:?}", other.err()),
    }
}

/// A hub as a device sees it that has lost its way: the right certificate, and an answer of our choice to every request.
async fn odd_hub(rig: &Rig, answer: &'static str) -> wire::client::HubAddress {
    let ca = rig.dir.path().join("hub/ca");
    let clock = Arc::new(rig.clock.clone());
    let authority = identity::Authority::open(&ca, "leeward", clock).unwrap();
    let tls = identity::tls::HubTls::new(&authority, &[]).unwrap().config();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let accept = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(tcp);
            tokio::spawn(async move {
                let Ok(stream) = accept.await else { return };
                let service = hyper::service::service_fn(async |_| odd_answer(answer).await);
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn odd_answer(answer: &str) -> Result<http::Response<String>, std::convert::Infallible> {
    let response = http::Response::builder();
    let response = match answer {
        "429" => response
            .status(429)
            .header("retry-after", "17")
            .body("slow down".into()),
        "500" => response.status(500).body("<html>oops</html>".into()),
        "rubbish" => response.body("\0\0\0\x05\0\0\0\0rubbi".into()),
        "empty" => response.body(String::new()),
        _ => std::future::pending().await,
    };
    Ok(response.unwrap())
}

#[tokio::test]
async fn a_hub_that_answers_oddly_or_not_at_all_is_waited_for() {
    use identity::Failure;
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let of = |err: ConnectError| Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(&err));
    for answer in ["429", "500", "rubbish", "empty", "nothing"] {
        let hub = odd_hub(&rig, answer).await;
        let csr = device.keys.requests(&device.name).unwrap().operational_csr;
        let request = wire::client::RenewRequest {
            operational_csr: csr,
            bundle_serial: 1,
        };
        let keys = &device.keys;
        let (connecting, renewing) = within("an outcome", async {
            // Side by side, since the last of them is waited for in real time.
            tokio::join!(
                wire::client::Session::connect(&hub, keys.session_tls().unwrap(), device.hello()),
                wire::client::renew(&hub, keys.renew_tls().unwrap(), &request),
            )
        })
        .await;
        let (connecting, renewing) = (of(connecting.map(drop).unwrap_err()), of(renewing.unwrap_err()));
        for failure in [connecting, renewing] {
            let fits = match answer {
                "429" => failure == Failure::Throttled(Duration::from_secs(17)),
                "500" => matches!(failure, Failure::Refused(_)),
                _ => matches!(failure, Failure::Unreachable(_)),
            };
            assert!(fits, "{answer}: {failure:?}");
        }
    }
    // Nothing of what the device holds was harmed by it.
    device.reopen();
    device.connect(&rig.at()).await.unwrap();
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_nobody_out() {
    let rig = Rig::with(|config| (config.handshakes, config.connections) = (2, 8)).await;
    let mut device = rig.device("a").await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(tokio::net::TcpStream::connect(rig.running.address).await.unwrap());
    }
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    // Beyond the bound, connections are closed as they come, and those that are open go on.
    let mut more = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut tcp = tokio::net::TcpStream::connect(rig.running.address).await.unwrap();
        // Well before the time in which a handshake must be done.
        more.spawn(async move {
            let end = tokio::time::timeout(Duration::from_secs(5), tcp.read_u8()).await;
            (end.is_ok(), tcp)
        });
    }
    let (mut closed, mut open) = (0, Vec::new());
    while let Some(ended) = more.join_next().await {
        match ended.unwrap() {
            (true, _) => closed += 1,
            (false, tcp) => open.push(tcp),
        }
    }
    assert!(closed >= 9, "only {closed} of 16 were closed");
    let batch = device.batch(1);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(1)))
        .await
        .unwrap();
    // With the strangers gone there is room again.
    drop((silent, open));
    until("room", async || rig.api.devices().await.ok()).await;
}
