//! What devices send: records by number, and the proof of what the hub has of them.
//!
//! For each (device, stream, epoch) the store keeps two sets of numbers: `held` (received) and `lost` (the device
//! said that it can never deliver them: dropped by policy, torn by a power cut). The cursor `upto` is the end of
//! the unbroken run of both from 1: it is all that is acknowledged, so a hole that the device did not explain
//! holds the cursor back until it is filled. Since the sets outlive the payloads, bounded retention of payloads
//! never lets a record in twice.

use super::content::Content;
use super::front::Tx;
use super::staged::TELEMETRY_STREAMS;
use super::{Change, Ranges, Store, StoreError, convert, devices, status};
use bytes::Bytes;
use jiff::Timestamp;
use model::{DeviceName, Event, Severity, Status};
use rusqlite::{Connection, params};
use serde::Serialize;

/// The stream whose records are [`model::Status`].
pub const STATUS_STREAM: &str = "status";
/// The stream whose records are [`model::Event`].
pub const EVENTS_STREAM: &str = "events";
/// The stream whose records are [`model::Heartbeat`]: they refresh the status that is held, and are not kept.
pub const HEARTBEAT_STREAM: &str = "heartbeat";
/// Pieces that a stream's sets may have; a device that sends in order needs one.
const MAX_PIECES: usize = 4096;

/// Epochs that are remembered of a stream, newest.
const MAX_EPOCHS: i64 = 64;

/// Records of one stream, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// `status`, `events`, ...
    pub stream: String,
    /// The device's spool: new at each loss of its state, so that numbers start again.
    pub epoch: u64,
    /// Number and payload of each; numbers start at 1.
    pub records: Vec<(u64, Bytes)>,
    /// First and last number of what the device can never deliver: it says so, or, since a session sends in order
    /// from the cursor on, it starts behind it.
    pub lost: Vec<(u64, u64)>,
    /// First and last number of what never was a record; counts as neither lost nor missing, also where `lost` has it.
    pub unused: Vec<(u64, u64)>,
}

/// What became of a [`Batch`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The highest number up to which everything is held or lost: what may be acknowledged.
    pub upto: u64,
    /// Records that were new.
    pub stored: u64,
    /// Records that the hub had already.
    pub duplicates: u64,
    /// Records that could not be read; they count as received, and are kept apart with the reason.
    pub set_aside: u64,
    /// Holes that the device did not explain: first and last number.
    pub missing: Vec<(u64, u64)>,
}

/// How far the hub has a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Which stream.
    pub stream: String,
    /// Which life of the device's spool.
    pub epoch: u64,
    /// Order in which the hub first saw the epochs of this stream; the highest is in use.
    pub ordinal: u64,
    /// See [`Appended::upto`].
    pub upto: u64,
    /// Numbers received.
    pub held: Ranges,
    /// Numbers that the device gave up.
    pub lost: Ranges,
    /// Numbers that the device says were never records.
    pub unused: Ranges,
    /// Holes that the device did not explain.
    pub missing: Vec<(u64, u64)>,
    /// Records received more than once; stored once.
    pub duplicates: u64,
    /// Records that could not be read.
    pub set_aside: u64,
    /// When something was last added.
    pub updated_at: Timestamp,
}

impl Cursor {
    fn settle(&mut self) {
        let known = self.held.union(&self.lost).union(&self.unused);
        self.upto = known.contiguous();
        self.missing = known.gaps();
    }
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// Its stream.
    pub stream: String,
    /// Its number.
    pub sequence: u64,
    /// When it came.
    pub received_at: Timestamp,
    /// What was wrong with it.
    pub why: String,
}

/// An event as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldEvent {
    /// Who told it.
    pub device: DeviceName,
    /// See [`Cursor::ordinal`].
    pub ordinal: u64,
    /// Its number in the device's stream.
    pub sequence: u64,
    /// When it came, by the hub's clock.
    pub received_at: Timestamp,
    /// What was told.
    #[serde(flatten)]
    pub event: Event,
}

/// A payload of a stream that the hub stores without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecord {
    /// See [`Cursor::ordinal`].
    pub ordinal: u64,
    /// Its number.
    pub sequence: u64,
    /// When it came.
    pub received_at: Timestamp,
    /// Its bytes.
    pub payload: Vec<u8>,
}

fn check_stream(name: &str) -> Result<(), StoreError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(good) {
        return Err(StoreError::BadStream(name.to_owned()));
    }
    Ok(())
}

fn check_numbers(batch: &Batch) -> Result<(), StoreError> {
    let numbers = batch.records.iter().map(|(sequence, _)| *sequence);
    let ends = batch
        .lost
        .iter()
        .chain(&batch.unused)
        .flat_map(|(low, high)| [*low, *high]);
    match numbers
        .chain(ends)
        .find(|n| *n == 0 || i64::try_from(*n).is_err())
    {
        Some(sequence) => Err(StoreError::BadSequence {
            stream: batch.stream.clone(),
            sequence,
        }),
        None => Ok(()),
    }
}

