//! A real `sshd` on a port of the loopback device.

use crate::support::{Device, Upstream, fetch, limits, spec, text};
use model::Moved;
use source::{GitAuth, GitRef, GitSpec, Limits, SourceError};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

struct Sshd {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

impl Sshd {
    /// `None`, said aloud, where the machine has no sshd.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn start(more: &str) -> Option<Self> {
        if !Path::new(SSHD).exists() {
            assert!(
                std::env::var_os("CI").is_none(),
                "openssh-server is not installed"
            );
            eprintln!("SKIPPED: openssh-server is not installed");
            return None;
        }
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        keygen(&dir.path().join("host"));
        keygen(&dir.path().join("deploy"));
        fs::copy(dir.path().join("deploy.pub"), dir.path().join("authorized")).unwrap();
        // Another process may take the free port first.
        for _ in 0..20 {
            if let Some((child, port)) = spawn(dir.path(), more) {
                return Some(Self { dir, child, port });
            }
        }
        panic!("sshd does not start");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Pins the key in `public` for this server.
    fn pin(&self, public: &Path) -> PathBuf {
        let known_hosts = self.path("known hosts 100%");
        let key = fs::read_to_string(public).unwrap();
        fs::write(&known_hosts, format!("[localhost]:{} {key}", self.port)).unwrap();
        known_hosts
    }

