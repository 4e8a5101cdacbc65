//! `leeward diff` and `leeward preview` over a repository of `leeward init`, with images in a real registry.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Fleet {
    parent: TempDir,
}

impl Fleet {
    fn new() -> Self {
        let fleet = Self {
            parent: tempfile::tempdir().unwrap(),
        };
        let out = fleet.leeward(&["init", fleet.dir().to_str().unwrap()]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fleet
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join("fleet")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.dir().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn commit(&self, message: &str) {
        for args in [
            &["add", "-A"][..],
            &[
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=a@example.com",
                "commit",
                "-q",
                "-m",
                message,
            ],
        ] {
            let done = Command::new("git")
                .args(args)
                .current_dir(self.dir())
                .status()
                .unwrap();
            assert!(done.success());
        }
    }

    fn leeward(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_leeward"))
            .args(args)
            .current_dir(if self.dir().exists() {
                self.dir()
            } else {
                self.parent.path().to_owned()
            })
            .env("HOME", self.parent.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("LEEWARD_ACCESS")
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.leeward(&[args, &["-o", "json"]].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|err| panic!("{err}: {said}"))
    }

    /// One app in one class's folder, nothing else.
    fn app(&self, image: &str, more: &str) {
        self.write(
            "clusters/edge-pi/kustomization.yaml",
            "resources: [app.yaml]\nconfigMapGenerator:\n- name: settings\n  namespace: shop\n  literals: [LEVEL=info]\ngeneratorOptions: {disableNameSuffixHash: true}\n",
        );
        self.write(
            "clusters/edge-pi/app.yaml",
            &format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: 1\n  strategy: {{type: Recreate}}\n  \
                 selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 20\n      \
                 containers:\n      - name: web\n        image: {image}\n        readinessProbe: {{tcpSocket: {{port: 80}}, initialDelaySeconds: 5}}\n---\n\
                 apiVersion: v1\nkind: Secret\nmetadata: {{name: keys, namespace: shop}}\nstringData: {{token: hush-{}}}\n{more}",
                more.len()
            ),
        );
    }
}

#[test]
fn a_diff_tells_fields_and_no_secrets_and_its_exit_code_says_whether() {
    let fleet = Fleet::new();
    fleet.app("registry.example/web:1", "");
    fleet.commit("one");
    let same = fleet.leeward(&["diff"]);
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&same.stderr)
    );
    fleet.app(
        "registry.example/web:2",
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: shop}\n",
    );
    let work = fleet.leeward(&["diff"]);
    let text = String::from_utf8(work.stdout).unwrap();
    assert_eq!(
        work.status.code(),
        Some(1),
        "{text}{}",
        String::from_utf8_lossy(&work.stderr)
    );
    assert!(
        text.contains("clusters/edge-pi: 1 added, 2 changed, 0 removed"),
        "{text}"
    );
    assert!(text.contains("spec.template.spec.containers[web].image: \"registry.example/web:1\" -> \"registry.example/web:2\""), "{text}");
    assert!(text.contains("(secret)") && !text.contains("hush"), "{text}");
    fleet.commit("two");
    let json = fleet.json(&["diff", "HEAD~1", "HEAD", "--path", "clusters/edge-pi"]);
    assert_eq!(json["clusters"].as_array().unwrap().len(), 1);
    assert!(!json.to_string().contains("hush"), "{json}");
    let nowhere = fleet.leeward(&["diff", "no-such-branch"]);
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(5), "{said}");
    assert!(
        said.contains("no revision \"no-such-branch\"; there are"),
        "{said}"
    );
    fleet.write(
        "clusters/edge-pi/kustomization.yaml",
        "resources: [missing.yaml]\n",
    );
    let broken = fleet.leeward(&["diff"]);
    let said = String::from_utf8(broken.stderr).unwrap();
    assert_eq!(broken.status.code(), Some(3), "{said}");
    assert!(
        said.contains("missing.yaml") && said.contains("clusters/edge-pi"),
        "{said}"
    );
}

