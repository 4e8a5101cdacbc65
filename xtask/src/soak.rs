//! `soak`: the long forms of tests whose short forms run in CI.
//!
//! A soak is an ignored test, or one that repeats as often as `SOAK_ROUNDS` says; it is built for release, since what it
//! looks for are rare moments, and many of them.

use crate::cargo::cargo;
use crate::tell;
use anyhow::{Context as _, Result, bail, ensure};
use std::time::Instant;

struct Soak {
    name: &'static str,
    about: &'static str,
    /// Rounds where none are asked for.
    rounds: u32,
    /// The variable by which its test takes them.
    variable: &'static str,
    /// Package and target of the test.
    target: &'static [&'static str],
    test: &'static str,
    ignored: bool,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "spool-kills",
        about: "a writer process killed with SIGKILL at random moments",
        rounds: 1000,
        variable: "SPOOL_ROUNDS",
        target: &["-p", "spool", "--test", "kill"],
        test: "a_thousand_kills_lose_nothing",
        ignored: true,
    },
    Soak {
        name: "spool-histories",
        about: "random operations with power cuts and failing syncs, against a model",
        rounds: 4000,
        variable: "SPOOL_ROUNDS",
        target: &["-p", "spool", "--lib"],
        test: "nothing_confirmed_is_lost_and_nothing_comes_twice",
        ignored: false,
    },
    Soak {
        name: "spool-flips",
        about: "every single bit of a spool of three segments flipped (rounds: not used)",
        rounds: 1,
        variable: "SPOOL_ROUNDS",
        target: &["-p", "spool", "--lib"],
        test: "every_flipped_bit_loses_at_most_its_block",
        ignored: true,
    },
    Soak {
        name: "spool-backlog",
        about: "a backlog of so many GiB, written and drained with bounded memory (rounds: GiB)",
        rounds: 20,
        variable: "SPOOL_GIB",
        target: &["-p", "spool", "--test", "backlog"],
        test: "a_long_backlog_is_kept_and_drained_in_bounded_memory",
        ignored: false,
    },
    Soak {
        name: "spool-outage",
        about: "so many days offline in computed time, restarts in between, then caught up at a hub (rounds: days)",
        rounds: 3,
        variable: "SPOOL_DAYS",
        target: &["-p", "hub", "--test", "hub"],
        test: "uplink::days_offline_arrive_whole_and_new_records_before_them",
        ignored: false,
    },
];

/// `[NAME...] [--rounds N] [--list]`.
pub fn run(words: &[&str]) -> Result<()> {
    let (mut names, mut rounds) = (Vec::new(), None);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--list" => {
                tell(&listing());
                return Ok(());
            }
            "--rounds" => {
                let count = words.next().context("--rounds N")?;
                rounds = Some(
                    count
                        .parse::<u32>()
                        .with_context(|| format!("--rounds {count}: a number is needed"))?,
                );
            }
            option if option.starts_with('-') => {
                bail!("soak does not know {option}; it takes [NAME...] [--rounds N] [--list]")
            }
            name => names.push(name),
        }
    }
    for name in &names {
        ensure!(
            SOAKS.iter().any(|soak| soak.name == *name),
            "no soak {name}; there are:\n{}",
            listing()
        );
    }
    let mut failed = Vec::new();
    for soak in SOAKS
        .iter()
        .filter(|soak| names.is_empty() || names.contains(&soak.name))
    {
        let count = rounds.unwrap_or(soak.rounds);
        tell(&format!("── {} ({count}): {}", soak.name, soak.about));
        let started = Instant::now();
        if let Err(err) = once(soak, count) {
            tell(&format!("{}: {err:#}", soak.name));
            failed.push(soak.name);
        }
        tell(&format!("{} took {} s", soak.name, started.elapsed().as_secs()));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn once(soak: &Soak, rounds: u32) -> Result<()> {
    let mut command = cargo(["test", "--release"]);
    command.args(soak.target).args(["--", "--nocapture", soak.test]);
    // Tests of a library are named with their modules: there a part of the name is enough.
    if !soak.target.contains(&"--lib") {
        command.arg("--exact");
    }
    if soak.ignored {
        command.arg("--ignored");
    }
    command.env(soak.variable, rounds.to_string());
    let status = command.status().context("start cargo")?;
    ensure!(status.success(), "the test failed ({status})");
    Ok(())
}

fn listing() -> String {
    let line = |soak: &Soak| format!("  {:<18} {}", soak.name, soak.about);
    SOAKS.iter().map(line).collect::<Vec<_>>().join("\n")
}
