//! A user who is not root, with a simulated world of one device, `pi-1`.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(120);

/// A user with a home and this program; what runs of it ends with it.
pub struct User {
    pub home: TempDir,
    program: PathBuf,
    id: u32,
}

impl User {
    /// A user that no system has.
    pub fn new(id: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The build's own folder may be closed to others.
        let program = home.path().join("leeward");
        fs::copy(env!("CARGO_BIN_EXE_leeward"), &program).unwrap();
        if is_root() {
            chown(home.path(), Some(id), Some(id)).unwrap();
        }
        Self { home, program, id }
    }

    pub fn world(&self) -> PathBuf {
        self.home.path().join("world")
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if is_root() {
            command.uid(self.id).gid(self.id);
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
    pub fn try_leeward(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let out = self.command(&self.program).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    #[track_caller]
    pub fn leeward(&self, words: &[&str]) -> String {
        let (code, out, err) = self.try_leeward(words);
        assert_eq!(code, Some(0), "leeward {words:?}: {err}{}", self.logs());
        out
    }

    /// An image with `busybox` alone, in the hub's registry.
    pub fn push_busybox(&self) {
        self.leeward(&[
            "image",
            "build",
            "--tag=registry.leeward.internal/test/busybox:1",
            "--add=/bin/busybox:/bin/busybox",
            "--entrypoint=/bin/busybox",
            "--push",
        ]);
    }

    /// What the device runs from now on, as one file of its class's folder.
    pub fn push_workload(&self, manifest: &str) {
        let folder = self.world().join("repository/clusters/edge-pi");
        fs::write(folder.join("kustomization.yaml"), "resources: [workload.yaml]\n").unwrap();
        fs::write(folder.join("workload.yaml"), manifest).unwrap();
        self.leeward(&["dev", "push"]);
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.leeward(words)).unwrap()
    }

    /// Waits until the only device is as it should be.
    #[track_caller]
    pub fn device_becomes(&self, what: &str, is: impl Fn(&Value) -> bool) {
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

    pub fn logs(&self) -> String {
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

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Whether this machine lets a user have namespaces; that there is none is said aloud.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn namespaces(user: &User) -> bool {
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
