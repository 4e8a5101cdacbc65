//! `bench`: figures beside their named peers.

use crate::{demo, packages};
use anyhow::Result;
use std::process::Command;

/// Builds what is measured as it is shipped, and hands over to `leeward dev bench`.
pub fn run(words: &[&str]) -> Result<()> {
    packages::install(&[packages::DEMO, packages::PEERS])?;
    let binary = demo::build("release")?;
    let app = demo::demo_app()?;
    crate::cargo::run(
        Command::new(binary)
            .args(["dev", "bench", "--app"])
            .arg(app)
            .args(words),
    )
}
