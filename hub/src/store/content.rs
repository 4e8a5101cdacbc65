//! What is in a record: read before the writing thread has it, so that one device's large record holds up no other.

use super::front::Tx;
use super::records::{Cursor, EVENTS_STREAM, HEARTBEAT_STREAM, STATUS_STREAM};
use super::staged::{self, TELEMETRY_STREAMS};
use super::{Change, Options, StoreError, convert, status};
use bytes::Bytes;
use model::{DeviceName, Event, Heartbeat, Severity, Status};
use rusqlite::params;

/// Bytes kept of a record that could not be read.
const SET_ASIDE_BYTES: usize = 4096;

/// A record's payload, read.
pub(super) enum Content {
    /// Of the stream `status`, with its JSON as sent.
    Status(Box<Status>, String),
    /// Of the stream `events`.
    Event(Box<Event>),
    /// Of the stream `heartbeat`.
    Heartbeat(Box<Heartbeat>),
    /// Of a telemetry stream.
    Telemetry,
    /// Of a stream that the hub does not read.
    Opaque,
    /// It cannot be what its stream says; why.
    Unreadable(String),
}

impl Content {
    /// Reads a record that `device` sent.
    pub fn read(options: &Options, stream: &str, device: &DeviceName, payload: &Bytes) -> Self {
        match stream {
            _ if TELEMETRY_STREAMS.contains(&stream) => {
                match (options.check)(stream, device, options.clock.now(), payload) {
                    Ok(()) => Self::Telemetry,
                    Err(why) => Self::Unreadable(why),
                }
            }
            STATUS_STREAM => match serde_json::from_slice::<Status>(payload) {
                Ok(told) if told.device != *device => {
                    let other = &told.device;
                    Self::Unreadable(format!("it speaks for device {other}, which is not its sender"))
                }
                // What parses as JSON is UTF-8: nothing is replaced.
                Ok(told) => Self::Status(Box::new(told), String::from_utf8_lossy(payload).into_owned()),
                Err(err) => Self::Unreadable(format!("it is no status: {err}")),
            },
            EVENTS_STREAM => match serde_json::from_slice(payload) {
                Ok(event) => Self::Event(Box::new(event)),
                Err(err) => Self::Unreadable(format!("it is no event: {err}")),
            },
            HEARTBEAT_STREAM => match serde_json::from_slice(payload) {
                Ok(beat) => Self::Heartbeat(Box::new(beat)),
                Err(err) => Self::Unreadable(format!("it is no heartbeat: {err}")),
            },
            _ => Self::Opaque,
        }
    }

    /// Files it where it belongs.
    pub fn keep(
        &self,
        tx: &mut Tx<'_>,
        device: &DeviceName,
        cursor: &Cursor,
        sequence: u64,
        payload: &Bytes,
    ) -> Result<(), StoreError> {
        match self {
            Self::Status(told, json) => status::take(tx, device, cursor, sequence, told, json),
            Self::Event(event) => insert_event(tx, device, cursor, sequence, event),
            Self::Heartbeat(beat) => status::refresh(tx, device, beat),
            Self::Telemetry => {
                staged::stage(tx, device, &cursor.stream, cursor.ordinal, sequence, payload)?;
                tx.tell(Change::Telemetry);
                Ok(())
            }
            Self::Opaque => {
                tx.sql
                    .prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute(params![
                        device.as_str(),
                        cursor.stream,
                        convert::int(cursor.ordinal),
                        convert::int(sequence),
                        convert::millis(tx.now),
                        &payload[..]
                    ])?;
                Ok(())
            }
            Self::Unreadable(why) => {
                tracing::warn!(%device, stream = cursor.stream, sequence, why, "record set aside");
                let at = (cursor.stream.as_str(), cursor.ordinal, sequence);
                set_aside(tx, device, at, why, payload)
            }
        }
    }
}

/// Keeps a record apart, with the reason; `at` is its stream, ordinal and sequence.
pub(super) fn set_aside(
    tx: &Tx<'_>,
    device: &DeviceName,
    (stream, ordinal, sequence): (&str, u64, u64),
    why: &str,
    payload: &[u8],
) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached("INSERT INTO set_aside VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            device.as_str(),
            stream,
            convert::int(ordinal),
            convert::int(sequence),
            convert::millis(tx.now),
            why,
            &payload[..payload.len().min(SET_ASIDE_BYTES)]
        ])?;
    Ok(())
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
        Severity::Critical => "Critical",
    }
}

fn insert_event(
    tx: &Tx<'_>,
    device: &DeviceName,
    cursor: &Cursor,
    sequence: u64,
    event: &Event,
) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            device.as_str(),
            convert::int(cursor.ordinal),
            convert::int(sequence),
            convert::millis(tx.now),
            convert::millis(event.time),
            severity_word(event.severity),
            event.reason,
            event.about,
            event.message,
            event.generation
        ])?;
    Ok(())
}
