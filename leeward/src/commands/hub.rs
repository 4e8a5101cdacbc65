//! `leeward hub`.

use crate::people::{Access, AccessArgs};
use crate::print::note;
use ::hub::{Bound, FileConfig, Hub, HubConfig};
use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    serve: Serve,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Whom devices and people trust, and the roll-over to the next
    Authority(super::authority::Args),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Folder of all state
    #[arg(long, default_value = "/var/lib/leeward-hub", value_name = "DIR")]
    data: PathBuf,
    /// Address to listen at
    #[arg(long, default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// Name or address by which people and devices reach the hub, beside this machine's own; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// How often devices are asked whether they are there
    #[arg(long, default_value = "10s")]
    heartbeat: SignedDuration,
    /// Make a new administrator's token: the old one was lost
    #[arg(long)]
    reset_admin: bool,
    /// File that says what is kept of telemetry and where it is sent onward (docs/guides/forwarding.md)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log as JSON lines
    #[arg(long)]
    log_json: bool,
}

impl Args {
    pub fn run(self, access: AccessArgs) -> Result<()> {
        match self.verb {
            Some(Verb::Authority(args)) => super::asking(args.run(access)),
            None => self.serve.run(),
        }
    }
}

impl Serve {
    fn run(self) -> Result<()> {
        super::log_to_stderr(self.log_json);
        let mut config = HubConfig::new(self.listen, self.data.clone());
        config.names = self.names.clone();
        if let Some(path) = &self.config {
            let file = FileConfig::read(path)?;
            config.history = file.history;
            config.forwarders = file.forwarders;
        }
        config.reset_admin = self.reset_admin;
        config.heartbeat = self.heartbeat.try_into().context("--heartbeat")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async move {
            let hub = Hub::build(config).await?;
            self.keep_access(&hub)?;
            note(&format!(
                "hub at {}; dashboard: https://localhost:{}/",
                hub.address(),
                hub.address().port()
            ));
            hub.run(super::stop_signal()).await;
            Ok(())
        })
    }

    /// The first administrator's token is shown once; it goes into a file that only the owner reads.
    fn keep_access(&self, hub: &Bound) -> Result<()> {
        let path = self.data.join("access.yaml");
        if let Some(token) = hub.admin_token() {
            let host = self.names.first().map_or("localhost", String::as_str);
            let access = Access {
                hub: format!("{host}:{}", hub.address().port()),
                ca: hub.hub().ca(),
                token: token.to_owned(),
            };
            access.write(&path)?;
            note(&format!(
                "administrator's access: {} (LEEWARD_ACCESS or --access)",
                path.display()
            ));
        }
        Ok(())
    }
}
