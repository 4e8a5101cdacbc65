//! Six devices with a believable past, for the tests and for `cargo run -p hub --example dashboard_fixture`.
#![expect(clippy::unwrap_used, reason = "a fixture may panic")]

use hub::dashboard::charts::{Chart, ChartSource, Charts, Line, Unit, Window};
use hub::dashboard::search::{FoundLine, FoundLines, LineFilter, LogSearch};
use hub::dashboard::{LogChunks, LogSource, LogTail};
use hub::store::{Batch, NewCertificate, NewSession, NewToken, Options, Role, Store};
use jiff::{SignedDuration, Timestamp};
use kit::FakeClock;
use model::{
    Condition, DeviceName, Event, Facts, GenerationStatus, ObjectKey, Phase, PodPhase, PodStatus, Revision,
    Severity, SourceStatus, Status, Why, WhyReport, WorkloadState, WorkloadStatus,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bearer token of the person `ann`.
pub const TOKEN: &str = "fixture-access-token";

const GIB: u64 = 1 << 30;

/// What differs from device to device.
pub struct Made {
    pub name: &'static str,
    pub class: &'static str,
    pub site: &'static str,
    pub board: &'static str,
    pub phase: Phase,
    pub cpu: f64,
    pub memory: (u64, u64),
    pub celsius: f64,
    pub address: &'static str,
    /// Minutes since it was last heard of; none for one whose link is up.
    pub silent: Option<i64>,
    pub backlog: u64,
}

/// The fleet.
pub fn fleet() -> Vec<Made> {
    let orin = (
        "jetson-orin-nx",
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
    );
    let pi5 = ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0");
    let pi4 = ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.5");
    let made = |name, (class, board), site, phase, cpu, memory, celsius, address| Made {
        name,
        class,
        site,
        board,
        phase,
        cpu,
        memory,
        celsius,
        address,
        silent: None,
        backlog: 0,
    };
    let (big, middle, small) = (16 * GIB - GIB / 2, 8 * GIB - GIB / 8, 4 * GIB - GIB / 5);
    vec![
        made(
            "crane-cam-1",
            orin,
            "north-quay",
            Phase::Ready,
            61.0,
            (9 * GIB, big),
            63.5,
            "10.20.1.11",
        ),
        made(
            "crane-cam-2",
            orin,
            "north-quay",
            Phase::Progressing,
            88.0,
            (11 * GIB, big),
            81.0,
            "10.20.1.12",
        ),
        made(
            "gate-reader-1",
            pi5,
            "main-gate",
            Phase::Ready,
            22.0,
            (3 * GIB, middle),
            51.2,
            "10.20.2.21",
        ),
        made(
            "gate-reader-2",
            pi5,
            "main-gate",
            Phase::RolledBack,
            17.0,
            (2 * GIB, middle),
            49.8,
            "10.20.2.22",
        ),
        Made {
            silent: Some(134),
            backlog: 1840,
            ..made(
                "tide-gauge-1",
                pi4,
                "outer-mole",
                Phase::Ready,
                9.0,
                (GIB, small),
                44.0,
                "10.20.3.31",
            )
        },
        made(
            "tide-gauge-2",
            pi4,
            "outer-mole",
            Phase::Ready,
            12.0,
            (GIB + GIB / 4, small),
            46.1,
            "10.20.3.32",
        ),
    ]
}

/// The running generation, and the one after it.
pub const GENERATIONS: [&str; 3] = ["8c1f0a62d9e4", "e27b94c10f35", "51aa7de0c8b2"];

fn revision(n: usize, at: Timestamp) -> Revision {
    let (commit, summary) = [
        (
            "4be1c09a77f2d3805b6e14a9c2f07d81e5a3b6c4",
            "Raise the camera frame rate to 20",
        ),
        (
            "a90d3f51c4e87b260f19d8a4e3752bc6910fd7e8",
            "Gateway 2.4: reconnect after a broker restart",
        ),
        (
            "17c6e2b8f5d0943a81be7c2f60d94e5ab3178c0d",
            "Gate reader: new badge format",
        ),
    ][n];
    Revision {
        reference: "main".into(),
        commit: commit.into(),
        summary: summary.into(),
        author: "Ann Okafor <ann@harbour.example>".into(),
        committed_at: at - SignedDuration::from_mins(180 - 60 * i64::try_from(n).unwrap()),
    }
}

fn key(kind: &str, name: &str) -> ObjectKey {
    ObjectKey {
        group: if kind == "Service" { "" } else { "apps" }.into(),
        kind: kind.into(),
        namespace: "edge".into(),
        name: name.into(),
    }
}

fn workload(kind: &str, name: &str, image: &str, pods: Vec<PodStatus>) -> WorkloadStatus {
    let ready = u32::try_from(pods.iter().filter(|p| p.ready).count()).unwrap();
    let desired = u32::try_from(pods.len()).unwrap();
    WorkloadStatus {
        key: key(kind, name),
        state: if ready == desired {
            WorkloadState::Current
        } else {
            WorkloadState::InProgress
        },
        desired,
        ready,
        reason: None,
        message: if ready == desired {
            String::new()
        } else {
            format!("{ready} of {desired} pods are ready")
        },
        images: vec![format!("hub.harbour.example/{image}")],
        pods,
    }
}

fn pod(name: &str, ip: &str, containers: &[&str]) -> PodStatus {
    PodStatus {
        name: name.into(),
        phase: PodPhase::Running,
        ready: true,
        restarts: 0,
        ip: Some(ip.into()),
        containers: containers.iter().map(|c| (*c).to_owned()).collect(),
        trouble: None,
    }
}

fn workloads(made: &Made) -> Vec<WorkloadStatus> {
    let mut all = vec![
        workload(
            "DaemonSet",
            "node-metrics",
            "node-metrics:1.8",
            vec![pod("node-metrics-5d9c-0", "10.88.0.2", &["exporter"])],
        ),
        workload(
            "Deployment",
            "edge-gateway",
            "edge-gateway:2.4.0",
            vec![
                pod("edge-gateway-7f6b-0", "10.88.0.3", &["gateway", "tls"]),
                pod("edge-gateway-7f6b-1", "10.88.0.4", &["gateway", "tls"]),
            ],
        ),
        workload(
            "Deployment",
            "mqtt-broker",
            "mqtt-broker:2.0.21",
            vec![pod("mqtt-broker-64d8-0", "10.88.0.5", &["broker"])],
        ),
    ];
    match made.class {
        "jetson-orin-nx" => all.push(workload(
            "Deployment",
            "video-analytics",
            "video-analytics:0.9.3",
            vec![pod("video-analytics-c41e-0", "10.88.0.6", &["decode", "detect"])],
        )),
        "raspberry-pi-5" => all.push(workload(
            "Deployment",
            "badge-reader",
            "badge-reader:3.1",
            vec![pod("badge-reader-90aa-0", "10.88.0.6", &["reader"])],
        )),
        _ => {}
    }
    if made.phase == Phase::Progressing {
        let pods = &mut all[1].pods;
        pods[1] = PodStatus {
            ready: false,
            restarts: 2,
            trouble: Some(
                "readiness: GET http://10.88.0.4:8080/ready answered 503 (3 times in a row)".into(),
            ),
            ..pods[1].clone()
        };
        all[1] = workload(
            "Deployment",
            "edge-gateway",
            "edge-gateway:2.4.0",
            all[1].pods.clone(),
        );
    }
    all
}

/// Why a candidate was given up, as an agent words it.
pub const FAILURE: &str = "Deployment.apps/edge/badge-reader: image hub.harbour.example/badge-reader:3.2 has no variant for linux/arm64 (it has linux/amd64); build it with --platform linux/arm64";

/// Why what Git says now cannot be followed, as an agent words it.
pub const SOURCE_ERROR: &str = "clusters/edge-pi/apps.yaml:12: Kustomization/apps: spec.path \"./apps/edgee\" is not in revision 17c6e2b8f5d0; correct the path, or add the folder";

/// What `made` says at `at`.
pub fn status(made: &Made, at: Timestamp) -> Status {
    let current = usize::from(made.phase == Phase::Progressing);
    let say = |kind: &str, status: &str, reason: &str, message: &str| Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: at - SignedDuration::from_mins(37),
    };
    let ready = match made.phase {
        Phase::Progressing => say(
            "Ready",
            "Unknown",
            "Progressing",
            "Deployment edge-gateway: 1 of 2 pods are ready, 2 min 10 s of 5 min are left.",
        ),
        Phase::RolledBack => say(
            "Ready",
            "False",
            "RolledBack",
            "Candidate 51aa7de0c8b2 failed; the last good generation 8c1f0a62d9e4 runs.",
        ),
        _ => say("Ready", "True", "Healthy", "All workloads are as wanted."),
    };
    let failed = (made.phase == Phase::RolledBack).then(|| (GENERATIONS[2].to_owned(), FAILURE.to_owned()));
    let all = workloads(made);
    let why = |w: &WorkloadStatus| Why {
        about: w.key.clone(),
        verdict: if w.state == WorkloadState::Current {
            "keep"
        } else {
            "wait"
        }
        .into(),
        because: if w.state == WorkloadState::Current {
            "it runs from this template and is ready".into()
        } else {
            "the new pod is not ready yet; the old one stays until it is (maxUnavailable 0)".into()
        },
    };
    Status {
        device: made.name.parse().unwrap(),
        class: made.class.parse().unwrap(),
        time: at,
        boot_id: "7d9e2c41".into(),
        kustomizations: Vec::new(),
        agent: "0.1.0".into(),
        conditions: vec![
            ready,
            say("SourceReady", "True", "Fetched", "main is at a90d3f51c4e8."),
            say(
                "Healthy",
                "True",
                "ProbesPass",
                "Every probe of the last good generation passes.",
            ),
        ],
        source: SourceStatus {
            url: "https://git.harbour.example/fleet.git".into(),
            revision: Some(revision(if failed.is_some() { 2 } else { current }, at)),
            fetched_at: Some(at),
            error: (made.name == "tide-gauge-2").then(|| SOURCE_ERROR.to_owned()),
            waits: false,
        },
        generation: GenerationStatus {
            current: Some(GENERATIONS[0].into()),
            revision: Some(revision(0, at)),
            last_good: Some(GENERATIONS[0].into()),
            candidate: (made.phase == Phase::Progressing).then(|| GENERATIONS[1].into()),
            failed,
            failed_commit: None,
        },
        why: WhyReport {
            lines: all.iter().map(why).collect(),
        },
        notes: Vec::new(),
        workloads: all,
        facts: Facts {
            board: Some(made.board.into()),
            kernel: Some("6.6.51-v8".into()),
            architecture: "arm64".into(),
            cpus: if made.class == "jetson-orin-nx" { 8.0 } else { 4.0 },
            cpu_percent: Some(made.cpu),
            memory_total: made.memory.1,
            memory_used: made.memory.0,
            disk_total: 58 * GIB,
            disk_used: 23 * GIB,
            temperature_celsius: Some(made.celsius),
            temperatures: BTreeMap::from([
                ("cpu-thermal".into(), made.celsius),
                ("soc-thermal".into(), made.celsius - 3.4),
            ]),
            uptime_seconds: 86_400 * 12 + 5 * 3600,
            gpu_percent: (made.class == "jetson-orin-nx").then_some(made.cpu / 2.0),
            ..Facts::default()
        },
        phase: made.phase.clone(),
    }
}

