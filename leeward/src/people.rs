//! Which hub a person talks to, and as whom.

use crate::exit::NotAllowed;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use wire::ApiClient;
use wire::client::HubAddress;

/// A hub as a person knows it. `leeward hub` writes one for its first administrator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// `host[:port]`.
    pub hub: String,
    /// The hub's authority, in PEM.
    pub ca: String,
    /// Bearer token.
    pub token: String,
}

/// Options that every command of people takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AccessArgs {
    /// File with the hub's address, authority and token
    #[arg(long, env = "LEEWARD_ACCESS", value_name = "FILE", global = true)]
    access: Option<PathBuf>,
}

impl AccessArgs {
    /// Where the file is looked for.
    pub fn path(&self) -> Result<PathBuf> {
        match &self.access {
            Some(path) => Ok(path.clone()),
            // Asked for candidates by a shell, nobody has read the environment for us.
            None => std::env::var_os("LEEWARD_ACCESS").map_or_else(default_path, |path| Ok(path.into())),
        }
    }

    /// Reads the file.
    pub fn read(&self) -> Result<Access> {
        let path = self.path()?;
        let text = std::fs::read_to_string(&path).map_err(|err| {
            NotAllowed(format!(
                "no hub is known: cannot read {}: {err}; log in with `leeward login HUB --ca FILE --token-file FILE`, \
                 or name a file with --access",
                path.display()
            ))
        })?;
        serde_saphyr::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// A client for the hub.
    pub fn client(&self) -> Result<ApiClient> {
        self.read()?.client()
    }
}

impl Access {
    /// A client for the hub.
    pub fn client(&self) -> Result<ApiClient> {
        let hub: HubAddress = self.hub.parse()?;
        Ok(ApiClient::new(hub, identity::tls::person(&self.ca)?, &self.token))
    }

    /// Writes the file, readable by its owner only.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            kit::disk::create_dir_all(dir)?;
        }
        let text = serde_saphyr::to_string(self)?;
        kit::disk::replace_mode(path, text.as_bytes(), 0o600).with_context(|| path.display().to_string())
    }
}

fn default_path() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .context("neither HOME nor XDG_CONFIG_HOME is set; name a file with --access")?;
    Ok(base.join("leeward/access.yaml"))
}
