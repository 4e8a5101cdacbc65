//! systemd's journal, read through `journalctl`: no second reader of its files is needed, and it knows how they rotate.

use super::{Intake, PERIOD, Sourced};
use crate::journal::Journal;
use jiff::SignedDuration;
use kit::Clock;
use model::Severity;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use telemetry::logs::journal::{self, Extent, NUMBERING, Place};
use telemetry::logs::{Batch, Entry, Packer, Rules};
use tokio::sync::mpsc;

/// In front of a numbering where the spool keeps places.
pub(super) const PLACES: &str = "journal:";
/// Entries between the child and the spool.
const SLOTS: usize = 256;
/// After a failure, and at most.
const REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// What is read of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Units, as `journalctl --unit` takes them; all of the journal where empty.
    pub units: Vec<String>,
    /// The mildest priority that is read, such as `warning`.
    pub priority: Option<String>,
    /// How far back the first reading goes.
    pub backlog: SignedDuration,
    /// Another folder than the system's.
    pub directory: Option<PathBuf>,
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// Nothing was ever read.
    Backlog,
    /// At this entry, which is known; other numberings from their beginnings.
    At(Place),
    /// With the first entry that is there.
    Beginning,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("there is no journalctl on this device")]
    Missing,
    #[error("journalctl cannot be started")]
    Start(#[source] io::Error),
    #[error("journalctl ended: {0}")]
    Ended(String),
    #[error("what journalctl writes is not understood")]
    Export(#[source] io::Error),
    #[error("the spool takes nothing")]
    Spool(#[source] spool::AppendError),
}

/// Reads the journal.
#[derive(Debug)]
pub(super) struct Journald {
    config: JournalConfig,
    clock: Arc<dyn Clock>,
    events: Journal,
    intake: Intake,
    packer: Packer,
}

impl Journald {
    pub(super) fn new(config: JournalConfig, rules: &Rules, sourced: Sourced) -> Self {
        let attributes = vec![("leeward.source".to_owned(), "journald".to_owned())];
        Self {
            config,
            clock: sourced.clock,
            events: sourced.events,
            intake: sourced.intake,
            packer: Packer::new(attributes, rules),
        }
    }

    /// For ever; a device without systemd is told of once.
    pub(super) async fn run(mut self) {
        let mut told = String::new();
        let mut rest = REST.0;
        loop {
            let begun = self.clock.since_boot();
            let Err(trouble) = self.follow().await;
            let why = kit::chain(&trouble);
            if why != told {
                self.note(
                    "JournalNotRead",
                    format!("the system's journal is not read: {why}"),
                )
                .await;
            }
            told = why;
            let lasted = self.clock.since_boot().saturating_sub(begun);
            rest = if lasted > REST.1 {
                REST.0
            } else {
                (rest * 2).min(REST.1)
            };
            if matches!(trouble, Trouble::Missing) {
                rest = REST.1;
            }
            tokio::time::sleep(rest).await;
        }
    }

    async fn note(&self, reason: &str, what: String) {
        self.events
            .note(Severity::Warning, reason, "device", what, None)
            .await;
    }

    /// Reads until the child ends.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Trouble> {
        let extents = self.extents().await?;
        let known = self.known();
        let (start, told) = begin(&known, &extents);
        for (reason, what) in told {
            self.note(reason, what).await;
        }
        let names = extents
            .iter()
            .map(|extent| format!("{NUMBERING}{}", extent.numbering));
        let held: Vec<String> = names.collect();
        // The place in a journal that was replaced is kept until there is one in the new journal: it says that there is
        // more to be read than the backlog.
        if matches!(start, Start::At(_)) {
            self.intake.forget(held.iter().map(String::as_str));
        }

        let (mut reader, mut entries) = Reader::start(self.command(&start))?;
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            let mut batches = Vec::new();
            let ended = tokio::select! {
                next = entries.recv() => match next {
                    Some(Ok(entry)) => {
                        self.add(entry, &extents, &mut batches);
                        None
                    }
                    Some(Err(err)) => Some(Trouble::Export(err)),
                    None => Some(Trouble::Ended(reader.last_words())),
                },
                _ = tick.tick() => {
                    batches.extend(self.packer.due(self.clock.now(), self.clock.since_boot()));
                    None
                }
            };
            if ended.is_some() {
                batches.extend(self.packer.close(self.clock.now()));
            }
            self.intake.take(batches).await.map_err(Trouble::Spool)?;
            if let Some(trouble) = ended {
                return Err(trouble);
            }
        }
    }

    fn add(&mut self, entry: Entry, extents: &[Extent], batches: &mut Vec<Batch>) {
        // Reading begins at an entry that is known, and with those of other numberings that may be.
        if self
            .intake
            .position(&entry.file)
            .is_some_and(|known| entry.upto <= known)
        {
            return;
        }
        // What was there before anybody read it is no flood.
        let free = extents
            .iter()
            .any(|it| entry.upto <= it.last && entry.file.ends_with(&it.numbering));
        self.packer
            .add(entry, free, self.clock.now(), self.clock.since_boot(), batches);
    }

    /// How far each numbering was read.
    fn known(&self) -> BTreeMap<String, u64> {
        let places = self.intake.positions();
        places
            .filter_map(|(name, number)| Some((name.strip_prefix(NUMBERING)?.to_owned(), number)))
            .collect()
    }

    async fn extents(&self) -> Result<Vec<Extent>, Trouble> {
        let mut command = self.journalctl();
        command.arg("--header").stderr(Stdio::null());
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(missing)?;
        Ok(journal::extents(&String::from_utf8_lossy(&output.stdout)))
    }

    fn journalctl(&self) -> Command {
        let mut command = Command::new("journalctl");
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .args(["--no-pager", "--quiet"]);
        if let Some(directory) = &self.config.directory {
            command.arg(joined("--directory=", directory.as_os_str()));
        }
        command
    }

    fn command(&self, start: &Start) -> Command {
        let mut command = self.journalctl();
        command.args(["--output=export", "--follow", "--no-tail"]);
        match start {
            Start::Backlog => {
                let since = self.clock.now().checked_sub(self.config.backlog);
                let since = since.map_or(0, |since| since.as_second());
                command.arg(format!("--since=@{since}"));
            }
            // Not `--after-cursor`: journalctl before 254 leaves out an entry too many where that one is gone, or
            // where another numbering has an earlier one.
            Start::At(place) => {
                command.arg(format!("--cursor={}", place.cursor()));
            }
            Start::Beginning => {}
        }
        if let Some(priority) = &self.config.priority {
            command.arg(format!("--priority={priority}"));
        }
        for unit in &self.config.units {
            command.arg(format!("--unit={unit}"));
        }
        command
    }
}

