//! `leeward check` as people, scripts, hooks and code scanning meet it.
#![cfg(feature = "check")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use expect_test::expect;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_leeward");

fn leeward(dir: &Path, args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `leeward init` makes.
fn fleet() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = leeward(
        dir.path(),
        &["init", "fleet", "--url", "https://git.example.org/fleet.git"],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    dir
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{old:?} in {text}");
    fs::write(file, text.replacen(old, new, 1)).unwrap();
}

#[test]
fn a_new_repository_passes() {
    let dir = fleet();
    let checked = leeward(dir.path(), &["check", "fleet", "--offline", "--strict"]);
    assert_eq!(text(&checked.stdout), "");
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let said = text(&checked.stderr);
    assert!(said.contains("(--offline)"), "{said}");
    assert!(
        said.contains("nothing is wrong: ") && said.contains("4 clusters"),
        "{said}"
    );
}

#[test]
fn faults_are_told_with_their_line_and_the_code_says_so() {
    let dir = fleet();
    let file = dir.path().join("fleet/apps/base/hello/deployment.yaml");
    replace(&file, "replicas:", "replica:");
    let checked = leeward(dir.path(), &["check", "fleet", "--offline"]);
    assert_eq!(checked.status.code(), Some(3));
    expect![[r#"
        apps/base/hello/deployment.yaml:6:3: error: spec has no field "replica" [unknown-field]
          6 |   replica: 2
                ^^^^^^^
          = did you mean "replicas"?
          in Deployment.apps/apps/hello of clusters/cloud, clusters/dev, clusters/edge-jetson, clusters/edge-pi

    "#]].assert_eq(&text(&checked.stdout));
    assert!(
        text(&checked.stderr).contains("error: 1 error: "),
        "{}",
        text(&checked.stderr)
    );

    let checked = leeward(dir.path(), &["check", "fleet", "--offline", "-o", "json"]);
    assert_eq!(checked.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(json["summary"]["errors"], 1);
    let finding = &json["findings"][0];
    assert_eq!(finding["rule"], "unknown-field");
    assert_eq!(finding["file"], "apps/base/hello/deployment.yaml");
    assert_eq!(finding["field"], "spec.replica");
}

#[test]
fn warnings_fail_where_that_is_asked_for() {
    let dir = fleet();
    let service = dir.path().join("fleet/apps/base/hello/service.yaml");
    let text_of = fs::read_to_string(&service).unwrap();
    let selector = text_of
        .lines()
        .skip_while(|line| !line.contains("selector:"))
        .nth(1)
        .unwrap();
    replace(&service, selector, &format!("{selector}-not"));
    let checked = leeward(dir.path(), &["check", "fleet", "--offline"]);
    assert!(
        text(&checked.stdout).contains("warning: no pods in namespace"),
        "{}",
        text(&checked.stdout)
    );
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let checked = leeward(dir.path(), &["check", "fleet", "--offline", "--strict"]);
    assert_eq!(checked.status.code(), Some(3));
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let checked = leeward(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(3));
    assert!(
        text(&checked.stderr).contains("there is nothing to check"),
        "{}",
        text(&checked.stderr)
    );
    let checked = leeward(dir.path(), &["check", "nowhere"]);
    assert_eq!(checked.status.code(), Some(1));
    let checked = leeward(dir.path(), &["check", "--kubernetes-version", "1.99"]);
    assert_eq!(checked.status.code(), Some(2));
    assert!(
        text(&checked.stderr).contains("use 1.25 to 1.37"),
        "{}",
        text(&checked.stderr)
    );
}

/// Names of a tool's place in the environment; says so where it is not set.
fn tool(name: &str, what: &str) -> Option<String> {
    let found = std::env::var(name).ok();
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "no {what}: set {name}");
        eprintln!("SKIPPED: no {what}; set {name}");
    }
    found
}

#[test]
fn sarif_is_what_its_schema_asks_for() {
    let (Some(python), Some(schema)) = (
        tool("LEEWARD_JSONSCHEMA", "Python with jsonschema"),
        tool("LEEWARD_SARIF_SCHEMA", "schema of SARIF 2.1.0"),
    ) else {
        return;
    };
    let dir = fleet();
    let file = dir.path().join("fleet/apps/base/hello/deployment.yaml");
    replace(&file, "replicas:", "replica:");
    let odd = dir.path().join("fleet/odd name");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("kustomization.yaml"), "resources: [no.yaml]\n").unwrap();
    let checked = leeward(dir.path(), &["check", "fleet", "--offline", "-o", "sarif"]);
    let log: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(
        results[1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "odd%20name/kustomization.yaml"
    );
    let script = "import json,sys,jsonschema\nschema=json.load(open(sys.argv[1]))\nlog=json.load(sys.stdin)\n\
                  jsonschema.validate(log,schema)\nlog['runs'][0]['results'][0]['level']='bad'\n\
                  try: jsonschema.validate(log,schema)\nexcept jsonschema.ValidationError: print('valid')\n";
    let mut child = Command::new(python)
        .args(["-c", script, &schema])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&checked.stdout).unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "valid\n");
}

