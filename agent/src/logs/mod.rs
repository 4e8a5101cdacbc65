//! Logs of the device: into the spool, and on the device within bounds.
//!
//! Takes: containers' log files from the engine, the system's journal.
//! Gives: records of the stream [`LOGS`], each with the place in its source up to which it goes, so that an agent that
//! was killed goes on where it was; some entries may be given again then, and the hub knows them by source and place.
//! Never: waits in memory for a hub that is away (the spool does, within its budget), nor holds up what writes.

mod config;
mod containers;
mod intake;
mod journald;
#[cfg(test)]
mod tests;

pub use config::Logs;
pub(crate) use config::RawLogs;
pub use journald::JournalConfig;

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
    if let (Some(config), Some(intake)) = (&inputs.config.journal, intake(journald::PLACES)) {
        let sourced = Sourced {
            clock: Arc::clone(&inputs.clock),
            events: inputs.events,
            intake,
        };
        let rules = inputs.config.rules(Format::Plain);
        let journald = journald::Journald::new(config.clone(), &rules, sourced);
        tasks.spawn_vital("journald", journald.run());
    }
    let containers = containers::Containers::new(
        inputs.engine,
        inputs.clock,
        intake(containers::PLACES),
        inputs.config,
    );
    tasks.spawn_vital("logs", containers.run());
}
