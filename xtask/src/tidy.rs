//! Rules of the house that a compiler does not check.

use crate::cargo::{cargo, output, root};
use crate::tell;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which crate may use which: a new edge is a reviewed one-line diff. Dev-dependencies are free.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("kit", &[]),
    ("blobs", &["kit", "model"]),
    ("check", &["model", "plan", "render", "rules", "sops"]),
    ("device", &["kit", "model"]),
    ("identity", &["kit", "model"]),
    ("plan", &["model"]),
    ("render", &["model", "sops"]),
    ("rollout", &["model"]),
    ("rules", &[]),
    ("runtime", &["blobs", "kit", "model"]),
    ("sops", &[]),
    ("source", &["blobs", "kit", "model"]),
    ("spool", &["kit"]),
    ("telemetry", &["kit", "model", "spool"]),
    ("wire", &["model"]),
    (
        "agent",
        &[
            "blobs",
            "device",
            "identity",
            "kit",
            "model",
            "plan",
            "render",
            "rules",
            "runtime",
            "sops",
            "source",
            "spool",
            "telemetry",
            "wire",
        ],
    ),
    ("history", &["kit", "telemetry"]),
    (
        "hub",
        &[
            "blobs",
            "history",
            "identity",
            "kit",
            "model",
            "rollout",
            "telemetry",
            "wire",
        ],
    ),
    (
        "sim",
        &["agent", "blobs", "device", "identity", "kit", "model", "wire"],
    ),
    (
        "leeward",
        &[
            "agent",
            "blobs",
            "check",
            "device",
            "hub",
            "identity",
            "kit",
            "model",
            "plan",
            "render",
            "runtime",
            "sim",
            "sops",
            "source",
            "spool",
            "telemetry",
            "wire",
        ],
    ),
    ("demo-app", &[]),
    ("xtask", &[]),
];

/// Crates that the device build must not reach.
const NOT_ON_DEVICES: &[&str] = &[
    "history",
    "hub",
    "sim",
    "rusqlite",
    "axum",
    "maud",
    "datafusion",
    "openssl",
    "aws-lc-sys",
];

/// About 600; a few lines over are no reason to tear a file apart. Tests are apart.
const MOST_LINES: usize = 650;

/// Checks everything and tells all that is wrong at once.
pub fn run() -> Result<()> {
    let mut faults = Vec::new();
    edges(&mut faults)?;
    device_build(&mut faults)?;
    files(&root(), &mut faults)?;
    map(&mut faults)?;
    if faults.is_empty() {
        tell("tidy: all in order");
        return Ok(());
    }
    bail!("tidy:\n  {}", faults.join("\n  "))
}

fn edges(faults: &mut Vec<String>) -> Result<()> {
    let text =
        output(cargo(["metadata", "--format-version", "1", "--no-deps"]).env_remove("CARGO_TARGET_DIR"))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata without packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may_use) = allowed.get(name) else {
            faults.push(format!("crate {name} has no row in MAY_USE (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if normal && ours.contains(&to) && !may_use.contains(&to) {
                faults.push(format!(
                    "{name} may not depend on {to} (MAY_USE in xtask/src/tidy.rs)"
                ));
            }
        }
    }
    Ok(())
}

fn device_build(faults: &mut Vec<String>) -> Result<()> {
    let words = [
        "tree",
        "-p",
        "leeward",
        "--no-default-features",
        "--features",
        "agent",
        "-e",
        "normal",
        "--prefix",
    ];
    let text = output(cargo(words).args(["none", "--format", "{p}"]))?;
    let reached: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    for name in NOT_ON_DEVICES {
        if reached.contains(name) {
            faults.push(format!(
                "the device build reaches {name}: cargo tree -p leeward -i {name}"
            ));
        }
    }
    Ok(())
}

fn files(dir: &Path, faults: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "tests" {
                files(&path, faults)?;
            }
            continue;
        }
        if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            let lines = std::fs::read_to_string(&path)?.lines().count();
            if lines > MOST_LINES {
                let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
                faults.push(format!(
                    "{shown} has {lines} lines, more than {MOST_LINES}: split it by noun"
                ));
            }
        }
    }
    Ok(())
}

/// Every path in ARCHITECTURE.md's code spans that looks like one of ours must exist.
fn map(faults: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    for span in text.split('`').skip(1).step_by(2) {
        let looks_like_a_path = span.contains('/')
            && span
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let first = span.split('/').next().unwrap_or_default();
        if looks_like_a_path && root().join(first).is_dir() && !root().join(PathBuf::from(span)).exists() {
            faults.push(format!("ARCHITECTURE.md names {span}, which is not there"));
        }
    }
    Ok(())
}