fn joined(option: &str, value: &std::ffi::OsStr) -> OsString {
    let mut text = OsString::from(option);
    text.push(value);
    text
}

fn missing(err: io::Error) -> Trouble {
    match err.kind() {
        io::ErrorKind::NotFound => Trouble::Missing,
        _ => Trouble::Start(err),
    }
}

/// Where to begin, by what was read and what is there; and what is to be told of that.
fn begin(known: &BTreeMap<String, u64>, extents: &[Extent]) -> (Start, Vec<(&'static str, String)>) {
    let mut told = Vec::new();
    if known.is_empty() {
        return (Start::Backlog, told);
    }
    let mut start = Start::Beginning;
    for extent in extents {
        let Some(&number) = known.get(&extent.numbering) else {
            continue;
        };
        if extent.first > number.saturating_add(1) {
            let what = format!(
                "the system's journal was vacuumed before it was read: entries {} to {} of {} are gone",
                number + 1,
                extent.first - 1,
                extent.numbering
            );
            told.push(("JournalVacuumed", what));
        }
        if extent.last < number {
            let what = format!(
                "the system's journal went back: it ends at {} of {}, and was read to {number}; what is written up to there is taken for known",
                extent.last, extent.numbering
            );
            told.push(("JournalWentBack", what));
        }
        start = Start::At(Place {
            numbering: extent.numbering.clone(),
            number,
        });
    }
    if start == Start::Beginning && !extents.is_empty() {
        let what = "the system's journal was replaced; what was not read of the old one is gone, the new one is read from its beginning";
        told.push(("JournalReplaced", what.to_owned()));
    }
    (start, told)
}

type Read = io::Result<Entry>;

/// The child, which ends with it.
#[derive(Debug)]
struct Reader {
    child: Child,
    errors: Option<ChildStderr>,
}

impl Reader {
    fn start(mut command: Command) -> Result<(Self, mpsc::Receiver<Read>), Trouble> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(missing)?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let reader = Self { child, errors };
        let (sender, entries) = mpsc::channel(SLOTS);
        let reading = move || {
            let mut input = BufReader::new(output?);
            loop {
                let next = journal::next(&mut input).transpose()?;
                let over = next.is_err();
                if sender.blocking_send(next).is_err() || over {
                    return None::<()>;
                }
            }
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(reading)
            .map_err(Trouble::Start)?;
        Ok((reader, entries))
    }

    /// What the child said before it ended.
    fn last_words(&mut self) -> String {
        let status = self
            .child
            .wait()
            .map_or_else(|err| err.to_string(), |status| status.to_string());
        let mut words = String::new();
        if let Some(errors) = self.errors.take() {
            // What is no text is not worth telling.
            let _ = errors.take(1000).read_to_string(&mut words);
        }
        match words.trim().lines().last() {
            Some(line) => format!("{status}: {line}"),
            None => status,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(numbering: &str, first: u64, last: u64) -> Extent {
        Extent {
            numbering: numbering.to_owned(),
            first,
            last,
        }
    }

    #[test]
    fn where_reading_begins_and_what_is_told() {
        let known = |all: &[(&str, u64)]| all.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        let at = |numbering: &str, number| {
            Start::At(Place {
                numbering: numbering.to_owned(),
                number,
            })
        };
        for (known, extents, start, reason) in [
            (known(&[]), vec![extent("a", 1, 9)], Start::Backlog, None),
            (known(&[("a", 5)]), vec![extent("a", 1, 9)], at("a", 5), None),
            (known(&[("a", 5)]), vec![extent("a", 6, 9)], at("a", 5), None),
            (
                known(&[("a", 5)]),
                vec![extent("a", 7, 9)],
                at("a", 5),
                Some("JournalVacuumed"),
            ),
            (
                known(&[("a", 5)]),
                vec![extent("a", 1, 4)],
                at("a", 5),
                Some("JournalWentBack"),
            ),
            (
                known(&[("a", 5)]),
                vec![extent("b", 1, 9)],
                Start::Beginning,
                Some("JournalReplaced"),
            ),
            (
                known(&[("a", 5)]),
                vec![extent("b", 1, 9), extent("a", 1, 5)],
                at("a", 5),
                None,
            ),
            (known(&[("a", 5)]), vec![], Start::Beginning, None),
        ] {
            let (begun, told) = begin(&known, &extents);
            assert_eq!(begun, start, "{known:?} {extents:?}");
            assert_eq!(
                told.first().map(|(reason, _)| *reason),
                reason,
                "{known:?} {extents:?}"
            );
        }
    }
}
