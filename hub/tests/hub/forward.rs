//! Telemetry onward: to real receivers where the machine has them, and to one that answers anything.

use crate::otlp;
use crate::receiver::{Answer, Receiver};
use crate::rig::*;
use hub::{ForwarderConfig, HubConfig};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use prost::Message as _;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use telemetry::metrics::{Batch, Labels, Sample, Series};
use wire::api::ForwarderRow;
use wire::frame::Records;

fn forwarder(json: Value) -> ForwarderConfig {
    serde_json::from_value(json).unwrap()
}

pub fn with(forwarders: Vec<Value>) -> impl FnOnce(&mut HubConfig) {
    move |config| {
        config.forwarders = forwarders.into_iter().map(forwarder).collect();
        config.history.every = Duration::from_millis(50);
        config.history.file_after = Duration::ZERO;
    }
}

pub async fn send(rig: &Rig, device: &mut Device, stream: &str, first: u64, records: Vec<bytes::Bytes>) {
    let upto = first + records.len() as u64 - 1;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let records = Records::new(stream, EPOCH, first, records);
    session.sender().records(records).await.unwrap();
    within("the acknowledgement", session.acked(stream, at(upto)))
        .await
        .unwrap();
}

pub async fn row(rig: &Rig, name: &str) -> ForwarderRow {
    let rows = rig.api.forwarders().await.unwrap();
    rows.into_iter().find(|row| row.name == name).unwrap()
}

/// Waits until a forwarder has nothing to do, and gives what it says then.
pub async fn caught_up(rig: &Rig, name: &str) -> ForwarderRow {
    until("the forwarder's end", async || {
        let row = row(rig, name).await;
        (row.waiting == 0).then_some(row)
    })
    .await
}

fn samples(name: &str, values: &[(i64, f64)]) -> bytes::Bytes {
    let mut series =
        Series::new(Labels::new([("__name__", name), ("zone", "cpu"), ("site", "of the target")]).unwrap());
    series.samples = values
        .iter()
        .map(|&(time, value)| Sample { time, value })
        .collect();
    Batch { series: vec![series] }.encode().unwrap().into()
}

async fn get(port: u16, path: &str) -> reqwest::Result<reqwest::Response> {
    // Whichever test is first; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::get(format!("http://127.0.0.1:{port}{path}")).await
}

