//! The audit trail: who told the hub what, each row chained to the one before by its hash.

use super::front::Tx;
use super::{Change, Store, StoreError, convert};
use jiff::Timestamp;
use model::Digest;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

/// What is to be written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// Person, device or `hub`.
    pub who: String,
    /// `token.create`, `device.enrol`, `device.revoke`, `login`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// `ok`, or why it was refused.
    pub outcome: String,
    /// Anything more, as JSON or text; never a secret.
    pub detail: String,
}

/// A row of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRow {
    /// 1 for the first, without gaps.
    pub sequence: u64,
    /// The hub's time.
    pub time: Timestamp,
    /// See [`Act::who`].
    pub who: String,
    /// See [`Act::action`].
    pub action: String,
    /// See [`Act::target`].
    pub target: String,
    /// See [`Act::outcome`].
    pub outcome: String,
    /// See [`Act::detail`].
    pub detail: String,
    /// Hash of the row before; empty for the first.
    pub previous: String,
    /// Hash of this row and, through `previous`, of all before it.
    pub hash: String,
}

impl AuditRow {
    /// The hash that this row must have.
    fn expected_hash(&self) -> String {
        let mut text = Vec::new();
        let sequence = self.sequence.to_string();
        let time = self.time.as_millisecond().to_string();
        // Each field with its length before it, so that no two rows are the same bytes.
        for field in [
            &self.previous,
            &sequence,
            &time,
            &self.who,
            &self.action,
            &self.target,
            &self.outcome,
            &self.detail,
        ] {
            text.extend_from_slice(&(field.len() as u64).to_be_bytes());
            text.extend_from_slice(field.as_bytes());
        }
        Digest::of(&text).to_string()
    }
}

/// What a check of the whole trail found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditCheck {
    /// Every row follows from the one before.
    Whole {
        /// How many rows.
        rows: u64,
        /// Hash of the last; whoever noted it down can tell that rows were cut off since.
        head: String,
    },
    /// The trail was changed.
    Broken {
        /// The first row that does not follow.
        sequence: u64,
        /// In what way.
        why: String,
    },
}

/// Appends a row within `tx`, so that an act and its trace are one.
pub(super) fn append(tx: &mut Tx<'_>, act: Act) -> Result<(), StoreError> {
    let last: Option<(i64, String)> = tx
        .sql
        .prepare_cached("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (sequence, previous) = last.unwrap_or_default();
    let mut row = AuditRow {
        sequence: convert::uint(sequence) + 1,
        time: tx.now,
        who: act.who,
        action: act.action,
        target: act.target,
        outcome: act.outcome,
        detail: act.detail,
        previous,
        hash: String::new(),
    };
    row.hash = row.expected_hash();
    tx.sql
        .prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            convert::int(row.sequence),
            row.time.as_millisecond(),
            row.who,
            row.action,
            row.target,
            row.outcome,
            row.detail,
            row.previous,
            row.hash
        ])?;
    tx.tell(Change::Audit);
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        sequence: convert::uint(row.get(0)?),
        time: convert::time(row.get(1)?),
        who: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        outcome: row.get(5)?,
        detail: row.get(6)?,
        previous: row.get(7)?,
        hash: row.get(8)?,
    })
}

/// Follows the chain from the row after `count`, whose hash is `head`.
fn follow(sql: &Connection, mut count: u64, mut head: String) -> Result<AuditCheck, StoreError> {
    let mut statement = sql.prepare_cached("SELECT * FROM audit WHERE sequence > ?1 ORDER BY sequence")?;
    let mut rows = statement.query_map([convert::int(count)], read_row)?;
    while let Some(row) = rows.next().transpose()? {
        let broken = |why: &str| AuditCheck::Broken {
            sequence: row.sequence,
            why: why.to_owned(),
        };
        if row.sequence != count + 1 {
            return Ok(broken("rows before it are missing"));
        }
        if row.previous != head {
            return Ok(broken("it does not name the row before it"));
        }
        if row.hash != row.expected_hash() {
            return Ok(broken("its content does not match its hash"));
        }
        count = row.sequence;
        head = row.hash;
    }
    Ok(AuditCheck::Whole { rows: count, head })
}

impl Store {
    /// Writes an act down; returns once it is durable.
    pub async fn audit(&self, act: Act) -> Result<(), StoreError> {
        self.front.write(move |tx| append(tx, act)).await
    }

    /// The newest rows first; those before `before` where given.
    pub async fn audit_rows(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT * FROM audit WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2",
                )?;
                let before = before.map_or(i64::MAX, convert::int);
                let rows = statement.query_map(params![before, convert::limit(limit)], read_row)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Recomputes the whole chain.
    pub async fn check_audit(&self) -> Result<AuditCheck, StoreError> {
        self.front.read(|sql| follow(sql, 0, String::new())).await
    }

    /// Recomputes the chain after what an earlier check found whole: for pages that look again and again.
    pub async fn check_audit_since(&self, earlier: &AuditCheck) -> Result<AuditCheck, StoreError> {
        match earlier.clone() {
            AuditCheck::Whole { rows, head } => self.front.read(move |sql| follow(sql, rows, head)).await,
            broken @ AuditCheck::Broken { .. } => Ok(broken),
        }
    }
}