const CURSOR: &str =
    "SELECT stream, epoch, ordinal, held, lost, duplicates, set_aside, updated_at, unused FROM cursors
    WHERE device = ?1";

fn read_cursor(row: &rusqlite::Row<'_>) -> Result<Cursor, StoreError> {
    let mut cursor = Cursor {
        stream: row.get(0)?,
        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
        ordinal: convert::uint(row.get(2)?),
        upto: 0,
        held: convert::from_json("held ranges", &row.get::<_, String>(3)?)?,
        lost: convert::from_json("lost ranges", &row.get::<_, String>(4)?)?,
        unused: convert::from_json("unused ranges", &row.get::<_, String>(8)?)?,
        missing: Vec::new(),
        duplicates: convert::uint(row.get(5)?),
        set_aside: convert::uint(row.get(6)?),
        updated_at: convert::time(row.get(7)?),
    };
    cursor.settle();
    Ok(cursor)
}

/// The cursor of a stream, if the hub has one.
pub(super) fn cursor_held(
    tx: &Tx<'_>,
    device: &DeviceName,
    stream: &str,
    epoch: u64,
) -> Result<Option<Cursor>, StoreError> {
    let mut statement = tx
        .sql
        .prepare_cached(&format!("{CURSOR} AND stream = ?2 AND epoch = ?3"))?;
    let mut rows = statement.query(params![device.as_str(), stream, epoch.cast_signed()])?;
    rows.next()?.map(read_cursor).transpose()
}

fn cursor_of(tx: &Tx<'_>, device: &DeviceName, stream: &str, epoch: u64) -> Result<Cursor, StoreError> {
    if let Some(cursor) = cursor_held(tx, device, stream, epoch)? {
        return Ok(cursor);
    }
    let newest: Option<i64> = tx
        .sql
        .prepare_cached("SELECT max(ordinal) FROM cursors WHERE device = ?1 AND stream = ?2")?
        .query_row(params![device.as_str(), stream], |row| row.get(0))?;
    // A device that loses its spool at every start must not fill the table; what it lost does not come again.
    tx.sql
        .prepare_cached("DELETE FROM cursors WHERE device = ?1 AND stream = ?2 AND ordinal <= ?3")?
        .execute(params![
            device.as_str(),
            stream,
            newest.unwrap_or(0) - (MAX_EPOCHS - 1)
        ])?;
    Ok(Cursor {
        stream: stream.to_owned(),
        epoch,
        ordinal: convert::uint(newest.unwrap_or(0)) + 1,
        upto: 0,
        held: Ranges::default(),
        lost: Ranges::default(),
        unused: Ranges::default(),
        missing: Vec::new(),
        duplicates: 0,
        set_aside: 0,
        updated_at: tx.now,
    })
}

fn write_cursor(tx: &Tx<'_>, device: &DeviceName, cursor: &Cursor) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached(
            "INSERT INTO cursors (device, stream, epoch, ordinal, upto, held, lost, duplicates, set_aside, updated_at,
               unused)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (device, stream, epoch) DO UPDATE SET upto = excluded.upto, held = excluded.held,
               lost = excluded.lost, duplicates = excluded.duplicates, set_aside = excluded.set_aside,
               updated_at = excluded.updated_at, unused = excluded.unused",
        )?
        .execute(params![
            device.as_str(),
            cursor.stream,
            cursor.epoch.cast_signed(),
            convert::int(cursor.ordinal),
            convert::int(cursor.upto),
            convert::to_json("held ranges", &cursor.held)?,
            convert::to_json("lost ranges", &cursor.lost)?,
            convert::int(cursor.duplicates),
            convert::int(cursor.set_aside),
            convert::millis(tx.now),
            convert::to_json("unused ranges", &cursor.unused)?,
        ])?;
    Ok(())
}

