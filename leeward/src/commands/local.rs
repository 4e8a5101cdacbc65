//! At a device: its agent's socket.

use super::describe::status_text;
use crate::exit::{NotFound, Refused};
use crate::print::{self, Output, one};
use ::agent::local::{Answer, Ask, AskError};
use anyhow::Result;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use wire::frame::LogAsk;

/// Where the agent is.
#[derive(Debug, Clone, clap::Args)]
pub struct LocalArgs {
    /// Ask the agent of this machine instead of a hub
    #[arg(long)]
    pub local: bool,
    /// State folder of the agent
    #[arg(
        long,
        default_value = "/var/lib/leeward",
        env = "LEEWARD_STATE",
        value_name = "DIR"
    )]
    pub state: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    local: LocalArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn run(self) -> Result<()> {
        super::asking(async move {
            let (answer, _) = ask(&self.local, &Ask::Status).await?;
            let Answer::Status { status, link_down } = &answer else {
                return Err(unexpected(&answer));
            };
            one(self.output, &answer, || {
                let mut text = String::new();
                let link = link_down
                    .as_ref()
                    .map_or_else(|| "up".to_owned(), |why| format!("down: {why}"));
                text.push_str(&format!("{:<14}{link}\n", "Link:"));
                match status {
                    Some(status) => {
                        text.push_str(&format!("{:<14}{}\n", "Device:", status.device));
                        text.push_str(&format!("{:<14}{}\n", "Phase:", super::get::phase(&status.phase)));
                        status_text(&mut text, status);
                    }
                    None => text.push_str("no status yet\n"),
                }
                text
            })
        })
    }
}

/// Streams a container's output from the agent of this machine.
pub async fn ask_logs(local: &LocalArgs, logs: LogAsk) -> Result<()> {
    let (answer, mut rest) = match ::agent::local::ask(&local.state, &Ask::Logs(logs.clone())).await {
        Err(AskError::NoAgent { .. }) if logs.follow => {
            return Err(NotFound(format!(
                "no agent runs for {}; without one, logs can be read but not followed: leave out --follow",
                local.state.display()
            ))
            .into());
        }
        Err(AskError::NoAgent { .. }) => return stored_logs(local, logs),
        other => other?,
    };
    if answer != Answer::Done {
        return Err(unexpected(&answer));
    }
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match rest.read(&mut buffer).await? {
            0 => return Ok(()),
            n => print::raw(&buffer[..n])?,
        }
    }
}

/// The agent is down; its containers and their files are there.
fn stored_logs(local: &LocalArgs, logs: LogAsk) -> Result<()> {
    let log = ::agent::stored_logs(&local.state, logs).map_err(NotFound)?;
    print::note("no agent runs here: read from its files");
    for chunks in log {
        for chunk in chunks? {
            print::raw(&chunk)?;
        }
    }
    Ok(())
}

/// Asks the agent of this machine; the rest of its answer follows in the reader.
pub async fn ask(local: &LocalArgs, ask: &Ask) -> Result<(Answer, BufReader<UnixStream>)> {
    ::agent::local::ask(&local.state, ask)
        .await
        .map_err(|err| match err {
            AskError::NoAgent { .. } => {
                NotFound(format!("{} (--state names another folder)", kit::chain(&err))).into()
            }
            other => other.into(),
        })
}

/// An answer to another question, or a refusal.
pub fn unexpected(answer: &Answer) -> anyhow::Error {
    match answer {
        Answer::Refused { why } => Refused(why.clone()).into(),
        other => anyhow::anyhow!("the agent answered something else: {other:?}"),
    }
}
