//! Records in, rows out: from files and from what is staged, by SQL.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use history::{
    Answer, Bounds, DeviceFact, Engine, EventFact, FileRef, Limits, QueryError, Record, Signal, Sources,
    StatusFact, WorkloadFact, Written, check, write_file,
};
use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ALL: Bounds = Bounds {
    rows: 10_000,
    bytes: 16 << 20,
};

fn noon() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> u64 {
    let at = noon() + SignedDuration::from_secs(seconds);
    u64::try_from(at.as_nanosecond()).unwrap()
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

fn record(device: &str, sequence: u64, payload: Vec<u8>) -> Record {
    Record {
        device: Arc::from(device),
        sequence,
        received_at: noon() + SignedDuration::from_hours(1),
        payload: payload.into(),
    }
}

/// One request with a line for each (second after noon, severity number, text).
fn logs(device: &str, sequence: u64, lines: &[(i64, i32, &str)]) -> Record {
    let line = |(second, severity, body): &(i64, i32, &str)| LogRecord {
        time_unix_nano: after(*second),
        severity_number: *severity,
        body: Some(AnyValue {
            value: Some(text(body)),
        }),
        attributes: vec![
            pair("leeward.source", text("container")),
            pair("line", Value::IntValue(i64::from(*severity))),
            pair(
                "tags",
                Value::ArrayValue(ArrayValue {
                    values: vec![
                        AnyValue {
                            value: Some(text("a")),
                        },
                        AnyValue { value: None },
                    ],
                }),
            ),
        ],
        trace_id: vec![0xab; 16],
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![
                    pair("k8s.namespace.name", text("edge")),
                    pair("k8s.pod.name", text("reader-0")),
                    pair("k8s.container.name", text("reader")),
                    pair("leeward.source", text("of the resource")),
                ],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: lines.iter().map(line).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    record(device, sequence, request.encode_to_vec())
}

fn file(root: &Path, name: &str, signal: Signal, records: &[Record]) -> FileRef {
    let Written { bytes, contents } = write_file(root, name, signal, records).unwrap();
    FileRef {
        name: name.into(),
        bytes,
        times: contents.times.unwrap(),
    }
}

async fn ask(engine: &Arc<Engine>, sources: &Sources, sql: &str) -> Result<Answer, QueryError> {
    engine.run(engine.prepare(sql)?, sources.clone(), ALL).await
}

fn of_logs(files: Vec<FileRef>, staged: Vec<Record>) -> Sources {
    let mut sources = Sources::default();
    sources.signals.insert(Signal::Logs, (files, staged));
    sources
}

#[tokio::test]
async fn files_and_staged_records_are_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(dir.path(), Limits::default()).unwrap());
    let filed = [
        logs("crane-1", 1, &[(0, 9, "started"), (10, 17, "lost the hook")]),
        logs("gate-1", 1, &[(5, 13, "slow badge")]),
    ];
    let files = vec![
        file(dir.path(), "logs/1-2.parquet", Signal::Logs, &filed),
        file(
            dir.path(),
            "logs/3-3.parquet",
            Signal::Logs,
            &[logs("gate-1", 2, &[(60, 17, "no badge")])],
        ),
    ];
    let sources = of_logs(
        files,
        vec![logs("crane-1", 2, &[(70, 21, "stopped"), (71, 0, "a line")])],
    );

    let all = ask(
        &engine,
        &sources,
        "SELECT device, time, severity, source, namespace, pod, container, body, attributes, trace_id, span_id
         FROM logs ORDER BY time",
    )
    .await
    .unwrap();
    assert_eq!(all.rows.len(), 6);
    assert!(!all.truncated);
    assert_eq!(
        all.rows[1],
        [
            json!("gate-1"),
            json!("2026-11-24T12:00:05Z"),
            json!("warn"),
            json!("container"),
            json!("edge"),
            json!("reader-0"),
            json!("reader"),
            json!("slow badge"),
            json!({"line": "13", "tags": "[\"a\",null]"}),
            json!("abababababababababababababababab"),
            json!(null),
        ]
    );
    let words: Vec<_> = all.rows.iter().map(|row| row[2].clone()).collect();
    let expected = json!(["info", "warn", "error", "error", "fatal", null]);
    assert_eq!(json!(words), expected);

    let some = "SELECT device, count(*) AS n FROM logs WHERE severity IN ('error', 'fatal')
                AND time >= '2026-11-24T12:00:10Z' AND attributes['line'] <> '0' GROUP BY device ORDER BY device";
    let counted = ask(&engine, &sources, some).await.unwrap();
    assert_eq!(json!(counted.rows), json!([["crane-1", 2], ["gate-1", 1]]));
    let kinds: Vec<_> = counted
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.kind.as_str()))
        .collect();
    assert_eq!(kinds, [("device", "Utf8"), ("n", "Int64")]);

    // A file out of the range that is asked for is not even opened.
    std::fs::remove_file(dir.path().join("logs/3-3.parquet")).unwrap();
    let early = "SELECT body FROM logs WHERE time < timestamp '2026-11-24T12:00:30Z' AND device = 'gate-1'";
    let found = ask(&engine, &sources, early).await.unwrap();
    assert_eq!(json!(found.rows), json!([["slow badge"]]));
    let failed = ask(&engine, &sources, "SELECT body FROM logs").await.unwrap_err();
    assert!(matches!(failed, QueryError::Failed(_)), "{failed:?}");
}

