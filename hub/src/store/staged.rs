//! Telemetry on its way: records wait here, durable, until a file holds them and every forwarder has passed them.
//!
//! A record is staged in the transaction that moves its stream's cursor, so it is here once or not at all. It counts as
//! filed from the transaction that names the file which holds it: at any moment a row is either in a named file or in
//! an unfiled record, and [`Store::telemetry`] reads both of one moment. A file that nothing names holds nothing.

use super::front::Tx;
use super::records::collect;
use super::{Act, Store, StoreError, audit, content, convert};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use model::DeviceName;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

/// Streams whose records are staged.
pub const TELEMETRY_STREAMS: [&str; 4] = ["metrics", "logs", "traces", "alerts"];

/// The one whose entries say where they stood in their file.
const LOGS_STREAM: &str = "logs";

/// A staged record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRecord {
    /// Rises with every record of the hub, in the order of arrival.
    pub id: u64,
    /// Who sent it.
    pub device: DeviceName,
    /// `metrics`, `logs`, ...
    pub stream: String,
    /// See [`super::Cursor::ordinal`].
    pub ordinal: u64,
    /// Its number in the device's stream.
    pub sequence: u64,
    /// When it came, by the hub's clock.
    pub received_at: Timestamp,
    /// As sent.
    pub payload: Bytes,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryFile {
    /// Below the folder of all files; says the stream and the records that it holds.
    pub name: String,
    /// `metrics`, `logs`, ...
    pub stream: String,
    /// First and last [`StagedRecord::id`] in it.
    pub ids: (u64, u64),
    /// Its size.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// Earliest and latest time in it, in nanoseconds since 1970.
    pub times: (i64, i64),
    /// When its newest record came.
    pub received_at: Timestamp,
}

/// All that is kept of one stream, of one moment.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Files, oldest first.
    pub files: Vec<HistoryFile>,
    /// Records that are in none of them, oldest first.
    pub staged: Vec<StagedRecord>,
}

/// What waits for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfiled {
    /// Which stream.
    pub stream: String,
    /// Bytes of its records.
    pub bytes: u64,
    /// When the oldest came.
    pub since: Timestamp,
}

const RECORD: &str = "SELECT id, device, stream, ordinal, sequence, received_at, payload FROM staged";
const FILE: &str = "SELECT name, stream, first, last, bytes, rows, low, high, received_at FROM files";

fn read_record(row: &Row<'_>) -> Result<StagedRecord, StoreError> {
    Ok(StagedRecord {
        id: convert::uint(row.get(0)?),
        device: convert::name("device name", &row.get::<_, String>(1)?)?,
        stream: row.get(2)?,
        ordinal: convert::uint(row.get(3)?),
        sequence: convert::uint(row.get(4)?),
        received_at: convert::time(row.get(5)?),
        payload: row.get::<_, Vec<u8>>(6)?.into(),
    })
}

fn read_file(row: &Row<'_>) -> Result<HistoryFile, StoreError> {
    Ok(HistoryFile {
        name: row.get(0)?,
        stream: row.get(1)?,
        ids: (convert::uint(row.get(2)?), convert::uint(row.get(3)?)),
        bytes: convert::uint(row.get(4)?),
        rows: convert::uint(row.get(5)?),
        times: (row.get(6)?, row.get(7)?),
        received_at: convert::time(row.get(8)?),
    })
}

fn read_all(
    sql: &Connection,
    query: &str,
    values: impl rusqlite::Params,
    bytes: usize,
) -> Result<Vec<StagedRecord>, StoreError> {
    let mut statement = sql.prepare_cached(query)?;
    let mut rows = statement.query(values)?;
    let (mut all, mut size) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = read_record(row)?;
        size += record.payload.len();
        // One at least, however large.
        if size > bytes && !all.is_empty() {
            break;
        }
        all.push(record);
    }
    Ok(all)
}

/// A log file that was not heard of for so long is not read again by its device.
const PLACES: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Takes out of a record the log entries that came before in another record, and notes how far its files are.
fn once(tx: &Tx<'_>, device: &DeviceName, payload: &Bytes) -> Result<Bytes, StoreError> {
    let held = |file: &str| {
        tx.sql
            .prepare_cached("SELECT upto FROM log_places WHERE device = ?1 AND file = ?2")?
            .query_row([device.as_str(), file], |row| row.get(0).map(convert::uint))
            .optional()
            .map_err(StoreError::from)
    };
    let trimmed = telemetry::logs::trim(payload.clone(), held)?;
    for (file, upto) in &trimmed.places {
        tx.sql
            .prepare_cached(
                "INSERT INTO log_places VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (device, file) DO UPDATE SET upto = excluded.upto, updated_at = excluded.updated_at",
            )?
            .execute(params![
                device.as_str(),
                file,
                convert::int(*upto),
                convert::millis(tx.now)
            ])?;
    }
    Ok(trimmed.record)
}

