//! All automation of this repository; CI calls nothing else.
//!
//! Light on purpose: it is compiled before everything else, so it depends on the standard library, `anyhow` and
//! `serde_json` alone.

mod bench;
mod cargo;
mod demo;
mod dist;
mod packages;
mod soak;
mod test;
mod tidy;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  demo [--once]                 build, start a hub and four simulated devices, and show the story
  test [--only STEP]            everything that CI runs; steps: packages fmt tidy clippy device tests deny demo
  bench [NAME...] [--json FILE] measure the figures, beside their named peers; --list names them, --short takes less time
  soak [NAME...] [--rounds N]   the long forms of tests; --list names them
  dist                          build what is shipped, and print its size
  tidy                          check edges between crates, sizes of files, and the map in ARCHITECTURE.md
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tell(&format!("error: {err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["demo", rest @ ..] => demo::run(rest),
        ["test"] => test::run(None),
        ["test", "--only", step] => test::run(Some(step)),
        ["bench", rest @ ..] => bench::run(rest),
        ["soak", rest @ ..] => soak::run(rest),
        ["dist"] => dist::run(),
        ["tidy"] => tidy::run(),
        [] | ["help" | "--help" | "-h"] => {
            tell(USAGE);
            Ok(())
        }
        other => bail!("unknown: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// A line for the person who watches.
fn tell(text: &str) {
    #[expect(clippy::print_stderr, reason = "this program talks to a person")]
    {
        eprintln!("{text}");
    }
}
