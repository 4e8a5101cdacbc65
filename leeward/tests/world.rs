//! `leeward dev` by a user who is not root: a hub, a device, a container, a bad link, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A user that no system has.
const USER: u32 = 61_234;
const PATIENCE: Duration = Duration::from_secs(120);
const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: sleeper
spec:
  selector:
    matchLabels:
      app: sleeper
  template:
    metadata:
      labels:
        app: sleeper
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: sleeper
          image: registry.leeward.internal/test/busybox:1
          args: [\"sleep\", \"100000\"]
          resources:
            limits:
              memory: 32Mi
";

/// A user with a home and this program; what runs of it ends with it.
struct User {
    home: TempDir,
    program: PathBuf,
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The build's own folder may be closed to others.
        let program = home.path().join("leeward");
        fs::copy(env!("CARGO_BIN_EXE_leeward"), &program).unwrap();
        if is_root() {
            chown(home.path(), Some(USER), Some(USER)).unwrap();
        }
        Self { home, program }
    }

    fn world(&self) -> PathBuf {
        self.home.path().join("world")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if is_root() {
            command.uid(USER).gid(USER);
        }
        command
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin")
            .env("LEEWARD_DEV", self.world())
            .env("LEEWARD_ACCESS", self.world().join("hub/access.yaml"));
        command
    }

    /// Exit code, standard output, standard error.
    fn try_leeward(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let out = self.command(&self.program).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    #[track_caller]
    fn leeward(&self, words: &[&str]) -> String {
        let (code, out, err) = self.try_leeward(words);
        assert_eq!(code, Some(0), "leeward {words:?}: {err}{}", self.logs());
        out
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.leeward(words)).unwrap()
    }

    /// Waits until the only device is as it should be.
    #[track_caller]
    fn device_becomes(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        loop {
            let devices = self.json(&["get", "devices", "-o", "json"]);
            if is(&devices[0]) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not {what}: {devices:#}{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn logs(&self) -> String {
        let log = |name: &str| fs::read_to_string(self.world().join(name)).unwrap_or_default();
        [
            "namespaces.log",
            "hub.log",
            "devices/pi-1/agent.log",
            "devices/pi-1/link.log",
        ]
        .map(|name| format!("\n--- {name}\n{}", log(name)))
        .concat()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.world().exists() {
            self.try_leeward(&["dev", "down"]);
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Processes of the user; nobody else has it.
fn processes() -> Vec<String> {
    let mine = |dir: &fs::DirEntry| dir.metadata().is_ok_and(|meta| meta.uid() == USER);
    let pids = fs::read_dir("/proc").unwrap().flatten().filter(mine);
    let line = |dir: fs::DirEntry| fs::read_to_string(dir.path().join("cmdline")).unwrap_or_default();
    pids.map(line).filter(|line| !line.is_empty()).collect()
}

/// Whether this machine lets a user have namespaces; that there is none is said aloud.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn namespaces(user: &User) -> bool {
    let unshared = user.command(Path::new("unshare")).args(["-Urn", "true"]).output();
    if unshared.is_ok_and(|out| out.status.success()) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "users may not have namespaces here"
    );
    eprintln!("SKIPPED: users may not have namespaces here");
    false
}

#[test]
fn root_a_user_who_is_not_root_has_a_world_of_their_own() {
    let user = User::new();
    if !namespaces(&user) {
        return;
    }
    let (code, _, said) = user.try_leeward(&["dev", "up", "pi-1=raspberry-pi-5"]);
    assert_eq!(code, Some(0), "{said}{}", user.logs());
    assert!(
        said.contains("no memory limits") && said.contains("no CPU limits"),
        "{said}"
    );
    // The hub is reached from outside the world's network.
    user.leeward(&[
        "image",
        "build",
        "--tag=registry.leeward.internal/test/busybox:1",
        "--add=/bin/busybox:/bin/busybox",
        "--entrypoint=/bin/busybox",
        "--push",
    ]);
    let folder = user.world().join("repository/clusters/edge-pi");
    fs::write(folder.join("kustomization.yaml"), "resources: [sleeper.yaml]\n").unwrap();
    fs::write(folder.join("sleeper.yaml"), DEPLOYMENT).unwrap();
    user.leeward(&["dev", "push"]);
    user.device_becomes("running a container", |device| {
        device["phase"] == "ready" && device["workloads"] == 1 && device["workloadsReady"] == 1
    });

    let (code, _, said) = user.try_leeward(&["dev", "cut", "pi-2"]);
    assert!(code == Some(5) && said.contains("pi-1"), "{code:?} {said}");
    let (code, _, said) = user.try_leeward(&["dev", "shape", "pi-1", "--delay", "100"]);
    assert!(code == Some(2) && said.contains("200ms"), "{code:?} {said}");
    user.leeward(&[
        "dev",
        "shape",
        "pi-1",
        "--rate=1mbit",
        "--delay=100ms",
        "--loss=1%",
    ]);
    let link = &user.json(&["dev", "status", "-o", "json"])[0];
    assert_eq!(link["shape"], "1mbit 100ms 1%");
    assert!(link["roundTrip"].as_f64().unwrap() >= 200.0, "{link}");
    // A pull goes through all the same.
    let before = user.json(&["get", "devices", "-o", "json"])[0]["generation"]["revision"].clone();
    fs::write(folder.join("sleeper.yaml"), DEPLOYMENT.replace("32Mi", "33Mi")).unwrap();
    user.leeward(&["dev", "push"]);
    user.device_becomes("on the next revision", |device| {
        device["generation"]["revision"] != before && device["phase"] == "ready"
    });
    user.leeward(&["dev", "restore", "pi-1"]);
    assert_eq!(user.json(&["dev", "status", "-o", "json"])[0]["shape"], "");

    // The hub's authority rolls over; neither the device nor this person is shut out.
    user.leeward(&["hub", "authority", "roll"]);
    let state = user.json(&["hub", "authority", "list", "-o", "json"]);
    let roles: Vec<&Value> = state["authorities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["role"])
        .collect();
    assert_eq!(roles, ["old", "issuing"]);
    let (code, _, said) = user.try_leeward(&["hub", "authority", "retire"]);
    assert!(code == Some(3) && said.contains("pi-1"), "{code:?} {said}");
    user.device_becomes("connected again", |device| device["link"] == "Connected");

    user.leeward(&["dev", "down"]);
    assert!(!user.world().exists());
    if is_root() {
        let start = Instant::now();
        while !processes().is_empty() {
            assert!(start.elapsed() < PATIENCE, "left behind: {:?}", processes());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
