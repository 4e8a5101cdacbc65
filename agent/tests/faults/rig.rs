//! One device over a real repository.

use agent::local::{Answer, Ask};
use agent::{Agent, Config, Seams};
use identity::DeviceKeys;
use kit::SystemClock;
use model::{Action, Event, Observed, Status, Step};
use plan::Limits;
use runtime::Engine as _;
use runtime::fake::FakeEngine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    dir: tempfile::TempDir,
    pub engine: FakeEngine,
    policy: &'static str,
    /// More sections of the configuration.
    more: String,
    running: Option<Running>,
}

/// An agent in a runtime of its own, so that it can be ended at any instruction, with all that it spawned.
struct Running {
    runtime: Runtime,
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Rig {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = Self {
            engine: engine(),
            policy: "follow",
            more: String::new(),
            dir,
            running: None,
        };
        std::fs::create_dir_all(rig.repository()).unwrap();
        rig.git(&["init", "--quiet", "--initial-branch=main"]);
        rig.push(files);
        rig
    }

    /// Sections beside the usual ones, from the next start on.
    pub fn configure(&mut self, more: String) {
        self.more = more;
    }

    /// A file beside the repository.
    pub fn beside(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn git(&self, words: &[&str]) -> String {
        let out = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
            .args(words)
            .current_dir(self.repository())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "git {words:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn write(&self, files: &[(&str, &str)]) {
        let cluster = self.repository().join("clusters/test");
        std::fs::create_dir_all(&cluster).unwrap();
        for (name, text) in files {
            std::fs::write(cluster.join(name), text).unwrap();
        }
        self.git(&["add", "--all"]);
    }

    pub fn push(&self, files: &[(&str, &str)]) {
        self.write(files);
        self.git(&["commit", "--quiet", "--message", "change"]);
    }

    pub fn rewrite(&self, files: &[(&str, &str)]) {
        self.write(files);
        self.git(&["commit", "--quiet", "--amend", "--message", "rewritten"]);
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn reset_to(&self, commit: &str) {
        self.git(&["reset", "--quiet", "--hard", commit]);
    }

    pub fn lose_repository(&self) {
        kit::disk::rename(&self.repository(), &self.dir.path().join("lost")).unwrap();
    }

    pub fn find_repository(&self) {
        kit::disk::rename(&self.dir.path().join("lost"), &self.repository()).unwrap();
    }

    pub fn refuse_rewrites(&mut self) {
        self.policy = "refuse";
    }

    /// Everything in memory is gone, as after a power cut; what is on disk stays.
    pub fn reboot(&mut self) {
        self.engine = engine();
    }

    pub fn start(&mut self) {
        let config = self.config();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let agent = {
            let _inside = runtime.enter();
            Agent::build(config.clone(), self.seams(&config)).unwrap()
        };
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(agent.run(async {
            let _ = stopped.await;
        }));
        self.running = Some(Running { runtime, task, stop });
    }

    fn seams(&self, config: &Config) -> Seams<FakeEngine> {
        let clock = Arc::new(SystemClock);
        let keys = DeviceKeys::open(&config.state.join("identity"), clock.clone()).unwrap();
        Seams {
            engine: Arc::new(self.engine.clone()),
            clock,
            keys: Arc::new(Mutex::new(keys)),
            limits: Limits {
                cpu_milli: 4000,
                memory: 4 << 30,
                seccomp: false,
            },
            path: "clusters/test".to_owned(),
            renewed: watch::Sender::new(0),
            door: None,
            beside: Vec::new(),
        }
    }

    fn config(&self) -> Config {
        let path = self.dir.path().join("agent.yaml");
        let text = format!(
            "apiVersion: leeward.dev/v1alpha1
kind: Agent
device: pi-1
class: generic
state: {}
source: {{url: 'file://{}', interval: 200ms, onHistoryRewrite: {}}}
health: {{deadline: 40s, settle: 300ms}}
{}",
            self.state().display(),
            self.repository().display(),
            self.policy,
            self.more
        );
        std::fs::write(&path, text).unwrap();
        std::fs::create_dir_all(self.state()).unwrap();
        Config::read(Path::new(&path)).unwrap()
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            running.task.await.unwrap();
            end(running.runtime).await;
        }
    }

    /// Ends the agent wherever it is.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            end(running.runtime).await;
        }
    }

    async fn status(&self) -> Option<Status> {
        let (answer, _) = agent::local::ask(&self.state(), &Ask::Status).await.ok()?;
        match answer {
            Answer::Status { status, .. } => status.map(|status| *status),
            _ => None,
        }
    }

    #[track_caller]
    pub fn until<'a>(
        &'a self,
        what: &'a str,
        met: impl Fn(&Observed, &Status) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let seen = self.engine.observe().await.unwrap();
                let status = self.status().await;
                if status.as_ref().is_some_and(|status| met(&seen, status)) {
                    return;
                }
                let status = status.map(|s| format!("{:?} {:?} {:?}", s.phase, s.generation, s.source));
                assert!(
                    Instant::now() < deadline,
                    "{at}: {what}: not yet: {}
{status:?}",
                    brief(&seen)
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The image runs, ready, and goes on doing so for a moment.
    pub async fn still_runs(&self, image: &str) {
        for _ in 0..5 {
            let seen = self.engine.observe().await.unwrap();
            let running = seen.pods.iter().filter(|pod| pod.ready()).count();
            assert_eq!(running, 1, "{image}: {seen:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let started = self
            .engine
            .taken()
            .into_iter()
            .rev()
            .find_map(|step| match step.action {
                Action::StartPod { pod } if pod.containers.iter().any(|c| c.image.to_string() == image) => {
                    Some(pod.id)
                }
                _ => None,
            });
        let seen = self.engine.observe().await.unwrap();
        assert!(
            seen.pods.iter().any(|pod| Some(&pod.id) == started.as_ref()),
            "{image} does not run: {seen:#?}"
        );
    }

    pub async fn engine_events(&self) -> Vec<Event> {
        let events = self.engine.events(&BTreeMap::new()).await.unwrap();
        events.into_iter().map(|told| told.event).collect()
    }

    /// What the spool holds; only while no agent runs.
    pub fn events(&self) -> Vec<Event> {
        self.records("events", spool::Durability::Strict, spool::Class::Normal)
            .iter()
            .map(|payload| serde_json::from_slice(payload).unwrap())
            .collect()
    }

    /// What a stream of the spool holds; only while no agent runs.
    pub fn records(&self, stream: &str, durability: spool::Durability, class: spool::Class) -> Vec<Vec<u8>> {
        let (spool, _) = spool::Spool::open(&self.state().join("spool"), spool::Options::default()).unwrap();
        let stream = spool.stream(stream, durability, class).unwrap();
        let records = stream.read(0, usize::MAX).unwrap();
        records.iter().map(|record| record.payload.to_vec()).collect()
    }

    pub async fn until_events(&mut self, what: &str, met: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.stop().await;
            let told = self.events();
            if met(&told) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {told:#?}");
            self.start();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn end(runtime: Runtime) {
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20)))
        .await
        .unwrap();
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

fn engine() -> FakeEngine {
    FakeEngine::new(Arc::new(SystemClock), Duration::from_millis(50))
}

pub fn is_pull(step: &Step) -> bool {
    matches!(step.action, Action::Pull { .. })
}

pub fn deployment(name: &str, version: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, image: 'registry.example/{name}:{version}'}}]}}
"
    )
}

fn brief(seen: &Observed) -> String {
    let pods = seen.pods.iter();
    pods.map(|p| {
        format!(
            "{} {:?} ready={} terminating={}\n",
            p.id,
            p.phase,
            p.ready(),
            p.terminating
        )
    })
    .collect()
}
