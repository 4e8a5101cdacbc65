//! What people and scripts read: tables, JSON, YAML.

use anyhow::Result;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use std::io::Write as _;

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// The API's own JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A table: headings, rows, and how many columns are for `wide` only (the last ones).
#[derive(Debug)]
pub struct Table {
    /// Headings.
    pub head: &'static [&'static str],
    /// Columns of `head` that only `-o wide` shows, counted from the end.
    pub wide: usize,
    /// One text per heading.
    pub rows: Vec<Vec<String>>,
}

/// Prints a list in the form asked for.
pub fn list<T: Serialize>(output: Output, items: &[T], table: impl FnOnce() -> Table) -> Result<()> {
    match output {
        Output::Json => out(&(serde_json::to_string_pretty(items)? + "\n")),
        Output::Yaml => out(&serde_saphyr::to_string(&items)?),
        Output::Table | Output::Wide => {
            let table = table();
            let columns = if output == Output::Wide {
                table.head.len()
            } else {
                table.head.len() - table.wide
            };
            if table.rows.is_empty() {
                note("none");
                return Ok(());
            }
            out(&lay_out(&table, columns))
        }
    }
}

/// Prints one thing: JSON, YAML, or what `text` makes of it.
pub fn one<T: Serialize>(output: Output, item: &T, text: impl FnOnce() -> String) -> Result<()> {
    match output {
        Output::Json => out(&(serde_json::to_string_pretty(item)? + "\n")),
        Output::Yaml => out(&serde_saphyr::to_string(item)?),
        Output::Table | Output::Wide => out(&text()),
    }
}

/// The first columns of a table as text.
pub fn lay_out(table: &Table, shown: usize) -> String {
    let head = table.head.iter().take(shown).map(|h| (*h).to_owned());
    columns(head.collect(), &table.rows)
}

/// Headings and rows below each other; of each row, as many cells as there are headings.
pub fn columns(head: Vec<String>, rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|i| all().map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes to standard output; a reader that has gone (`| head`) is no error.
pub fn out(text: &str) -> Result<()> {
    raw(text.as_bytes())
}

/// As [`out`].
pub fn raw(data: &[u8]) -> Result<()> {
    written(std::io::stdout().lock().write_all(data))
}

/// As [`out`], of what is made piece by piece.
pub fn pieces(mut pieces: impl Iterator<Item = String>) -> Result<()> {
    let mut stdout = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    written(pieces.try_for_each(|piece| stdout.write_all(piece.as_bytes())))?;
    written(stdout.flush())
}

/// Whoever read it may want no more: that is no failure.
fn written(result: std::io::Result<()>) -> Result<()> {
    match result.and_then(|()| std::io::stdout().flush()) {
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// A remark beside the output.
pub fn note(text: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error, last.
pub fn error(text: &str) {
    note(&format!("error: {text}"));
}

/// `3m`, `2h`, `5d`: how long ago, for people.
pub fn age(then: Timestamp) -> String {
    seconds(
        Timestamp::now()
            .duration_since(then)
            .as_secs()
            .max(0)
            .unsigned_abs(),
    )
}

/// As [`age`], from seconds.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// `-` for nothing.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
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
