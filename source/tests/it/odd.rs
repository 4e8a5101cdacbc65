//! Servers and moments that are not as one would like them.

use crate::support::git_server::{GitServer, Options};
use crate::support::{Device, Upstream, fetch, git, limits, noise, spec, text};
use model::Moved;
use source::{GitRef, GitSource, SourceError};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn an_empty_repository_has_no_such_branch() {
    let (up, device) = (Upstream::new(), Device::new());
    let err = fetch(&mut device.open(up.spec())).unwrap_err();
    assert!(
        matches!(&err, SourceError::UnknownReference { there, .. } if there.is_empty()),
        "{err:?}"
    );
}

#[test]
fn another_object_format_is_named() {
    let (up, device) = (Upstream::new(), Device::new());
    let dir = up.dir.path();
    git(
        dir,
        &[
            "init",
            "-q",
            "--bare",
            "-b",
            "main",
            "--object-format=sha256",
            "new.git",
        ],
    );
    git(
        dir,
        &["init", "-q", "-b", "main", "--object-format=sha256", "new"],
    );
    git(&dir.join("new"), &["commit", "-q", "--allow-empty", "-m", "x"]);
    git(&dir.join("new"), &["push", "-q", "../new.git", "main"]);
    let err = fetch(&mut device.open(spec(dir.join("new.git").to_str().unwrap()))).unwrap_err();
    assert!(matches!(err, SourceError::ObjectFormat { .. }), "{err:?}");
}

#[test]
fn a_repository_that_is_itself_shallow_serves() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("a.yaml", "1");
    up.commit("a.yaml", "2");
    let from = format!("file://{}", up.bare().display());
    git(
        up.dir.path(),
        &["clone", "-q", "--bare", "--depth=1", &from, "shallow.git"],
    );
    let url = up.dir.path().join("shallow.git");
    let fetched = fetch(&mut device.open(spec(url.to_str().unwrap()))).unwrap();
    assert_eq!(text(&fetched.tree.unwrap(), "a.yaml").unwrap(), "2");
}

#[test]
fn a_tag_on_something_that_is_no_commit_is_refused() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.yaml", "1");
    up.git(&["tag", "v1", "HEAD^{tree}"]);
    up.git(&["push", "-q", "origin", "v1"]);
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    drop(source);
    let mut tagged = up.spec();
    tagged.reference = GitRef::Tag("v1".to_owned());
    let mut source = device.open(tagged);
    let err = fetch(&mut source).unwrap_err();
    assert!(
        matches!(&err, SourceError::NotACommit { kind, .. } if kind == "tree"),
        "{err:?}"
    );
    assert_eq!(source.held().unwrap().commit, first);
}

/// Answers each connection with the same bytes.
fn answering(bytes: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo.git", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes.as_bytes());
        }
    });
    url
}

#[test]
fn what_is_no_git_server_is_an_error_and_no_more() {
    for (bytes, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
            "smart",
        ),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "broke"),
        ("", "broke"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 4\r\n\r\nzzzz",
            "answered with an error",
        ),
    ] {
        let device = Device::new();
        let err = fetch(&mut device.open(spec(&answering(bytes)))).unwrap_err();
        assert!(err.to_string().contains(words), "{bytes:?}: {err} {err:?}");
    }
}

const CHILD: &str = "LEEWARD_TEST_FETCH";

/// Not a test of its own: what the next one starts as another process, to kill it.
#[test]
fn fetch_in_a_process_that_is_killed() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let (dir, url) = given.split_once(' ').unwrap();
    let mut source = GitSource::open(dir.as_ref(), spec(url))
        .unwrap()
        .with_limits(limits());
    loop {
        let _ = fetch(&mut source);
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_source_that_works() {
    let (up, device) = (Upstream::new(), Device::new());
    up.commit("noise", &noise(300_000, 5));
    let server = GitServer::start(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        Options {
            root: up.root(),
            ..Options::default()
        },
    )
    .unwrap();
    let url = server.url("repo.git");
    let mut held = None;
    for round in 0..12_u64 {
        let head = up.commit("file", &noise(60_000, round + 1));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "odd::fetch_in_a_process_that_is_killed", "--nocapture"])
            .env(CHILD, format!("{} {url}", device.path().display()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Killed a little later each round, from before it opens its folder to after it holds the commit.
        std::thread::sleep(Duration::from_millis(15 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let source = device.open(spec(&url));
        let now = source.held().map(|held| held.commit.clone());
        if let Some(commit) = &now {
            assert!(
                source.load(commit).is_ok(),
                "round {round}: what is held can be read"
            );
        }
        assert!(
            now == held || now.as_deref() == Some(head.as_str()),
            "round {round}"
        );
        held = now;
    }
    let mut source = device.open(spec(&url));
    let fetched = fetch(&mut source).unwrap();
    assert!(
        matches!(fetched.moved, Moved::Forward | Moved::Unchanged | Moved::First),
        "{:?}",
        fetched.moved
    );
    assert_eq!(fetched.revision.commit, up.head());
}

#[test]
fn waiting_for_a_folder_in_use_ends() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = device.open(up.spec());
    let path = device.path();
    let spec = up.spec();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| GitSource::open(&path, spec));
        std::thread::sleep(Duration::from_millis(200));
        drop(first);
        let started = Instant::now();
        second.join().unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
    });
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(std::path::PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn root_a_full_disk_is_named_and_what_is_held_stays() {
    let (up, device) = (Upstream::new(), Device::new());
    let first = up.commit("a.txt", &noise(20_000, 3));
    std::fs::create_dir(device.path()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"])
        .arg(device.path())
        .output()
        .unwrap();
    if !mounted.status.success() {
        assert!(std::env::var_os("CI").is_none(), "mounting needs root");
        eprintln!("SKIPPED: mounting a file system needs root");
        return;
    }
    let _tmpfs = Tmpfs(device.path());
    let mut source = device.open(up.spec());
    fetch(&mut source).unwrap();
    let big = up.commit("b.txt", &noise(900_000, 4));
    for _ in 0..2 {
        let err = fetch(&mut source).unwrap_err();
        assert!(matches!(err, SourceError::Disk { .. }), "{err:?}");
        assert_eq!(source.held().unwrap().commit, first);
        assert!(text(&source.load(&first).unwrap(), "a.txt").is_some());
        // The next start finds nothing half-made.
        drop(source);
        source = device.open(up.spec());
    }
    drop(source);
    let grown = Command::new("mount")
        .args(["-o", "remount,size=8m"])
        .arg(device.path())
        .status()
        .unwrap();
    assert!(grown.success());
    assert_eq!(fetch(&mut device.open(up.spec())).unwrap().revision.commit, big);
}
