//! Spans of a pod, by OpenTelemetry's own SDK, through a cut link and a killed agent: to the hub's tables and onward,
//! each once.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod user;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use user::{PATIENCE, User, is_root, namespaces};

/// A user that no system has.
const USER: u32 = 61_235;
/// In the network namespace of the world's hub, where nothing else is.
const RECEIVER_PORT: &str = "24318";
const POD: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shop
        image: registry.leeward.internal/test/busybox:1
        args: [sleep, '271828']
        resources: {limits: {memory: 32Mi}}
";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rig {
    // Before the user, whose network it is in.
    receiver: Option<Running>,
    python: PathBuf,
    user: User,
}

impl Rig {
    fn script(&self, process: u32, name: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--target", &process.to_string()])
            .arg(&self.python)
            .arg(
                Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
                    .join("tests/traces")
                    .join(name),
            )
            .stdin(Stdio::null());
        command
    }

    /// Runs the SDK in the pod's network; gives the spans' ids.
    #[track_caller]
    fn send(&self, pod: u32, protocol: &str, endpoint: &str, traces: usize) -> Vec<String> {
        let mut client = self.script(pod, "client.py");
        let out = client
            .args([protocol, endpoint, &traces.to_string(), "shop-api"])
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{err}");
        let told: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(told["failed"], 0, "{err}{}", self.user.logs());
        let ids = told["ids"].as_array().unwrap();
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut is: impl FnMut() -> Result<T, String>) -> T {
        let start = Instant::now();
        loop {
            match is() {
                Ok(found) => return found,
                Err(why) => assert!(
                    start.elapsed() < PATIENCE,
                    "not yet: {what}: {why}{}",
                    self.user.logs()
                ),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How often each span is in the hub's table.
    fn in_table(&self) -> BTreeMap<String, u64> {
        let sql = "SELECT span_id, count(*) AS n FROM traces WHERE service = 'shop-api' AND device = 'pi-1' AND \
                   attributes['k8s.namespace.name'] = 'default' AND \
                   starts_with(attributes['k8s.pod.name'], 'shop-') GROUP BY span_id";
        let rows = self.user.json(&["query", sql, "--limit", "10000", "-o", "json"]);
        let row = |row: &Value| {
            (
                row["span_id"].as_str().unwrap().to_owned(),
                row["n"].as_u64().unwrap(),
            )
        };
        rows.as_array().unwrap().iter().map(row).collect()
    }
}

/// The first process whose command line has all of these words.
fn process(words: &[&str]) -> Option<u32> {
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|dir| {
            let pid = dir.file_name().to_str()?.parse().ok()?;
            let line = fs::read(dir.path().join("cmdline")).ok()?;
            let line: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words
                .iter()
                .all(|word| line.contains(&word.as_bytes()))
                .then_some(pid)
        })
        .collect();
    found.sort_unstable();
    found.first().copied()
}

fn skipped(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
}

#[test]
fn root_netns_spans_of_a_pod_arrive_once_through_a_cut_link_and_a_killed_agent() {
    let Some(python) = std::env::var_os("LEEWARD_OTEL") else {
        return skipped("no Python with OpenTelemetry's SDK; set LEEWARD_OTEL");
    };
    let user = User::new(USER);
    if !is_root() {
        return skipped("entering a pod's network needs root");
    }
    if !namespaces(&user) {
        return;
    }
    let mut rig = Rig {
        receiver: None,
        python: python.into(),
        user,
    };
    let config = rig.user.home.path().join("hub.yaml");
    let forwarder = format!(
        "apiVersion: leeward.dev/v1alpha1\nkind: Hub\nforwarders:\n- {{name: jaeger, kind: otlp, \
         streams: [traces], url: 'http://127.0.0.1:{RECEIVER_PORT}'}}\n"
    );
    fs::write(&config, forwarder).unwrap();
    let config = config.to_str().unwrap();
    let up = ["dev", "up", "--hub-config", config, "pi-1=raspberry-pi-5"];
    rig.user.leeward(&up);
    let hub = process(&["hub", "--config", config]).unwrap();
    let got = rig.user.home.path().join("got");
    let receiver = rig
        .script(hub, "receiver.py")
        .arg(RECEIVER_PORT)
        .arg(&got)
        .spawn();
    rig.receiver = Some(Running(receiver.unwrap()));

    rig.user.push_busybox();
    rig.user.push_workload(POD);
    rig.user.device_becomes("running a container", |device| {
        device["phase"] == "ready" && device["workloadsReady"] == 1
    });
    let pod = rig.until("a pod", || process(&["sleep", "271828"]).ok_or_else(String::new));
    let environment = fs::read(format!("/proc/{pod}/environ")).unwrap();
    let endpoint = environment
        .split(|byte| *byte == 0)
        .find_map(|pair| {
            std::str::from_utf8(pair)
                .ok()?
                .strip_prefix("OTEL_EXPORTER_OTLP_ENDPOINT=")
        })
        .unwrap()
        .to_owned();
    // By its name, too.
    let gateway = endpoint.trim_start_matches("http://").split(':').next().unwrap();
    let dug = Command::new("nsenter")
        .args(["--net", "--target", &pod.to_string(), "dig", "+short"])
        .args([&format!("@{gateway}"), "otlp.leeward.svc.cluster.local"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&dug.stdout).trim(), gateway, "{dug:?}");

    let mut sent = rig.send(pod, "grpc", &endpoint, 100);
    rig.user.leeward(&["dev", "cut", "pi-1"]);
    sent.extend(rig.send(pod, "http", &endpoint.replace("4317", "4318"), 150));
    rig.user.leeward(&["dev", "kill", "pi-1"]);
    rig.user.leeward(&up);
    sent.extend(rig.send(pod, "grpc", &endpoint, 50));
    rig.user.leeward(&["dev", "restore", "pi-1"]);

    let once: BTreeMap<String, u64> = sent.iter().map(|id| (id.clone(), 1)).collect();
    assert_eq!(once.len(), 600);
    rig.until("all spans in the hub's table", || {
        let held = rig.in_table();
        (held.len() >= once.len())
            .then_some(())
            .ok_or_else(|| held.len().to_string())
    });
    assert!(rig.in_table() == once, "{:?}", rig.in_table());
    let received = rig.until("all spans at the receiver", || {
        let text = fs::read_to_string(&got).unwrap_or_default();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for line in text.lines() {
            let span: Value = serde_json::from_str(line).map_err(|err| err.to_string())?;
            if span["resource"]["service.name"] != "shop-api" {
                continue;
            }
            assert_eq!(span["resource"]["leeward.device"], "pi-1");
            assert_eq!(span["resource"]["leeward.class"], "raspberry-pi-5");
            assert_eq!(span["resource"]["k8s.deployment.name"], "shop");
            *counts.entry(span["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        (counts.len() >= once.len())
            .then_some(counts)
            .ok_or_else(|| text.lines().count().to_string())
    });
    assert!(received == once, "{received:?}");
    let failed = rig.user.json(&[
        "query",
        "SELECT count(*) AS n FROM traces WHERE service = 'shop-api' AND status = 'error'",
        "-o",
        "json",
    ]);
    assert_eq!(failed[0]["n"], 30);
}