/// A server of the machine's packages that does not outlive the test; none where it is not installed.
struct Server {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `words` are given the port and a folder; ready when `path` answers 200.
    #[expect(clippy::print_stderr, reason = "a test that skips says so")]
    async fn start(program: &str, path: &str, words: impl Fn(u16, &str) -> Vec<String>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let log = dir.path().join("log");
        let spawned = Command::new(program)
            .args(words(port, dir.path().to_str().unwrap()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(err) => {
                eprintln!("SKIPPED: {program}: {err}");
                assert!(std::env::var_os("CI").is_none(), "CI must have {program}");
                return None;
            }
        };
        let mut server = Self {
            process,
            port,
            _dir: dir,
        };
        until("the server", async || {
            let ended = server.process.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{program}: {}",
                std::fs::read_to_string(&log).unwrap()
            );
            let answer = get(port, path).await;
            answer.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
        Some(server)
    }

    async fn get(&self, path: &str) -> Value {
        let answer = get(self.port, path).await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default()
    }
}

fn minutes_ago(minutes: i64) -> i64 {
    jiff::Timestamp::now().as_millisecond() - minutes * 60_000
}

#[tokio::test]
async fn prometheus_has_every_sample_once_also_of_a_device_that_was_away() {
    let config = "storage: {tsdb: {out_of_order_time_window: 24h}}\n";
    let Some(prometheus) = Server::start("prometheus", "/-/ready", |port, dir| {
        std::fs::write(format!("{dir}/prometheus.yml"), config).unwrap();
        vec![
            format!("--config.file={dir}/prometheus.yml"),
            format!("--storage.tsdb.path={dir}/data"),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".into(),
        ]
    })
    .await
    else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/api/v1/write", prometheus.port);
    let rig = Rig::with(with(vec![
        json!({"name": "prom", "kind": "remoteWrite", "url": url, "labels": {"cluster": "harbour"}}),
    ]))
    .await;
    let mut gate = rig.device("gate-1").await;
    let mut crane = rig.device("crane-1").await;
    let fresh = [(minutes_ago(2), 20.0), (minutes_ago(1), 21.0)];
    send(
        &rig,
        &mut gate,
        "metrics",
        1,
        vec![samples("room_celsius", &fresh)],
    )
    .await;
    assert_eq!(caught_up(&rig, "prom").await.sent, 1);
    // It was away for three hours; what it has is older than everything in the database.
    let late: Vec<(i64, f64)> = (1..=100_u8)
        .map(|n| (minutes_ago(280 - i64::from(n)), f64::from(n)))
        .collect();
    let records = late
        .chunks(10)
        .map(|part| samples("room_celsius", part))
        .collect();
    send(&rig, &mut crane, "metrics", 1, records).await;
    let told = caught_up(&rig, "prom").await;
    assert_eq!((told.sent, told.set_aside, told.dropped), (11, 0, 0), "{told:?}");

    let query = "/api/v1/query?query=count_over_time(room_celsius%5B6h%5D)";
    let counts = until("the samples", async || {
        let answer = prometheus.get(query).await;
        let found = answer["data"]["result"].as_array()?.clone();
        (found.len() == 2).then_some(found)
    })
    .await;
    for (device, count) in [("gate-1", "2"), ("crane-1", "100")] {
        let found = counts
            .iter()
            .find(|one| one["metric"]["device"] == device)
            .unwrap();
        assert_eq!(found["value"][1], count);
        let labels = &found["metric"];
        assert_eq!(
            (
                &labels["class"],
                &labels["site"],
                &labels["cluster"],
                &labels["exported_site"]
            ),
            (
                &json!("raspberry-pi-5"),
                &json!("default"),
                &json!("harbour"),
                &json!("of the target")
            )
        );
    }
}

#[tokio::test]
async fn victoria_metrics_and_alertmanager_take_what_is_theirs() {
    let Some(victoria) = Server::start("victoria-metrics", "/health", |port, dir| {
        vec![
            format!("-storageDataPath={dir}/data"),
            format!("-httpListenAddr=127.0.0.1:{port}"),
        ]
    })
    .await
    else {
        return;
    };
    let Some(alertmanager) = Server::start("prometheus-alertmanager", "/-/ready", |port, dir| {
        std::fs::write(
            format!("{dir}/am.yml"),
            "route: {receiver: none}\nreceivers: [{name: none}]\n",
        )
        .unwrap();
        vec![
            format!("--config.file={dir}/am.yml"),
            format!("--storage.path={dir}/data"),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=".into(),
        ]
    })
    .await
    else {
        return;
    };
    let rig = Rig::with(with(vec![
        json!({"name": "vm", "kind": "remoteWrite", "url": format!("http://127.0.0.1:{}/api/v1/write", victoria.port)}),
        json!({"name": "am", "kind": "alertmanager", "url": format!("http://127.0.0.1:{}", alertmanager.port)}),
    ]))
    .await;
    let mut device = rig.device("gate-1").await;
    let values: Vec<(i64, f64)> = (1..=50_u8)
        .map(|n| (minutes_ago(60 - i64::from(n)), f64::from(n)))
        .collect();
    send(
        &rig,
        &mut device,
        "metrics",
        1,
        vec![samples("room_celsius", &values)],
    )
    .await;
    let alert = json!([{"labels": {"alertname": "Hot", "severity": "page"}, "annotations": {"summary": "91"},
                        "startsAt": jiff::Timestamp::now()}]);
    send(
        &rig,
        &mut device,
        "alerts",
        1,
        vec![alert.to_string().into_bytes().into()],
    )
    .await;
    assert_eq!(caught_up(&rig, "vm").await.sent, 1);
    assert_eq!(caught_up(&rig, "am").await.sent, 1);

    let query = "/api/v1/query?query=count_over_time(room_celsius%5B6h%5D)&nocache=1&latency_offset=1ms";
    until("the samples", async || {
        let answer = victoria.get(query).await;
        let found = &answer["data"]["result"][0];
        (found["value"][1] == "50" && found["metric"]["device"] == "gate-1").then_some(())
    })
    .await;
    let alerts = alertmanager.get("/api/v2/alerts").await;
    assert_eq!(alerts[0]["labels"]["alertname"], "Hot");
    assert_eq!(alerts[0]["labels"]["device"], "gate-1");
    assert_eq!(alerts[0]["status"]["state"], "active");
}

#[tokio::test]
async fn a_receiver_that_answers_anything_gets_everything_in_order_and_loses_nothing() {
    let receiver = Receiver::start().await;
    let rig = Rig::with(with(vec![
        json!({"name": "loki", "kind": "loki", "url": receiver.url(), "headers": {"X-Scope-OrgID": "fleet"}}),
    ]))
    .await;
    // Not now, then not there, then a lost answer: it has the line, and nobody was told.
    receiver.script([
        Answer::Status(429, Some("0")),
        Answer::Status(503, None),
        Answer::Status(401, None),
        Answer::TakeAndHangUp,
    ]);
    let mut device = rig.device("gate-1").await;
    send(&rig, &mut device, "logs", 1, vec![otlp::line("one")]).await;
    let told = caught_up(&rig, "loki").await;
    assert_eq!(
        (told.sent, told.set_aside, told.state.as_str()),
        (1, 0, "UpToDate")
    );
    let lines = |request: &Value| -> Vec<String> {
        let values = request["streams"][0]["values"].as_array().unwrap();
        values
            .iter()
            .map(|value| value[1].as_str().unwrap().to_owned())
            .collect()
    };
    let taken = receiver.taken();
    // Twice, by the lost answer, and the same both times: such a receiver keeps it once.
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].json(), taken[1].json());
    assert_eq!(taken[0].path, "/loki/api/v1/push");
    assert_eq!(taken[0].header("x-scope-orgid"), Some("fleet"));
    let labels = taken[0].json()["streams"][0]["stream"].clone();
    let expected = json!({"device": "gate-1", "class": "raspberry-pi-5", "site": "default", "namespace": "edge",
                          "pod": "reader-0", "container": "reader", "level": "error"});
    assert_eq!(labels, expected);

