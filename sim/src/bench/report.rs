//! Rows: what is known of a figure before it is measured, and how it is told afterwards.

use anyhow::{Context as _, Result};
use serde::Serialize;
use std::path::Path;

/// What a target bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Ours(f64),
    /// Ours over the peer's.
    Ratio(f64),
    Open,
}

/// A figure, as the budgets name it.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    unit: &'static str,
    bound: Bound,
}

const fn figure(name: &'static str, unit: &'static str, bound: Bound) -> Figure {
    Figure { name, unit, bound }
}

/// All of them, in the order of the table.
pub(super) const FIGURES: &[Figure] = &[
    figure("idle-pss", "MiB", Bound::Ours(12.0)),
    figure("start-ready", "ms", Bound::Ours(70.0)),
    figure("idle-cpu", "% of a core", Bound::Ours(0.2)),
    figure("idle-writes", "MB/day", Bound::Ours(1.0)),
    figure("ten-pss", "MiB", Bound::Ours(25.0)),
    figure("shim-pss", "MiB", Bound::Ours(0.8)),
    figure("apply-one", "s", Bound::Ratio(0.25)),
    figure("apply-ten", "s", Bound::Ratio(0.15)),
    figure("reboot-ten", "s", Bound::Ours(5.0)),
    figure("push-fleet", "s", Bound::Open),
];

/// One measured figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    peer_name: Option<String>,
    peer: Option<f64>,
    /// Ours over the peer's.
    ratio: Option<f64>,
    /// Bound of `ratio` where there is a peer, else of `ours`.
    target: Option<f64>,
    /// Absent where nothing was there to compare with.
    met: Option<bool>,
}

impl Row {
    /// A figure without a peer.
    pub(super) fn alone(name: &str, ours: f64) -> Result<Self> {
        Self::beside(name, ours, None)
    }

    /// A figure beside its peer's name and value, where it could be measured.
    pub(super) fn beside(name: &str, ours: f64, peer: Option<(String, f64)>) -> Result<Self> {
        let figure = FIGURES
            .iter()
            .find(|figure| figure.name == name)
            .with_context(|| format!("{name} is not among the figures"))?;
        let (peer_name, peer) = peer.unzip();
        let ratio = peer.map(|peer| ours / peer);
        let (target, met) = match figure.bound {
            Bound::Ours(most) => (Some(most), Some(ours <= most)),
            Bound::Ratio(most) => (Some(most), ratio.map(|ratio| ratio <= most)),
            Bound::Open => (None, None),
        };
        Ok(Self {
            name: figure.name,
            unit: figure.unit,
            ours,
            peer_name,
            peer,
            ratio,
            target,
            met,
        })
    }
}

/// Prints the table and writes the file.
pub(super) fn tell(rows: &[Row], json: Option<&Path>) -> Result<()> {
    if let Some(path) = json {
        let mut text = serde_json::to_vec_pretty(rows)?;
        text.push(b'\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    #[expect(clippy::print_stdout, reason = "the table is what the command prints")]
    {
        print!("{}", table(rows));
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![["FIGURE", "UNIT", "OURS", "PEER", "", "RATIO", "TARGET", "MET"].map(str::to_owned)];
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let target = match (row.target, row.bound()) {
            (Some(most), Bound::Ratio(_)) => format!("<= {most} of the peer"),
            (Some(most), _) => format!("<= {most}"),
            (None, _) => "-".to_owned(),
        };
        lines.push([
            row.name.to_owned(),
            row.unit.to_owned(),
            number(Some(row.ours)),
            number(row.peer),
            row.peer_name.clone().unwrap_or_else(|| "-".to_owned()),
            number(row.ratio),
            target,
            match row.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            }
            .to_owned(),
        ]);
    }
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        for (width, cell) in widths.iter().zip(line) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

impl Row {
    fn bound(&self) -> Bound {
        FIGURES
            .iter()
            .find(|figure| figure.name == self.name)
            .map_or(Bound::Open, |figure| figure.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, table};

    #[test]
    fn a_row_without_its_peer_meets_nothing() {
        let row = Row::alone("apply-one", 0.1).unwrap();
        assert_eq!((row.target, row.ratio, row.met), (Some(0.25), None, None));
        let row = Row::beside("apply-one", 0.2, Some(("podman".to_owned(), 0.5))).unwrap();
        assert_eq!((row.ratio, row.met), (Some(0.4), Some(false)));
        let row = Row::alone("idle-pss", 9.0).unwrap();
        assert_eq!(row.met, Some(true));
        assert!(Row::alone("idle-pps", 9.0).is_err());
    }

    #[test]
    fn the_table_says_what_there_is_no_peer_for() {
        let text = table(&[Row::alone("push-fleet", 1.5).unwrap()]);
        assert!(
            text.lines()
                .nth(1)
                .unwrap()
                .ends_with("1.500  -     -  -      -       -"),
            "{text}"
        );
    }
}
