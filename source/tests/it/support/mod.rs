//! A real repository to fetch from, made with the `git` program.

#[path = "../../../../sim/src/git_server.rs"]
pub mod git_server;
pub mod servers;

use model::{Tree, TreeEntry};
use source::{Fetched, GitAuth, GitRef, GitSource, GitSpec, Limits, SourceError};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

/// A bare repository `upstream/repo.git` and a clone of it to commit in.
pub struct Upstream {
    pub dir: TempDir,
}

impl Upstream {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let up = Self { dir };
        git(
            up.dir.path(),
            &["init", "-q", "--bare", "-b", "main", "upstream/repo.git"],
        );
        git(up.dir.path(), &["init", "-q", "-b", "main", "work"]);
        up.git(&["remote", "add", "origin", up.bare().to_str().unwrap()]);
        up
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("upstream")
    }

    pub fn bare(&self) -> PathBuf {
        self.root().join("repo.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.work(), args)
    }

    /// Commits one file on the current branch and pushes it; the commit's id.
    pub fn commit(&self, path: &str, text: &str) -> String {
        let file = self.work().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self.commit_all(&format!("Change {path}"))
    }

    pub fn commit_all(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.push();
        self.head()
    }

    pub fn push(&self) {
        self.git(&["push", "-q", "--force", "origin", "HEAD"]);
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn spec(&self) -> GitSpec {
        spec(self.bare().to_str().unwrap())
    }
}

pub fn spec(url: &str) -> GitSpec {
    GitSpec {
        url: url.to_owned(),
        reference: GitRef::Branch("main".to_owned()),
        auth: GitAuth::None,
        ca: None,
        include: vec![],
        ignore: None,
    }
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A device's folder for a source.
pub struct Device {
    pub dir: TempDir,
}

impl Device {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn open(&self, spec: GitSpec) -> GitSource {
        GitSource::open(&self.path(), spec).unwrap().with_limits(limits())
    }

    /// The repository in use.
    pub fn repository(&self) -> PathBuf {
        let mut found: Vec<_> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("git-"))
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

/// Patient enough for a loaded machine.
pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(60),
        idle: Duration::from_secs(120),
        ..Limits::default()
    }
}

pub fn fetch(source: &mut GitSource) -> Result<Fetched, SourceError> {
    source.fetch(&AtomicBool::new(false))
}

pub fn text(tree: &Tree, path: &str) -> Option<String> {
    tree.read(path)
        .map(|data| String::from_utf8(data.to_vec()).unwrap())
}

pub fn paths(tree: &Tree) -> Vec<&str> {
    tree.iter().map(|(path, _)| path).collect()
}

pub fn link(tree: &Tree, path: &str) -> Option<String> {
    match tree.get(path) {
        Some(TreeEntry::Link(target)) => Some(target.clone()),
        _ => None,
    }
}

/// Text that does not compress.
pub fn noise(bytes: usize, mut seed: u64) -> String {
    let letter = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char::from(b'!' + (seed % 90) as u8)
    };
    (0..bytes).map(letter).collect()
}
