//! The verbs.

mod agent;
#[cfg(feature = "hub")]
mod authority;
mod build;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "hub")]
pub mod completions;
mod describe;
#[cfg(feature = "sim")]
mod dev;
mod diff;
mod get;
#[cfg(feature = "hub")]
mod hub;
mod image;
pub mod init;
mod intent;
mod local;
mod login;
mod logs;
mod preview;
mod query;
mod rollout;
mod scaffold;
mod secret;
mod spool;

use crate::exit;
use crate::people::AccessArgs;
use anyhow::Result;
use clap::{Parser, Subcommand};

/// Runs a fleet of edge devices from Git.
#[derive(Debug, Parser)]
#[command(name = "leeward", version, after_help = exit::HELP, arg_required_else_help = true)]
pub struct Line {
    #[command(flatten)]
    access: AccessArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a device (as a service)
    Agent(agent::Args),
    /// Run a hub, or manage one that runs
    #[cfg(feature = "hub")]
    Hub(hub::Args),
    /// Try everything on this machine: a hub and simulated devices
    #[cfg(feature = "sim")]
    Dev(dev::Args),

    /// Make a Git repository for a fleet
    Init(init::Init),
    /// Print what `kubectl kustomize` prints for a folder
    Build(build::BuildArgs),
    /// Tell everything that is wrong with a repository, before it is pushed
    #[cfg(feature = "check")]
    Check(check::CheckArgs),
    /// Show what differs between two revisions, object by object
    Diff(diff::Args),
    /// Show what a revision would do to the fleet: restarts, downloads, downtime
    Preview(preview::Args),
    /// Show what a device would run from a repository, and what it would refuse
    Plan(build::PlanArgs),
    /// Build and push container images without Docker
    Image(image::Args),

    /// List devices, workloads, generations, events, the audit trail, enrolment tokens, forwarders or roll-outs
    Get(get::Args),
    /// Show all that is known of a device
    Describe(describe::Args),
    /// Show the output of a container
    Logs(logs::Args),
    /// Ask the hub by SQL: metrics, logs, traces, alerts, devices, events
    Query(query::Args),
    /// Make a device look at its source now
    Sync(intent::DeviceArgs),
    /// Let a device take no new generation
    Pause(intent::DeviceArgs),
    /// Let a device take new generations again
    Resume(intent::DeviceArgs),
    /// Replace the pods of one workload
    Restart(intent::RestartArgs),
    /// Roll revisions out in stages: the policy, and each roll-out
    Rollout(rollout::Args),
    /// Remember a hub, and as whom to talk to it
    Login(login::Args),
    /// Make an enrolment token for a device
    Token(intent::TokenArgs),

    /// At a device: the keys that it decrypts the repository's secrets with
    Secret(secret::Args),
    /// Print what lets a shell complete commands, options and names of devices
    ///
    /// For bash: `source <(leeward completions bash)` in ~/.bashrc; for zsh the same in ~/.zshrc; for fish:
    /// `leeward completions fish | source` in ~/.config/fish/config.fish.
    #[cfg(feature = "hub")]
    Completions(completions::Args),

    /// At a device: how it is, without any network
    Status(local::Args),
    /// At a device: what waits for its hub, record by record, and the proof that nothing is missing
    Spool(spool::Args),
}

impl Line {
    /// Does what was asked.
    pub fn run(self) -> Result<()> {
        let access = self.access;
        match self.verb {
            Verb::Agent(args) => args.run(),
            #[cfg(feature = "hub")]
            Verb::Hub(args) => args.run(access),
            #[cfg(feature = "sim")]
            Verb::Dev(args) => args.run(),
            Verb::Init(args) => made(&args),
            Verb::Build(args) => args.run(),
            #[cfg(feature = "check")]
            Verb::Check(args) => asking(args.run(access)),
            Verb::Diff(args) => args.run(),
            Verb::Preview(args) => asking(args.run(access)),
            Verb::Plan(args) => args.run(),
            Verb::Image(args) => asking(args.run(access)),
            Verb::Get(args) => asking(args.run(access)),
            Verb::Describe(args) => asking(args.run(access)),
            Verb::Logs(args) => asking(args.run(access)),
            Verb::Query(args) => asking(args.run(access)),
            Verb::Sync(args) => asking(args.run(access, model::IntentKind::SyncNow)),
            Verb::Pause(args) => asking(args.run(access, model::IntentKind::Pause)),
            Verb::Resume(args) => asking(args.run(access, model::IntentKind::Resume)),
            Verb::Restart(args) => asking(args.run(access)),
            Verb::Rollout(args) => asking(args.run(access)),
            Verb::Login(args) => asking(args.run(access)),
            Verb::Token(args) => asking(args.run(access)),
            Verb::Secret(args) => args.run(),
            #[cfg(feature = "hub")]
            Verb::Completions(args) => args.run(),
            Verb::Status(args) => args.run(),
            Verb::Spool(args) => args.run(),
        }
    }
}

fn made(init: &init::Init) -> Result<()> {
    let made = init.run()?;
    crate::print::note(&format!("{}: {} files", init.dir.display(), made.files));
    if let Some(commit) = made.commit {
        crate::print::note(&format!("first commit {}", &commit[..12]));
    }
    Ok(())
}

/// One question needs one thread.
fn asking(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// A daemon's log: human on a terminal, JSON where asked; `RUST_LOG` chooses how much.
fn log_to_stderr(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("no signal handlers; only SIGKILL ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