fn append(
    tx: &mut Tx<'_>,
    device: &DeviceName,
    batch: &Batch,
    contents: &[Content],
) -> Result<Appended, StoreError> {
    devices::must_be_enrolled(tx, device)?;
    let mut cursor = cursor_of(tx, device, &batch.stream, batch.epoch)?;
    let before = cursor.held.count();
    let (mut stored, mut duplicates, mut set_aside) = (0, 0, 0);
    for ((sequence, payload), content) in batch.records.iter().zip(contents) {
        if cursor.held.contains(*sequence) {
            duplicates += 1;
            continue;
        }
        cursor.held.insert(*sequence, *sequence);
        // It was given up and came after all.
        cursor.lost.remove(*sequence, *sequence);
        stored += 1;
        content.keep(tx, device, &cursor, *sequence, payload)?;
        set_aside += u64::from(matches!(content, Content::Unreadable(_)));
    }
    for &(low, high) in &batch.lost {
        cursor.lost.insert(low, high);
    }
    for &(low, high) in &batch.unused {
        cursor.unused.insert(low, high);
    }
    for (low, high) in cursor.held.iter().chain(cursor.unused.iter()) {
        cursor.lost.remove(low, high);
    }
    if cursor.held.pieces().max(cursor.lost.pieces()) > MAX_PIECES {
        return Err(StoreError::TooManyGaps {
            stream: batch.stream.clone(),
            limit: MAX_PIECES,
        });
    }
    cursor.duplicates += duplicates;
    cursor.set_aside += set_aside;
    cursor.settle();
    write_cursor(tx, device, &cursor)?;
    bound_payloads(tx, device, &batch.stream, before, cursor.held.count())?;
    if due(
        cursor.set_aside - set_aside,
        cursor.set_aside,
        tx.options.set_aside_per_stream,
    ) {
        // A device that sends only rubbish must not fill the disk.
        let of = "set_aside WHERE device = ?1 AND stream = ?2";
        delete_beyond(tx, of, device, &batch.stream, tx.options.set_aside_per_stream)?;
    }
    if batch.stream == EVENTS_STREAM && stored > 0 {
        tx.tell(Change::Events(device.clone()));
    }
    tx.tell(Change::Device(device.clone()));
    Ok(Appended {
        upto: cursor.upto,
        stored,
        duplicates,
        set_aside,
        missing: cursor.missing,
    })
}

/// Whether it is time to look if a table is over its bound: once per eighth of it, and once per epoch.
fn due(before: u64, after: u64, bound: usize) -> bool {
    let step = (bound as u64 / 8).max(1);
    after > before && (before == 0 || before / step != after / step)
}

/// Keeps the newest payloads of a stream, by number.
fn bound_payloads(
    tx: &Tx<'_>,
    device: &DeviceName,
    stream: &str,
    before: u64,
    after: u64,
) -> Result<(), StoreError> {
    let (of, bound) = match stream {
        STATUS_STREAM | HEARTBEAT_STREAM => return Ok(()),
        _ if TELEMETRY_STREAMS.contains(&stream) => return Ok(()),
        EVENTS_STREAM => (
            "events WHERE device = ?1 AND ?2 = 'events'",
            tx.options.events_per_device,
        ),
        _ => (
            "records WHERE device = ?1 AND stream = ?2",
            tx.options.records_per_stream,
        ),
    };
    if due(before, after, bound) {
        delete_beyond(tx, of, device, stream, bound)?;
    }
    Ok(())
}

fn delete_beyond(
    tx: &Tx<'_>,
    of: &'static str,
    device: &DeviceName,
    stream: &str,
    bound: usize,
) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached(&format!(
            "DELETE FROM {of} AND (ordinal, sequence) <= (
               SELECT ordinal, sequence FROM {of} ORDER BY ordinal DESC, sequence DESC LIMIT 1 OFFSET ?3)"
        ))?
        .execute(params![device.as_str(), stream, convert::limit(bound)])?;
    Ok(())
}

fn read_event(row: &rusqlite::Row<'_>) -> Result<HeldEvent, StoreError> {
    let severity: String = row.get(5)?;
    Ok(HeldEvent {
        device: convert::name("device name", &row.get::<_, String>(0)?)?,
        ordinal: convert::uint(row.get(1)?),
        sequence: convert::uint(row.get(2)?),
        received_at: convert::time(row.get(3)?),
        event: Event {
            time: convert::time(row.get(4)?),
            severity: match severity.as_str() {
                "Critical" => Severity::Critical,
                "Warning" => Severity::Warning,
                _ => Severity::Normal,
            },
            reason: row.get(6)?,
            about: row.get(7)?,
            message: row.get(8)?,
            generation: row.get(9)?,
        },
    })
}

/// All rows of a statement, read by `read`.
pub(super) fn collect<T>(
    mut rows: rusqlite::Rows<'_>,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn cursors(sql: &Connection, device: &DeviceName) -> Result<Vec<Cursor>, StoreError> {
    let mut statement = sql.prepare_cached(&format!("{CURSOR} ORDER BY stream, ordinal"))?;
    collect(statement.query([device.as_str()])?, read_cursor)
}

