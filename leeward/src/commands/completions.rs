//! `leeward completions SHELL`: what lets a shell complete commands, options and names of devices.

use crate::people::AccessArgs;
use crate::print;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use clap_complete::CompletionCandidate;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use std::time::Duration;

/// Set by the shell when it asks this program for candidates.
pub const VARIABLE: &str = "LEEWARD_COMPLETE";
/// A person who pressed a key waits no longer for a hub.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let program = std::env::current_exe().context("where is this program?")?;
        let mut script = Vec::new();
        shell.write_registration(
            VARIABLE,
            "leeward",
            "leeward",
            &program.to_string_lossy(),
            &mut script,
        )?;
        print::raw(&script)
    }
}

/// Names of the hub's devices, where it can be asked.
pub fn devices() -> Vec<CompletionCandidate> {
    let ask = async {
        let hub = AccessArgs::default().client().ok()?;
        let devices = tokio::time::timeout(PATIENCE, hub.devices()).await.ok()?.ok()?;
        Some(devices)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.ok().and_then(|runtime| runtime.block_on(ask));
    let name = |device: wire::api::DeviceSummary| {
        CompletionCandidate::new(device.name.as_str()).help(Some(device.class.to_string().into()))
    };
    found.unwrap_or_default().into_iter().map(name).collect()
}

/// Names of the simulated devices.
#[cfg(feature = "sim")]
pub fn simulated() -> Vec<CompletionCandidate> {
    let dir = std::env::var_os("LEEWARD_DEV").map(Into::into);
    let dir = dir.map_or_else(super::dev::default_dir, Ok);
    let names = dir.map(|dir| sim::names(&dir)).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}
