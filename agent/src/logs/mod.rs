//! Logs of the device: into the spool, and on the device within bounds.
//!
//! Takes: containers' log files from the engine, the system's journal, files by name, syslog messages.
//! Gives: records of the stream [`LOGS`], each with the place in its source up to which it goes, so that an agent that
//! was killed goes on where it was; some entries may be given again then, and the hub knows them by source and place.
//! Never: waits in memory for a hub that is away (the spool does, within its budget), nor holds up what writes.

mod config;
mod containers;
mod files;
mod followed;
mod intake;
mod journald;
mod syslog;
#[cfg(test)]
mod tests;

pub use config::Logs;
pub(crate) use config::RawLogs;
pub(crate) use containers::of_pod;
pub use files::FileLogs;
pub use journald::JournalConfig;
pub use syslog::SyslogAddress;

use crate::journal::Journal;
use intake::Intake;
use kit::{Clock, Tasks};
use runtime::Engine;
use spool::{Spool, Stream};
use std::sync::Arc;
use std::time::Duration;
use telemetry::logs::Format;

/// Name of the stream.
pub const LOGS: &str = "logs";
/// How often sources are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// What each kind of source stands on.
#[derive(Debug)]
struct Sourced {
    clock: Arc<dyn Clock>,
    /// For what people must know.
    events: Journal,
    intake: Intake,
}

/// What logs need.
#[derive(Debug)]
pub(crate) struct Inputs<E> {
    /// Knows where containers' files are.
    pub engine: Arc<E>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For what cannot be read.
    pub events: Journal,
    /// Keeps places.
    pub spool: Spool,
    /// Where records go; `None` where nobody would get them.
    pub stream: Option<Stream>,
    /// How logs are read and kept.
    pub config: Logs,
}

/// Starts everything that reads logs.
pub(crate) fn start<E: Engine>(inputs: Inputs<E>, tasks: &Tasks) {
    let stream = inputs.stream.filter(|_| inputs.config.collect);
    if let Some(stream) = &stream {
        // What an earlier process had in memory is read again, but may be cut into other records: new numbers.
        stream.skip_ahead();
    }
    let intake = |prefix| {
        stream
            .clone()
            .map(|stream| Intake::new(inputs.spool.clone(), stream, prefix))
    };
    let sourced = |prefix| {
        Some(Sourced {
            clock: Arc::clone(&inputs.clock),
            events: inputs.events.clone(),
            intake: intake(prefix)?,
        })
    };
    let config = &inputs.config;
    if let (Some(journal), Some(sourced)) = (&config.journal, sourced(journald::PLACES)) {
        let journald = journald::Journald::new(journal.clone(), &config.rules(Format::Plain), sourced);
        tasks.spawn_vital("journald", journald.run());
    }
    if let (false, Some(sourced)) = (config.files.is_empty(), sourced(files::PLACES)) {
        tasks.spawn_vital(
            "log-files",
            files::Files::new(config.files.clone(), sourced).run(),
        );
    }
    if let (false, Some(sourced)) = (config.syslog.is_empty(), sourced(syslog::PLACES)) {
        let rules = config.rules(Format::Plain);
        let syslog = syslog::Syslog::new(config.syslog.clone(), rules, sourced);
        tasks.spawn_to_end("syslog", syslog.run(tasks.stop()));
    }
    let containers = containers::Containers::new(
        inputs.engine,
        inputs.clock,
        intake(containers::PLACES),
        &inputs.config,
    );
    tasks.spawn_vital("logs", containers.run());
}
