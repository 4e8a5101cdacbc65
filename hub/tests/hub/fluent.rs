//! Fluentd's forward protocol, to a receiver on Python's own MessagePack that takes nothing else.

use crate::forward::{caught_up, row, send, with};
use crate::otlp;
use crate::rig::*;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian's, which has `python3-msgpack`.
const PYTHON: &str = "/usr/bin/python3";

struct Fluent {
    dir: tempfile::TempDir,
    port: u16,
    key: &'static str,
    process: Option<Child>,
}

impl Drop for Fluent {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fluent {
    #[expect(clippy::print_stderr, reason = "a test that skips says so")]
    async fn start(key: &'static str) -> Option<Self> {
        let there = Command::new(PYTHON).args(["-c", "import msgpack"]).output();
        if !there.is_ok_and(|out| out.status.success()) {
            eprintln!("SKIPPED: {PYTHON} has no msgpack (python3-msgpack)");
            assert!(std::env::var_os("CI").is_none(), "CI must have python3-msgpack");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut fluent = Self {
            dir: tempfile::tempdir().unwrap(),
            port,
            key,
            process: None,
        };
        std::fs::write(fluent.path("key"), key).unwrap();
        std::fs::write(fluent.path("password"), "pass").unwrap();
        fluent.run(key).await;
        Some(fluent)
    }

    async fn run(&mut self, key: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub/fluent_receiver.py");
        let process = Command::new(PYTHON)
            .arg(script)
            .arg(self.port.to_string())
            .arg(self.path("ledger"))
            .arg(key)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        until("the receiver", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .ok()
        })
        .await;
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn forwarder(&self) -> Value {
        let mut json = json!({"name": "fluent", "kind": "fluent", "url": format!("tcp://127.0.0.1:{}", self.port),
                              "labels": {"cluster": "harbour"}, "gzip": true});
        if !self.key.is_empty() {
            json["sharedKeyFile"] = json!(self.path("key"));
            json["username"] = json!("hub");
            json["passwordFile"] = json!(self.path("password"));
        }
        json
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("ledger")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn messages(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["record"]["message"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn each_chunk_is_sent_until_it_is_acknowledged() {
    let Some(mut fluent) = Fluent::start("").await else {
        return;
    };
    let rig = Rig::with(with(vec![fluent.forwarder()])).await;
    let mut device = rig.device("gate-1").await;
    let at: Timestamp = "2026-11-25T10:15:00.123456789Z".parse().unwrap();
    send(
        &rig,
        &mut device,
        "logs",
        1,
        vec![otlp::line_at("one", at), otlp::line("two")],
    )
    .await;
    assert_eq!(caught_up(&rig, "fluent").await.sent, 2);
    let events = fluent.events();
    assert_eq!(messages(&events), ["one", "two"]);
    let (first, record) = (&events[0], &events[0]["record"]);
    assert_eq!(
        (&first["seconds"], &first["nanos"], &first["tag"], &first["gzip"]),
        (
            &json!(at.as_second()),
            &json!(123_456_789),
            &json!("leeward.logs"),
            &json!(true)
        )
    );
    for (name, value) in [
        ("level", "error"),
        ("device", "gate-1"),
        ("class", "raspberry-pi-5"),
        ("cluster", "harbour"),
        ("k8s.pod.name", "reader-0"),
        ("leeward.sequence", "1.1.0"),
    ] {
        assert_eq!(record[name], value, "{record}");
    }

    // It has the chunk, but the acknowledgement is lost: the same chunk comes again, whole.
    std::fs::write(fluent.path("ledger.mute"), "").unwrap();
    send(&rig, &mut device, "logs", 3, vec![otlp::line("three")]).await;
    assert_eq!(caught_up(&rig, "fluent").await.sent, 3);
    let events = fluent.events();
    assert_eq!(messages(&events), ["one", "two", "three", "three"]);
    assert_eq!(
        events[2], events[3],
        "a receiver that keeps ids of chunks tells it"
    );

    // It is away, for longer than the hub lives.
    fluent.stop();
    send(&rig, &mut device, "logs", 4, vec![otlp::line("four")]).await;
    until("the trouble", async || {
        let row = row(&rig, "fluent").await;
        (row.state == "Waiting" && row.message.contains("connecting to")).then_some(())
    })
    .await;
    let rig = rig.restart_with(with(vec![fluent.forwarder()])).await;
    fluent.run("").await;
    let told = caught_up(&rig, "fluent").await;
    assert_eq!((told.sent, told.set_aside, told.dropped), (4, 0, 0));
    assert_eq!(messages(&fluent.events())[4..], ["four"]);
}

#[tokio::test]
async fn a_shared_key_is_proven_by_both() {
    let Some(mut fluent) = Fluent::start("the right key").await else {
        return;
    };
    let rig = Rig::with(with(vec![fluent.forwarder()])).await;
    let mut device = rig.device("gate-1").await;
    send(&rig, &mut device, "logs", 1, vec![otlp::line("one")]).await;
    assert_eq!(caught_up(&rig, "fluent").await.sent, 1);
    fluent.stop();
    fluent.run("another key").await;
    send(&rig, &mut device, "logs", 2, vec![otlp::line("two")]).await;
    until("the refusal", async || {
        let row = row(&rig, "fluent").await;
        row.message.contains("shared_key mismatch").then_some(())
    })
    .await;
    fluent.stop();
    fluent.run("the right key").await;
    let told = caught_up(&rig, "fluent").await;
    assert_eq!((told.sent, told.set_aside), (2, 0));
    assert_eq!(messages(&fluent.events()), ["one", "two"]);
}