fn events(made: &Made, now: Timestamp) -> Vec<Event> {
    let say = |minutes: i64, severity, reason: &str, about: &str, message: &str| Event {
        time: now - SignedDuration::from_mins(minutes),
        severity,
        reason: reason.into(),
        about: about.into(),
        message: message.into(),
        generation: Some(GENERATIONS[0].into()),
    };
    let gateway = "Deployment.apps/edge/edge-gateway";
    let mut all = vec![
        say(
            212,
            Severity::Normal,
            "Enrolled",
            "device",
            "Joined the fleet with token/1.",
        ),
        say(
            176,
            Severity::Normal,
            "Fetched",
            "source",
            "main moved to 4be1c09a77f2 (2.1 KiB received).",
        ),
        say(
            175,
            Severity::Normal,
            "Pulled",
            gateway,
            "edge-gateway:2.4.0, 11.4 MiB in 3.2 s.",
        ),
        say(
            174,
            Severity::Normal,
            "Healthy",
            "device",
            "Generation 8c1f0a62d9e4 is healthy after 21 s.",
        ),
    ];
    match made.phase {
        Phase::Progressing => all.extend([
            say(
                3,
                Severity::Normal,
                "Candidate",
                "device",
                "Generation e27b94c10f35 goes on trial; it has 5 min.",
            ),
            say(
                2,
                Severity::Warning,
                "Unhealthy",
                gateway,
                "Readiness of gateway failed 3 times in a row: 503.",
            ),
        ]),
        Phase::RolledBack => all.extend([
            say(
                41,
                Severity::Normal,
                "Candidate",
                "device",
                "Generation 51aa7de0c8b2 goes on trial; it has 5 min.",
            ),
            say(
                37,
                Severity::Critical,
                "RolledBack",
                "device",
                "Candidate 51aa7de0c8b2 failed; back to 8c1f0a62d9e4.",
            ),
        ]),
        _ => all.push(say(
            150,
            Severity::Warning,
            "BackOff",
            "Deployment.apps/edge/mqtt-broker",
            "broker exited with 1; started again after 10 s.",
        )),
    }
    all
}

