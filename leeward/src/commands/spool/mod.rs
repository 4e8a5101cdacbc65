//! `leeward spool`: what a device keeps for its hub, read from its files; with or without a running agent.

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

/// Bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["Ki", "Mi", "Gi", "Ti"];
    if count < 1024 {
        return format!("{count}");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 1_572_864, 5 << 40, u64::MAX].map(bytes);
        assert_eq!(told[..5], ["0", "1023", "1.0Ki", "1.5Mi", "5.0Ti"]);
        assert!(told[5].ends_with("Ti"));
    }
}
