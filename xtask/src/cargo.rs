//! Where builds go, and how programs are run.

use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The workspace's root.
pub fn root() -> PathBuf {
    // The manifest of this very crate lies one folder below the root. As cargo says it now: two checkouts that share a
    // target folder share this program too, wherever it was built.
    let built = env!("CARGO_MANIFEST_DIR");
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(built), PathBuf::from)
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// A folder of ours below the user's cache folder.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("leeward")
}

/// Compiled dependencies stay outside the checkout, so that a fresh clone on the same machine builds quickly.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// `cargo`, with our target folder.
pub fn cargo<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(words)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target());
    command
}

/// Runs a command to a good end.
pub fn run(command: &mut Command) -> Result<()> {
    let told = told(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {told}"))?;
    ensure!(status.success(), "{told} ended with {status}");
    Ok(())
}

/// Runs a command to a good end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let told = told(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {told}"))?;
    if !out.status.success() {
        bail!(
            "{told} ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether a program is on the path.
pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

fn told(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
