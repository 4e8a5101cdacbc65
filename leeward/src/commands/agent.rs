//! `leeward agent`.

use anyhow::Result;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file
    #[arg(long, default_value = "/etc/leeward/agent.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
}

impl Args {
    pub fn run(self) -> Result<()> {
        super::log_to_stderr(self.log_json);
        let config = agent::Config::read(&self.config)?;
        // One thread for everything that waits; what blocks (Git, unpacking) gets threads of its own. A device's
        // memory is worth more than the second core's share of an idle daemon.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .build()?;
        runtime.block_on(agent::embedded::run(config, super::stop_signal()))
    }
}