#[tokio::test]
async fn spans_and_alerts_are_tables_too() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(dir.path(), Limits::default()).unwrap());
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET /badge".into(),
        kind: 2,
        start_time_unix_nano: after(0),
        end_time_unix_nano: after(0) + 1_500,
        status: Some(Status {
            code: 2,
            ..Status::default()
        }),
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![pair("service.name", text("badges"))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let mut sources = Sources::default();
    let spans = record("gate-1", 1, request.encode_to_vec());
    sources.signals.insert(Signal::Traces, (Vec::new(), vec![spans]));
    let alerts = json!([
        {"labels": {"alertname": "Hot", "severity": "page"}, "annotations": {"summary": "91 degrees"},
         "startsAt": "2026-11-24T12:00:00Z", "endsAt": "2026-11-24T14:00:00Z"},
        {"labels": {"alertname": "Full"}, "startsAt": "2026-11-24T11:00:00Z", "endsAt": "2026-11-24T11:30:00Z"},
    ]);
    let alerts = record("gate-1", 1, alerts.to_string().into_bytes());
    let files = vec![file(dir.path(), "alerts/1-1.parquet", Signal::Alerts, &[alerts])];
    sources.signals.insert(Signal::Alerts, (files, Vec::new()));

    let spans = ask(
        &engine,
        &sources,
        "SELECT service, name, kind, status, duration_ns, parent_id FROM traces",
    );
    assert_eq!(
        json!(spans.await.unwrap().rows),
        json!([["badges", "GET /badge", "server", "error", 1500, null]])
    );
    let states = ask(
        &engine,
        &sources,
        "SELECT name, state, time, severity, annotations['summary'] FROM alerts ORDER BY name",
    );
    assert_eq!(
        json!(states.await.unwrap().rows),
        json!([
            ["Full", "resolved", "2026-11-24T11:30:00Z", null, null],
            ["Hot", "firing", "2026-11-24T12:00:00Z", "page", "91 degrees"]
        ])
    );
}

#[test]
fn what_cannot_be_read_is_told() {
    let broken = record("gate-1", 1, vec![0xff; 9]);
    for signal in [Signal::Logs, Signal::Traces, Signal::Alerts] {
        check(signal, &broken).unwrap_err();
    }
    let nameless = record("gate-1", 1, br#"[{"labels": {"severity": "page"}}]"#.to_vec());
    let err = check(Signal::Alerts, &nameless).unwrap_err();
    assert_eq!(err.to_string(), "alert 0 has no label alertname");
    let good = check(Signal::Logs, &logs("gate-1", 1, &[(3, 9, "x"), (1, 9, "y")])).unwrap();
    assert_eq!(good.rows, 2);
    let nanos = |second| i64::try_from(after(second)).unwrap();
    assert_eq!(good.times, Some((nanos(1), nanos(3))));
    let empty = check(Signal::Logs, &record("gate-1", 1, Vec::new())).unwrap();
    assert_eq!((empty.rows, empty.times), (0, None));
    let dir = tempfile::tempdir().unwrap();
    write_file(dir.path(), "logs/1-1.parquet", Signal::Logs, &[broken]).unwrap_err();
    assert!(!dir.path().join("logs").exists());
}

#[tokio::test]
async fn what_the_hub_knows_itself_is_joined_with_what_devices_say() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(dir.path(), Limits::default()).unwrap());
    let mut sources = of_logs(Vec::new(), vec![logs("gate-1", 1, &[(0, 17, "no badge")])]);
    sources.facts.devices.push(DeviceFact {
        name: "gate-1".into(),
        class: "raspberry-pi-5".into(),
        site: "north".into(),
        labels: [("owner".to_owned(), "ann".to_owned())].into(),
        enrolled_at: noon(),
        health: "Ready",
        message: String::new(),
        connected: true,
        last_seen: None,
        agent: None,
        backlog: Some(3),
    });
    sources.facts.workloads.push(WorkloadFact {
        device: "gate-1".into(),
        namespace: "edge".into(),
        kind: "Deployment".into(),
        name: "reader".into(),
        state: "Current".into(),
        ready: 1,
        desired: 2,
        restarts: 7,
        images: "reader:1".into(),
        message: String::new(),
        told_at: noon(),
    });
    sources.facts.events.push(EventFact {
        device: "gate-1".into(),
        time: noon(),
        received_at: noon(),
        severity: "Warning".into(),
        reason: "Hot".into(),
        about: "device".into(),
        message: "it is hot".into(),
        generation: None,
    });
    sources.facts.status.push(StatusFact {
        device: "gate-1".into(),
        told_at: noon(),
        phase: "ready".into(),
        generation: Some("abc".into()),
        last_good: None,
        candidate: None,
        revision: None,
        source_error: None,
        cpu_percent: Some(12.5),
        temperature_celsius: None,
        memory_used: 1 << 30,
        memory_total: 4 << 30,
        disk_used: 0,
        disk_total: 0,
    });
    let sql = "SELECT d.site, d.labels['owner'], l.body, w.restarts, e.reason, s.cpu_percent, s.memory_used
               FROM logs l JOIN devices d ON d.name = l.device JOIN workloads w ON w.device = l.device
               JOIN events e ON e.device = l.device JOIN status s ON s.device = l.device
               WHERE d.enrolled_at = l.time";
    let joined = ask(&engine, &sources, sql).await.unwrap();
    assert_eq!(
        json!(joined.rows),
        json!([["north", "ann", "no badge", 7, "Hot", 12.5, 1_u64 << 30]])
    );
    // Every table can be named when there is nothing in it, and people can find out what there is.
    for table in history::tables() {
        let sql = format!("SELECT * FROM {}", table.name);
        let answer = ask(&engine, &Sources::default(), &sql).await.unwrap();
        assert_eq!(answer.columns.len(), table.columns.len());
        assert!(answer.rows.is_empty());
    }
    let described = ask(&engine, &Sources::default(), "DESCRIBE logs").await.unwrap();
    assert_eq!(described.rows[0][0], json!("device"));
}

