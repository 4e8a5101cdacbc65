//! `bench`: figures beside their named peers.
//!
//! A suite is a program that measures: it is given names of figures (none: all of its own) and perhaps `--short`, tells
//! its progress on standard error, and prints one JSON list on standard output when it ends, also where it ended badly:
//! `[{"name": "idle-pss", "ours": 9.4, "peer_name": "podman 4.3", "peer": 21.0, "note": "over 60 s"}]`, of which
//! `peer_name`, `peer` and `note` may be absent. Units, targets and judgement are here, in [`SUITES`]: to add a suite,
//! add a row there and a runner of three lines.

mod rows;

use crate::cargo::{self, cargo, target};
use crate::{demo, dist, packages, tell};
use anyhow::{Context as _, Result, bail, ensure};
use rows::{Figure, Row, at_most, open, ratio_at_least, ratio_at_most, table};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Figures that one program measures.
struct Suite {
    /// Word for all of them.
    name: &'static str,
    figures: &'static [Figure],
    /// Builds what is measured, and measures.
    run: fn(&Ask) -> Result<Measured>,
}

/// All suites, in the order in which they run.
const SUITES: &[Suite] = &[
    Suite {
        name: "check",
        figures: &[
            ratio_at_most("check-100", "s CPU", 0.1),
            open("check-100-peak", "MiB"),
        ],
        run: |ask| {
            let told = [
                ("LEEWARD_KUBECTL", packages::kubectl()?),
                ("LEEWARD_JSONSCHEMA", packages::jsonschema()?),
            ];
            example("check", "bench", ask, &told)
        },
    },
    Suite {
        name: "agent",
        figures: &[
            at_most("idle-pss", "MiB", 12.0),
            at_most("start-ready", "ms", 70.0),
            at_most("idle-cpu", "% of a core", 0.2),
            at_most("idle-writes", "MB/day", 1.0),
            at_most("ten-pss", "MiB", 25.0),
            at_most("shim-pss", "MiB", 0.8),
            ratio_at_most("apply-one", "s", 0.25),
            ratio_at_most("apply-ten", "s", 0.15),
            at_most("reboot-ten", "s", 5.0),
            open("push-fleet", "s"),
        ],
        run: |ask| {
            packages::install(&[packages::DEMO, packages::PEERS])?;
            let device = dist::device()?;
            let mut bench = Command::new(demo::build("release")?);
            bench.args(["dev", "bench", "--app"]).arg(demo::demo_app()?);
            bench.arg("--agent-program").arg(device);
            measure(&mut bench, ask)
        },
    },
    RENDER,
    Suite {
        name: "spool",
        figures: &[
            ratio_at_least("spool-overwrite", "commits/s", 0.8),
            ratio_at_least("spool-append", "commits/s", 1.2),
            open("spool-fjall", "commits/s"),
            at_most("spool-bytes", "B/B", 1.10),
            open("spool-records", "records/s"),
            ratio_at_least("spool-jetstream", "records/s", 2.0),
            ratio_at_least("spool-jetstream-always", "records/s", 20.0),
            at_most("spool-bytes-small", "B/B", 1.10),
            at_most("spool-recovery", "s/GiB", 1.0),
            at_most("spool-memory", "MiB", 64.0),
        ],
        run: |ask| {
            let nats = packages::nats()?;
            example("spool", "bench", ask, &[("LEEWARD_NATS", nats)])
        },
    },
];

/// Rendering, with kubectl as the peer: CPU time and peak memory of whole processes.
const RENDER: Suite = Suite {
    name: "render",
    figures: &[
        ratio_at_most("render-start-cpu", "ms", 0.2),
        ratio_at_most("render-start-memory", "MiB", 0.5),
        ratio_at_most("render-nineteen-cpu", "ms", 0.05),
        at_most("render-nineteen-memory", "MiB", 10.0),
        ratio_at_most("render-patch-cpu", "ms", 0.05),
        at_most("render-patch-memory", "MiB", 10.0),
        ratio_at_most("render-large-cpu", "ms", 0.1),
        ratio_at_most("render-large-memory", "MiB", 0.25),
        ratio_at_most("render-crds-cpu", "ms", 0.1),
        ratio_at_most("render-crds-memory", "MiB", 0.25),
        open("render-ten-thousand-cpu", "ms"),
        at_most("render-ten-thousand-memory", "MiB", 256.0),
        at_most("render-again", "ms", 10.0),
    ],
    run: |ask| {
        let device = dist::device()?;
        let kubectl = packages::kubectl()?;
        example(
            "render",
            "bench",
            ask,
            &[("LEEWARD_PROGRAM", device), ("LEEWARD_KUBECTL", kubectl)],
        )
    },
};

/// What a suite is asked for.
struct Ask {
    /// Names of figures; all where there are none.
    figures: Vec<&'static str>,
    /// Shorter windows of time, for a look.
    short: bool,
}

/// What a suite's program told.
struct Measured {
    rows: Vec<Value>,
    /// Why there are no more.
    fault: Option<anyhow::Error>,
}