    // One that it will never take, among ten: the others pass, it stands aside where people see it.
    receiver.refuse("line 5");
    let records = (1..=10).map(|n| otlp::line(&format!("line {n}"))).collect();
    send(&rig, &mut device, "logs", 2, records).await;
    let told = caught_up(&rig, "loki").await;
    assert_eq!((told.sent, told.set_aside), (10, 1));
    let aside = &told.newest_set_aside[0];
    assert_eq!((aside.device.as_str(), aside.sequence), ("gate-1", 6));
    assert!(aside.why.starts_with("400 refused"), "{aside:?}");
    let all: Vec<String> = receiver.taken()[2..]
        .iter()
        .flat_map(|one| lines(&one.json()))
        .collect();
    let expected: Vec<String> = (1..=10)
        .filter(|n| *n != 5)
        .map(|n| format!("line {n}"))
        .collect();
    assert_eq!(all, expected);

    // Too large is halved.
    receiver.largest(2);
    let records = (11..=18).map(|n| otlp::line(&format!("line {n}"))).collect();
    send(&rig, &mut device, "logs", 12, records).await;
    assert_eq!(caught_up(&rig, "loki").await.sent, 18);

    // While it is away nothing else waits, people see why, and a restart of the hub loses nothing.
    receiver.away(true);
    send(&rig, &mut device, "logs", 20, vec![otlp::line("late")]).await;
    let row = until("the trouble", async || {
        let row = row(&rig, "loki").await;
        (row.state == "Waiting").then_some(row)
    })
    .await;
    assert!(
        row.message.contains("503") && row.waiting == 1 && row.retry_at.is_some(),
        "{row:?}"
    );
    let forwarders = vec![json!({"name": "loki", "kind": "loki", "url": receiver.url()})];
    let rig = rig.restart_with(with(forwarders)).await;
    receiver.away(false);
    let told = caught_up(&rig, "loki").await;
    assert_eq!((told.sent, told.set_aside, told.dropped), (19, 1, 0));
    assert_eq!(lines(&receiver.taken().last().unwrap().json()), ["late"]);
}

