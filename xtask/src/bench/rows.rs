//! What is known of a figure before it is measured, and how it is judged and told afterwards.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What a target bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Ours, from above.
    Most(f64),
    /// Ours, from below.
    Least(f64),
    /// Ours over the peer's, from above.
    RatioMost(f64),
    /// Ours over the peer's, from below.
    RatioLeast(f64),
    /// There is no target.
    Open,
}

/// A figure, as the budgets name it.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    unit: &'static str,
    bound: Bound,
}

const fn figure(name: &'static str, unit: &'static str, bound: Bound) -> Figure {
    Figure { name, unit, bound }
}

/// Ours must not be more than this.
pub const fn at_most(name: &'static str, unit: &'static str, target: f64) -> Figure {
    figure(name, unit, Bound::Most(target))
}

/// Ours must not be less than this.
#[cfg_attr(not(test), expect(dead_code, reason = "for the suites of single crates"))]
pub const fn at_least(name: &'static str, unit: &'static str, target: f64) -> Figure {
    figure(name, unit, Bound::Least(target))
}

/// Ours over the peer's must not be more than this.
pub const fn ratio_at_most(name: &'static str, unit: &'static str, target: f64) -> Figure {
    figure(name, unit, Bound::RatioMost(target))
}

/// Ours over the peer's must not be less than this.
pub const fn ratio_at_least(name: &'static str, unit: &'static str, target: f64) -> Figure {
    figure(name, unit, Bound::RatioLeast(target))
}

/// Told, and held to nothing.
pub const fn open(name: &'static str, unit: &'static str) -> Figure {
    figure(name, unit, Bound::Open)
}

impl Bound {
    fn target(self) -> Option<f64> {
        match self {
            Self::Most(target) | Self::Least(target) | Self::RatioMost(target) | Self::RatioLeast(target) => {
                Some(target)
            }
            Self::Open => None,
        }
    }

    /// `None` where nothing was there to compare with.
    fn met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::Most(most) => Some(ours <= most),
            Self::Least(least) => Some(ours >= least),
            Self::RatioMost(most) => ratio.map(|ratio| ratio <= most),
            Self::RatioLeast(least) => ratio.map(|ratio| ratio >= least),
            Self::Open => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Most(most) => format!("<= {most}"),
            Self::Least(least) => format!(">= {least}"),
            Self::RatioMost(most) => format!("<= {most} of the peer"),
            Self::RatioLeast(least) => format!(">= {least} of the peer"),
            Self::Open => "-".to_owned(),
        }
    }
}

/// One measured figure.
#[derive(Debug)]
pub struct Row {
    figure: Figure,
    ours: f64,
    peer: Option<(String, f64)>,
    note: Option<String>,
}

impl Row {
    /// What a program told, held to what is known of the figure.
    pub fn judge(figures: &[Figure], told: &Value) -> Result<Self> {
        let name = told["name"]
            .as_str()
            .with_context(|| format!("no name in {told}"))?;
        let figure = figures
            .iter()
            .find(|figure| figure.name == name)
            .with_context(|| format!("{name} is not among the suite's figures"))?;
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        Ok(Self {
            figure: *figure,
            ours: told["ours"]
                .as_f64()
                .with_context(|| format!("no number `ours` in {told}"))?,
            peer: text("peer_name").zip(told["peer"].as_f64()),
            note: text("note"),
        })
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| self.ours / peer)
    }

    fn met(&self) -> Option<bool> {
        self.figure.bound.met(self.ours, self.ratio())
    }

    /// For files and programs.
    pub fn json(&self) -> Value {
        json!({
            "name": self.figure.name,
            "unit": self.figure.unit,
            "ours": self.ours,
            "peer_name": self.peer.as_ref().map(|(name, _)| name),
            "peer": self.peer.as_ref().map(|(_, peer)| peer),
            "ratio": self.ratio(),
            "target": self.figure.bound.target(),
            "bound": self.figure.bound.text(),
            "met": self.met(),
            "note": self.note,
        })
    }

    fn cells(&self) -> [String; 8] {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let (peer_name, peer) = self.peer.clone().unzip();
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        [
            self.figure.name.to_owned(),
            self.figure.unit.to_owned(),
            number(Some(self.ours)),
            number(peer),
            peer_name.unwrap_or_else(|| "-".to_owned()),
            number(self.ratio()),
            self.figure.bound.text(),
            met.to_owned(),
        ]
    }
}

/// For people.
pub fn table(rows: &[Row]) -> String {
    let head = ["FIGURE", "UNIT", "OURS", "PEER", "", "RATIO", "TARGET", "MET"].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
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
    for row in rows {
        if let Some(note) = &row.note {
            text.push_str(&format!("{}: {note}\n", row.figure.name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Row, at_least, at_most, open, ratio_at_least, ratio_at_most, table};
    use serde_json::{Value, json};

    fn judged(told: Value) -> Value {
        let figures = [
            at_most("idle", "MiB", 12.0),
            at_least("rate", "1/s", 5.0),
            ratio_at_most("apply", "s", 0.25),
            ratio_at_least("append", "1/s", 2.0),
            open("push", "s"),
        ];
        Row::judge(&figures, &told).unwrap().json()
    }

    #[test]
    fn ours_is_held_to_the_target() {
        assert_eq!(judged(json!({"name": "idle", "ours": 9.0}))["met"], true);
        assert_eq!(judged(json!({"name": "idle", "ours": 12.5}))["met"], false);
        assert_eq!(judged(json!({"name": "rate", "ours": 4.0}))["met"], false);
        assert_eq!(judged(json!({"name": "push", "ours": 4.0}))["met"], Value::Null);
    }

    #[test]
    fn a_row_without_its_peer_meets_nothing() {
        let row = judged(json!({"name": "apply", "ours": 0.1}));
        assert_eq!((&row["ratio"], &row["met"]), (&Value::Null, &Value::Null));
        assert_eq!(row["target"], 0.25);
        let row = judged(json!({"name": "apply", "ours": 0.2, "peer": 0.5, "peer_name": "podman"}));
        assert_eq!((&row["ratio"], &row["met"]), (&json!(0.4), &json!(false)));
        let row = judged(json!({"name": "append", "ours": 9.0, "peer": 3.0, "peer_name": "nats"}));
        assert_eq!(row["met"], true);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(Row::judge(&[open("push", "s")], &json!({"name": "pull", "ours": 1.0})).is_err());
        assert!(Row::judge(&[open("push", "s")], &json!({"name": "push"})).is_err());
    }

    #[test]
    fn the_table_says_what_there_is_no_peer_for() {
        let told = json!({"name": "push", "ours": 1.5, "note": "over 60 s"});
        let row = Row::judge(&[open("push", "s")], &told).unwrap();
        let text = table(&[row]);
        let mut lines = text.lines().skip(1);
        assert!(
            lines
                .next()
                .unwrap()
                .ends_with("1.500  -     -  -      -       -"),
            "{text}"
        );
        assert_eq!(lines.next(), Some("push: over 60 s"));
    }
}
