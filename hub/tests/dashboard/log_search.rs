//! The search of log lines, over a real hub whose device sent them.

use crate::browser::Browser;
use crate::device::{Device, api};
use hub::{Hub, HubConfig};
use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use serde_json::json;
use std::time::Duration;
use wire::client::HubAddress;
use wire::frame::{Cursor, Records};

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(value.into())),
    })
}

/// Lines of one container: when, level in OTLP's numbers, body.
fn record(namespace: &str, pod: &str, lines: &[(Timestamp, i32, String)]) -> bytes::Bytes {
    let pair = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: text(value),
        ..KeyValue::default()
    };
    let log = |(time, level, body): &(Timestamp, i32, String)| LogRecord {
        time_unix_nano: u64::try_from(time.as_nanosecond()).unwrap_or_default(),
        severity_number: *level,
        body: text(body),
        ..LogRecord::default()
    };
    let resource = Resource {
        attributes: vec![
            pair("k8s.namespace.name", namespace),
            pair("k8s.pod.name", pod),
            pair("k8s.container.name", "main"),
        ],
        ..Resource::default()
    };
    let scope = ScopeLogs {
        log_records: lines.iter().map(log).collect(),
        ..ScopeLogs::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![scope],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec().into()
}

const ROWS: &str = "return [...document.querySelectorAll('.loglines tbody tr')].map(r => r.querySelector('.line').textContent)";

