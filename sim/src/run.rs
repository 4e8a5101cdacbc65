//! Programs of the machine, each with its words as a list; no shell.

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs a program to a good end and returns what it printed.
pub fn run(program: &str, words: &[&str]) -> Result<String> {
    finish(
        program,
        words,
        Command::new(program).args(words).stdin(Stdio::null()),
    )
}

/// As [`run`], in a folder.
pub fn run_in(dir: &std::path::Path, program: &str, words: &[&str]) -> Result<String> {
    finish(
        program,
        words,
        Command::new(program)
            .args(words)
            .current_dir(dir)
            .stdin(Stdio::null()),
    )
}

/// As [`run`], with a text on standard input.
pub fn feed(program: &str, words: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!(
            "{program} {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

fn finish(program: &str, words: &[&str], command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start {program}; is it installed?"))?;
    if !out.status.success() {
        bail!(
            "{program} {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
