//! The proof, device by device: what a device says became of its records, held against what the hub has of them.
//!
//! A session's frames are taken in order, and a device accounts for what the hub acknowledged: so at the moment when an
//! account is taken, the hub must have every record that the device counts as delivered. What it lacks was lost here:
//! by a restore from a backup, say. What it has beyond that came, and its acknowledgement did not.

use super::front::Tx;
use super::{Ranges, Store, StoreError, convert, devices, records};
use jiff::Timestamp;
use model::DeviceName;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wire::api::{Proof, ProofRow};
use wire::frame::{Accounts, StreamAccount};

/// Streams that one device may account for.
const MOST_STREAMS: usize = 256;

/// A verdict as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    rows: Vec<ProofRow>,
    waiting_bytes: u64,
    seconds_left: Option<u64>,
}

impl Stored {
    fn proof(self, at: Timestamp) -> Proof {
        Proof {
            at,
            missing: self.rows.iter().map(|row| row.missing).sum(),
            unbalanced: self
                .rows
                .iter()
                .filter(|row| !row.balanced)
                .map(|row| row.stream.clone())
                .collect(),
            waiting_bytes: self.waiting_bytes,
            seconds_left: self.seconds_left,
            streams: self.rows,
        }
    }
}

/// One stream's account against the numbers that the hub holds.
fn judge(told: &StreamAccount, held: &Ranges, lost: &Ranges) -> ProofRow {
    let upto = |ranges: &Ranges| ranges.count_upto(told.upto);
    let here = upto(held);
    ProofRow {
        stream: told.stream.clone(),
        appended: told.appended,
        acked: told.acked,
        gone: told.gone,
        waiting: told.waiting,
        held: here,
        given_up: upto(lost),
        missing: told.acked.saturating_sub(here),
        balanced: u128::from(told.appended)
            == [told.acked, told.gone, told.lapsed, told.waiting]
                .map(u128::from)
                .iter()
                .sum(),
    }
}

impl Store {
    /// Takes a device's accounts, judges them against what is held, and keeps the verdict.
    ///
    /// # Errors
    /// No such device, a stream's name that cannot be, or the store fails.
    pub async fn take_accounts(&self, device: &DeviceName, accounts: Accounts) -> Result<(), StoreError> {
        let sender = device.clone();
        self.front.write(move |tx| take(tx, &sender, &accounts)).await
    }

    /// The newest verdict on each device that has one; of `device` only where given.
    pub async fn proofs(
        &self,
        device: Option<&DeviceName>,
    ) -> Result<BTreeMap<DeviceName, Proof>, StoreError> {
        let device = device.cloned();
        self.front.read(move |sql| read(sql, device.as_ref())).await
    }
}

fn take(tx: &mut Tx<'_>, device: &DeviceName, accounts: &Accounts) -> Result<(), StoreError> {
    devices::must_be_enrolled(tx, device)?;
    let mut rows = Vec::new();
    for told in accounts.streams.iter().take(MOST_STREAMS) {
        let cursor = records::cursor_held(tx, device, &told.stream, accounts.epoch)?;
        let nothing = Ranges::default();
        rows.push(match &cursor {
            Some(cursor) => judge(told, &cursor.held, &cursor.lost),
            None => judge(told, &nothing, &nothing),
        });
    }
    let stored = Stored {
        rows,
        waiting_bytes: accounts.waiting_bytes,
        seconds_left: accounts.seconds_left,
    };
    tx.sql
        .prepare_cached(
            "INSERT INTO accounts (device, received_at, verdict) VALUES (?1, ?2, ?3)
             ON CONFLICT (device) DO UPDATE SET received_at = excluded.received_at, verdict = excluded.verdict",
        )?
        .execute(params![
            device.as_str(),
            convert::millis(tx.now),
            convert::to_json("verdict", &stored)?
        ])?;
    tx.tell(super::Change::Device(device.clone()));
    Ok(())
}

fn read(sql: &Connection, device: Option<&DeviceName>) -> Result<BTreeMap<DeviceName, Proof>, StoreError> {
    let mut proofs = BTreeMap::new();
    let mut statement = sql.prepare_cached(
        "SELECT device, received_at, verdict FROM accounts WHERE ?1 IS NULL OR device = ?1",
    )?;
    let mut rows = statement.query([device.map(DeviceName::as_str)])?;
    while let Some(row) = rows.next()? {
        let name = convert::name("device name", &row.get::<_, String>(0)?)?;
        let stored: Stored = convert::from_json("verdict", &row.get::<_, String>(2)?)?;
        proofs.insert(name, stored.proof(convert::time(row.get(1)?)));
    }
    Ok(proofs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        pairs.iter().for_each(|(low, high)| ranges.insert(*low, *high));
        ranges
    }

    #[test]
    fn what_the_hub_lacks_is_a_difference_and_what_it_has_beyond_is_none() {
        let told = StreamAccount {
            stream: "events".into(),
            upto: 10,
            acked: 8,
            gone: 1,
            unused: 1,
            appended: 13,
            lapsed: 1,
            waiting: 3,
        };
        let fine = judge(&told, &ranges(&[(1, 8), (12, 14)]), &ranges(&[(9, 9)]));
        assert_eq!(
            (fine.missing, fine.held, fine.given_up, fine.balanced),
            (0, 8, 1, true)
        );
        // It came, and then the device gave it up before it knew.
        assert_eq!(judge(&told, &ranges(&[(1, 9)]), &ranges(&[])).missing, 0);
        assert_eq!(judge(&told, &ranges(&[(1, 2), (5, 8)]), &ranges(&[])).missing, 2);
        let wrong = StreamAccount { appended: 8, ..told };
        assert!(!judge(&wrong, &ranges(&[(1, 8)]), &ranges(&[])).balanced);
    }
}
