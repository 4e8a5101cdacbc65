//! `leeward query`.

use crate::people::AccessArgs;
use crate::print::{Output, note, out};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::io::Read as _;
use wire::ApiClient;
use wire::api::{QueryAnswer, QueryAsk, QueryColumn, QueryTable};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without SQL, lists the tables and their columns. `-` reads the SQL from standard input.\n\
    Example: leeward query \"SELECT device, count(*) FROM logs WHERE severity = 'error' GROUP BY device\""
)]
pub struct Args {
    /// One SQL statement that reads
    sql: Option<String>,
    /// Rows at most
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// `-o`: as for lists, and CSV.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table.
    #[default]
    Table,
    /// A list of objects.
    Json,
    /// The same as YAML.
    Yaml,
    /// RFC 4180, with a line of headings.
    Csv,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let hub = access.client()?;
        let Some(sql) = self.sql else {
            return tables(&hub, self.output).await;
        };
        let sql = if sql == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("read the SQL from standard input")?;
            text
        } else {
            sql
        };
        let ask = QueryAsk {
            sql,
            limit: Some(self.limit),
        };
        let answer = hub.query(&ask).await?;
        print(self.output, &answer)?;
        if answer.truncated {
            note(&format!(
                "only the first {} rows; --limit takes more, up to 100000",
                answer.rows.len()
            ));
        }
        Ok(())
    }
}

async fn tables(hub: &ApiClient, output: Form) -> Result<()> {
    let tables = hub.query_tables().await?;
    match output {
        Form::Json => crate::print::one(Output::Json, &tables, String::new),
        Form::Yaml => crate::print::one(Output::Yaml, &tables, String::new),
        Form::Csv => {
            let mut text = csv_line(["table", "column", "type", "about"].map(str::to_owned));
            for table in &tables {
                for column in &table.columns {
                    text +=
                        &csv_line([&table.name, &column.name, &column.kind, &column.about].map(Clone::clone));
                }
            }
            out(&text)
        }
        Form::Table => out(&tables.iter().map(described).collect::<Vec<_>>().join("\n")),
    }
}

fn described(table: &QueryTable) -> String {
    let width = |get: fn(&QueryColumn) -> &str| {
        let lengths = table.columns.iter().map(|column| get(column).len());
        lengths.max().unwrap_or(0)
    };
    let (names, kinds) = (width(|column| &column.name), width(|column| &column.kind));
    let mut text = format!("{}: {}\n", table.name, table.about);
    for column in &table.columns {
        text += &format!(
            "  {:names$}  {:kinds$}  {}\n",
            column.name, column.kind, column.about
        );
    }
    text
}

fn print(output: Form, answer: &QueryAnswer) -> Result<()> {
    match output {
        Form::Json => crate::print::one(Output::Json, &objects(answer), String::new),
        Form::Yaml => crate::print::one(Output::Yaml, &objects(answer), String::new),
        Form::Csv => {
            let mut text = csv_line(answer.columns.iter().map(|column| column.name.clone()));
            for row in &answer.rows {
                text += &csv_line(row.iter().map(cell));
            }
            out(&text)
        }
        Form::Table => {
            if answer.rows.is_empty() {
                note("none");
                return Ok(());
            }
            let head = answer
                .columns
                .iter()
                .map(|column| column.name.to_uppercase())
                .collect();
            let rows = answer
                .rows
                .iter()
                .map(|row| row.iter().map(in_one_line).collect());
            out(&crate::print::columns(head, &rows.collect::<Vec<_>>()))
        }
    }
}

/// A row as an object, in the order of the columns.
struct Object<'a>(&'a [QueryColumn], &'a [Value]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|column| &column.name).zip(self.1))
    }
}

fn objects(answer: &QueryAnswer) -> Vec<Object<'_>> {
    let object = |row| Object(&answer.columns, row);
    answer.rows.iter().map(Vec::as_slice).map(object).collect()
}

/// A value as text; nothing for null.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The same where lines are rows.
fn in_one_line(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        other => cell(other).replace(['\n', '\r', '\t'], " "),
    }
}

fn csv_line(cells: impl IntoIterator<Item = String>) -> String {
    let quoted = cells.into_iter().map(|text| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_would_break_a_row() {
        let line = csv_line(["plain", "a,b", "say \"no\"", "two\nlines", ""].map(str::to_owned));
        assert_eq!(line, "plain,\"a,b\",\"say \"\"no\"\"\",\"two\nlines\",\r\n");
    }
}
