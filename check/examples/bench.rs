//! `cargo xtask bench check`: a repository of 100 applications, checked, beside what people put together by hand:
//! `kubectl kustomize` for each folder and kubernetes-validate (PyPI) over all that it prints.
//!
//! Figures are CPU seconds, since a pre-commit hook shares its machine. The peer looks at schemas only.

use check::{Options, Severity, check};
use model::Tree;
use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

const APPS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let files = repository();
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.clone()))
        .collect();
    // A second run finds the definitions parsed, as the hub would; a hook pays for the first one.
    let before = own_cpu()?;
    let report = check(&tree, &Options::default());
    let ours = own_cpu()? - before;
    if report.count(Severity::Error) > 0 || report.objects < 4 * APPS {
        return Err(format!("the repository should pass: {:?}", report.findings).into());
    }
    let peak = peak_mib()?;
    let mut row = serde_json::json!({
        "name": "check-100", "ours": ours, "note": format!("{} objects, {} files", report.objects, files.len()),
    });
    match peer(&files) {
        Ok(peer) => {
            row["peer"] = peer.into();
            row["peer_name"] = "kubectl kustomize + kubernetes-validate".into();
        }
        Err(why) => row["note"] = format!("no peer: {why}").into(),
    }
    let rows = serde_json::json!([row, {"name": "check-100-peak", "ours": peak}]);
    std::io::stdout().write_all(rows.to_string().as_bytes())?;
    Ok(())
}

/// One cluster; each application has a base and an overlay with a patch, and makes four objects.
fn repository() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut cluster = "resources:\n".to_owned();
    for at in 0..APPS {
        // Writing to a String cannot fail.
        let _ = writeln!(cluster, "- app-{at}.yaml");
        let mut add = |path: &str, text: String| {
            files.push((
                path.replace('@', &at.to_string()),
                text.replace('@', &at.to_string()),
            ))
        };
        add("clusters/one/app-@.yaml", KUSTOMIZATION.to_owned());
        add("apps/@/base/kustomization.yaml", GENERATED.to_owned());
        add("apps/@/base/app.yaml", APP.to_owned());
        add(
            "apps/@/overlay/kustomization.yaml",
            "resources: [../base]\npatches: [{path: patch.yaml}]\n".to_owned(),
        );
        add("apps/@/overlay/patch.yaml", PATCH.to_owned());
    }
    files.push(("clusters/one/kustomization.yaml".to_owned(), cluster));
    files
}

const KUSTOMIZATION: &str = "apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: app-@, namespace: flux-system}
spec:
  interval: 10m
  prune: true
  path: ./apps/@/overlay
  sourceRef: {kind: GitRepository, name: flux-system}
";
const GENERATED: &str = "resources: [app.yaml]
configMapGenerator:
- name: app-@-page
  literals: [index=hello]
";
const PATCH: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: app-@}
spec:
  template:
    spec:
      containers: [{name: app, workingDir: /srv}]
";
const APP: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: app-@}
spec:
  replicas: 1
  selector:
    matchLabels: {app: app-@}
  template:
    metadata:
      labels: {app: app-@}
    spec:
      containers:
        - name: app
          image: registry.example.org/app-@:1
          ports: [{name: http, containerPort: 8080}]
          env:
            - name: PAGE
              valueFrom: {configMapKeyRef: {name: app-@-page, key: index}}
          readinessProbe: {httpGet: {path: /, port: http}}
          resources: {requests: {cpu: 1m, memory: 1Mi}}
          volumeMounts: [{name: page, mountPath: /page}]
      volumes:
        - name: page
          configMap: {name: app-@-page}
---
apiVersion: v1
kind: Service
metadata: {name: app-@}
spec:
  selector: {app: app-@}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Secret
metadata: {name: app-@}
stringData: {token: secret}
";

/// CPU seconds of the tools people have.
fn peer(files: &[(String, String)]) -> Result<f64, Box<dyn Error>> {
    let kubectl = std::env::var("LEEWARD_KUBECTL")?;
    let python = std::env::var("LEEWARD_JSONSCHEMA")?;
    let dir = std::env::temp_dir().join(format!("leeward-bench-check-{}", std::process::id()));
    let done = measured(files, &dir, &kubectl, &python);
    fs::remove_dir_all(&dir)?;
    done
}

fn measured(
    files: &[(String, String)],
    dir: &Path,
    kubectl: &str,
    python: &str,
) -> Result<f64, Box<dyn Error>> {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, text)?;
    }
    let before = children_cpu()?;
    let mut all = Vec::new();
    for at in 0..APPS {
        let overlay = dir.join(format!("apps/{at}/overlay"));
        let built = Command::new(kubectl).arg("kustomize").arg(&overlay).output()?;
        if !built.status.success() {
            return Err(String::from_utf8_lossy(&built.stderr).into());
        }
        all.extend_from_slice(b"---\n");
        all.extend(built.stdout);
    }
    let rendered = dir.join("all.yaml");
    fs::write(&rendered, all)?;
    let valid = Command::new(Path::new(python).with_file_name("kubernetes-validate"))
        .args(["--strict", "-k", "1.37"])
        .arg(&rendered)
        .stdout(Stdio::null())
        .status()?;
    if !valid.success() {
        return Err("kubernetes-validate does not pass it".into());
    }
    Ok(children_cpu()? - before)
}

/// This thread's, in seconds.
fn own_cpu() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}

/// That of children that have ended, in seconds.
fn children_cpu() -> Result<f64, Box<dyn Error>> {
    const TICKS: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything: state is the third field, cutime the 16th.
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let field = |at: usize| fields.get(at - 3).unwrap_or(&"0").parse::<f64>();
    Ok((field(16)? + field(17)?) / TICKS)
}

fn peak_mib() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
