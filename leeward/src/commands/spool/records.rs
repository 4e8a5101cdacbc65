//! `leeward spool tail` and `export`: the records themselves.

use super::{Place, decode, no_stream};
use crate::print::{self, Output, bytes, note};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use spool::{Inspection, ReadError, Record};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Bytes of a payload that a line for people shows.
const SHOWN: usize = 4096;
/// Lines of a record of telemetry that are shown where not all are asked for.
const INSIDE: usize = 20;
/// How often a followed spool is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// Name of the stream, as `leeward spool ls` shows it
    stream: String,
    /// How many of the last records
    #[arg(short = 'n', long, default_value_t = 10, value_name = "COUNT")]
    lines: u64,
    /// Go on with what is written later
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Name of the stream, as `leeward spool ls` shows it
    stream: String,
    /// First record: its number, or the time from which on (2026-05-01T10:00:00Z)
    #[arg(long, value_name = "NUMBER|TIME")]
    from: Option<Bound>,
    /// Last record: its number, or the time up to which
    #[arg(long, value_name = "NUMBER|TIME")]
    to: Option<Bound>,
    /// Write a file into this folder instead of printing
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Only the payloads, one after the other, each ended by a line end
    #[arg(long)]
    payloads: bool,
}

/// Where a range begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Number(u64),
    Time(Timestamp),
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        text.parse()
            .map(Self::Time)
            .map_err(|_| "a record's number or a time such as 2026-05-01T10:00:00Z is needed".to_owned())
    }
}

/// One record as a JSON line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    stream: &'a str,
    epoch: u64,
    seq: u64,
    appended_at: Timestamp,
    /// The device's clock was not set in that boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    time_estimated: bool,
    #[serde(flatten)]
    payload: Payload,
}

/// What was appended, in the form that loses nothing and reads best.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Payload {
    Json(Box<serde_json::value::RawValue>),
    Text(String),
    Base64(String),
}

impl Payload {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
            Ok(text) => match serde_json::from_str(text) {
                // A line end inside would break the line; JSON never needs one.
                Ok(json) if !text.contains('\n') => Self::Json(json),
                _ => Self::Text(text.to_owned()),
            },
        }
    }
}

fn line<'a>(view: &Inspection, stream: &'a str, record: &Record) -> Line<'a> {
    let placed = view.place(&record.appended_at);
    Line {
        stream,
        epoch: view.epoch(),
        seq: record.seq,
        appended_at: placed.at,
        time_estimated: placed.estimated,
        payload: Payload::of(&record.payload),
    }
}

pub fn tail(place: &Place, args: &TailArgs) -> Result<()> {
    let view = place.open()?;
    let Some(records) = view.tail(&args.stream, args.lines)? else {
        return Err(no_stream(&view, &args.stream));
    };
    let skipped = records
        .len()
        .saturating_sub(usize::try_from(args.lines).unwrap_or(usize::MAX));
    for record in &records[skipped..] {
        show(place, &view, &args.stream, record)?;
    }
    let mut after = records
        .last()
        .map_or_else(|| view.last(&args.stream), |record| record.seq);
    let mut epoch = view.epoch();
    drop(view);
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        let view = place.open()?;
        if view.epoch() != epoch {
            note("the spool was begun anew");
            (after, epoch) = (0, view.epoch());
        }
        view.export(&args.stream, after, |record| {
            after = record.seq;
            show(place, &view, &args.stream, record)
        })?;
    }
}

fn show(place: &Place, view: &Inspection, stream: &str, record: &Record) -> Result<()> {
    let line = line(view, stream, record);
    match place.output {
        Output::Json => print::out(&(serde_json::to_string(&line)? + "\n")),
        Output::Yaml => print::out(&format!(
            "---\n{}",
            serde_saphyr::to_string(&serde_json::to_value(&line)?)?
        )),
        Output::Table => print::out(&format!("{}\n", for_people(&line, record, false))),
        Output::Wide => print::out(&format!("{}\n", for_people(&line, record, true))),
    }
}

