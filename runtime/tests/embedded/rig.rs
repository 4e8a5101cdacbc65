//! A place for an engine of one's own: root folder, control group, an image made of busybox.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use model::{Digest, ImageRef, Step};
use runtime::embedded::network::{Network, NetworkConfig, netns};
use runtime::embedded::{Answer, Embedded, EmbeddedConfig, ImageSource, LocalImage, Pace, Pull};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Applets that the tests' scripts call.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "ls", "id", "env", "touch", "mkdir", "kill", "wget", "httpd", "nc", "head",
    "tail", "dd", "stat", "mount", "hostname", "yes", "ps", "readlink", "grep", "true", "false", "seq", "tr",
    "nslookup", "trap", "od", "unshare", "mknod",
];

#[derive(Debug)]
pub struct Rig {
    pub dir: TempDir,
    pub group: String,
    pub images: Arc<Busybox>,
    pub pace: Pace,
}

/// One image, and one that cannot be had.
#[derive(Debug)]
pub struct Busybox {
    pub layer: PathBuf,
}

impl Rig {
    /// Nothing where the machine lacks what containers need; says so.
    pub fn new() -> Option<Self> {
        if let Err(why) = usable() {
            assert!(std::env::var("CI").is_err(), "{why}");
            skipped(&why);
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        make_root(&layer);
        let pace = Pace {
            restart_first_ms: 50,
            restart_most_ms: 400,
            ..Pace::default()
        };
        Some(Self {
            group: format!("/leeward-test/{}-{number}", std::process::id()),
            images: Arc::new(Busybox { layer }),
            dir,
            pace,
        })
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    pub fn config(&self) -> EmbeddedConfig {
        let mut config = EmbeddedConfig::new(self.root(), self.group.clone());
        config.shim = vec![env!("CARGO_BIN_EXE_shim-host").into(), "shim".into()];
        config.pace = self.pace;
        config
    }

    pub async fn open(&self) -> Embedded {
        Embedded::open(self.config(), self.images.clone(), None)
            .await
            .unwrap()
    }

    /// The engine on a pod network of its own; call it inside [`on_device`].
    pub async fn open_with_network(&self) -> (Embedded, Network) {
        let network = Network::open(NetworkConfig::new(self.dir.path().join("network"))).unwrap();
        let engine = Embedded::open(self.config(), self.images.clone(), Some(network.clone()))
            .await
            .unwrap();
        (engine, network)
    }

    /// An agent in a process of its own.
    pub fn agent(&self) -> Agent {
        let image = serde_json::to_string(&self.images.image()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shim-host"))
            .arg("agent")
            .arg(self.root())
            .args([&self.group, &image, &serde_json::to_string(&self.pace).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Agent { child, answers }
    }

    /// The folder of the only pod.
    pub fn pod_dir(&self) -> PathBuf {
        let mut dirs = fs::read_dir(self.root().join("pods")).unwrap().flatten();
        let dir = dirs.next().unwrap().path();
        assert!(dirs.next().is_none(), "more than one pod");
        dir
    }

    /// What a shim has written down, in the folder of the only pod.
    pub fn state(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.pod_dir().join("state.json")).unwrap()).unwrap()
    }

    /// All processes below the rig's control groups, shims among them.
    pub fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for root in hierarchies() {
            collect(&root.join(self.group.trim_start_matches('/')), &mut found);
        }
        found
    }

    /// No process, control group, mount or folder of a pod is left.
    pub fn nothing_is_left(&self) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < patience, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .processes()
            .iter()
            .map(|pid| format!("process {pid}"))
            .collect();
        for root in hierarchies() {
            let below = root.join(self.group.trim_start_matches('/'));
            let shims = fs::read_dir(below.join("shims")).into_iter().flatten().flatten();
            let shims = shims.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(shims.map(|entry| format!("control group {}", entry.path().display())));
            let groups = fs::read_dir(below).into_iter().flatten().flatten();
            let pods = groups.filter(|entry| entry.file_name().to_string_lossy().starts_with("pod"));
            left.extend(pods.map(|entry| format!("control group {}", entry.path().display())));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let own = self.dir.path().to_str().unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(own))
                .map(|line| format!("mount {line}")),
        );
        let pods = fs::read_dir(self.root().join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        left.extend(pods.map(|entry| format!("folder {}", entry.path().display())));
        left
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let patience = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < patience {
            for pid in self.processes() {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for root in hierarchies() {
            remove_groups(&root.join(self.group.trim_start_matches('/')));
        }
    }
}

impl Busybox {
    fn image(&self) -> LocalImage {
        LocalImage {
            digest: Digest::of(b"busybox"),
            layers: vec![self.layer.clone()],
            entrypoint: Vec::new(),
            cmd: vec!["/bin/sh".to_owned()],
            env: vec!["IMAGE=yes".to_owned()],
            working_dir: None,
            user: None,
            stop_signal: None,
        }
    }
}

/// A process that holds an engine and takes steps; killed without warning when dropped.
#[derive(Debug)]
pub struct Agent {
    pub child: Child,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// Sends a step without waiting for its end.
    pub fn send(&mut self, step: &Step) {
        let line = serde_json::to_string(step).unwrap();
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for the next answer: `open` first, then `done` for each step.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test in a thread with a fresh network namespace, as the agent of a device would live in.
pub fn on_device(test: impl AsyncFnOnce(Rig) + Send) {
    let Some(rig) = Rig::new() else { return };
    let device = netns::create().unwrap();
    netns::enter(&device, || {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap();
        assert!(up.success());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(rig));
    })
    .unwrap();
}

/// Looks until it is right; panics after a generous while.
pub async fn eventually(what: &str, right: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !right() {
        assert!(Instant::now() < patience, "not seen in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl ImageSource for Busybox {
    fn local<'a>(&'a self, image: &'a ImageRef) -> Answer<'a, Option<LocalImage>> {
        Box::pin(async move { Ok((image.repository != "missing").then(|| self.image())) })
    }
    fn pull<'a>(&'a self, pull: Pull<'a>) -> Answer<'a, LocalImage> {
        Box::pin(async move {
            if pull.image.repository == "missing" {
                return Err(format!("{}: the registry does not know it", pull.image));
            }
            Ok(self.image())
        })
    }
    fn keep(&self, _: &str, _: &[LocalImage]) -> Result<(), String> {
        Ok(())
    }
    fn owners(&self) -> Vec<String> {
        Vec::new()
    }
}

fn make_root(layer: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(layer.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/sh\n",
    )
    .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
}

fn usable() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        return Err("containers need root".to_owned());
    }
    let overlay = || {
        fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .contains("overlay")
    };
    if !overlay() {
        let _ = Command::new("modprobe").arg("overlay").output();
    }
    if !overlay() {
        return Err("the kernel has no overlayfs".to_owned());
    }
    if !Path::new("/bin/busybox").exists() {
        return Err("Debian's busybox-static is not installed".to_owned());
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 2 && matches!(fields[2], "cgroup" | "cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

fn collect(dir: &Path, found: &mut BTreeSet<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn remove_groups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
