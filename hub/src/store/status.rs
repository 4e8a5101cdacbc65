//! What a status record changes: the device's row, and what is known of its generations.

use super::front::Tx;
use super::records::Cursor;
use super::{Change, StoreError, convert};
use model::{DeviceName, Heartbeat, Phase, Revision, Status, WorkloadStatus};
use rusqlite::{OptionalExtension as _, params};

/// Generations that are remembered of a device, last told.
const MAX_GENERATIONS: i64 = 256;

/// The word for a phase in the `phase` column.
fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::WaitingForSource => "waitingForSource",
        Phase::Progressing => "progressing",
        Phase::Ready => "ready",
        Phase::RolledBack => "rolledBack",
        Phase::Degraded => "degraded",
        Phase::Paused => "paused",
    }
}

/// Takes a status in, with its JSON; one that is older than what the row holds adds only to the history of
/// generations.
pub(super) fn take(
    tx: &mut Tx<'_>,
    device: &DeviceName,
    cursor: &Cursor,
    sequence: u64,
    told: &Status,
    json: &str,
) -> Result<(), StoreError> {
    let newer = tx
        .sql
        .prepare_cached(
            "UPDATE devices SET phase = ?2, status = ?3, status_at = ?4, status_epoch = ?5, status_ordinal = ?6,
               status_sequence = ?7, agent = ?8, class = ?9
             WHERE name = ?1 AND (status_ordinal IS NULL OR (status_ordinal, status_sequence) < (?6, ?7))",
        )?
        .execute(params![
            device.as_str(),
            phase_word(&told.phase),
            json,
            convert::millis(tx.now),
            cursor.epoch.cast_signed(),
            convert::int(cursor.ordinal),
            convert::int(sequence),
            told.agent,
            told.class.as_str(),
        ])?;
    if newer > 0 {
        tx.tell(Change::Device(device.clone()));
    }
    for seen in generations_of(told) {
        note_generation(tx, device, cursor, sequence, told, &seen)?;
    }
    Ok(())
}

/// Takes readings in that are newer than those of the status held; what the device runs is not touched.
pub(super) fn refresh(tx: &mut Tx<'_>, device: &DeviceName, beat: &Heartbeat) -> Result<(), StoreError> {
    let held: Option<String> = tx
        .sql
        .prepare_cached("SELECT status FROM devices WHERE name = ?1")?
        .query_row([device.as_str()], |row| row.get(0))
        .optional()?
        .flatten();
    // Before its first status a device has nothing that could be refreshed.
    let Some(mut told) = held.and_then(|json| serde_json::from_str::<Status>(&json).ok()) else {
        return Ok(());
    };
    if beat.time <= told.time {
        return Ok(());
    }
    told.time = beat.time;
    told.facts = beat.facts.clone();
    told.source.fetched_at = beat.fetched_at.or(told.source.fetched_at);
    for news in &beat.progress {
        let about = |workload: &&mut WorkloadStatus| {
            workload.key == news.key && workload.reason.as_ref() == Some(&news.reason)
        };
        if let Some(workload) = told.workloads.iter_mut().find(about) {
            workload.message.clone_from(&news.message);
        }
    }
    tx.sql
        .prepare_cached("UPDATE devices SET status = ?2, status_at = ?3 WHERE name = ?1")?
        .execute(params![
            device.as_str(),
            convert::to_json("status", &told)?,
            convert::millis(tx.now)
        ])?;
    tx.tell(Change::Device(device.clone()));
    Ok(())
}

struct Seen<'a> {
    id: &'a str,
    revision: Option<&'a Revision>,
    outcome: &'static str,
    reason: Option<&'a str>,
}

/// One line per generation that a status names; what is said first about an id counts.
fn generations_of<'a>(told: &'a Status) -> Vec<Seen<'a>> {
    let held = &told.generation;
    let mut all: Vec<Seen<'a>> = Vec::new();
    let mut add = |id: Option<&'a str>, revision, outcome, reason| {
        if let Some(id) = id
            && !all.iter().any(|seen| seen.id == id)
        {
            all.push(Seen {
                id,
                revision,
                outcome,
                reason,
            });
        }
    };
    // The candidate's revision is that of the source: it is rendered from the last one fetched.
    add(
        held.candidate.as_deref(),
        told.source.revision.as_ref(),
        "onTrial",
        None,
    );
    if let Some((id, why)) = &held.failed {
        add(Some(id), None, "failed", Some(why));
    }
    add(held.current.as_deref(), held.revision.as_ref(), "current", None);
    add(held.last_good.as_deref(), None, "lastGood", None);
    all
}

fn note_generation(
    tx: &Tx<'_>,
    device: &DeviceName,
    cursor: &Cursor,
    sequence: u64,
    told: &Status,
    seen: &Seen<'_>,
) -> Result<(), StoreError> {
    let known = tx
        .sql
        .prepare_cached("SELECT 1 FROM generations WHERE device = ?1 AND id = ?2")?
        .exists(params![device.as_str(), seen.id])?;
    if !known {
        // History is for people to read, and ends somewhere.
        tx.sql
            .prepare_cached(
                "DELETE FROM generations WHERE device = ?1 AND id IN (
                   SELECT id FROM generations WHERE device = ?1 ORDER BY last_seen DESC, id LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![device.as_str(), MAX_GENERATIONS - 1])?;
    }
    let revision = seen
        .revision
        .map(|revision| convert::to_json("revision", revision))
        .transpose()?;
    tx.sql
        .prepare_cached(
            "INSERT INTO generations (device, id, revision, first_seen, last_seen, outcome, reason, ordinal, sequence)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (device, id) DO UPDATE SET
               revision = coalesce(generations.revision, excluded.revision),
               first_seen = min(generations.first_seen, excluded.first_seen),
               last_seen = max(generations.last_seen, excluded.last_seen),
               outcome = iif((generations.ordinal, generations.sequence) < (?7, ?8), excluded.outcome, generations.outcome),
               reason = iif((generations.ordinal, generations.sequence) < (?7, ?8), excluded.reason, generations.reason),
               ordinal = iif((generations.ordinal, generations.sequence) < (?7, ?8), ?7, generations.ordinal),
               sequence = iif((generations.ordinal, generations.sequence) < (?7, ?8), ?8, generations.sequence)",
        )?
        .execute(params![
            device.as_str(),
            seen.id,
            revision,
            convert::millis(told.time),
            seen.outcome,
            seen.reason,
            convert::int(cursor.ordinal),
            convert::int(sequence),
        ])?;
    Ok(())
}
