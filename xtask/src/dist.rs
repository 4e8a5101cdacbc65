//! What is shipped: the device build and the whole one.

use crate::cargo::{self, cargo, target};
use crate::tell;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Builds both with the `dist` profile and prints their sizes.
pub fn run() -> Result<()> {
    tell_size("device build", &device()?)?;
    tell_size("whole build", &whole()?)
}

/// What is shipped to devices: agent and container engine, without hub and simulated fleet.
pub fn device() -> Result<PathBuf> {
    tell("building leeward for devices (dist)");
    build(&["--no-default-features", "--features", "agent"])?;
    // The whole build has the same name in the same folder.
    let keep = target().join("dist/leeward-device");
    std::fs::copy(built(), &keep).with_context(|| keep.display().to_string())?;
    Ok(keep)
}

fn whole() -> Result<PathBuf> {
    tell("building leeward (dist)");
    build(&[])?;
    Ok(built())
}

fn build(features: &[&str]) -> Result<()> {
    let words = ["build", "--quiet", "--profile", "dist", "-p", "leeward"];
    cargo::run(cargo(words).args(features))
}

fn built() -> PathBuf {
    target().join("dist/leeward")
}

fn tell_size(what: &str, path: &Path) -> Result<()> {
    let bytes = std::fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .len();
    let mib = bytes as f64 / f64::from(1 << 20);
    tell(&format!("{what:<13} {mib:6.1} MiB  {}", path.display()));
    Ok(())
}
