//! Roll-outs, their policy, and what each device was admitted to.

use super::front::Tx;
use super::records::collect;
use super::{Act, Change, Store, StoreError, audit, convert};
use jiff::Timestamp;
use model::{Admission, DeviceName, Member, Revision, Rollout, RolloutPolicy, RolloutState};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeMap;

/// Ended roll-outs that are kept, newest.
const KEPT: i64 = 100;

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPolicy {
    /// See [`RolloutPolicy`].
    pub policy: RolloutPolicy,
    /// Who set it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What a device was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// See [`Admission`].
    pub admission: Admission,
    /// Whether the device has it, or may still get it: an intent that nobody took in its time is void.
    pub stands: bool,
}

impl Store {
    /// How revisions are rolled out; devices follow their source freely where there is none.
    pub async fn rollout_policy(&self) -> Result<Option<HeldPolicy>, StoreError> {
        self.front
            .read(|sql| {
                let row = sql
                    .prepare_cached("SELECT policy, set_by, set_at FROM rollout_policy")?
                    .query_row([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
                    .optional()?;
                row.map(|(policy, by, at)| {
                    Ok(HeldPolicy {
                        policy: convert::from_json("roll-out policy", &policy)?,
                        by,
                        at: convert::time(at),
                    })
                })
                .transpose()
            })
            .await
    }

    /// Sets or removes the policy. A roll-out under way keeps the one that it began with; without any it ends.
    pub async fn set_rollout_policy(
        &self,
        policy: Option<RolloutPolicy>,
        by: &str,
    ) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.front
            .write(move |tx| {
                let detail = match &policy {
                    Some(policy) => {
                        let json = convert::to_json("roll-out policy", policy)?;
                        tx.sql.execute(
                            "INSERT INTO rollout_policy VALUES (1, ?1, ?2, ?3)
                             ON CONFLICT (one) DO UPDATE SET policy = excluded.policy, set_by = excluded.set_by,
                               set_at = excluded.set_at",
                            params![json, by, convert::millis(tx.now)],
                        )?;
                        json
                    }
                    None => {
                        tx.sql.execute("DELETE FROM rollout_policy", [])?;
                        if let Some(running) = running(tx.sql)? {
                            end(tx, running, RolloutState::Aborted)?;
                        }
                        "none".to_owned()
                    }
                };
                tell(tx, &by, "rollout.policy", "fleet".to_owned(), detail)
            })
            .await
    }

    /// The newest first, with their members.
    pub async fn rollouts(&self, limit: usize) -> Result<Vec<Rollout>, StoreError> {
        self.front
            .read(move |sql| {
                let mut statement =
                    sql.prepare_cached("SELECT rollout FROM rollouts ORDER BY id DESC LIMIT ?1")?;
                let heads = collect(statement.query([convert::limit(limit)])?, |row| Ok(row.get(0)?))?;
                heads.iter().map(|head: &String| whole(sql, head)).collect()
            })
            .await
    }

    /// One of them.
    pub async fn rollout(&self, id: u64) -> Result<Option<Rollout>, StoreError> {
        self.front.read(move |sql| find(sql, id)).await
    }

    /// The newest one that is done: what a device that was never admitted to anything may run.
    pub async fn done_rollout(&self) -> Result<Option<Rollout>, StoreError> {
        self.front
            .read(|sql| {
                sql.prepare_cached(
                    "SELECT rollout FROM rollouts WHERE state = 'Done' ORDER BY id DESC LIMIT 1",
                )?
                .query_row([], |row| row.get::<_, String>(0))
                .optional()?
                .map(|head| whole(sql, &head))
                .transpose()
            })
            .await
    }

    /// Begins one; one that is under way is superseded.
    pub async fn begin_rollout(
        &self,
        revision: Revision,
        policy: RolloutPolicy,
        by: &str,
    ) -> Result<u64, StoreError> {
        let by = by.to_owned();
        self.front
            .write(move |tx| {
                if let Some(running) = running(tx.sql)? {
                    end(tx, running, RolloutState::Superseded)?;
                }
                tx.sql
                    .execute("INSERT INTO rollouts (state, rollout) VALUES ('', '')", [])?;
                let id = convert::uint(tx.sql.last_insert_rowid());
                let begun = Rollout {
                    id,
                    revision,
                    policy,
                    state: RolloutState::Running,
                    stage: 0,
                    by: by.clone(),
                    created_at: tx.now,
                    changed_at: tx.now,
                    members: BTreeMap::new(),
                };
                put(tx, &begun)?;
                tx.sql.execute(
                    "DELETE FROM rollouts WHERE id <= ?1",
                    [convert::int(id).saturating_sub(KEPT)],
                )?;
                tell(
                    tx,
                    &by,
                    "rollout.begin",
                    format!("rollout/{id}"),
                    begun.revision.to_string(),
                )?;
                Ok(id)
            })
            .await
    }

    /// Keeps what was made of a roll-out, and says so in the audit trail where the state is another one, as done by `by`.
    /// Gives `false`, and keeps nothing, where the roll-out is no longer as it was `before`: look at it again.
    pub async fn save_rollout(&self, before: Rollout, after: Rollout, by: &str) -> Result<bool, StoreError> {
        let by = by.to_owned();
        self.front
            .write(move |tx| {
                if find(tx.sql, before.id)?.as_ref() != Some(&before) {
                    return Ok(false);
                }
                put(tx, &after)?;
                for (device, member) in &after.members {
                    if before.members.get(device) != Some(member) {
                        tx.sql
                            .prepare_cached("INSERT OR REPLACE INTO rollout_members VALUES (?1, ?2, ?3)")?
                            .execute(params![
                                convert::int(after.id),
                                device.as_str(),
                                convert::to_json("member", member)?
                            ])?;
                    }
                }
                for gone in before
                    .members
                    .keys()
                    .filter(|device| !after.members.contains_key(*device))
                {
                    tx.sql.execute(
                        "DELETE FROM rollout_members WHERE rollout = ?1 AND device = ?2",
                        params![convert::int(after.id), gone.as_str()],
                    )?;
                }
                if before.state == after.state {
                    tx.tell(Change::Rollouts);
                    return Ok(true);
                }
                let detail = match &after.state {
                    RolloutState::Halted { why } => why.clone(),
                    _ => after.revision.to_string(),
                };
                let action = format!("rollout.{}", after.state.word().to_lowercase());
                tell(tx, &by, &action, format!("rollout/{}", after.id), detail)?;
                Ok(true)
            })
            .await
    }

    /// What each device was told last; one that was never told anything is not among them.
    pub async fn admissions(&self) -> Result<BTreeMap<DeviceName, Admitted>, StoreError> {
        let now = convert::millis(self.options.clock.now());
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT a.device, a.admission, i.delivered_at IS NOT NULL OR i.expires_at > ?1
                     FROM admissions a LEFT JOIN intents i ON i.id = a.intent",
                )?;
                let read = |row: &rusqlite::Row<'_>| {
                    let device = convert::name("device name", &row.get::<_, String>(0)?)?;
                    let admitted = Admitted {
                        admission: convert::from_json("admission", &row.get::<_, String>(1)?)?,
                        stands: row.get::<_, Option<bool>>(2)?.unwrap_or(false),
                    };
                    Ok((device, admitted))
                };
                Ok(collect(statement.query([now])?, read)?.into_iter().collect())
            })
            .await
    }

    /// Remembers what a device was told.
    pub async fn set_admission(
        &self,
        device: &DeviceName,
        admission: &Admission,
        intent: u64,
    ) -> Result<(), StoreError> {
        let (device, json) = (device.clone(), convert::to_json("admission", admission)?);
        self.front
            .write(move |tx| {
                tx.sql
                    .prepare_cached("INSERT OR REPLACE INTO admissions VALUES (?1, ?2, ?3)")?
                    .execute(params![device.as_str(), json, convert::int(intent)])?;
                Ok(())
            })
            .await
    }
}