/// Writes the fleet's past into a store below `dir`, and opens it with `options` as it stands now.
pub async fn seed(dir: &Path, options: Options) -> Store {
    let now = options.clock.now();
    for made in fleet() {
        let last = now - SignedDuration::from_mins(made.silent.unwrap_or(0));
        // Each device's past is written on a clock of that time.
        let clock = FakeClock::at(now - SignedDuration::from_mins(215));
        let store = Store::open_with(
            dir,
            Options {
                clock: Arc::new(clock.clone()),
                ..options.clone()
            },
        )
        .unwrap();
        tell(&store, &clock, &made, last).await;
    }
    let store = Store::open_with(dir, options).unwrap();
    store
        .set_person("ann", TOKEN, Role::Admin, None, "hub")
        .await
        .unwrap();
    for made in fleet().iter().filter(|made| made.silent.is_none()) {
        connect(&store, made).await;
    }
    store
}

async fn tell(store: &Store, clock: &FakeClock, made: &Made, last: Timestamp) {
    let device: DeviceName = made.name.parse().unwrap();
    let class = made.class.parse().unwrap();
    let token = NewToken {
        class: Some(made.class.parse().unwrap()),
        site: made.site.into(),
        labels: BTreeMap::from([(
            "ring".into(),
            if made.name.ends_with('1') {
                "canary"
            } else {
                "main"
            }
            .into(),
        )]),
        replaces: false,
        uses: 1,
        expires_at: last + SignedDuration::from_hours(24),
    };
    store.create_token(made.name, token, "ann").await.unwrap();
    let certificate = NewCertificate {
        serial: model::Digest::of(made.name.as_bytes()).hex()[..32].into(),
        kind: "operational".into(),
        key: String::new(),
        not_after: last + SignedDuration::from_hours(24 * 90),
    };
    store
        .enrol(made.name, &device, &class, vec![certificate])
        .await
        .unwrap();
    let json = |value: serde_json::Value| value.to_string().into_bytes().into();
    let batch = |stream: &str, records| Batch {
        stream: stream.into(),
        epoch: 0x5eed,
        records,
        lost: Vec::new(),
        unused: Vec::new(),
    };
    for (n, event) in (1..).zip(events(made, last)) {
        clock.jump_to(event.time);
        let record = (n, json(serde_json::to_value(&event).unwrap()));
        // The link broke before an acknowledgement: the first two come again.
        for _ in 0..1 + usize::from(n <= 2) {
            store
                .append_records(&device, batch("events", vec![record.clone()]))
                .await
                .unwrap();
        }
    }
    clock.jump_to(last);
    let told = json(serde_json::to_value(status(made, last)).unwrap());
    store
        .append_records(&device, batch("status", vec![(1, told)]))
        .await
        .unwrap();
    let session = store.session_opened(&device, session(made)).await.unwrap();
    store.seen(&device, Some(made.backlog));
    store.session_closed(&device, session).await.unwrap();
}

