//! `leeward login`.

use crate::people::{Access, AccessArgs};
use crate::print::note;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The hub's host[:port]
    hub: String,
    /// The hub's authority (PEM); `leeward hub` keeps it in its data folder
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// File with the bearer token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let known = Access {
            hub: self.hub,
            ca: read(&self.ca)?,
            token: read(&self.token_file)?.trim().to_owned(),
        };
        let devices = known.client()?.devices().await?;
        let path = access.path()?;
        known.write(&path)?;
        note(&format!(
            "{} knows you, and {} devices; kept in {}",
            known.hub,
            devices.len(),
            path.display()
        ));
        Ok(())
    }
}