/// `12  2026-05-01T10:00:00Z  {"reason":...}`.
fn for_people(line: &Line<'_>, record: &Record, whole: bool) -> String {
    let about = if line.time_estimated { "~" } else { "" };
    let head = format!("{:>6}  {about}{:.3}", line.seq, line.appended_at);
    if let Some(inside) = decode::lines(line.stream, &record.payload) {
        let shown = if whole {
            inside.len()
        } else {
            INSIDE.min(inside.len())
        };
        let mut text = format!("{head}  {} lines", inside.len());
        for one in &inside[..shown] {
            text.push_str("\n        ");
            text.push_str(one);
        }
        if shown < inside.len() {
            text.push_str(&format!(
                "\n        … {} more: -o wide shows them",
                inside.len() - shown
            ));
        }
        return text;
    }
    let mut text = match &line.payload {
        Payload::Json(json) => json.get().to_owned(),
        Payload::Text(text) => text.trim_end().replace('\n', "\\n"),
        Payload::Base64(text) if whole => text.clone(),
        Payload::Base64(_) => format!("({} of binary data)", bytes(record.payload.len() as u64)),
    };
    if !whole && text.len() > SHOWN {
        let cut = (0..=SHOWN)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    format!("{head}  {text}")
}

pub fn export(place: &Place, args: &ExportArgs) -> Result<()> {
    let view = place.open()?;
    match &args.dir {
        None => {
            let mut stdout = std::io::stdout().lock();
            match write(&view, args, &mut stdout) {
                Err(err) if is_broken_pipe(&err) => Ok(()),
                other => other.map(|_| ()),
            }
        }
        Some(dir) => {
            let written = into_file(&view, args, dir)?;
            note(&written);
            Ok(())
        }
    }
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.downcast_ref::<std::io::Error>()
        .is_some_and(|err| err.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Written under another name first: a file that is there is whole.
fn into_file(view: &Inspection, args: &ExportArgs, dir: &Path) -> Result<String> {
    kit::disk::create_dir_all(dir).with_context(|| format!("make folder {}", dir.display()))?;
    let part = dir.join(format!(".{}.part", args.stream.replace('/', "_")));
    let at = || format!("write {}", part.display());
    let mut file = BufWriter::new(File::create(&part).with_context(at)?);
    let range = write(view, args, &mut file)?;
    let file = file
        .into_inner()
        .map_err(|err| err.into_error())
        .with_context(at)?;
    file.sync_all().with_context(at)?;
    let Some((first, last, count)) = range else {
        kit::disk::remove_if_there(&part)?;
        return Ok(format!("{}: no record in this range", args.stream));
    };
    let name = format!(
        "{}-{}-{first}-{last}.jsonl",
        args.stream.replace('/', "_"),
        view.epoch()
    );
    let path = dir.join(name);
    kit::disk::rename(&part, &path).with_context(|| format!("name {}", path.display()))?;
    Ok(format!("{}: {count} records", path.display()))
}

/// First number, last number and count of what was written.
type Range = Option<(u64, u64, u64)>;

fn write(view: &Inspection, args: &ExportArgs, out: &mut impl Write) -> Result<Range> {
    let after = match args.from {
        Some(Bound::Number(first)) => first.saturating_sub(1),
        _ => 0,
    };
    let mut range: Range = None;
    let mut each = |record: &Record| -> Result<(), Stop> {
        let line = line(view, &args.stream, record);
        if let Some(Bound::Time(from)) = args.from
            && line.appended_at < from
        {
            return Ok(());
        }
        match args.to {
            Some(Bound::Number(last)) if record.seq > last => return Err(Stop::End),
            // Later records may have earlier times where a clock was set back: all are looked at.
            Some(Bound::Time(to)) if line.appended_at > to => return Ok(()),
            _ => {}
        }
        if args.payloads {
            out.write_all(&record.payload)?;
        } else {
            serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        }
        out.write_all(b"\n")?;
        let (first, _, count) = range.unwrap_or((record.seq, 0, 0));
        range = Some((first, record.seq, count + 1));
        Ok(())
    };
    match view.export(&args.stream, after, &mut each) {
        Ok(Some(_)) | Err(Stop::End) => {}
        Ok(None) => return Err(no_stream(view, &args.stream)),
        Err(Stop::Read(err)) => return Err(err.into()),
        Err(Stop::Write(err)) => return Err(err.into()),
    }
    out.flush()?;
    Ok(range)
}

/// Why an export ends before the stream does.
#[derive(Debug)]
enum Stop {
    End,
    Read(ReadError),
    Write(std::io::Error),
}

impl From<ReadError> for Stop {
    fn from(err: ReadError) -> Self {
        Self::Read(err)
    }
}

impl From<std::io::Error> for Stop {
    fn from(err: std::io::Error) -> Self {
        Self::Write(err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_number_or_a_time() {
        assert_eq!("12".parse(), Ok(Bound::Number(12)));
        let time: Bound = "2026-05-01T10:00:00Z".parse().unwrap();
        assert!(matches!(time, Bound::Time(_)));
        assert!("yesterday".parse::<Bound>().unwrap_err().contains("2026"));
    }

    #[test]
    fn a_payload_takes_the_form_that_loses_nothing() {
        let told = |bytes: &[u8]| serde_json::to_string(&Payload::of(bytes)).unwrap();
        assert_eq!(told(br#"{"a": 1.0}"#), r#"{"json":{"a": 1.0}}"#);
        assert_eq!(told(b"plain"), r#"{"text":"plain"}"#);
        assert_eq!(told(b"{\n}"), r#"{"text":"{\n}"}"#);
        assert_eq!(told(&[0xff, 0]), r#"{"base64":"/wA="}"#);
    }
}
