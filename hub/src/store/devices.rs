//! Devices: their rows, their sessions, and how they are seen.

use super::front::Tx;
use super::health::{self, Health, Link};
use super::records::collect;
use super::{Act, Change, Store, StoreError, audit, convert};
use jiff::Timestamp;
use model::{ClassName, DeviceName, Revision, Status};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// A device as the hub knows it now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: DeviceName,
    /// Its hardware class.
    pub class: ClassName,
    /// Where it stands.
    pub site: String,
    /// Set at enrolment.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub enrolled_at: Timestamp,
    /// When and why it was shut out.
    pub revoked: Option<(Timestamp, String)>,
    /// When the hub last received anything from it.
    pub last_seen: Option<Timestamp>,
    /// See [`Link`].
    #[serde(flatten)]
    pub link: Link,
    /// Version of its agent.
    pub agent: Option<String>,
    /// Records that wait in its spool, where it said so.
    pub backlog: Option<u64>,
    /// What may be said of it now.
    pub health: Health,
    /// CamelCase word for why.
    pub reason: String,
    /// One sentence for why.
    pub message: String,
    /// What it said last, however old.
    pub status: Option<HeldStatus>,
}

/// The newest status of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// Life of the device's spool that it came from.
    pub epoch: u64,
    /// Its number there.
    pub sequence: u64,
    /// When it came, by the hub's clock.
    pub received_at: Timestamp,
    /// What was said.
    pub status: Status,
}

/// Which devices, and which page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Text that must occur in name, class, site or a label.
    pub search: String,
    /// Only these, where given.
    pub health: Option<Health>,
    /// Rows to skip.
    pub offset: usize,
    /// Rows at most; 0 for all.
    pub limit: usize,
}

/// A page of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// Of the whole fleet, by health.
    pub counts: BTreeMap<Health, usize>,
    /// Devices whose link is up.
    pub connected: usize,
    /// Devices that match the filter, on all pages.
    pub matched: usize,
    /// This page, by name.
    pub devices: Vec<Device>,
}

impl Fleet {
    /// All devices, whatever the filter.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }
}

/// A generation that a device has told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenGeneration {
    /// Short id.
    pub id: String,
    /// What it was rendered from, where told.
    pub revision: Option<Revision>,
    /// First told, by the device's clock.
    pub first_seen: Timestamp,
    /// Last told, by the device's clock.
    pub last_seen: Timestamp,
    /// `current`, `lastGood`, `onTrial`, `failed`, `superseded`.
    pub outcome: String,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A new session of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its address as the hub sees it.
    pub address: String,
    /// Version of its agent.
    pub agent: String,
}

/// Names a session, so that the end of an old one does not close a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(i64);

/// What was last received from a device; kept in memory and written down now and then, since losing it only
/// makes a device look silent for longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    at: Timestamp,
    backlog: Option<u64>,
    dirty: bool,
}

pub(super) type SeenTable = HashMap<DeviceName, Seen>;

/// The columns that health and filters rest on.
struct Light {
    name: DeviceName,
    class: String,
    site: String,
    labels: String,
    revoked: bool,
    phase: Option<String>,
    last_seen: Option<Timestamp>,
    session: bool,
}

fn read_light(row: &Row<'_>) -> Result<Light, StoreError> {
    Ok(Light {
        name: convert::name("device name", &row.get::<_, String>(0)?)?,
        class: row.get(1)?,
        site: row.get(2)?,
        labels: row.get(3)?,
        revoked: row.get::<_, Option<i64>>(4)?.is_some(),
        phase: row.get(5)?,
        last_seen: row.get::<_, Option<i64>>(6)?.map(convert::time),
        session: row.get::<_, Option<i64>>(7)?.is_some(),
    })
}

impl Light {
    fn judge(&self, seen: &SeenTable, now: Timestamp, store: &Store) -> (Health, bool) {
        let last_seen = seen.get(&self.name).map(|s| s.at).max(self.last_seen);
        let facts = health::Facts {
            revoked: self.revoked,
            phase: self.phase.as_deref(),
            last_seen,
            session: self.session,
        };
        let up = self.session && last_seen.is_some_and(|at| store.options.fresh(at, now));
        (health::judge(&facts, now, &store.options).0, up)
    }