#[tokio::test]
async fn open_search_is_told_ids_and_otlp_where_it_is_from() {
    let (search, otel) = (Receiver::start().await, Receiver::start().await);
    let rig = Rig::with(with(vec![
        json!({"name": "search", "kind": "opensearch", "url": search.url(), "index": "edge"}),
        json!({"name": "otel", "kind": "otlp", "url": format!("{}/otlp/", otel.url())}),
    ]))
    .await;
    let bulk = |items: Value| Answer::Body(200, json!({"errors": true, "items": items}).to_string());
    search.script([
        // One is there already, one is not taken for now: all of it again.
        bulk(json!([{"create": {"status": 409}}, {"create": {"status": 429, "error": "full"}}])),
        bulk(json!([{"create": {"status": 409}}, {"create": {"status": 400, "error": "mapping"}}])),
    ]);
    let mut device = rig.device("gate-1").await;
    send(
        &rig,
        &mut device,
        "logs",
        1,
        vec![otlp::line("a"), otlp::line("b")],
    )
    .await;
    let told = caught_up(&rig, "search").await;
    assert_eq!((told.sent, told.set_aside), (2, 1));
    let taken = search.taken();
    assert_eq!(taken[0].body, taken[1].body);
    assert!(taken[0].path.starts_with("/_bulk?filter_path="));
    let lines: Vec<Value> = String::from_utf8_lossy(&taken[0].body)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines[0],
        json!({"create": {"_index": "edge", "_id": "gate-1.1.1.0"}})
    );
    assert_eq!(
        (&lines[1]["message"], &lines[1]["labels"]["device"]),
        (&json!("a"), &json!("gate-1"))
    );
    assert_eq!(lines[2]["create"]["_id"], "gate-1.1.2.0");

    assert_eq!(caught_up(&rig, "otel").await.sent, 2);
    let taken = otel.taken();
    assert_eq!(taken[0].path, "/otlp/v1/logs");
    let request = ExportLogsServiceRequest::decode(&*taken[0].body).unwrap();
    let resource = request.resource_logs[0].resource.as_ref().unwrap();
    let device = resource
        .attributes
        .iter()
        .find(|pair| pair.key == "leeward.device")
        .unwrap();
    let device = device.value.as_ref().unwrap().value.as_ref().unwrap();
    assert_eq!(*device, any_value::Value::StringValue("gate-1".into()));
}

#[tokio::test]
async fn a_backlog_that_grows_too_large_is_dropped_and_counted() {
    let receiver = Receiver::start().await;
    receiver.away(true);
    let url = receiver.url();
    let rig = Rig::with(move |config| {
        with(vec![json!({"name": "loki", "kind": "loki", "url": url})])(config);
        config.history.staged_bytes = 2_000;
    })
    .await;
    let mut device = rig.device("gate-1").await;
    let records: Vec<_> = (1..=50).map(|n| otlp::line(&format!("line {n}"))).collect();
    let size: usize = records[0].len();
    send(&rig, &mut device, "logs", 1, records).await;
    let dropped = until("what was dropped", async || {
        let row = row(&rig, "loki").await;
        (row.dropped > 0 && row.waiting_bytes <= 2_000).then_some(row)
    })
    .await;
    assert_eq!(dropped.dropped + dropped.waiting, 50, "{dropped:?} {size}");
    receiver.away(false);
    let told = caught_up(&rig, "loki").await;
    assert_eq!(told.sent + told.dropped, 50);
    // What the hub keeps itself is whole.
    let ask = wire::api::QueryAsk {
        sql: "SELECT count(*) FROM logs".into(),
        limit: None,
    };
    assert_eq!(rig.api.query(&ask).await.unwrap().rows, [[json!(50)]]);
    let trail = rig.api.audit(100).await.unwrap();
    assert!(
        trail
            .iter()
            .any(|row| row.action == "telemetry.drop" && row.target == "staged")
    );
}
