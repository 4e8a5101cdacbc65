//! The demo applications as a static binary, ready to be put into an image.

use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds crate `demo-app` in `workspace` for this machine's architecture and gives the binary's path.
///
/// Statically linked, so that an image needs nothing but this file. Below `target`, in a folder of its own: other
/// linker flags there would rebuild everything else. Built already, it costs a look.
///
/// # Errors
/// Where cargo fails (its own words are on standard error), or where the binary is not static.
pub fn build(workspace: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let triple = match std::env::consts::ARCH {
        "x86_64" => "x86_64-unknown-linux-gnu",
        "aarch64" => "aarch64-unknown-linux-gnu",
        other => bail!("the demo applications are not built for {other}"),
    };
    let target = target.join("demo-app");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "demo-app",
            "--profile",
            "dist",
            "--target",
            triple,
        ])
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // Set for coverage or by a wrapper, they would take the place of RUSTFLAGS.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the demo applications do not build: cargo ended with {status}");
    }
    let binary = target.join(triple).join("dist").join("demo-app");
    let bytes = std::fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    // The loader's name is in every dynamic executable (ELF, PT_INTERP).
    if bytes.windows(6).any(|window| window == b"/ld-li") {
        bail!("{} is not statically linked", binary.display());
    }
    Ok(binary)
}
