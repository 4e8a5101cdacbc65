//! Telemetry: kept once, filed, asked by SQL, and dropped in time.

use crate::otlp;
use crate::rig::*;
use hub::store::Role;
use jiff::SignedDuration;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use telemetry::logs::{FILE, UPTO};
use telemetry::metrics::{Batch, Labels, Sample, Series, stale};
use wire::ApiError;
use wire::api::QueryAsk;
use wire::client::ConnectError;
use wire::frame::Records;

async fn try_ask(api: &wire::ApiClient, sql: &str) -> Result<Vec<Vec<serde_json::Value>>, ApiError> {
    let ask = QueryAsk {
        sql: sql.into(),
        limit: None,
    };
    Ok(api.query(&ask).await?.rows)
}

async fn ask(rig: &Rig, sql: &str) -> serde_json::Value {
    json!(try_ask(&rig.api, sql).await.unwrap())
}

fn refused(outcome: Result<Vec<Vec<serde_json::Value>>, ApiError>) -> (u16, String) {
    match outcome {
        Err(ApiError::Connect(ConnectError::Refused { status, problem, .. })) => {
            (status, problem.to_string())
        }
        other => panic!("{other:?}"),
    }
}

/// Files at once, and looks often.
fn eager(config: &mut hub::HubConfig) {
    config.history.file_after = Duration::ZERO;
    config.history.every = Duration::from_millis(20);
}

fn files(dir: &Path, stream: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("hub/history").join(stream));
    let mut paths: Vec<PathBuf> = entries
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

async fn send(rig: &Rig, device: &mut Device, records: Records) {
    let upto = records.first + records.records().len() as u64 - 1;
    let stream = records.stream.clone();
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    session.sender().records(records).await.unwrap();
    within("the acknowledgement", session.acked(&stream, at(upto)))
        .await
        .unwrap();
}

fn metrics(values: &[(&str, &str, i64, f64)]) -> bytes::Bytes {
    let series = values.iter().map(|(name, zone, time, value)| {
        let mut series = Series::new(Labels::new([("__name__", *name), ("zone", *zone)]).unwrap());
        series.samples.push(Sample {
            time: *time,
            value: *value,
        });
        series
    });
    let batch = Batch {
        series: series.collect(),
    };
    batch.encode().unwrap().into()
}

#[tokio::test]
async fn what_a_device_sends_is_asked_by_sql_before_and_after_it_is_filed() {
    let rig = Rig::with(|config| config.history.every = Duration::from_secs(3600)).await;
    let mut device = rig.device("gate-1").await;
    let lines = vec![
        otlp::line("no badge"),
        vec![0xff; 5].into(),
        otlp::line("slow badge"),
    ];
    send(&rig, &mut device, Records::new("logs", EPOCH, 1, lines.clone())).await;
    // Sent again, as after a lost acknowledgement.
    send(&rig, &mut device, Records::new("logs", EPOCH, 1, lines)).await;
    let hot = metrics(&[
        ("node_hwmon_temp_celsius", "cpu", 1_763_985_600_000, 81.5),
        ("node_hwmon_temp_celsius", "gpu", 1_763_985_600_000, 40.0),
        ("up", "", 1_763_985_600_000, stale()),
    ]);
    send(&rig, &mut device, Records::new("metrics", EPOCH, 1, vec![hot])).await;

    let sql = "SELECT l.device, d.class, l.container, l.severity, l.body
               FROM logs l JOIN devices d ON d.name = l.device ORDER BY l.body";
    let line = |body| json!(["gate-1", "raspberry-pi-5", "reader", "error", body]);
    assert_eq!(
        ask(&rig, sql).await,
        json!([line("no badge"), line("slow badge")])
    );
    let hotter = "SELECT device, time, labels['zone'], value FROM metrics WHERE value > 80";
    let found = json!([["gate-1", "2025-11-24T12:00:00Z", "cpu", 81.5]]);
    assert_eq!(ask(&rig, hotter).await, found);
    assert_eq!(ask(&rig, "SELECT count(*) FROM metrics").await, json!([[2]]));
    // What nobody can read is apart, with its reason, and blocks nothing.
    let aside = rig.running.hub.store().set_aside(&device.name, 10).await.unwrap();
    assert_eq!((aside.len(), aside[0].sequence), (1, 2));
    assert!(aside[0].why.contains("no OTLP logs request"), "{aside:?}");

    // The same answers from files, by the process after this one.
    let dir = rig.dir.path().to_owned();
    assert!(files(&dir, "logs").is_empty());
    let rig = rig.restart_with(eager).await;
    until("the files", async || {
        let both = !files(&dir, "logs").is_empty() && !files(&dir, "metrics").is_empty();
        both.then_some(())
    })
    .await;
    until("everything filed", async || {
        rig.running
            .hub
            .store()
            .unfiled()
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    assert_eq!(
        ask(&rig, sql).await,
        json!([line("no badge"), line("slow badge")])
    );
    assert_eq!(ask(&rig, hotter).await, found);
}

#[tokio::test]
async fn people_who_may_look_may_ask_and_nobody_changes_anything() {
    let rig = Rig::new().await;
    let store = rig.running.hub.store();
    store
        .set_person("vera", "lwp1-vera", Role::Viewer, None, "admin")
        .await
        .unwrap();
    let vera = api(&rig.running, "lwp1-vera");
    assert_eq!(json!(try_ask(&vera, "SELECT 1").await.unwrap()), json!([[1]]));
    let nobody = api(&rig.running, "lwp1-nobody");
    assert_eq!(refused(try_ask(&nobody, "SELECT 1").await).0, 401);

    let (status, problem) = refused(try_ask(&vera, "SELECT bodi FROM logs").await);
    assert_eq!(status, 400);
    assert!(problem.starts_with("BadQuery: line 1, column 8: "), "{problem}");
    let (status, problem) = refused(try_ask(&vera, "DROP TABLE logs").await);
    assert_eq!(
        (status, problem.starts_with("ReadOnly: ")),
        (400, true),
        "{problem}"
    );
    let tables = vera.query_tables().await.unwrap();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "metrics",
            "logs",
            "traces",
            "alerts",
            "devices",
            "workloads",
            "events",
            "status"
        ]
    );
    let ask = QueryAsk {
        sql: "SELECT value FROM generate_series(1, 50)".into(),
        limit: Some(20),
    };
    let answer = vera.query(&ask).await.unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (20, true));
}