/// Stages one record within the write that moves its cursor.
pub(super) fn stage(
    tx: &Tx<'_>,
    device: &DeviceName,
    stream: &str,
    ordinal: u64,
    sequence: u64,
    payload: &Bytes,
) -> Result<(), StoreError> {
    let trimmed;
    let payload = if stream == LOGS_STREAM {
        trimmed = once(tx, device, payload)?;
        &trimmed
    } else {
        payload
    };
    tx.sql
        .prepare_cached(
            "INSERT INTO staged (device, stream, ordinal, sequence, received_at, bytes, filed, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
        )?
        .execute(params![
            device.as_str(),
            stream,
            convert::int(ordinal),
            convert::int(sequence),
            convert::millis(tx.now),
            convert::limit(payload.len()),
            &payload[..]
        ])?;
    Ok(())
}

/// Forgets records that a file holds and that no forwarder waits for.
fn forget(tx: &Tx<'_>, stream: &str) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached(
            "DELETE FROM staged WHERE stream = ?1 AND filed = 1 AND id <= (
               SELECT coalesce(min(upto), 9223372036854775807) FROM forwarders
               WHERE instr(',' || streams || ',', ',' || ?1 || ',') > 0)",
        )?
        .execute([stream])?;
    Ok(())
}

fn insert_file(tx: &Tx<'_>, file: &HistoryFile) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached("INSERT INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            file.name,
            file.stream,
            convert::int(file.ids.0),
            convert::int(file.ids.1),
            convert::int(file.bytes),
            convert::int(file.rows),
            file.times.0,
            file.times.1,
            convert::millis(file.received_at)
        ])?;
    Ok(())
}

impl Store {
    /// What is kept of a stream: files, and records that no file holds yet; of one moment. None of it where the
    /// records that wait for a file are more than `bytes`.
    pub async fn telemetry(&self, stream: &str, bytes: usize) -> Result<Option<Kept>, StoreError> {
        let stream = stream.to_owned();
        self.front
            .read(move |sql| {
                let waiting: i64 = sql
                    .prepare_cached(
                        "SELECT coalesce(sum(bytes), 0) FROM staged WHERE stream = ?1 AND filed = 0",
                    )?
                    .query_row([&stream], |row| row.get(0))?;
                if waiting > convert::limit(bytes) {
                    return Ok(None);
                }
                let mut statement =
                    sql.prepare_cached(&format!("{FILE} WHERE stream = ?1 ORDER BY first"))?;
                Ok(Some(Kept {
                    files: collect(statement.query([&stream])?, read_file)?,
                    staged: unfiled(sql, &stream, usize::MAX)?,
                }))
            })
            .await
    }

    /// What waits for a file, by stream.
    pub async fn unfiled(&self) -> Result<Vec<Unfiled>, StoreError> {
        self.front
            .read(|sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT stream, sum(bytes), min(received_at) FROM staged WHERE filed = 0 GROUP BY stream",
                )?;
                collect(statement.query([])?, |row| {
                    Ok(Unfiled {
                        stream: row.get(0)?,
                        bytes: convert::uint(row.get(1)?),
                        since: convert::time(row.get(2)?),
                    })
                })
            })
            .await
    }

    /// The oldest records of a stream that are in no file, up to `bytes` of them.
    pub async fn unfiled_records(&self, stream: &str, bytes: usize) -> Result<Vec<StagedRecord>, StoreError> {
        let stream = stream.to_owned();
        self.front.read(move |sql| unfiled(sql, &stream, bytes)).await
    }

    /// Names a file that is durable, and counts the records in it as filed, in one transaction.
    pub async fn name_file(&self, file: HistoryFile) -> Result<(), StoreError> {
        self.front
            .write(move |tx| {
                insert_file(tx, &file)?;
                tx.sql
                    .prepare_cached("UPDATE staged SET filed = 1 WHERE stream = ?1 AND id BETWEEN ?2 AND ?3")?
                    .execute(params![
                        file.stream,
                        convert::int(file.ids.0),
                        convert::int(file.ids.1)
                    ])?;
                forget(tx, &file.stream)
            })
            .await
    }

    /// Names a file that holds what `old` hold, in their place.
    pub async fn merge_files(&self, old: Vec<String>, new: HistoryFile) -> Result<(), StoreError> {
        self.front
            .write(move |tx| {
                unname(tx, &old)?;
                insert_file(tx, &new)
            })
            .await
    }

    /// Drops files from what is kept; told in the audit trail.
    pub async fn drop_files(&self, names: Vec<String>, act: Act) -> Result<(), StoreError> {
        self.front
            .write(move |tx| {
                unname(tx, &names)?;
                audit::append(tx, act)
            })
            .await
    }

    /// Every file that counts, of all streams, oldest first.
    pub async fn history_files(&self) -> Result<Vec<HistoryFile>, StoreError> {
        self.front
            .read(|sql| {
                let mut statement = sql.prepare_cached(&format!("{FILE} ORDER BY stream, first"))?;
                collect(statement.query([])?, read_file)
            })
            .await
    }

    /// Moves a record that turned out to be unreadable to those set aside, so that it holds up no other.
    pub async fn set_staged_aside(&self, record: StagedRecord, why: String) -> Result<(), StoreError> {
        self.front
            .write(move |tx| {
                content::set_aside(
                    tx,
                    &record.device,
                    (&record.stream, record.ordinal, record.sequence),
                    &why,
                    &record.payload,
                )?;
                tx.sql
                    .prepare_cached("DELETE FROM staged WHERE id = ?1")?
                    .execute([convert::int(record.id)])?;
                Ok(())
            })
            .await
    }

    /// Forgets what was received before `before`; the oldest records that only a forwarder waits for, beyond `bytes`; and
    /// the oldest that no file holds, beyond `unfiled_bytes`, which only grow so large where no file can be written.
    pub async fn bound_staged(
        &self,
        before: Timestamp,
        bytes: u64,
        unfiled_bytes: u64,
    ) -> Result<Forgotten, StoreError> {
        self.front
            .write(move |tx| bound(tx, before, bytes, unfiled_bytes))
            .await
    }
}

