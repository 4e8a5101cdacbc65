//! How far each forwarder is, and what a receiver would not take.

use super::staged::{self, StagedRecord};
use super::{Store, StoreError, convert};
use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

/// Records set aside that are kept of one forwarder, newest.
const ASIDE: i64 = 1_000;
/// Bytes kept of each.
const ASIDE_BYTES: usize = 64 * 1024;

/// How far a forwarder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarded {
    /// Its name.
    pub name: String,
    /// Everything up to this [`StagedRecord::id`] is behind it.
    pub upto: u64,
    /// Records that its receiver has.
    pub sent: u64,
    /// Records that were dropped before they were sent: it was behind for too long.
    pub dropped: u64,
    /// Records, or entries of them, that its receiver would not take.
    pub set_aside: u64,
    /// When something was last taken.
    pub last_sent_at: Option<Timestamp>,
    /// Records that wait.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// When the oldest of them came.
    pub waiting_since: Option<Timestamp>,
}

/// What a forwarder has done with records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The last that is behind it.
    pub upto: u64,
    /// How many its receiver has.
    pub sent: u64,
    /// Entries that it refused; the records themselves are in [`Passed::aside`] where they are known.
    pub refused: u64,
    /// Records that it will never take, with the reason.
    pub aside: Vec<(StagedRecord, String)>,
}

impl Store {
    /// Makes the cursors of exactly these forwarders: (name, streams). Records wait for no other any more.
    pub async fn set_forwarders(&self, all: Vec<(String, Vec<&'static str>)>) -> Result<(), StoreError> {
        self.front
            .write(move |tx| {
                let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                tx.sql.execute(
                    "DELETE FROM forwarders WHERE name NOT IN (SELECT value FROM json_each(?1))",
                    [convert::to_json("names", &names)?],
                )?;
                for (name, streams) in &all {
                    tx.sql.execute(
                        "INSERT INTO forwarders (name, streams, upto, sent, dropped, set_aside) VALUES (?1, ?2, 0, 0, 0, 0)
                         ON CONFLICT (name) DO UPDATE SET streams = excluded.streams",
                        params![name, streams.join(",")],
                    )?;
                }
                Ok(())
            })
            .await
    }

    /// The next records for a forwarder, up to `bytes` of one stream: the stream of the first that waits.
    pub async fn to_forward(&self, name: &str, bytes: usize) -> Result<Vec<StagedRecord>, StoreError> {
        let name = name.to_owned();
        self.front.read(move |sql| staged::next(sql, &name, bytes)).await
    }

    /// Moves a forwarder's cursor, with what became of the records that it passes.
    pub async fn forwarded(&self, name: &str, passed: Passed) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.front
            .write(move |tx| {
                // What was dropped while it was on its way is counted as dropped, and only so.
                let present: i64 = tx
                    .sql
                    .prepare_cached(
                        "SELECT count(*) FROM staged s, forwarders f WHERE f.name = ?1 AND s.id > f.upto AND s.id <= ?2
                           AND instr(',' || f.streams || ',', ',' || s.stream || ',') > 0",
                    )?
                    .query_row(params![name, convert::int(passed.upto)], |row| row.get(0))?;
                let sent = present.min(convert::int(passed.sent));
                let aside = convert::int(passed.refused) + (present - sent).min(convert::limit(passed.aside.len()));
                let taken = (passed.sent > 0).then(|| convert::millis(tx.now));
                tx.sql
                    .prepare_cached(
                        "UPDATE forwarders SET upto = max(upto, ?2), sent = sent + ?3, set_aside = set_aside + ?4,
                           last_sent_at = coalesce(?5, last_sent_at) WHERE name = ?1",
                    )?
                    .execute(params![
                        name,
                        convert::int(passed.upto),
                        sent,
                        aside,
                        taken
                    ])?;
                for (record, why) in &passed.aside {
                    tx.sql
                        .prepare_cached("INSERT OR REPLACE INTO forward_aside VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                        .execute(params![
                            name,
                            convert::int(record.id),
                            record.device.as_str(),
                            record.stream,
                            convert::int(record.sequence),
                            convert::millis(tx.now),
                            why,
                            &record.payload[..record.payload.len().min(ASIDE_BYTES)]
                        ])?;
                }
                tx.sql
                    .prepare_cached(
                        "DELETE FROM forward_aside WHERE forwarder = ?1 AND id <= (
                           SELECT id FROM forward_aside WHERE forwarder = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                    )?
                    .execute(params![name, ASIDE])?;
                Ok(())
            })
            .await
    }

    /// Every forwarder that has a cursor, by name.
    pub async fn forwarders(&self) -> Result<Vec<Forwarded>, StoreError> {
        self.front
            .read(|sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT name, upto, sent, dropped, set_aside, last_sent_at, count(s.id), coalesce(sum(s.bytes), 0),
                       min(s.received_at)
                     FROM forwarders f LEFT JOIN staged s
                       ON s.id > f.upto AND instr(',' || f.streams || ',', ',' || s.stream || ',') > 0
                     GROUP BY name ORDER BY name",
                )?;
                super::records::collect(statement.query([])?, |row| {
                    Ok(Forwarded {
                        name: row.get(0)?,
                        upto: convert::uint(row.get(1)?),
                        sent: convert::uint(row.get(2)?),
                        dropped: convert::uint(row.get(3)?),
                        set_aside: convert::uint(row.get(4)?),
                        last_sent_at: row.get::<_, Option<i64>>(5)?.map(convert::time),
                        waiting: convert::uint(row.get(6)?),
                        waiting_bytes: convert::uint(row.get(7)?),
                        waiting_since: row.get::<_, Option<i64>>(8)?.map(convert::time),
                    })
                })
            })
            .await
    }

    /// What a receiver would not take, newest first: device, stream, number, reason.
    pub async fn forward_aside(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<(String, super::SetAside)>, StoreError> {
        let name = name.to_owned();
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT device, stream, sequence, at, why FROM forward_aside WHERE forwarder = ?1
                     ORDER BY id DESC LIMIT ?2",
                )?;
                super::records::collect(statement.query(params![name, convert::limit(limit)])?, |row| {
                    Ok((
                        row.get(0)?,
                        super::SetAside {
                            stream: row.get(1)?,
                            sequence: convert::uint(row.get(2)?),
                            received_at: convert::time(row.get(3)?),
                            why: row.get(4)?,
                        },
                    ))
                })
            })
            .await
    }
}