#[tokio::test]
async fn many_small_files_become_one_and_the_oldest_are_dropped_in_time() {
    let rig = Rig::with(|config| {
        eager(config);
        config.history.keep = SignedDuration::from_hours(24);
    })
    .await;
    let dir = rig.dir.path().to_owned();
    let mut device = rig.device("gate-1").await;
    for number in 1..=14_u64 {
        let one = vec![otlp::line(&format!("line {number}"))];
        send(&rig, &mut device, Records::new("logs", EPOCH, number, one)).await;
        until("its file", async || {
            rig.running
                .hub
                .store()
                .unfiled()
                .await
                .unwrap()
                .is_empty()
                .then_some(())
        })
        .await;
    }
    // Twelve became one; those that were merged are deleted, since no query holds them.
    until("one file of twelve", async || {
        (files(&dir, "logs").len() == 3).then_some(())
    })
    .await;
    let count = "SELECT count(*), count(DISTINCT body) FROM logs";
    assert_eq!(ask(&rig, count).await, json!([[14, 14]]));

    // A file that nothing names, from a process that was killed between two steps, is gone after the next start.
    let orphan = dir.join("hub/history/logs/00000000000000000090-00000000000000000091.parquet");
    let rig = rig
        .restart_with_after(eager, || {
            std::fs::copy(files(&dir, "logs").first().unwrap(), &orphan)
                .map(drop)
                .unwrap()
        })
        .await;
    until("the orphan's end", async || (!orphan.exists()).then_some(())).await;
    assert_eq!(ask(&rig, count).await, json!([[14, 14]]));

    rig.clock.advance(Duration::from_secs(8 * 24 * 3600));
    until("the end of all files", async || {
        files(&dir, "logs").is_empty().then_some(())
    })
    .await;
    assert_eq!(ask(&rig, count).await, json!([[0, 0]]));
    let trail = rig.api.audit(100).await.unwrap();
    let told = trail.iter().find(|row| row.action == "telemetry.drop").unwrap();
    assert!(told.detail.contains("14 rows"), "{told:?}");
}

/// Entries with where they end in their file, as a device's collector makes them.
fn of_file(file: &str, entries: &[(i64, &str)]) -> bytes::Bytes {
    let mut request = ExportLogsServiceRequest::decode(otlp::line("")).unwrap();
    let pair = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let of_resource = &mut request.resource_logs[0];
    let resource = of_resource.resource.as_mut().unwrap();
    resource
        .attributes
        .push(pair(FILE, Value::StringValue(file.into())));
    let logs = &mut of_resource.scope_logs[0].log_records;
    let empty = logs.remove(0);
    for (upto, body) in entries {
        let mut log = empty.clone();
        log.body = Some(AnyValue {
            value: Some(Value::StringValue((*body).into())),
        });
        log.attributes.push(pair(UPTO, Value::IntValue(*upto)));
        logs.push(log);
    }
    request.encode_to_vec().into()
}

#[tokio::test]
async fn log_entries_that_a_crashed_device_gives_again_are_rows_once() {
    let rig = Rig::new().await;
    let mut device = rig.device("gate-1").await;
    let first = vec![of_file("f1", &[(10, "one"), (20, "two")])];
    send(&rig, &mut device, Records::new("logs", EPOCH, 1, first)).await;
    // After a crash the same entries come in other records, with new numbers, and one more with them.
    let again = vec![
        of_file("f1", &[(10, "one")]),
        of_file("f1", &[(20, "two"), (30, "three")]),
        of_file("f2", &[(10, "of another file")]),
    ];
    send(&rig, &mut device, Records::new("logs", EPOCH, 2, again)).await;
    let bodies = ask(&rig, "SELECT body FROM logs ORDER BY body").await;
    assert_eq!(bodies, json!([["of another file"], ["one"], ["three"], ["two"]]));
}
