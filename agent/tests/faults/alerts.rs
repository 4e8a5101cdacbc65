//! Rules on the device: without a hub, through kills of the agent.

use crate::rig::{Rig, deployment};
use model::Phase;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is scraped, and one that is told: both at the device.
struct Neighbours {
    port: u16,
    temperature: Arc<AtomicI64>,
    /// So many requests are answered with 503 first.
    busy: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Neighbours {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = Self {
            port: listener.local_addr().unwrap().port(),
            temperature: Arc::new(AtomicI64::new(50)),
            busy: Arc::new(AtomicUsize::new(2)),
            told: Arc::default(),
        };
        let (temperature, busy, told) = (all.temperature.clone(), all.busy.clone(), all.told.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (temperature, busy, told) = (temperature.clone(), busy.clone(), told.clone());
                std::thread::spawn(move || serve(stream, &temperature, &busy, &told));
            }
        });
        all
    }

    async fn until_told(&self, what: &str, met: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.told.lock().unwrap().clone();
            if met(&told) {
                return told;
            }
            assert!(Instant::now() < deadline, "{what}: {told:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn serve(stream: TcpStream, temperature: &AtomicI64, busy: &AtomicUsize, told: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut line, mut length, mut first) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if first.is_empty() {
                first = line.clone();
            }
            if let Some(found) = line.to_lowercase().strip_prefix("content-length:") {
                length = found.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (status, text) = if first.starts_with("GET") {
            (
                "200 OK",
                format!("room_celsius {}\n", temperature.load(Ordering::SeqCst)),
            )
        } else if busy
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            ("503 Service Unavailable", "later".to_owned())
        } else {
            told.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            ("200 OK", String::new())
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

const RULES: &str = r#"
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: room}
spec:
  groups:
  - name: room
    interval: 200ms
    rules:
    - record: room:fahrenheit
      expr: room_celsius * 1.8 + 32
    - alert: Hot
      expr: room:fahrenheit > 176
      for: 1500ms
      labels: {severity: critical}
      annotations: {summary: 'at {{ $value | printf "%.0f" }} degrees'}
    - alert: Beyond
      expr: max_over_time(room_celsius[1h:1m]) > 80
"#;

/// The state of alerts as it is on disk.
async fn until_kept(rig: &Rig, state: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    let path = rig.state().join("alerts.json");
    loop {
        let kept: Value =
            std::fs::read(&path).map_or(Value::Null, |data| serde_json::from_slice(&data).unwrap());
        let alert = &kept[0]["alerts"][0];
        if alert["state"] == state {
            return alert.clone();
        }
        assert!(Instant::now() < deadline, "{state}: {kept:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn statuses(told: &[Value]) -> Vec<&str> {
    told.iter().map(|body| body["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_alert_keeps_its_age_through_kills_and_everybody_is_told() {
    let neighbours = Neighbours::start();
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1)), ("rules.yaml", RULES)]);
    let scrapes = rig.beside(
        "scrapes.yaml",
        &format!(
            "scrape_configs:\n- job_name: room\n  scrape_interval: 200ms\n  static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
            neighbours.port
        ),
    );
    rig.configure(format!(
        "metrics: {{interval: 200ms, scrapeConfigFile: '{}'}}\nalerts: {{webhooks: [{{name: siren, url: 'http://127.0.0.1:{}/hook'}}]}}\n",
        scrapes.display(),
        neighbours.port
    ));
    rig.start();
    rig.until("what is not evaluated is in the status", |_, status| {
        let told = status.notes.iter().any(|note| {
            note.contains(
                "PrometheusRule /room: spec.groups[0].rules[2].expr: 1:27: a subquery is not evaluated",
            )
        });
        status.phase == Phase::Ready && told
    })
    .await;

    neighbours.temperature.store(90, Ordering::SeqCst);
    let pending = until_kept(&rig, "pending").await;
    rig.kill().await;
    rig.start();
    let firing = until_kept(&rig, "firing").await;
    assert_eq!(firing["activeSince"], pending["activeSince"]);
    let held = firing["firingSince"].as_i64().unwrap() - firing["activeSince"].as_i64().unwrap();
    assert!(held >= 1500, "{firing}");
    let told = neighbours
        .until_told("the siren, which was busy", |told| !told.is_empty())
        .await;
    let body = &told[0];
    assert_eq!(
        (&body["version"], &body["receiver"], &body["status"]),
        (&"4".into(), &"siren".into(), &"firing".into())
    );
    let alert = &body["alerts"][0];
    let instance = format!("127.0.0.1:{}", neighbours.port);
    let labels = serde_json::json!({
        "alertname": "Hot", "severity": "critical", "device": "pi-1", "class": "generic", "job": "room",
        "instance": instance
    });
    assert_eq!(alert["labels"], labels);
    assert_eq!(alert["annotations"]["summary"], "at 194 degrees");
    assert_eq!(body["commonLabels"], labels);

    // Who is told on the spot may hear it again; the hub does not.
    rig.kill().await;
    rig.start();
    neighbours
        .until_told("again after a kill", |told| statuses(told) == ["firing"; 2])
        .await;
    neighbours.temperature.store(20, Ordering::SeqCst);
    neighbours
        .until_told("it is over", |told| statuses(told).ends_with(&["resolved"]))
        .await;

    // A rule that is gone leaves no alert behind.
    neighbours.temperature.store(90, Ordering::SeqCst);
    neighbours
        .until_told("it fires anew", |told| told.len() == 4)
        .await;
    rig.push(&[("rules.yaml", "")]);
    let told = neighbours
        .until_told("its rule is gone", |told| told.len() == 5)
        .await;
    assert_eq!(
        statuses(&told),
        ["firing", "firing", "resolved", "firing", "resolved"]
    );
    rig.stop().await;
    let records: Vec<Value> = rig
        .records("alerts", spool::Durability::Strict, spool::Class::Critical)
        .iter()
        .map(|payload| serde_json::from_slice(payload).unwrap())
        .collect();
    let ended: Vec<bool> = records
        .iter()
        .map(|record| record[0]["endsAt"].is_string())
        .collect();
    assert_eq!(ended, [false, true, false, true], "{records:#?}");
    assert_eq!(records[0][0]["startsAt"], alert["startsAt"]);
}
