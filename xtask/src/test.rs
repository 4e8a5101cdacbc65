//! Everything that CI runs, in the order in which it fails soonest.

use crate::cargo::{self, cache, cargo, has, output};
use crate::{demo, packages, tell, tidy};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Instant;

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("packages", || {
        packages::install(&[packages::DEMO, packages::TESTS])
    }),
    ("fmt", || cargo::run(&mut cargo(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("clippy", || {
        cargo::run(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("device", device),
    ("deny", deny),
    ("tests", tests),
    ("demo", || demo::run(&["--once"])),
];

/// Runs all steps, or one of them.
pub fn run(only: Option<&str>) -> Result<()> {
    if let Some(name) = only
        && !STEPS.iter().any(|(step, _)| step == &name)
    {
        bail!(
            "no step {name}; steps: {}",
            STEPS.iter().map(|(step, _)| *step).collect::<Vec<_>>().join(" ")
        );
    }
    let mut took = Vec::new();
    for (name, step) in STEPS
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
    {
        tell(&format!("── {name}"));
        let start = Instant::now();
        step()?;
        took.push(format!("{name} {:.0} s", start.elapsed().as_secs_f32()));
    }
    tell(&format!("all passed: {}", took.join(", ")));
    Ok(())
}

/// The device build stays a build of its own: it must compile without the hub.
fn device() -> Result<()> {
    cargo::run(
        cargo([
            "clippy",
            "-p",
            "leeward",
            "--no-default-features",
            "--features",
            "agent",
            "--quiet",
            "--",
        ])
        .args(["-D", "warnings"]),
    )
}

fn tests() -> Result<()> {
    let peers = [
        ("LEEWARD_KUBECTL", packages::kubectl()?),
        ("LEEWARD_S3_SERVER", packages::s3_server()?),
        ("LEEWARD_SOPS", packages::sops()?),
        ("LEEWARD_JSONSCHEMA", packages::jsonschema()?),
        ("LEEWARD_SARIF_SCHEMA", packages::sarif_schema()?),
        ("LEEWARD_OTEL", packages::opentelemetry()?),
    ];
    let words: &[&str] = if has("cargo-nextest") {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        tell("cargo-nextest is not installed; using cargo test");
        &["test", "--workspace", "--no-fail-fast"]
    };
    cargo::run(cargo(words).envs(peers))
}

/// Licences, bans and sources always; advisories where their database can be had.
fn deny() -> Result<()> {
    let tools = cache().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        tell("installing cargo-deny (crates.io)");
        cargo::run(cargo(["install", "--quiet", "--locked", "cargo-deny", "--root"]).arg(&tools))?;
    }
    let check = |what: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(crate::cargo::root()).args([
            "--log-level",
            "error",
            "check",
            "--hide-inclusion-graph",
        ]);
        command.args(what);
        command
    };
    cargo::run(&mut check(&["licenses", "bans", "sources"]))?;
    if let Err(err) = output(&mut check(&["advisories"])) {
        let text = format!("{err:#}");
        if text.contains("failed to fetch advisory database") || text.contains("advisory-db") {
            tell("NOT CHECKED: advisories; their database cannot be reached from here");
        } else {
            bail!("{text}");
        }
    }
    Ok(())
}