/// What retention took from the staged records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Records that a forwarder had not passed.
    pub unsent: u64,
    /// Records that no file held.
    pub unfiled: u64,
}

fn bound(tx: &Tx<'_>, before: Timestamp, bytes: u64, unfiled_bytes: u64) -> Result<Forgotten, StoreError> {
    for stream in TELEMETRY_STREAMS {
        forget(tx, stream)?;
    }
    let silent_since = tx.now.saturating_sub(PLACES).unwrap_or_default();
    tx.sql
        .prepare_cached("DELETE FROM log_places WHERE updated_at < ?1")?
        .execute([convert::millis(silent_since)])?;
    let by_age: Option<i64> = tx
        .sql
        .prepare_cached("SELECT max(id) FROM staged WHERE received_at < ?1")?
        .query_row([convert::millis(before)], |row| row.get(0))?;
    let mut all = Forgotten::default();
    for (filed, room) in [(true, bytes), (false, unfiled_bytes)] {
        // Up to where it is too old, or where the newer ones alone fill the room.
        let by_size: Option<i64> = tx
            .sql
            .prepare_cached(
                "SELECT max(id) FROM (SELECT id, sum(bytes) OVER (ORDER BY id DESC) AS held FROM staged
                   WHERE filed = ?2) WHERE held > ?1",
            )?
            .query_row(params![convert::int(room), filed], |row| row.get(0))?;
        if let Some(upto) = by_age.max(by_size) {
            let (unsent, gone) = drop_upto(tx, filed, upto)?;
            all.unsent += unsent;
            all.unfiled += if filed { 0 } else { gone };
        }
    }
    Ok(all)
}

/// Forgets records up to an id; says how often one was not sent, and how many there were.
fn drop_upto(tx: &Tx<'_>, filed: bool, upto: i64) -> Result<(u64, u64), StoreError> {
    const MISSED: &str = "(SELECT count(*) FROM staged WHERE filed = ?2 AND id > forwarders.upto AND id <= ?1
        AND instr(',' || streams || ',', ',' || stream || ',') > 0)";
    let values = params![upto, filed];
    let unsent: i64 = tx
        .sql
        .prepare_cached(&format!("SELECT coalesce(sum({MISSED}), 0) FROM forwarders"))?
        .query_row(values, |row| row.get(0))?;
    tx.sql
        .prepare_cached(&format!("UPDATE forwarders SET dropped = dropped + {MISSED}"))?
        .execute(values)?;
    let gone = tx
        .sql
        .prepare_cached("DELETE FROM staged WHERE filed = ?2 AND id <= ?1")?
        .execute(values)?;
    Ok((convert::uint(unsent), gone as u64))
}

fn unfiled(sql: &Connection, stream: &str, bytes: usize) -> Result<Vec<StagedRecord>, StoreError> {
    let query = format!("{RECORD} WHERE stream = ?1 AND filed = 0 ORDER BY id");
    read_all(sql, &query, [stream], bytes)
}

/// The next records of a forwarder, all of one stream.
pub(super) fn next(sql: &Connection, forwarder: &str, bytes: usize) -> Result<Vec<StagedRecord>, StoreError> {
    let found = sql
        .prepare_cached(
            "SELECT s.stream, f.upto FROM forwarders f JOIN staged s
               ON s.id > f.upto AND instr(',' || f.streams || ',', ',' || s.stream || ',') > 0
             WHERE f.name = ?1 ORDER BY s.id LIMIT 1",
        )?
        .query_row([forwarder], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((stream, upto)) = found else {
        return Ok(Vec::new());
    };
    // Up to the first of another of its streams: it may pass none of them.
    let query = format!(
        "{RECORD} WHERE stream = ?1 AND id > ?2 AND id < coalesce((
           SELECT min(s.id) FROM staged s, forwarders f WHERE f.name = ?3 AND s.id > ?2 AND s.stream <> ?1
             AND instr(',' || f.streams || ',', ',' || s.stream || ',') > 0), 9223372036854775807) ORDER BY id"
    );
    read_all(sql, &query, params![stream, upto, forwarder], bytes)
}

fn unname(tx: &Tx<'_>, names: &[String]) -> Result<(), StoreError> {
    let mut statement = tx.sql.prepare_cached("DELETE FROM files WHERE name = ?1")?;
    for name in names {
        statement.execute([name])?;
    }
    Ok(())
}