fn session(made: &Made) -> NewSession {
    NewSession {
        address: made.address.into(),
        agent: "0.1.0".into(),
    }
}

/// Opens the session of a device whose link is up.
pub async fn connect(store: &Store, made: &Made) {
    let device: DeviceName = made.name.parse().unwrap();
    store.session_opened(&device, session(made)).await.unwrap();
    store.seen(&device, Some(made.backlog));
}

/// Tells a new status of a device, as its next record.
pub async fn say(store: &Store, told: &Status) {
    let cursors = store.cursors(&told.device).await.unwrap();
    let next = cursors
        .iter()
        .find(|c| c.stream == "status")
        .map_or(1, |c| c.upto + 1);
    let batch = Batch {
        stream: "status".into(),
        epoch: 0x5eed,
        records: vec![(next, serde_json::to_vec(told).unwrap().into())],
        lost: Vec::new(),
        unused: Vec::new(),
    };
    store.append_records(&told.device, batch).await.unwrap();
}

/// Logs of containers that count seconds.
pub struct Logs;

impl LogSource for Logs {
    fn tail(
        &self,
        device: &DeviceName,
        tail: LogTail,
    ) -> Pin<Box<dyn Future<Output = Result<LogChunks, String>> + Send + '_>> {
        let offline = device.as_str() == "tide-gauge-1";
        Box::pin(async move {
            if offline {
                return Err("The link to tide-gauge-1 is down; its logs stay on the device.".into());
            }
            let (out, chunks) = mpsc::channel(4);
            tokio::spawn(async move {
                for n in 0.. {
                    let at = Timestamp::now() - SignedDuration::from_secs(i64::from(n < 3) * 3);
                    let line = format!(
                        "{at} {}: handled request {n} in 3 ms <b>raw</b>\n",
                        tail.container
                    );
                    if out.send(Ok(line.into())).await.is_err() || (n >= 20 && !tail.follow) {
                        return;
                    }
                    if n > 20 {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            });
            Ok(chunks)
        })
    }
}

/// A device that was away for a while, and warm.
pub struct Past;

impl ChartSource for Past {
    fn charts(
        &self,
        device: Option<&DeviceName>,
        window: Window,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Charts> + Send + '_>> {
        let known = device.is_none_or(|device| device.as_str() != "tide-gauge-1");
        Box::pin(async move {
            if known {
                Ok(past(window, now))
            } else {
                Ok(Vec::new())
            }
        })
    }
}

fn past(window: Window, now: Timestamp) -> Vec<Chart> {
    let (step, steps) = (
        window.step().as_secs(),
        window.length().as_secs() / window.step().as_secs(),
    );
    let line = |name: &str, low: f64, high: f64| {
        let points = (0..steps)
            // Away in the third quarter.
            .filter(|at| !(steps / 2..steps * 3 / 4).contains(at))
            .map(|at| {
                let wave = ((at as f64) * 0.35).sin().midpoint(1.0);
                (now.as_second() - (steps - at) * step, low + wave * (high - low))
            });
        Line {
            name: name.into(),
            points: points.collect(),
        }
    };
    let chart = |title, unit, lines| Chart { title, unit, lines };
    vec![
        chart("CPU", Unit::Percent, vec![line("busy", 8.0, 62.0)]),
        chart(
            "Temperature",
            Unit::Celsius,
            vec![line("cpu-thermal", 51.0, 78.0), line("gpu-thermal", 40.0, 60.0)],
        ),
        chart(
            "Network",
            Unit::BytesPerSecond,
            vec![
                line("received", 2_000.0, 900_000.0),
                line("sent", 1_000.0, 300_000.0),
            ],
        ),
    ]
}

/// A few lines of every level, whatever is asked for; one that is markup to look at.
impl LogSearch for Past {
    fn search(&self, filter: LineFilter) -> Pin<Box<dyn Future<Output = FoundLines> + Send + '_>> {
        let line = |(number, level): (i64, Option<&str>)| FoundLine {
            time: filter.until - SignedDuration::from_secs(number),
            device: "gate-reader-1".into(),
            level: level.map(Into::into),
            namespace: "edge".into(),
            pod: "badge-reader-90aa-0".into(),
            container: "reader".into(),
            source: "container".into(),
            service: "badge-reader".into(),
            body: format!(
                "handled request {number} in 3 ms <b>raw</b> {}",
                "and-on".repeat(30)
            ),
        };
        let levels = [
            None,
            Some("debug"),
            Some("info"),
            Some("warn"),
            Some("error"),
            Some("fatal"),
        ];
        let lines = (0..).zip(levels).map(line).collect();
        Box::pin(async move { Ok(lines) })
    }
}