    fn matches(&self, text: &str) -> bool {
        [self.name.as_str(), &self.class, &self.site, &self.labels]
            .iter()
            .any(|field| field.to_lowercase().contains(text))
    }
}

const DEVICE: &str = "SELECT name, class, site, labels, enrolled_at, revoked_at, revoked_why, last_seen,
  session, session_since, address, agent, backlog, phase, status, status_at, status_epoch, status_sequence
  FROM devices WHERE name = ?1";

fn read_device(
    row: &Row<'_>,
    seen: Option<Seen>,
    now: Timestamp,
    store: &Store,
) -> Result<Device, StoreError> {
    let phase: Option<String> = row.get(13)?;
    let written = row.get::<_, Option<i64>>(7)?.map(convert::time);
    let last_seen = seen.map(|s| s.at).max(written);
    let session: Option<i64> = row.get(8)?;
    let revoked = row.get::<_, Option<i64>>(5)?.map(convert::time);
    let status = match row.get::<_, Option<String>>(14)? {
        None => None,
        Some(text) => Some(HeldStatus {
            epoch: row.get::<_, Option<i64>>(16)?.unwrap_or(0).cast_unsigned(),
            sequence: convert::uint(row.get::<_, Option<i64>>(17)?.unwrap_or(0)),
            received_at: convert::time(row.get::<_, Option<i64>>(15)?.unwrap_or(0)),
            status: convert::from_json::<Status>("status", &text)?,
        }),
    };
    let facts = health::Facts {
        revoked: revoked.is_some(),
        phase: phase.as_deref(),
        last_seen,
        session: session.is_some(),
    };
    let (health, said) = health::judge(&facts, now, &store.options);
    let (reason, message) = said
        .map(|(reason, message)| (reason.to_owned(), message))
        .unwrap_or_else(|| own_words(health, status.as_ref()));
    let fresh = last_seen.is_some_and(|at| store.options.fresh(at, now));
    let since = row.get::<_, Option<i64>>(9)?.map(convert::time);
    let link = match (since, last_seen) {
        (Some(since), _) if session.is_some() && fresh => Link::Up {
            since,
            address: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
        },
        (Some(_), _) if session.is_some() => Link::Silent,
        (_, Some(_)) => Link::Down,
        (_, None) => Link::Never,
    };
    Ok(Device {
        name: convert::name("device name", &row.get::<_, String>(0)?)?,
        class: convert::name("class name", &row.get::<_, String>(1)?)?,
        site: row.get(2)?,
        labels: convert::from_json("labels", &row.get::<_, String>(3)?)?,
        enrolled_at: convert::time(row.get(4)?),
        revoked: revoked.zip(row.get::<_, Option<String>>(6)?),
        last_seen,
        link,
        agent: row.get(11)?,
        backlog: match seen.and_then(|s| s.backlog) {
            Some(backlog) => Some(backlog),
            None => row.get::<_, Option<i64>>(12)?.map(convert::uint),
        },
        health,
        reason,
        message,
        status,
    })
}

/// The device's own account: its `Ready` condition.
fn own_words(health: Health, status: Option<&HeldStatus>) -> (String, String) {
    status
        .and_then(|held| held.status.conditions.iter().find(|c| c.kind == "Ready"))
        .map(|c| (c.reason.clone(), c.message.clone()))
        .unwrap_or_else(|| (health.word().to_owned(), String::new()))
}

fn one(
    sql: &Connection,
    name: &DeviceName,
    now: Timestamp,
    store: &Store,
) -> Result<Option<Device>, StoreError> {
    let seen = store.seen_of(name);
    let mut statement = sql.prepare_cached(DEVICE)?;
    let mut rows = statement.query([name.as_str()])?;
    rows.next()?
        .map(|row| read_device(row, seen, now, store))
        .transpose()
}