/// `[NAME...] [--json FILE] [--short] [--list]`; a name is that of a figure or of a suite.
pub fn run(words: &[&str]) -> Result<()> {
    let (mut names, mut json, mut short) = (Vec::new(), None, false);
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--list" => {
                tell(&listing());
                return Ok(());
            }
            "--json" => json = Some(PathBuf::from(words.next().context("--json FILE")?)),
            "--short" => short = true,
            option if option.starts_with('-') => {
                bail!("bench does not know {option}; it takes [NAME...] [--json FILE] [--short] [--list]")
            }
            name => names.push(name),
        }
    }
    let chosen = choose(&names)?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for (suite, figures) in chosen {
        tell(&format!("── {}", suite.name));
        let measured = (suite.run)(&Ask { figures, short }).unwrap_or_else(|err| Measured {
            rows: Vec::new(),
            fault: Some(err),
        });
        for value in &measured.rows {
            rows.push(Row::judge(suite.figures, value).with_context(|| suite.name)?);
        }
        if let Some(fault) = measured.fault {
            faults.push(format!("{}: {fault:#}", suite.name));
        }
    }
    if let Some(path) = &json {
        write(path, &rows)?;
    }
    #[expect(clippy::print_stdout, reason = "the table is what the command prints")]
    {
        print!("{}", table(&rows));
    }
    ensure!(
        faults.is_empty(),
        "not all was measured:\n  {}",
        faults.join("\n  ")
    );
    Ok(())
}

/// Suites that the names ask for, each with its figures among them.
fn choose(names: &[&str]) -> Result<Vec<(&'static Suite, Vec<&'static str>)>> {
    for name in names {
        let known = |suite: &Suite| suite.name == *name || suite.figures.iter().any(|f| f.name == *name);
        ensure!(
            SUITES.iter().any(known),
            "there is no figure or suite {name}; there are:\n{}",
            listing()
        );
    }
    let of = |suite: &'static Suite| {
        let all = names.is_empty() || names.contains(&suite.name);
        let wanted = suite.figures.iter().map(|figure| figure.name);
        let some: Vec<&str> = wanted.filter(|name| !all && names.contains(name)).collect();
        (all || !some.is_empty()).then_some((suite, some))
    };
    Ok(SUITES.iter().filter_map(of).collect())
}

fn listing() -> String {
    let line = |suite: &Suite| {
        let figures: Vec<&str> = suite.figures.iter().map(|figure| figure.name).collect();
        format!("  {}: {}", suite.name, figures.join(" "))
    };
    SUITES.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs the example of a crate that measures it, built as what is shipped is built.
fn example(package: &str, name: &str, ask: &Ask, set: &[(&str, PathBuf)]) -> Result<Measured> {
    tell(&format!("building {package}'s {name} (release)"));
    let words = ["build", "--quiet", "--release", "-p", package, "--example", name];
    cargo::run(&mut cargo(words))?;
    let mut program = Command::new(target().join("release/examples").join(name));
    program.envs(set.iter().map(|(name, value)| (name, value)));
    measure(&mut program, ask)
}

/// Runs a program that measures. What it printed counts, however it ended.
fn measure(program: &mut Command, ask: &Ask) -> Result<Measured> {
    program.args(&ask.figures);
    if ask.short {
        program.arg("--short");
    }
    let out = program
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.get_program().to_string_lossy()))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let rows = serde_json::from_str::<Vec<Value>>(&text);
    Ok(match (rows, out.status.success()) {
        (Ok(rows), true) => Measured { rows, fault: None },
        (rows, false) => Measured {
            rows: rows.unwrap_or_default(),
            fault: Some(anyhow::anyhow!("ended with {}", out.status)),
        },
        (Err(err), true) => bail!("no list of rows was printed ({err}): {text:?}"),
    })
}

fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    let mut text = serde_json::to_vec_pretty(&rows)?;
    text.push(b'\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{SUITES, choose};
    use std::collections::BTreeSet;

    #[test]
    fn names_choose_suites_and_figures() {
        assert_eq!(choose(&[]).unwrap().len(), SUITES.len());
        let chosen = choose(&["idle-pss", "apply-ten"]).unwrap();
        assert_eq!(
            (chosen[0].0.name, chosen[0].1.as_slice()),
            ("agent", &["idle-pss", "apply-ten"][..])
        );
        assert!(choose(&["agent"]).unwrap()[0].1.is_empty());
        let unknown = choose(&["idle-pps"]).err().unwrap().to_string();
        assert!(
            unknown.contains("idle-pps") && unknown.contains("idle-pss"),
            "{unknown}"
        );
    }

    #[test]
    fn a_name_means_one_thing() {
        let mut seen = BTreeSet::new();
        for suite in SUITES {
            assert!(seen.insert(suite.name), "{}", suite.name);
            for figure in suite.figures {
                assert!(seen.insert(figure.name), "{}", figure.name);
            }
        }
    }
}
