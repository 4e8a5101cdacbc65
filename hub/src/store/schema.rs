//! The tables, and how an older database becomes a current one.

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// One step per version; a step that was shipped is never changed.
///
/// Times are milliseconds since 1970. `epoch` holds the bits of a `u64`; `ordinal` is the order in which the hub
/// first saw a stream's epochs, since epochs themselves have no order.
const STEPS: &[&str] = &[
    "
CREATE TABLE devices (
  name TEXT PRIMARY KEY,
  class TEXT NOT NULL,
  site TEXT NOT NULL,
  labels TEXT NOT NULL,
  enrolled_at INTEGER NOT NULL,
  token INTEGER,
  revoked_at INTEGER,
  revoked_why TEXT,
  last_seen INTEGER,
  session INTEGER,
  session_since INTEGER,
  address TEXT,
  agent TEXT,
  backlog INTEGER,
  phase TEXT,
  status TEXT,
  status_at INTEGER,
  status_epoch INTEGER,
  status_ordinal INTEGER,
  status_sequence INTEGER
) STRICT;

CREATE TABLE tokens (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hash TEXT NOT NULL UNIQUE,
  class TEXT,
  site TEXT NOT NULL,
  labels TEXT NOT NULL,
  replaces INTEGER NOT NULL,
  uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE certificates (
  serial TEXT PRIMARY KEY,
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  issued_at INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
CREATE INDEX certificates_of_device ON certificates (device);

CREATE TABLE cursors (
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  stream TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  upto INTEGER NOT NULL,
  held TEXT NOT NULL,
  lost TEXT NOT NULL,
  duplicates INTEGER NOT NULL,
  set_aside INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (device, stream, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  stream TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (device, stream, ordinal, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE set_aside (
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  stream TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  why TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (device, stream, ordinal, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  ordinal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  time INTEGER NOT NULL,
  severity TEXT NOT NULL,
  reason TEXT NOT NULL,
  about TEXT NOT NULL,
  message TEXT NOT NULL,
  generation TEXT,
  PRIMARY KEY (device, ordinal, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_arrival ON events (received_at);

CREATE TABLE generations (
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  id TEXT NOT NULL,
  revision TEXT,
  first_seen INTEGER NOT NULL,
  last_seen INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT,
  ordinal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (device, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL REFERENCES devices (name) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  signed BLOB NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  delivered_at INTEGER
) STRICT;
CREATE INDEX intents_of_device ON intents (device, id);

CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY,
  time INTEGER NOT NULL,
  who TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;

CREATE TABLE people (
  name TEXT PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER
) STRICT;

CREATE TABLE passes (
  hash TEXT PRIMARY KEY,
  person TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
",
    "
ALTER TABLE cursors ADD COLUMN unused TEXT NOT NULL DEFAULT '[]';
",
    "
CREATE TABLE accounts (
  device TEXT PRIMARY KEY REFERENCES devices (name) ON DELETE CASCADE,
  received_at INTEGER NOT NULL,
  verdict TEXT NOT NULL
) STRICT, WITHOUT ROWID;
",
    // `id` is never given twice: forwarders and files count by it. `low` and `high` are nanoseconds since 1970.
    "
CREATE TABLE staged (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL,
  stream TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  filed INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX staged_of_stream ON staged (stream, id);
CREATE INDEX staged_unfiled ON staged (stream, id, received_at, bytes) WHERE filed = 0;

-- How far each log file of a device is here: a device that crashed gives entries again, in other records.
CREATE TABLE log_places (
  device TEXT NOT NULL,
  file TEXT NOT NULL,
  upto INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (device, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX log_places_by_age ON log_places (updated_at);

CREATE TABLE files (
  name TEXT PRIMARY KEY,
  stream TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  rows INTEGER NOT NULL,
  low INTEGER NOT NULL,
  high INTEGER NOT NULL,
  received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE forwarders (
  name TEXT PRIMARY KEY,
  streams TEXT NOT NULL,
  upto INTEGER NOT NULL,
  sent INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  set_aside INTEGER NOT NULL,
  last_sent_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE forward_aside (
  forwarder TEXT NOT NULL REFERENCES forwarders (name) ON DELETE CASCADE,
  id INTEGER NOT NULL,
  device TEXT NOT NULL,
  stream TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  at INTEGER NOT NULL,
  why TEXT NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (forwarder, id)
) STRICT, WITHOUT ROWID;
",
    // `admissions` holds what a device was told last, and by which intent.
    "
CREATE TABLE rollout_policy (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  policy TEXT NOT NULL,
  set_by TEXT NOT NULL,
  set_at INTEGER NOT NULL
) STRICT;

CREATE TABLE rollouts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL,
  rollout TEXT NOT NULL
) STRICT;

CREATE TABLE rollout_members (
  rollout INTEGER NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
  device TEXT NOT NULL,
  member TEXT NOT NULL,
  PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE admissions (
  device TEXT PRIMARY KEY REFERENCES devices (name) ON DELETE CASCADE,
  admission TEXT NOT NULL,
  intent INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
];

/// The newest schema that this version writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Brings `sql` to [`VERSION`], all steps in one transaction.
pub(super) fn migrate(sql: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found)
        .ok()
        .filter(|done| *done <= STEPS.len())
        .ok_or(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        })?;
    for step in &STEPS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}
