//! Signed statements to devices, numbered so that a device can refuse an older one.

use super::records::collect;
use super::{Act, Change, Store, StoreError, audit, convert, devices};
use jiff::Timestamp;
use model::DeviceName;
use rusqlite::{Row, params};
use serde::Serialize;

/// An intent as the hub remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Rises with every intent of this hub.
    pub id: u64,
    /// For which device.
    pub device: DeviceName,
    /// `pause`, `resume`, `move`, ...
    pub kind: String,
    /// As signed.
    #[serde(skip)]
    pub signed: Vec<u8>,
    /// Who stated it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Until when a device may follow it.
    pub expires_at: Timestamp,
    /// When the device said that it has it.
    pub delivered_at: Option<Timestamp>,
}

fn read_intent(row: &Row<'_>) -> Result<Intent, StoreError> {
    Ok(Intent {
        id: convert::uint(row.get(0)?),
        device: convert::name("device name", &row.get::<_, String>(1)?)?,
        kind: row.get(2)?,
        signed: row.get(3)?,
        created_by: row.get(4)?,
        created_at: convert::time(row.get(5)?),
        expires_at: convert::time(row.get(6)?),
        delivered_at: row.get::<_, Option<i64>>(7)?.map(convert::time),
    })
}

impl Store {
    /// Numbers an intent, lets `sign` make its bytes from that number, and keeps it. Returns the number.
    pub async fn state_intent(
        &self,
        device: &DeviceName,
        kind: &str,
        expires_at: Timestamp,
        by: &str,
        sign: impl FnOnce(u64) -> Vec<u8> + Send + 'static,
    ) -> Result<u64, StoreError> {
        let (device, kind, by) = (device.clone(), kind.to_owned(), by.to_owned());
        self.front
            .write(move |tx| {
                devices::must_be_enrolled(tx, &device)?;
                tx.sql.execute(
                    "INSERT INTO intents (device, kind, signed, created_by, created_at, expires_at)
                     VALUES (?1, ?2, x'', ?3, ?4, ?5)",
                    params![
                        device.as_str(),
                        kind,
                        by,
                        convert::millis(tx.now),
                        convert::millis(expires_at)
                    ],
                )?;
                let id = tx.sql.last_insert_rowid();
                tx.sql.execute(
                    "UPDATE intents SET signed = ?2 WHERE id = ?1",
                    params![id, sign(convert::uint(id))],
                )?;
                let act = Act {
                    who: by,
                    action: format!("intent.{kind}"),
                    target: device.to_string(),
                    outcome: "ok".into(),
                    detail: format!("intent/{id}, expires {expires_at}"),
                };
                audit::append(tx, act)?;
                tx.tell(Change::Device(device));
                Ok(convert::uint(id))
            })
            .await
    }

    /// Intents that a device has not got yet and may still follow, oldest first.
    pub async fn pending_intents(&self, device: &DeviceName) -> Result<Vec<Intent>, StoreError> {
        let (device, now) = (device.clone(), convert::millis(self.options.clock.now()));
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT * FROM intents WHERE device = ?1 AND delivered_at IS NULL AND expires_at > ?2 ORDER BY id",
                )?;
                collect(statement.query(params![device.as_str(), now])?, read_intent)
            })
            .await
    }

    /// The newest intents of a device first.
    pub async fn intents(&self, device: &DeviceName, limit: usize) -> Result<Vec<Intent>, StoreError> {
        let device = device.clone();
        self.front
            .read(move |sql| {
                let mut statement =
                    sql.prepare_cached("SELECT * FROM intents WHERE device = ?1 ORDER BY id DESC LIMIT ?2")?;
                collect(
                    statement.query(params![device.as_str(), convert::limit(limit)])?,
                    read_intent,
                )
            })
            .await
    }

    /// Notes that a device has an intent; the first time counts.
    pub async fn intent_delivered(&self, device: &DeviceName, id: u64) -> Result<(), StoreError> {
        let device = device.clone();
        self.front
            .write(move |tx| {
                tx.sql.execute(
                    "UPDATE intents SET delivered_at = ?3 WHERE id = ?2 AND device = ?1 AND delivered_at IS NULL",
                    params![device.as_str(), convert::int(id), convert::millis(tx.now)],
                )?;
                tx.tell(Change::Device(device));
                Ok(())
            })
            .await
    }
}