fn running(sql: &Connection) -> Result<Option<Rollout>, StoreError> {
    sql.prepare_cached("SELECT rollout FROM rollouts ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get::<_, String>(0))
        .optional()?
        .map(|head| whole(sql, &head))
        .transpose()
        .map(|newest| newest.filter(|rollout| !rollout.state.has_ended()))
}

fn find(sql: &Connection, id: u64) -> Result<Option<Rollout>, StoreError> {
    sql.prepare_cached("SELECT rollout FROM rollouts WHERE id = ?1")?
        .query_row([convert::int(id)], |row| row.get::<_, String>(0))
        .optional()?
        .map(|head| whole(sql, &head))
        .transpose()
}

/// The row's JSON, and its members from their own table.
fn whole(sql: &Connection, head: &str) -> Result<Rollout, StoreError> {
    let mut rollout: Rollout = convert::from_json("roll-out", head)?;
    let mut statement =
        sql.prepare_cached("SELECT device, member FROM rollout_members WHERE rollout = ?1")?;
    let read = |row: &rusqlite::Row<'_>| {
        let device: DeviceName = convert::name("device name", &row.get::<_, String>(0)?)?;
        let member: Member = convert::from_json("member", &row.get::<_, String>(1)?)?;
        Ok((device, member))
    };
    rollout.members = collect(statement.query([convert::int(rollout.id)])?, read)?
        .into_iter()
        .collect();
    Ok(rollout)
}

fn put(tx: &Tx<'_>, rollout: &Rollout) -> Result<(), StoreError> {
    let head = Rollout {
        members: BTreeMap::new(),
        ..rollout.clone()
    };
    tx.sql
        .prepare_cached("UPDATE rollouts SET state = ?2, rollout = ?3 WHERE id = ?1")?
        .execute(params![
            convert::int(rollout.id),
            rollout.state.word(),
            convert::to_json("roll-out", &head)?
        ])?;
    Ok(())
}

fn end(tx: &Tx<'_>, rollout: Rollout, state: RolloutState) -> Result<(), StoreError> {
    put(
        tx,
        &Rollout {
            state,
            changed_at: tx.now,
            ..rollout
        },
    )
}

fn tell(tx: &mut Tx<'_>, who: &str, action: &str, target: String, detail: String) -> Result<(), StoreError> {
    tx.tell(Change::Rollouts);
    let act = Act {
        who: who.to_owned(),
        action: action.to_owned(),
        target,
        outcome: "ok".into(),
        detail,
    };
    audit::append(tx, act)
}
