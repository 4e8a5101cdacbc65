//! The figures of rendering, beside `kubectl kustomize`: a program that `cargo xtask bench render` runs.
//!
//! `LEEWARD_PROGRAM` is the product, `LEEWARD_KUBECTL` the peer. Both build the same folders in turns; CPU time and peak
//! memory are the kernel's for a process that is waited for. With `--one PROGRAM WORDS...` this program runs just that
//! one, and prints what it took: so the numbers are of no other process.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures prints"
)]
#![expect(clippy::unwrap_used, reason = "as a test: what cannot be measured ends it")]

use model::{Revision, Tree};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Took {
    cpu_ms: f64,
    peak_mib: f64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [one, program, rest @ ..] = words.as_slice()
        && one == "--one"
    {
        return run_one(program, rest);
    }
    let short = words.iter().any(|word| word == "--short");
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let wanted = |shape: &str| {
        names.is_empty()
            || names
                .iter()
                .any(|name| name.starts_with(&format!("render-{shape}")))
    };
    let program =
        |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
    let (ours, theirs) = (program("LEEWARD_PROGRAM"), program("LEEWARD_KUBECTL"));
    let dir = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    for shape in SHAPES.iter().filter(|shape| wanted(shape.name)) {
        let folder = dir.path().join(shape.name);
        (shape.make)(&folder);
        let folder = folder.to_str().unwrap();
        let (our_words, their_words) = match shape.name {
            "start" => (vec!["--version"], vec!["version", "--client"]),
            _ => (vec!["build", folder], vec!["kustomize", folder]),
        };
        let note = if shape.name == "start" {
            String::new()
        } else {
            same(&ours, &our_words, &theirs, &their_words)
        };
        eprintln!("{}: {note}", shape.name);
        let (mut we, mut they) = (Vec::new(), Vec::new());
        for _ in 0..if short { 2 } else { shape.runs } {
            we.push(measure(&ours, &our_words));
            they.push(measure(&theirs, &their_words));
        }
        rows.extend(both(shape.name, least(&we), least(&they), &note));
    }
    if wanted("ten-thousand") {
        // kubectl's time grows with the square of the number, to minutes.
        let folder = dir.path().join("ten-thousand");
        plain(&folder, 10_000, 10);
        let took = measure(&ours, &["build", folder.to_str().unwrap()]);
        rows.push(json!({"name": "render-ten-thousand-cpu", "ours": took.cpu_ms}));
        rows.push(json!({"name": "render-ten-thousand-memory", "ours": took.peak_mib}));
    }
    if wanted("again") {
        rows.push(again());
    }
    println!("{}", Value::Array(rows));
}

fn both(shape: &str, we: Took, they: Took, note: &str) -> [Value; 2] {
    [
        ("cpu", we.cpu_ms, they.cpu_ms),
        ("memory", we.peak_mib, they.peak_mib),
    ]
    .map(|(what, we, they)| {
        let name = format!("render-{shape}-{what}");
        json!({"name": name, "ours": we, "peer_name": "kubectl kustomize", "peer": they, "note": note})
    })
}

fn run_one(program: &str, words: &[String]) {
    let status = Command::new(program)
        .args(words)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{program} {words:?}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let cpu_ms = seconds(usage.user_time()) + seconds(usage.system_time());
    println!("{}", json!([cpu_ms, usage.max_rss() as f64 / 1024.0]));
}

fn measure(program: &Path, words: &[&str]) -> Took {
    let out = Command::new(std::env::current_exe().unwrap())
        .arg("--one")
        .arg(program)
        .args(words)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let [cpu_ms, peak_mib] = serde_json::from_slice(&out.stdout).unwrap();
    Took { cpu_ms, peak_mib }
}

/// Each the least of all runs: what others on the machine do only adds.
fn least(took: &[Took]) -> Took {
    Took {
        cpu_ms: took.iter().map(|took| took.cpu_ms).fold(f64::INFINITY, f64::min),
        peak_mib: took
            .iter()
            .map(|took| took.peak_mib)
            .fold(f64::INFINITY, f64::min),
    }
}

/// What is compared has to be equal.
fn same(ours: &Path, our_words: &[&str], theirs: &Path, their_words: &[&str]) -> String {
    let text = |program: &Path, words: &[&str]| Command::new(program).args(words).output().unwrap().stdout;
    let (we, they) = (text(ours, our_words), text(theirs, their_words));
    assert!(we == they, "{their_words:?}: not the same bytes");
    let objects = String::from_utf8_lossy(&we).matches("\nkind: ").count();
    format!("{objects} objects, {:.1} MB, equal bytes", we.len() as f64 / 1e6)
}

struct Shape {
    name: &'static str,
    runs: usize,
    make: fn(&Path),
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "start",
        runs: 10,
        make: |_| {},
    },
    Shape {
        name: "nineteen",
        runs: 10,
        make: |dir| plain(dir, 19, 25),
    },
    Shape {
        name: "patch",
        runs: 10,
        make: patched,
    },
    Shape {
        name: "large",
        runs: 3,
        make: |dir| plain(dir, 185, 330),
    },
    Shape {
        name: "crds",
        runs: 3,
        make: crds,
    },
];