fn fleet(
    sql: &Connection,
    filter: &DeviceFilter,
    now: Timestamp,
    store: &Store,
) -> Result<Fleet, StoreError> {
    let mut statement = sql.prepare_cached(
        "SELECT name, class, site, labels, revoked_at, phase, last_seen, session FROM devices ORDER BY name",
    )?;
    let rows = collect(statement.query([])?, read_light)?;
    let text = filter.search.trim().to_lowercase();
    let mut out = Fleet::default();
    let mut wanted = Vec::new();
    {
        let seen = store.seen_table.lock().unwrap_or_else(PoisonError::into_inner);
        for row in &rows {
            let (health, up) = row.judge(&seen, now, store);
            *out.counts.entry(health).or_default() += 1;
            out.connected += usize::from(up);
            if filter.health.is_none_or(|wanted| wanted == health) && (text.is_empty() || row.matches(&text))
            {
                wanted.push(&row.name);
            }
        }
    }
    out.matched = wanted.len();
    let limit = if filter.limit == 0 {
        usize::MAX
    } else {
        filter.limit
    };
    for name in wanted.into_iter().skip(filter.offset).take(limit) {
        out.devices.extend(one(sql, name, now, store)?);
    }
    Ok(out)
}

fn generations(sql: &Connection, name: &DeviceName) -> Result<Vec<SeenGeneration>, StoreError> {
    // What the newest status no longer names has been replaced, unless it had failed before.
    let mut statement = sql.prepare_cached(
        "SELECT g.id, g.revision, g.first_seen, g.last_seen,
           iif(g.outcome = 'failed' OR (g.ordinal, g.sequence) = (d.status_ordinal, d.status_sequence),
               g.outcome, 'superseded'), g.reason
         FROM generations g JOIN devices d ON d.name = g.device WHERE g.device = ?1
         ORDER BY g.last_seen DESC, g.first_seen DESC",
    )?;
    collect(statement.query([name.as_str()])?, |row| {
        Ok(SeenGeneration {
            id: row.get(0)?,
            revision: row
                .get::<_, Option<String>>(1)?
                .map(|text| convert::from_json("revision", &text))
                .transpose()?,
            first_seen: convert::time(row.get(2)?),
            last_seen: convert::time(row.get(3)?),
            outcome: row.get(4)?,
            reason: row.get(5)?,
        })
    })
}

/// Refuses a name that is not enrolled, or shut out.
pub(super) fn must_be_enrolled(tx: &Tx<'_>, name: &DeviceName) -> Result<(), StoreError> {
    let revoked: Option<Option<i64>> = tx
        .sql
        .prepare_cached("SELECT revoked_at FROM devices WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    match revoked {
        None => Err(StoreError::NoSuchDevice(name.clone())),
        Some(Some(_)) => Err(StoreError::Revoked(name.clone())),
        Some(None) => Ok(()),
    }
}

impl Store {
    /// One device; `None` where no device has this name.
    pub async fn device(&self, name: &DeviceName) -> Result<Option<Device>, StoreError> {
        let (store, name, now) = (self.clone(), name.clone(), self.options.clock.now());
        self.front.read(move |sql| one(sql, &name, now, &store)).await
    }

    /// A page of the fleet by name, and the counts of all of it.
    pub async fn fleet(&self, filter: DeviceFilter) -> Result<Fleet, StoreError> {
        let (store, now) = (self.clone(), self.options.clock.now());
        self.front.read(move |sql| fleet(sql, &filter, now, &store)).await
    }

    /// Generations that a device has told of, last told first.
    pub async fn generations(&self, name: &DeviceName) -> Result<Vec<SeenGeneration>, StoreError> {
        let name = name.clone();
        self.front.read(move |sql| generations(sql, &name)).await
    }

    /// Notes that a session was opened; an older one of the same device counts as closed.
    pub async fn session_opened(
        &self,
        name: &DeviceName,
        session: NewSession,
    ) -> Result<SessionId, StoreError> {
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let owned = name.clone();
        self.front
            .write(move |tx| {
                must_be_enrolled(tx, &owned)?;
                tx.sql
                    .prepare_cached(
                        "UPDATE devices SET session = ?2, session_since = ?3, last_seen = ?3, address = ?4, agent = ?5
                         WHERE name = ?1",
                    )?
                    .execute(params![
                        owned.as_str(),
                        id.0,
                        convert::millis(tx.now),
                        session.address,
                        session.agent
                    ])?;
                tx.tell(Change::Device(owned));
                Ok(())
            })
            .await?;
        self.seen(name, None);
        Ok(id)
    }

