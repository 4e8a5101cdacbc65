//! `leeward spool ls`.

use super::Place;
use crate::commands::local::{LocalArgs, ask, unexpected};
use crate::exit::NotFound;
use crate::print::{Table, bytes, list, note, or_dash, seconds};
use ::agent::local::{Answer, Ask};
use anyhow::Result;
use spool::{Account, DropReason, SinkFigures, Snapshot, StreamFigures};

pub async fn run(place: &Place) -> Result<()> {
    let figures = figures(place).await?;
    list(place.output, &figures.streams, || table(&figures))
}

/// From the agent, which knows what is only in memory; from the files where it does not answer.
async fn figures(place: &Place) -> Result<Snapshot> {
    let local = LocalArgs {
        local: true,
        state: place.state.clone(),
    };
    match ask(&local, &Ask::Spool).await {
        Ok((Answer::Spool { figures, .. }, _)) => Ok(*figures),
        Ok((other, _)) => Err(unexpected(&other)),
        Err(err) if err.is::<NotFound>() => {
            let view = place.open()?;
            note("the agent does not run, so this is what is on disk");
            Ok(view.snapshot())
        }
        Err(err) => Err(err),
    }
}

fn table(figures: &Snapshot) -> Table {
    let rows = figures.streams.iter().flat_map(|stream| {
        let sinks: Vec<Vec<String>> = stream
            .sinks
            .iter()
            .map(|(sink, held)| row(stream, sink, held))
            .collect();
        if sinks.is_empty() {
            vec![alone(stream)]
        } else {
            sinks
        }
    });
    Table {
        head: &[
            "STREAM",
            "CLASS",
            "DURABILITY",
            "FOR",
            "APPENDED",
            "ACKED",
            "DROPPED",
            "SET ASIDE",
            "LOST",
            "WAITING",
            "OLDEST",
            "TO SEND",
            "ON DISK",
            "IN MEMORY",
            "SETTLED",
            "LAST",
            "BALANCE",
        ],
        wide: 5,
        rows: rows.collect(),
    }
}

fn row(stream: &StreamFigures, sink: &str, held: &SinkFigures) -> Vec<String> {
    let account = &held.account;
    let mut cells = head(stream, sink);
    cells.extend([
        account.appended.to_string(),
        account.acked.to_string(),
        dropped(account),
        account.set_aside.to_string(),
        account.lost.to_string(),
        account.resident.to_string(),
        or_dash(held.oldest_seconds.map(|age| seconds(age as u64))),
        bytes(held.waiting_bytes),
    ]);
    cells.extend(tail(stream));
    cells.extend([
        held.upto.to_string(),
        stream.last.to_string(),
        if account.balanced() { "ok" } else { "WRONG" }.to_owned(),
    ]);
    cells
}

/// A stream that nobody takes.
fn alone(stream: &StreamFigures) -> Vec<String> {
    let mut cells = head(stream, "-");
    cells.push(stream.appended.to_string());
    cells.extend(std::iter::repeat_n("-".to_owned(), 7));
    cells.extend(tail(stream));
    cells.extend(["-".to_owned(), stream.last.to_string(), "-".to_owned()]);
    cells
}

fn head(stream: &StreamFigures, sink: &str) -> Vec<String> {
    vec![
        stream.name.clone(),
        stream.class.to_string(),
        format!("{:?}", stream.durability).to_lowercase(),
        sink.to_owned(),
    ]
}

fn tail(stream: &StreamFigures) -> [String; 2] {
    [bytes(stream.bytes), bytes(stream.memory_bytes)]
}

/// `0`, or how many and why.
fn dropped(account: &Account) -> String {
    let word = |reason: &DropReason| match reason {
        DropReason::Space => "space",
        DropReason::Age => "age",
        DropReason::Bytes => "bytes",
        DropReason::Thinned => "thinned",
        DropReason::Memory => "memory",
        DropReason::BeforeSink => "before",
        DropReason::Crash => "crash",
    };
    let why: Vec<&str> = account.dropped.keys().map(word).collect();
    match account.dropped_total() {
        0 => "0".to_owned(),
        count => format!("{count} ({})", why.join(", ")),
    }
}
