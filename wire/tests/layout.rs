//! How frames and answers are laid out: what runs on devices in the field reads exactly this. A change here is a change
//! of the protocol: add fields with defaults, or open a new version.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;
use model::Signed;
use std::collections::BTreeMap;
use wire::codec::encode;
use wire::frame::{
    Ack, Ask, Chunk, Cursor, Done, Framed, Hello, LogAsk, Question, Records, ToDevice, ToHub, Welcome,
};

/// Lengths, header and body of a frame.
#[track_caller]
fn check(frame: &impl Framed, header: &str, body: &[u8]) {
    let mut bytes = encode(frame).unwrap();
    let lengths = (bytes.get_u32() as usize, bytes.get_u32() as usize);
    assert_eq!(lengths, (header.len(), body.len()));
    assert_eq!(std::str::from_utf8(&bytes[..lengths.0]).unwrap(), header);
    assert_eq!(&bytes[lengths.0..], body);
}

fn signed() -> Signed {
    Signed {
        text: "t".into(),
        key: "k".into(),
        signature: "s".into(),
    }
}

#[test]
fn frames_to_the_hub() {
    let hello = Hello {
        versions: wire::OURS,
        device: "pi-5".parse().unwrap(),
        class: "raspberry-pi-5".parse().unwrap(),
        agent: "0.1.0".into(),
        boot_id: "b".into(),
        nonce: "00".into(),
        bundle_serial: 3,
        last_intent: 4,
        status: None,
        status_at: Some(Cursor { epoch: 7, upto: 9 }),
    };
    check(
        &ToHub::Hello(Box::new(hello)),
        concat!(
            r#"{"frame":"hello","versions":{"oldest":1,"newest":1},"device":"pi-5","class":"raspberry-pi-5","#,
            r#""agent":"0.1.0","bootId":"b","nonce":"00","bundleSerial":3,"lastIntent":4,"statusAt":{"epoch":7,"upto":9}}"#
        ),
        b"",
    );
    let mut records = Records::new(
        "events",
        7,
        3,
        vec![Bytes::from_static(b"one"), Bytes::from_static(b"\xff")],
    );
    check(
        &ToHub::Records(records.clone()),
        r#"{"frame":"records","stream":"events","epoch":7,"first":3,"sizes":[3,1]}"#,
        b"one\xff",
    );
    records.lost = vec![(1, 2)];
    check(
        &ToHub::Records(records),
        r#"{"frame":"records","stream":"events","epoch":7,"first":3,"lost":[[1,2]],"sizes":[3,1]}"#,
        b"one\xff",
    );
    let chunk = Chunk {
        id: 5,
        data: Bytes::from_static(b"log"),
    };
    check(&ToHub::Chunk(chunk), r#"{"frame":"chunk","id":5}"#, b"log");
    check(
        &ToHub::Done(Done {
            id: 5,
            error: Some("gone".into()),
        }),
        r#"{"frame":"done","id":5,"error":"gone"}"#,
        b"",
    );
    check(
        &ToHub::Accepted { intent: 4 },
        r#"{"frame":"accepted","intent":4}"#,
        b"",
    );
    check(&ToHub::Pong { nonce: 6 }, r#"{"frame":"pong","nonce":6}"#, b"");
}

#[test]
fn frames_to_the_device() {
    let welcome = Welcome {
        version: 1,
        cursors: BTreeMap::from([("events".to_owned(), Cursor { epoch: 7, upto: 9 })]),
        heartbeat_ms: 15_000,
        time: signed(),
        bundle: None,
    };
    check(
        &ToDevice::Welcome(Box::new(welcome)),
        concat!(
            r#"{"frame":"welcome","version":1,"cursors":{"events":{"epoch":7,"upto":9}},"heartbeatMs":15000,"#,
            r#""time":{"text":"t","key":"k","signature":"s"}}"#
        ),
        b"",
    );
    let ack = Ack {
        stream: "events".into(),
        epoch: 7,
        upto: 9,
        ahead: 0,
    };
    check(
        &ToDevice::Ack(ack),
        r#"{"frame":"ack","stream":"events","epoch":7,"upto":9}"#,
        b"",
    );
    let logs = LogAsk {
        namespace: "edge".into(),
        pod: "web".into(),
        tail: Some(10),
        since: Some(Timestamp::UNIX_EPOCH),
        ..LogAsk::default()
    };
    let ask = Ask {
        id: 5,
        window: 65_536,
        what: Question::Logs(logs),
    };
    check(
        &ToDevice::Ask(ask),
        concat!(
            r#"{"frame":"ask","id":5,"window":65536,"what":"logs","namespace":"edge","pod":"web","follow":false,"#,
            r#""previous":false,"timestamps":false,"tail":10,"since":"1970-01-01T00:00:00Z"}"#
        ),
        b"",
    );
    check(
        &ToDevice::More { id: 5, bytes: 100 },
        r#"{"frame":"more","id":5,"bytes":100}"#,
        b"",
    );
    check(&ToDevice::Cancel { id: 5 }, r#"{"frame":"cancel","id":5}"#, b"");
    check(
        &ToDevice::Intent { signed: signed() },
        r#"{"frame":"intent","signed":{"text":"t","key":"k","signature":"s"}}"#,
        b"",
    );
    check(&ToDevice::Ping { nonce: 6 }, r#"{"frame":"ping","nonce":6}"#, b"");
    check(
        &ToDevice::Bye {
            reason: "r".into(),
            retry_after: Some(2),
        },
        r#"{"frame":"bye","reason":"r","retryAfter":2}"#,
        b"",
    );
}

#[test]
fn fields_that_a_newer_peer_adds_are_passed_over() {
    let mut bytes = bytes::BytesMut::new();
    let header = br#"{"frame":"pong","nonce":6,"mood":"good"}"#;
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&0u32.to_be_bytes());
    bytes.extend_from_slice(header);
    assert_eq!(
        wire::codec::decode(&mut bytes).unwrap(),
        Some(ToHub::Pong { nonce: 6 })
    );
}