fn write(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// ConfigMaps and Deployments, half of each, with `lines` of data in each ConfigMap.
fn plain(dir: &Path, count: usize, lines: usize) {
    let mut files = String::new();
    for at in 0..count {
        let name = format!("o{at}.yaml");
        let _ = writeln!(files, "- {name}");
        write(dir, &name, &object(at, lines));
    }
    write(
        dir,
        "kustomization.yaml",
        &format!("namespace: shop\ncommonAnnotations: {{team: edge}}\nresources:\n{files}"),
    );
}

fn object(at: usize, lines: usize) -> String {
    if at.is_multiple_of(2) {
        let mut text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings-{at}\ndata:\n  app.conf: |\n"
        );
        for line in 0..lines * 2 {
            let _ = writeln!(text, "    key{line} = some value of a setting, number {line}");
        }
        return text;
    }
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-{at}\n  labels: {{app: app-{at}}}\nspec:\n  replicas: 2\n  selector:\n    \
         matchLabels: {{app: app-{at}}}\n  template:\n    metadata:\n      labels: {{app: app-{at}}}\n    spec:\n      containers:\n      - name: main\n        \
         image: registry.example/app:{at}\n        env:\n        - name: LEVEL\n          value: info\n        ports:\n        - containerPort: 8080\n        \
         resources:\n          requests: {{cpu: 10m, memory: 32Mi}}\n          limits: {{memory: 64Mi}}\n"
    )
}

/// A tiny overlay with a strategic merge.
fn patched(dir: &Path) {
    write(dir, "base/kustomization.yaml", "resources: [app.yaml]\n");
    write(dir, "base/app.yaml", &object(1, 0));
    write(
        dir,
        "kustomization.yaml",
        "resources: [base]\npatches:\n- path: patch.yaml\n",
    );
    write(
        dir,
        "patch.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app-1\nspec:\n  template:\n    spec:\n      containers:\n      - name: main\n        \
         env:\n        - name: MORE\n          value: x\n",
    );
}

/// 62 definitions, 7.4 MB together, most of it descriptions.
fn crds(dir: &Path) {
    let mut files = String::new();
    for at in 0..62 {
        let name = format!("crd{at}.yaml");
        let _ = writeln!(files, "- {name}");
        let mut text = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: things{at}.example.dev\nspec:\n  group: example.dev\n  \
             names:\n    kind: Thing{at}\n    plural: things{at}\n  scope: Namespaced\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    \
             schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n"
        );
        for field in 0..390 {
            let _ = writeln!(
                text,
                "          field{field}:\n            description: |-\n              What this field of the thing is for, at some length, so that people who read the\n              \
                 definition know it; the field number {field} is like all others in that respect.\n            type: string\n            maxLength: {field}"
            );
        }
        write(dir, &name, &text);
    }
    write(
        dir,
        "kustomization.yaml",
        &format!("commonLabels: {{team: edge}}\nresources:\n{files}"),
    );
}

/// What a device does again after a commit that changes one file of a repository with a hundred apps.
fn again() -> Value {
    let mut tree = Tree::default();
    let mut apps = String::new();
    for app in 0..100 {
        let _ = writeln!(
            apps,
            "---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: app{app}, namespace: flux-system}}\nspec:\n  \
             interval: 10m\n  path: ./apps/app{app}\n  prune: true\n  targetNamespace: app{app}\n  sourceRef: {{kind: GitRepository, name: flux-system}}"
        );
        tree.write(
            &format!("apps/app{app}/kustomization.yaml"),
            "resources: [a.yaml, b.yaml]\nimages: [{name: registry.example/app, newTag: v1}]\n".to_owned(),
        );
        tree.write(&format!("apps/app{app}/a.yaml"), object(2 * app + 1, 0));
        tree.write(&format!("apps/app{app}/b.yaml"), object(2 * app, 5));
    }
    tree.write("clusters/edge/apps.yaml", apps);
    let revision: Revision =
        serde_json::from_value(json!({"commit": "0".repeat(40), "committedAt": "2026-01-01T00:00:00Z"}))
            .unwrap();
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
        ms(usage.user_time()) + ms(usage.system_time())
    };
    let vars = BTreeMap::new();
    let mut objects = 0;
    let mut took = f64::INFINITY;
    for round in 0..20 {
        tree.write("apps/app7/b.yaml", object(14, 5 + round));
        let before = cpu();
        objects = render::render(&tree, &revision, "clusters/edge", &vars)
            .unwrap()
            .objects
            .len();
        took = took.min(cpu() - before);
    }
    json!({"name": "render-again", "ours": took, "note": format!("100 apps, {objects} objects, in one process, without fetching")})
}