    /// Notes that a session has ended; does nothing where a newer one is open.
    pub async fn session_closed(&self, name: &DeviceName, session: SessionId) -> Result<(), StoreError> {
        let seen = self.seen_of(name);
        let name = name.clone();
        self.front
            .write(move |tx| {
                let closed = tx
                    .sql
                    .prepare_cached(
                        "UPDATE devices SET session = NULL, session_since = NULL,
                           last_seen = max(coalesce(last_seen, 0), ?3), backlog = coalesce(?4, backlog)
                         WHERE name = ?1 AND session = ?2",
                    )?
                    .execute(params![
                        name.as_str(),
                        session.0,
                        convert::millis(seen.map_or(tx.now, |s| s.at)),
                        seen.and_then(|s| s.backlog).map(convert::int)
                    ])?;
                if closed > 0 {
                    tx.tell(Change::Device(name));
                }
                Ok(())
            })
            .await
    }

    /// Notes that something was heard of a device, and how much waits in its spool where it said so.
    ///
    /// Costs no disk write of its own: written down with other rows every [`Options::flush_seen`](super::Options).
    pub fn seen(&self, name: &DeviceName, backlog: Option<u64>) {
        let now = self.options.clock.now();
        let due = {
            let mut table = self.seen_table.lock().unwrap_or_else(PoisonError::into_inner);
            let held = table.entry(name.clone()).or_insert(Seen {
                at: now,
                backlog: None,
                dirty: true,
            });
            let moved = backlog.is_some() && held.backlog != backlog;
            // A device that was silent is heard again: that changes its health.
            let back = !self.options.fresh(held.at, now);
            *held = Seen {
                at: now,
                backlog: backlog.or(held.backlog),
                dirty: true,
            };
            if moved || back {
                self.front.tell(Change::Device(name.clone()));
            }
            self.flush_is_due(now)
        };
        if due {
            self.flush_seen();
        }
    }

    fn flush_is_due(&self, now: Timestamp) -> bool {
        let period = i64::try_from(self.options.flush_seen.as_millis()).unwrap_or(i64::MAX);
        let last = self.flushed_at.load(Ordering::Relaxed);
        let now = convert::millis(now);
        now.abs_diff(last) >= period.unsigned_abs()
            && self
                .flushed_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn flush_seen(&self) {
        let dirty: Vec<(DeviceName, Seen)> = {
            let mut table = self.seen_table.lock().unwrap_or_else(PoisonError::into_inner);
            let moved = table.iter_mut().filter(|(_, seen)| seen.dirty);
            moved
                .map(|(name, seen)| {
                    seen.dirty = false;
                    (name.clone(), *seen)
                })
                .collect()
        };
        // Where the queue is full the next flush carries newer times anyway.
        self.front.try_write(move |tx| {
            let mut update = tx.sql.prepare_cached(
                "UPDATE devices SET last_seen = max(coalesce(last_seen, 0), ?2), backlog = coalesce(?3, backlog)
                 WHERE name = ?1",
            )?;
            for (name, seen) in dirty {
                update.execute(params![
                    name.as_str(),
                    convert::millis(seen.at),
                    seen.backlog.map(convert::int)
                ])?;
            }
            Ok(())
        });
    }

    fn seen_of(&self, name: &DeviceName) -> Option<Seen> {
        self.seen_table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied()
    }

    /// Shuts a device out: it, and every certificate that it holds. Its history stays.
    pub async fn revoke_device(&self, name: &DeviceName, by: &str, why: &str) -> Result<(), StoreError> {
        let (name, by, why) = (name.clone(), by.to_owned(), why.to_owned());
        self.front
            .write(move |tx| {
                must_be_enrolled(tx, &name)?;
                let now = convert::millis(tx.now);
                tx.sql.execute(
                    "UPDATE devices SET revoked_at = ?2, revoked_why = ?3, session = NULL, session_since = NULL
                     WHERE name = ?1",
                    params![name.as_str(), now, why],
                )?;
                tx.sql.execute(
                    "UPDATE certificates SET revoked_at = ?2 WHERE device = ?1 AND revoked_at IS NULL",
                    params![name.as_str(), now],
                )?;
                tx.tell(Change::Device(name.clone()));
                let act = Act {
                    who: by,
                    action: "device.revoke".into(),
                    target: name.to_string(),
                    outcome: "ok".into(),
                    detail: why,
                };
                audit::append(tx, act)
            })
            .await
    }
}