#[tokio::test]
async fn mistakes_are_told_with_their_place_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::open(dir.path(), Limits::default()).unwrap());
    let told = async |sql: &str| {
        ask(&engine, &Sources::default(), sql)
            .await
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        told("SELECT body\nFROM logs WHRE device = 'a'")
            .await
            .lines()
            .next()
            .unwrap(),
        "line 2, column 16: Expected: end of statement, found: device"
    );
    let unknown = told("SELECT body,\n bodi FROM logs").await;
    assert!(
        unknown.starts_with("line 2, column 2: column 'bodi' not found"),
        "{unknown}"
    );
    let table = told("SELECT * FROM log").await;
    assert!(table.ends_with("table 'log' not found"), "{table}");
    for sql in [
        "",
        "SELECT 1; SELECT 2",
        "SELECT nothing(1)",
        "SELECT body + FROM logs",
        "SELECT 1/0",
    ] {
        told(sql).await;
    }
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE logs",
        "INSERT INTO logs SELECT * FROM logs",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let err = ask(&engine, &Sources::default(), sql).await.unwrap_err();
        assert!(
            matches!(err, QueryError::ReadOnly(_) | QueryError::Sql(_)),
            "{sql}: {err:?}"
        );
    }
    told("SELECT * FROM '/etc/passwd'").await;
}

#[tokio::test]
async fn an_answer_and_its_cost_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        memory: 4 << 20,
        time: Duration::from_secs(120),
        ..Limits::default()
    };
    let engine = Arc::new(Engine::open(dir.path(), limits).unwrap());
    let run = async |sql: &str, bounds| {
        let query = engine.prepare(sql).unwrap();
        engine.run(query, Sources::default(), bounds).await
    };
    let few = Bounds {
        rows: 10,
        bytes: 1 << 20,
    };
    let many = "SELECT value FROM generate_series(1, 100000)";
    let answer = run(many, few).await.unwrap();
    assert_eq!((answer.rows.len(), answer.truncated), (10, true));
    let small = Bounds {
        rows: 1_000,
        bytes: 100,
    };
    let answer = run(many, small).await.unwrap();
    assert!(
        answer.truncated && answer.rows.len() < 20,
        "{}",
        answer.rows.len()
    );
    let exact = run("SELECT value FROM generate_series(1, 10)", few)
        .await
        .unwrap();
    assert_eq!((exact.rows.len(), exact.truncated), (10, false));

    let hungry = "SELECT value % 3000000 AS k, count(*) AS n FROM generate_series(1, 5000000)
                  GROUP BY k ORDER BY n DESC, k";
    let err = run(hungry, ALL).await.unwrap_err();
    assert!(matches!(err, QueryError::Memory(_)), "{err:?}");
    // What was stopped gave back what it held.
    assert_eq!(run("SELECT 1", ALL).await.unwrap().rows.len(), 1);

    let limits = Limits {
        time: Duration::from_millis(200),
        ..Limits::default()
    };
    let engine = Arc::new(Engine::open(dir.path(), limits).unwrap());
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b
                   WHERE a.value * b.value % 7 = 3";
    let query = engine.prepare(endless).unwrap();
    let err = engine.run(query, Sources::default(), ALL).await.unwrap_err();
    assert!(matches!(err, QueryError::Time(_)), "{err:?}");
}