impl Store {
    /// Stores what is new of a batch and moves the cursor, in one transaction; returns once that is durable.
    ///
    /// A batch sent twice is stored once. Only [`Appended::upto`] may be acknowledged to the device.
    pub async fn append_records(&self, device: &DeviceName, batch: Batch) -> Result<Appended, StoreError> {
        check_stream(&batch.stream)?;
        check_numbers(&batch)?;
        let sender = device.clone();
        // Read here, not in the one thread that writes: that is for what must be done in order.
        let read = |(_, payload): &(u64, Bytes)| Content::read(&self.options, &batch.stream, device, payload);
        let contents: Vec<Content> = batch.records.iter().map(read).collect();
        let appended = self
            .front
            .write(move |tx| append(tx, &sender, &batch, &contents))
            .await?;
        self.seen(device, None);
        Ok(appended)
    }

    /// Takes a status that a device shows at the start of a session, while the records before it are on their way.
    ///
    /// It counts as what `sequence` of the status stream will say: nothing older replaces it, and it moves no
    /// cursor, so that the record itself is still to come.
    pub async fn show_status(
        &self,
        device: &DeviceName,
        epoch: u64,
        sequence: u64,
        told: Status,
    ) -> Result<(), StoreError> {
        let sender = device.clone();
        let json = convert::to_json("status", &told)?;
        self.front
            .write(move |tx| {
                devices::must_be_enrolled(tx, &sender)?;
                let cursor = cursor_of(tx, &sender, STATUS_STREAM, epoch)?;
                write_cursor(tx, &sender, &cursor)?;
                status::take(tx, &sender, &cursor, sequence, &told, &json)
            })
            .await?;
        self.seen(device, None);
        Ok(())
    }

    /// How far the hub has each stream of a device, by stream, then in the order of epochs.
    pub async fn cursors(&self, device: &DeviceName) -> Result<Vec<Cursor>, StoreError> {
        let device = device.clone();
        self.front.read(move |sql| cursors(sql, &device)).await
    }

    /// A device's events, newest first; those before `(ordinal, sequence)` where given.
    pub async fn events(
        &self,
        device: &DeviceName,
        before: Option<(u64, u64)>,
        limit: usize,
    ) -> Result<Vec<HeldEvent>, StoreError> {
        let device = device.clone();
        let (ordinal, sequence) = before.unwrap_or((u64::MAX, u64::MAX));
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT * FROM events WHERE device = ?1 AND (ordinal, sequence) < (?2, ?3)
                     ORDER BY ordinal DESC, sequence DESC LIMIT ?4",
                )?;
                let rows = statement.query(params![
                    device.as_str(),
                    convert::int(ordinal),
                    convert::int(sequence),
                    convert::limit(limit)
                ])?;
                collect(rows, read_event)
            })
            .await
    }

    /// The newest events of the whole fleet, by arrival.
    pub async fn fleet_events(&self, limit: usize) -> Result<Vec<HeldEvent>, StoreError> {
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT * FROM events ORDER BY received_at DESC, time DESC, device, ordinal DESC, sequence DESC LIMIT ?1",
                )?;
                collect(statement.query([convert::limit(limit)])?, read_event)
            })
            .await
    }

    /// Records of a stream that the hub does not read itself, in order, after `(ordinal, sequence)`.
    pub async fn records(
        &self,
        device: &DeviceName,
        stream: &str,
        after: (u64, u64),
        limit: usize,
    ) -> Result<Vec<HeldRecord>, StoreError> {
        let (device, stream) = (device.clone(), stream.to_owned());
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT ordinal, sequence, received_at, payload FROM records
                     WHERE device = ?1 AND stream = ?2 AND (ordinal, sequence) > (?3, ?4)
                     ORDER BY ordinal, sequence LIMIT ?5",
                )?;
                let rows = statement.query(params![
                    device.as_str(),
                    stream,
                    convert::int(after.0),
                    convert::int(after.1),
                    convert::limit(limit)
                ])?;
                collect(rows, |row| {
                    Ok(HeldRecord {
                        ordinal: convert::uint(row.get(0)?),
                        sequence: convert::uint(row.get(1)?),
                        received_at: convert::time(row.get(2)?),
                        payload: row.get(3)?,
                    })
                })
            })
            .await
    }

    /// Records of a device that could not be read, newest first.
    pub async fn set_aside(&self, device: &DeviceName, limit: usize) -> Result<Vec<SetAside>, StoreError> {
        let device = device.clone();
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT stream, sequence, received_at, why FROM set_aside WHERE device = ?1
                     ORDER BY received_at DESC, stream, ordinal DESC, sequence DESC LIMIT ?2",
                )?;
                collect(
                    statement.query(params![device.as_str(), convert::limit(limit)])?,
                    |row| {
                        Ok(SetAside {
                            stream: row.get(0)?,
                            sequence: convert::uint(row.get(1)?),
                            received_at: convert::time(row.get(2)?),
                            why: row.get(3)?,
                        })
                    },
                )
            })
            .await
    }
}
