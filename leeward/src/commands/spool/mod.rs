//! `leeward spool`: what a device keeps for its hub, read from its files; with or without a running agent.

mod decode;
mod look;
mod ls;
mod records;

use crate::exit::NotFound;
use crate::print::Output;
use anyhow::{Context as _, Result};
use clap::Subcommand;
use spool::Inspection;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: Option<What>,
}

/// Where the spool is, and how it is shown.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// State folder of the agent
    #[arg(
        long,
        default_value = "/var/lib/leeward",
        env = "LEEWARD_STATE",
        value_name = "DIR",
        global = true
    )]
    state: PathBuf,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List streams: where every record ever appended is, and how long the oldest has waited
    Ls,
    /// Show logs and segments; with a class and a segment its blocks
    Inspect(look::InspectArgs),
    /// Print the last records of a stream
    Tail(records::TailArgs),
    /// Read every byte, count again, and fail where something is missing
    Verify,
    /// Write records as JSON lines, for a visit to a device without a link
    Export(records::ExportArgs),
}

impl Args {
    pub fn run(self) -> Result<()> {
        let place = self.place;
        match self.what.unwrap_or(What::Ls) {
            What::Ls => super::asking(ls::run(&place)),
            What::Inspect(args) => look::inspect(&place, &args),
            What::Tail(args) => records::tail(&place, &args),
            What::Verify => look::verify(&place),
            What::Export(args) => records::export(&place, &args),
        }
    }
}

impl Place {
    fn folder(&self) -> PathBuf {
        self.state.join("spool")
    }

    fn open(&self) -> Result<Inspection> {
        let folder = self.folder();
        if !folder.is_dir() {
            return Err(NotFound(format!(
                "no spool at {}: is this the device, and are you root? (--state names another folder)",
                folder.display()
            ))
            .into());
        }
        Inspection::open(&folder).with_context(|| format!("look into {}", folder.display()))
    }
}

/// No such stream: says which there are.
fn no_stream(view: &Inspection, name: &str) -> anyhow::Error {
    let names: Vec<String> = view.listing().streams.into_iter().map(|s| s.name).collect();
    let there = if names.is_empty() {
        "the spool has none yet".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    NotFound(format!("no stream {name:?}: {there}")).into()
}
