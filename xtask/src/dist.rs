//! What is shipped: the device build and the whole one.

use crate::cargo::{self, cargo, target};
use crate::tell;
use anyhow::{Context as _, Result};

/// Builds both with the `dist` profile and prints their sizes.
pub fn run() -> Result<()> {
    let out = target().join("dist/leeward");
    let size = || -> Result<f64> {
        let bytes = std::fs::metadata(&out)
            .with_context(|| out.display().to_string())?
            .len();
        Ok(bytes as f64 / f64::from(1 << 20))
    };
    let keep = target().join("dist/leeward-device");
    cargo::run(&mut cargo([
        "build",
        "--profile",
        "dist",
        "-p",
        "leeward",
        "--no-default-features",
        "--features",
        "agent",
    ]))?;
    std::fs::copy(&out, &keep)?;
    tell(&format!("device build  {:6.1} MiB  {}", size()?, keep.display()));
    cargo::run(&mut cargo(["build", "--profile", "dist", "-p", "leeward"]))?;
    tell(&format!("whole build   {:6.1} MiB  {}", size()?, out.display()));
    Ok(())
}