struct Registry {
    child: Child,
    /// Goes with it.
    _data: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real registry; `None`, said aloud, where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn registry() -> Option<(Registry, String)> {
    let program = "docker-registry";
    if Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        assert!(
            std::env::var_os("CI").is_none(),
            "docker-registry is not installed"
        );
        eprintln!("SKIPPED: docker-registry is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    // Another process may take the free port first.
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            dir.path().join("data").display()
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                let registry = Registry { child, _data: dir };
                return Some((registry, format!("127.0.0.1:{port}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
    }
    panic!("docker-registry does not start");
}

fn push(fleet: &Fleet, host: &str, name: &str, files: &[(&str, &Path)]) {
    let tag = format!("{host}/{name}");
    let mut args = vec![
        "image".to_owned(),
        "build".into(),
        "--tag".into(),
        tag,
        "--push".into(),
        "--plain-http".into(),
    ];
    args.extend([
        "--platform".into(),
        "linux/arm64".into(),
        "--entrypoint".into(),
        "/a".into(),
    ]);
    for (path, file) in files {
        args.extend(["--add".into(), format!("{}:{path}", file.display())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let out = fleet.leeward(&args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_preview_tells_restarts_bytes_and_downtime() {
    let Some((_registry, host)) = registry() else {
        return;
    };
    let fleet = Fleet::new();
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        (0..300_000).map(|_| next()).collect()
    };
    let (one, two) = (fleet.parent.path().join("one"), fleet.parent.path().join("two"));
    fs::write(&one, noise(7)).unwrap();
    fs::write(&two, noise(9)).unwrap();
    for file in [&one, &two] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    push(&fleet, &host, "web:1", &[("/a", &one)]);
    push(&fleet, &host, "web:2", &[("/a", &two)]);
    fleet.app(&format!("{host}/web:1"), "");
    fleet.commit("one");
    fleet.app(
        &format!("{host}/web:2"),
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: shop}\n",
    );
    fleet.commit("two");
    let args = [
        "preview",
        "HEAD",
        "--base",
        "HEAD~1",
        "--no-hub",
        "--class",
        "raspberry-pi-5",
        "--link",
        "1mbit",
        "--plain-http",
        &host,
    ];
    let preview = fleet.json(&args);
    let device = &preview["devices"][0];
    assert_eq!(device["class"], "raspberry-pi-5");
    let web = &device["workloads"][0];
    assert_eq!(web["what"], "restarted", "{preview:#}");
    assert_eq!(web["because"], "containers[web].image");
    assert_eq!(web["downtime"], serde_json::json!({"least": 5, "most": 25}));
    let bytes = device["download"]["bytes"].as_u64().unwrap();
    assert!((300_000..320_000).contains(&bytes), "{bytes}");
    let seconds = device["transferSeconds"].as_f64().unwrap();
    assert!((seconds - bytes as f64 * 8e-6).abs() < 1e-6, "{seconds}");
    // What has all its layers there already costs nothing but its manifest's.
    let back = fleet.json(&[
        "preview",
        "HEAD",
        "--base",
        "HEAD",
        "--no-hub",
        "--class",
        "raspberry-pi-5",
    ]);
    assert_eq!(back["devices"][0]["download"]["bytes"], 0);
    assert!(back["devices"][0].get("changes").is_none(), "{back:#}");
    let markdown = fleet.leeward(&[&args[..], &["-o", "markdown"]].concat());
    let text = String::from_utf8(markdown.stdout).unwrap();
    assert!(
        text.contains("| (each) | raspberry-pi-5 |") && text.contains("5-25s"),
        "{text}"
    );
    assert!(text.contains("```diff") && !text.contains("hush"), "{text}");
    let table = fleet.leeward(&args);
    assert!(
        String::from_utf8_lossy(&table.stdout)
            .contains("Deployment.apps/shop/web restarted: containers[web].image")
    );
}

#[test]
fn a_revision_that_a_device_would_refuse_is_told_and_fails() {
    let fleet = Fleet::new();
    fleet.app("registry.example/web:1", "");
    fleet.commit("one");
    fleet.app(
        "registry.example/web:1",
        "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: shop}\nspec: {}\n",
    );
    let out = fleet.leeward(&[
        "preview",
        "--no-hub",
        "--no-registry",
        "--class",
        "raspberry-pi-5",
    ]);
    let (text, said) = (
        String::from_utf8(out.stdout).unwrap(),
        String::from_utf8(out.stderr).unwrap(),
    );
    assert_eq!(out.status.code(), Some(3), "{text}{said}");
    assert!(
        text.contains("REFUSED") && said.contains("StatefulSet"),
        "{text}{said}"
    );
}
