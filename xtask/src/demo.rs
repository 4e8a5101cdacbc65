//! `demo`: build, then let the product tell its own story.

use crate::cargo::{self, cargo, target};
use crate::{packages, tell};
use anyhow::Result;
use std::process::Command;

/// Builds everything that the demo runs and hands over to `leeward dev demo`.
pub fn run(words: &[&str]) -> Result<()> {
    packages::install(&[packages::DEMO])?;
    let binary = build("release")?;
    let app = demo_app()?;
    let mut demo = Command::new(binary);
    demo.args(["dev", "demo", "--app"]).arg(app).args(words);
    cargo::run(&mut demo)
}

/// Builds the whole binary and says where it is.
pub fn build(profile: &str) -> Result<std::path::PathBuf> {
    tell(&format!("building leeward ({profile})"));
    cargo::run(&mut cargo([
        "build",
        "--quiet",
        "--profile",
        profile,
        "-p",
        "leeward",
    ]))?;
    Ok(target().join(profile).join("leeward"))
}

/// The demo's application: one static binary, so that its image needs no base.
pub fn demo_app() -> Result<std::path::PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo([
        "build",
        "--quiet",
        "--release",
        "-p",
        "demo-app",
        "--target",
        &triple,
    ]);
    cargo::run(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    Ok(target().join(triple).join("release/demo-app"))
}