    fn spec(&self, up: &Upstream) -> GitSpec {
        let user = rustix::process::geteuid().as_raw();
        let user = if user == 0 {
            "root".to_owned()
        } else {
            std::env::var("USER").unwrap()
        };
        let mut spec = spec(&format!(
            "ssh://{user}@localhost:{}{}",
            self.port,
            up.bare().display()
        ));
        spec.auth = GitAuth::Ssh {
            key: self.path("deploy"),
            known_hosts: self.pin(&self.path("host.pub")),
        };
        spec
    }
}

fn spawn(dir: &Path, more: &str) -> Option<(Child, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = dir.join("sshd_config");
    let at = dir.display();
    fs::write(
        &config,
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\n\
             PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n{more}\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(SSHD);
    command
        .args(["-D", "-e", "-f"])
        .arg(&config)
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    if said
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("Server listening"))
    {
        std::thread::spawn(move || said.for_each(drop));
        return Some((child, port));
    }
    let _ = child.wait();
    None
}

#[test]
fn a_deploy_key_and_a_pinned_host_key_fetch_and_follow() {
    for more in ["AcceptEnv GIT_PROTOCOL", ""] {
        // Without the variable the server speaks protocol version 0.
        let Some(sshd) = Sshd::start(more) else { return };
        let (up, device) = (Upstream::new(), Device::new());
        up.commit("a.yaml", "1");
        let mut source = device.open(sshd.spec(&up));
        assert_eq!(fetch(&mut source).unwrap().moved, Moved::First);
        assert_eq!(fetch(&mut source).unwrap().moved, Moved::Unchanged);
        let pinned = up.commit("a.yaml", "2");
        up.commit("b.yaml", "1");
        let fetched = fetch(&mut source).unwrap();
        assert_eq!(fetched.moved, Moved::Forward, "{more:?}");
        assert_eq!(text(&fetched.tree.unwrap(), "a.yaml").unwrap(), "2");

        // An annotated tag is an object of its own, which version 0 has to be asked for.
        drop(source);
        up.git(&["tag", "-a", "-m", "release", "v1.0.0"]);
        up.git(&["push", "-q", "origin", "v1.0.0"]);
        let mut spec = sshd.spec(&up);
        spec.reference = GitRef::Semver("1.x".to_owned());
        let other = Device::new();
        let mut source = other.open(spec);
        assert_eq!(fetch(&mut source).unwrap().revision.commit, up.head());
        assert_eq!(fetch(&mut source).unwrap().moved, Moved::Unchanged);

        // A commit that no reference names is given by servers of version 2.
        let mut spec = sshd.spec(&up);
        spec.reference = GitRef::Commit(pinned);
        let other = Device::new();
        let fetched = fetch(&mut other.open(spec));
        match more {
            "" => assert!(matches!(fetched.unwrap_err(), SourceError::NoCommit { .. })),
            _ => assert_eq!(fetched.unwrap().moved, Moved::First),
        }
    }
}

#[test]
fn a_host_key_that_is_not_pinned_is_refused() {
    let Some(sshd) = Sshd::start("") else { return };
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    let mut spec = sshd.spec(&up);
    for pinned in [None, Some("deploy")] {
        let known_hosts = match pinned {
            None => sshd.path("empty"),
            // Another key under the server's name: somebody in between, or a server set up anew.
            Some(_) => sshd.pin(&sshd.path("authorized")),
        };
        if pinned.is_none() {
            fs::write(&known_hosts, "").unwrap();
        }
        spec.auth = GitAuth::Ssh {
            key: sshd.path("deploy"),
            known_hosts,
        };
        let err = fetch(&mut device.open(spec.clone())).unwrap_err();
        assert!(matches!(err, SourceError::HostKey { .. }), "{err:?}");
    }
}

#[test]
fn keys_that_do_not_fit_and_repositories_that_are_not_there_are_named() {
    let Some(sshd) = Sshd::start("") else { return };
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    keygen(&sshd.path("other"));
    let good = sshd.spec(&up);
    let GitAuth::Ssh { known_hosts, .. } = good.auth.clone() else {
        unreachable!()
    };
    let with_key = |name: &str| {
        let mut spec = good.clone();
        spec.auth = GitAuth::Ssh {
            key: sshd.path(name),
            known_hosts: known_hosts.clone(),
        };
        fetch(&mut device.open(spec)).unwrap_err()
    };
    let err = with_key("other");
    assert!(matches!(err, SourceError::Authentication { .. }), "{err:?}");
    let err = with_key("absent");
    assert!(err.to_string().contains("absent cannot be read"), "{err}");
    fs::set_permissions(sshd.path("deploy"), fs::Permissions::from_mode(0o644)).unwrap();
    let err = with_key("deploy");
    assert!(
        matches!(&err, SourceError::Authentication { why, .. } if why.contains("UNPROTECTED")),
        "{err:?}"
    );
    fs::set_permissions(sshd.path("deploy"), fs::Permissions::from_mode(0o600)).unwrap();

    let mut spec = good.clone();
    spec.url.push_str("-not; echo 'there'");
    let err = fetch(&mut device.open(spec)).unwrap_err();
    assert!(matches!(err, SourceError::NotFound { .. }), "{err:?}");
    drop(sshd);
    let gone = TempDir::new().unwrap();
    keygen(&gone.path().join("deploy"));
    fs::write(gone.path().join("known"), "").unwrap();
    let mut spec = good;
    spec.auth = GitAuth::Ssh {
        key: gone.path().join("deploy"),
        known_hosts: gone.path().join("known"),
    };
    let err = fetch(&mut device.open(spec)).unwrap_err();
    assert!(matches!(err, SourceError::Connect { .. }), "{err:?}");
}

#[test]
fn a_server_that_goes_silent_is_given_up_and_ssh_is_ended() {
    // Accepts the connection and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    keygen(&up.dir.path().join("key"));
    let known_hosts = up.dir.path().join("known");
    fs::write(&known_hosts, "").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut spec = spec(&format!("ssh://git@localhost:{port}/r.git"));
    spec.auth = GitAuth::Ssh {
        key: up.dir.path().join("key"),
        known_hosts,
    };
    let quick = Limits {
        idle: Duration::from_millis(500),
        ..limits()
    };
    let mut source = device.open(spec).with_limits(quick);
    let err = fetch(&mut source).unwrap_err();
    assert!(matches!(err, SourceError::Timeout { .. }), "{err:?}");
    let err = source
        .with_limits(limits())
        .fetch(&AtomicBool::new(true))
        .unwrap_err();
    assert!(matches!(err, SourceError::Stopped), "{err:?}");
}
