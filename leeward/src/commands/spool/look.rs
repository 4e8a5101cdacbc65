//! `leeward spool inspect` and `verify`: down to the block.

use super::Place;
use crate::exit::NotFound;
use crate::print::{Table, bytes, list, one};
use anyhow::{Result, bail};
use clap::ValueEnum;
use spool::{BlockInfo, Class, Listing, LostRange, Verdict};
use std::fmt::Write as _;

/// Looks that a verdict gets while an agent overwrites what was just listed.
const LOOKS: usize = 4;

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Only this log
    #[arg(value_enum)]
    class: Option<ClassWord>,
    /// The blocks of this segment
    #[arg(requires = "class")]
    segment: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClassWord {
    Critical,
    Normal,
    Bulk,
}

impl From<ClassWord> for Class {
    fn from(word: ClassWord) -> Self {
        match word {
            ClassWord::Critical => Self::Critical,
            ClassWord::Normal => Self::Normal,
            ClassWord::Bulk => Self::Bulk,
        }
    }
}

pub fn inspect(place: &Place, args: &InspectArgs) -> Result<()> {
    let view = place.open()?;
    let class = args.class.map(Class::from);
    if let (Some(class), Some(segment)) = (class, args.segment) {
        let Some(blocks) = view.blocks(class, segment)? else {
            return Err(NotFound(format!("log {class} has no living segment {segment}")).into());
        };
        return list(place.output, &blocks, || block_table(&blocks));
    }
    let mut listing = view.listing();
    listing
        .logs
        .retain(|log| class.is_none_or(|class| log.class == class));
    one(place.output, &listing, || listing_text(&listing))
}

fn listing_text(listing: &Listing) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = writeln!(text, "Epoch:  {}", listing.epoch);
    for log in &listing.logs {
        let _ = writeln!(
            text,
            "Log {}: {} in files, {} living segments",
            log.class,
            bytes(log.bytes),
            log.segments.len()
        );
        for segment in &log.segments {
            let streams: Vec<String> = segment
                .streams
                .iter()
                .map(|(name, (first, last))| format!("{name} {first}-{last}"))
                .collect();
            let _ = writeln!(
                text,
                "  {:>6}  {:<22} {:>8}  {}",
                segment.id,
                segment.file,
                bytes(segment.bytes),
                streams.join(", ")
            );
        }
    }
    if !listing.sources.is_empty() {
        text.push_str("Sources:\n");
        for (source, position) in &listing.sources {
            let _ = writeln!(text, "  {source}  taken in up to {position}");
        }
    }
    text
}

fn block_table(blocks: &[BlockInfo]) -> Table {
    Table {
        head: &["OFFSET", "BYTES", "VERDICT", "RECORDS"],
        wide: 0,
        rows: blocks
            .iter()
            .map(|block| {
                let records: Vec<String> = block
                    .records
                    .iter()
                    .map(|(name, first, count)| {
                        format!("{name} {first}-{}", first + u64::from(*count).saturating_sub(1))
                    })
                    .collect();
                vec![
                    block.offset.to_string(),
                    bytes(block.bytes),
                    if block.whole { "whole" } else { "DAMAGED" }.to_owned(),
                    match records.is_empty() {
                        true => "unknown".to_owned(),
                        false => records.join(", "),
                    },
                ]
            })
            .collect(),
    }
}

pub fn verify(place: &Place) -> Result<()> {
    let mut verdict = place.open()?.verify()?;
    for _ in 1..LOOKS {
        if verdict.is_sound() {
            break;
        }
        // An agent may have given a segment's file to the next segment between list and read: what is really damaged
        // is found again.
        let again = place.open()?.verify()?;
        let settled = again.damaged == verdict.damaged && again.lost == verdict.lost;
        verdict = again;
        if settled {
            break;
        }
    }
    one(place.output, &verdict, || verdict_text(&verdict))?;
    if verdict.is_sound() {
        return Ok(());
    }
    bail!(
        "the spool is not whole: {} damaged blocks, {} records lost, {} accounts that do not balance",
        verdict.damaged.len(),
        verdict.lost.iter().map(count).sum::<u64>(),
        verdict.unbalanced.len()
    )
}

fn count(range: &LostRange) -> u64 {
    range.last - range.first + 1
}

fn verdict_text(verdict: &Verdict) -> String {
    let mut text = format!("{} blocks, {} read\n", verdict.blocks, bytes(verdict.bytes));
    for (class, segment, offset) in &verdict.damaged {
        let _ = writeln!(text, "damaged: log {class}, segment {segment}, offset {offset}");
    }
    for range in &verdict.lost {
        let _ = writeln!(text, "lost: {} {} to {}", range.stream, range.first, range.last);
    }
    for (stream, sink) in &verdict.unbalanced {
        let _ = writeln!(text, "account of {stream} for {sink} does not balance");
    }
    if verdict.is_sound() {
        text.push_str("sound: every block is as it was written, and every record is accounted for\n");
    }
    text
}