#[test]
fn the_hook_of_the_guide_keeps_a_fault_out() {
    let dir = fleet();
    let repository = dir.path().join("fleet");
    let guide = fs::read_to_string(
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../docs/guides/checking.md"),
    )
    .unwrap();
    let line = guide
        .lines()
        .find(|line| line.contains(".git/hooks/pre-commit"))
        .unwrap();
    let path = format!(
        "{}:{}",
        Path::new(PROGRAM).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let sh = |script: &str| {
        Command::new("sh")
            .args(["-c", script])
            .current_dir(&repository)
            .env("PATH", &path)
            .env("HOME", dir.path())
            .output()
            .unwrap()
    };
    assert!(sh(line).status.success());
    let commit = "git -c user.name=x -c user.email=x@y commit -qam change";
    replace(
        &repository.join("apps/base/hello/deployment.yaml"),
        "replicas:",
        "replica:",
    );
    let refused = sh(commit);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stdout).contains("unknown-field") || text(&refused.stderr).contains("unknown-field")
    );
    replace(
        &repository.join("apps/base/hello/deployment.yaml"),
        "replica: ",
        "replicas: 1 #",
    );
    let taken = sh(commit);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
}

/// Debian's docker-registry on a free port.
struct Registry {
    child: Child,
    host: String,
    _dir: TempDir,
}

impl Registry {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: \"{host}\"}}\n",
            dir.path().display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            host,
            _dir: dir,
        }
    }

    /// Pushes an image that is nothing but a script.
    fn push(&self, dir: &Path, name: &str, platform: &str) {
        fs::write(dir.join("app"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.join("app"), fs::Permissions::from_mode(0o755)).unwrap();
        let tag = format!("{}/{name}", self.host);
        let args = [
            "image",
            "build",
            "--tag",
            &tag,
            "--add",
            "app:/app",
            "--entrypoint",
            "/app",
            "--platform",
            platform,
            "--push",
            "--plain-http",
            "--allow-dynamic",
        ];
        let pushed = leeward(dir, &args);
        assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn images_must_be_there_for_the_devices_architecture() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    registry.push(dir.path(), "for/arm:1", "linux/arm64");
    registry.push(dir.path(), "for/amd:1", "linux/amd64");
    let pods: Vec<String> = ["for/arm:1", "for/amd:1", "for/arm:2"]
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let image = format!("{}/{name}", registry.host);
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{at}}}\nspec:\n  containers:\n    - name: x\n      image: {image}\n")
        })
        .collect();
    let cluster = dir.path().join("clusters/edge-pi");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("kustomization.yaml"), "resources: [pods.yaml]\n").unwrap();
    fs::write(cluster.join("pods.yaml"), pods.join("---\n")).unwrap();

    let checked = leeward(dir.path(), &["check", "--plain-http", &registry.host]);
    assert_eq!(checked.status.code(), Some(3), "{}", text(&checked.stderr));
    // How long the host's name is changes from run to run.
    let told = text(&checked.stdout).replace(&registry.host, "HOST");
    let told: String = told
        .lines()
        .filter(|line| !line.trim_start().starts_with('^'))
        .map(|line| format!("{line}\n"))
        .collect();
    expect![[r#"
        clusters/edge-pi/pods.yaml:15:14: error: the image HOST/for/amd:1 is for linux/amd64, and the devices here (raspberry-pi-5, raspberry-pi-4) are linux/arm64 [image-architecture]
          15 |       image: HOST/for/amd:1
          = build it for linux/arm64, too, or use another image
          in Pod/pod-1 of clusters/edge-pi

        clusters/edge-pi/pods.yaml:23:14: error: the registry does not have the image HOST/for/arm:2 [image-missing]
          23 |       image: HOST/for/arm:2
          = correct the name or the tag, or push the image
          in Pod/pod-2 of clusters/edge-pi

    "#]].assert_eq(&told);

    // Without plain HTTP the registry does not answer, which is no fault of the repository's.
    let checked = leeward(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(
        text(&checked.stderr).contains("not looked at: 3 images of "),
        "{}",
        text(&checked.stderr)
    );
}