#[tokio::test]
async fn browser_lines_are_found_by_what_they_are() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = HubConfig::new("127.0.0.1:0".parse().unwrap(), dir.path().join("hub"));
    let bound = Hub::build(config).await.unwrap();
    let base = format!("https://{}", bound.address());
    let at: HubAddress = bound.address().to_string().parse().unwrap();
    let api = api(&at, &bound.hub().ca(), bound.admin_token().unwrap());
    let running = tokio::spawn(bound.run(std::future::pending()));

    let now = Timestamp::now();
    let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
    let mut sessions = Vec::new();
    for (name, records) in [
        (
            "gate-1",
            vec![
                record(
                    "edge",
                    "reader-90aa-0",
                    &[
                        (ago(30), 9, "badge 17 read".into()),
                        (ago(20), 17, "Badge 18 REFUSED: <b>it's revoked</b> 100%_".into()),
                        (ago(10), 0, "no level".into()),
                        (ago(7200), 21, "of two hours ago".into()),
                    ],
                ),
                record("system", "proxy-1", &[(ago(25), 13, "slow upstream".into())]),
            ],
        ),
        (
            "gate-2",
            vec![record(
                "bulk",
                "writer-0",
                // Two at each moment: none may be shown twice, or not at all, where a page ends between them.
                &(0..450)
                    .map(|n| (ago(60 + n / 2), 9, format!("bulk {n:03}")))
                    .collect::<Vec<_>>(),
            )],
        ),
    ] {
        let device = Device::join(&dir.path().join(name), &at, &api, name, "raspberry-pi-5").await;
        let (session, orders) = device.connect(&at).await.unwrap();
        let cursor = Cursor {
            epoch: 7,
            upto: records.len() as u64,
        };
        session
            .sender()
            .records(Records::new("logs", 7, 1, records))
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(60), session.acked("logs", cursor))
            .await
            .unwrap()
            .unwrap();
        sessions.push((session, orders));
    }

    let link = api.login_link().await.unwrap();
    browser.open(&format!("{base}{}", link.path)).await;
    browser.until("location.pathname === '/'").await;
    // To the page by its link, to the first field and through the form by keyboard alone.
    browser
        .run("document.querySelector('nav a[href=\"/logs\"]').click()")
        .await;
    browser
        .until("document.querySelector('nav a[aria-current]')?.textContent === 'Logs'")
        .await;
    browser.run("document.getElementById('log-text').focus()").await;
    browser.press("refused\u{e007}").await;
    browser.until("location.search.includes('text=refused')").await;
    browser
        .until("document.querySelectorAll('.loglines tbody tr').length === 1")
        .await;
    let shown = browser
        .run("return document.querySelector('.loglines tbody tr').innerText")
        .await;
    for word in [
        "gate-1",
        "edge/reader-90aa-0",
        "main",
        "error",
        "Badge 18 REFUSED: <b>it's revoked</b>",
    ] {
        assert!(shown.as_str().unwrap().contains(word), "{word:?} in {shown}");
    }
    // What a container writes is text, never markup; what was searched for is marked.
    assert_eq!(
        browser
            .run("return document.querySelectorAll('.loglines b').length")
            .await,
        json!(0)
    );
    assert_eq!(
        browser
            .run("return document.querySelector('.loglines mark').textContent")
            .await,
        json!("REFUSED")
    );

    for (query, lines) in [
        (
            "device=gate-1",
            vec![
                "no level",
                "Badge 18 REFUSED: <b>it's revoked</b> 100%_",
                "slow upstream",
                "badge 17 read",
            ],
        ),
        (
            "device=gate-1&level=warn",
            vec!["Badge 18 REFUSED: <b>it's revoked</b> 100%_", "slow upstream"],
        ),
        (
            "level=error&last=6h",
            vec!["Badge 18 REFUSED: <b>it's revoked</b> 100%_", "of two hours ago"],
        ),
        ("namespace=system", vec!["slow upstream"]),
        (
            "pod=reader&text=badge",
            vec!["Badge 18 REFUSED: <b>it's revoked</b> 100%_", "badge 17 read"],
        ),
        // Quotes and wildcards are letters.
        (
            "text=it%27s+revoked",
            vec!["Badge 18 REFUSED: <b>it's revoked</b> 100%_"],
        ),
        (
            "text=100%25_",
            vec!["Badge 18 REFUSED: <b>it's revoked</b> 100%_"],
        ),
        ("text=b%25e", vec![]),
        ("namespace=x%27+OR+%27%27%3D%27", vec![]),
    ] {
        browser.open(&format!("{base}/logs?{query}")).await;
        assert_eq!(browser.run(ROWS).await, json!(lines), "{query}");
    }
    let before = ago(3600).strftime("%Y-%m-%dT%H:%M:%S").to_string();
    browser
        .open(&format!("{base}/logs?device=gate-1&last=6h&until={before}"))
        .await;
    assert_eq!(browser.run(ROWS).await, json!(["of two hours ago"]));
    let said = "return document.getElementById('log-count').textContent";
    browser.open(&format!("{base}/logs?text=nowhere")).await;
    let nothing = browser.run(said).await;
    assert!(
        nothing
            .as_str()
            .unwrap()
            .starts_with("No line matches in the hour before "),
        "{nothing}"
    );

    // Every line once over the pages, and back again.
    browser.open(&format!("{base}/logs?device=gate-2")).await;
    let mut seen: Vec<String> = Vec::new();
    for (from, upto) in [(1, 200), (201, 400), (401, 450)] {
        browser
            .until(&format!(
                "document.getElementById('log-count').textContent.startsWith('Lines {from} to {upto}, ')"
            ))
            .await;
        let rows: Vec<String> = serde_json::from_value(browser.run(ROWS).await).unwrap();
        seen.extend(rows);
        browser
            .run("document.querySelector('a[rel=next]')?.click()")
            .await;
    }
    assert!(seen[0] == "bulk 000" && seen[449] == "bulk 449", "{seen:?}");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 450);
    browser.run("document.querySelector('a[rel=prev]').click()").await;
    browser
        .until("document.getElementById('log-count').textContent.startsWith('Lines 201 to 400, ')")
        .await;

    // What is wrong is said at its field, for those who do not see it as well.
    browser
        .open(&format!("{base}/logs?until=tomorrow&device=No+Name"))
        .await;
    for (field, word) in [("log-until", "2026-01-31T18:30"), ("log-device", "small letters")] {
        let told = format!(
            "const f = document.getElementById('{field}'); return f.getAttribute('aria-invalid') + document.getElementById(f.getAttribute('aria-describedby')).textContent"
        );
        let told = browser.run(&told).await;
        let told = told.as_str().unwrap();
        assert!(told.starts_with("true") && told.contains(word), "{told}");
    }
    assert_eq!(browser.run(ROWS).await, json!([]));

    // From a device's page its lines are one link away.
    browser.open(&format!("{base}/devices/gate-1")).await;
    browser
        .run("document.querySelector('a[href=\"/logs?device=gate-1\"]').click()")
        .await;
    browser
        .until("document.querySelectorAll('.loglines tbody tr').length === 4")
        .await;
    // Every field has a label, the table its headings, and the count is told.
    let bare = "return [...document.querySelectorAll('.logsearch input, .logsearch select')].filter(f => !f.labels.length).length
      + ['.logsearch[role=search]', '.loglines caption', '.loglines th[scope=col]', '#log-count[role=status]', '.scroll[tabindex=\"0\"]'].filter(s => !document.querySelector(s)).length";
    assert_eq!(browser.run(bare).await, json!(0));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let requests = browser.requests().await;
    assert!(requests.iter().all(|url| url.starts_with(&base)), "{requests:?}");
    running.abort();
}
