//! The command line.

mod commands;

use clap::{Parser, Subcommand};

/// Runs what Git says on edge devices, with the link down too.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(commands::init::Init),
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Verb::Init(init) => {
            let made = init.run()?;
            println!("{}: {} files", init.dir.display(), made.files);
            if let Some(commit) = made.commit {
                println!("first commit {}", &commit[..12]);
            }
            Ok(())
        }
    }
}
