//! How devices join: single-use tokens and the certificates given for them. Secrets are kept as hashes only.

use super::front::Tx;
use super::records::collect;
use super::{Act, Change, Store, StoreError, audit, convert};
use jiff::Timestamp;
use model::{ClassName, DeviceName, Digest};
use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;
use std::collections::BTreeMap;

/// A long random secret as the store keeps it. Guessing one is hopeless, so that no slow hash is needed.
pub(super) fn hash(secret: &str) -> String {
    Digest::of(secret.as_bytes()).to_string()
}

/// What a token lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Only this class, where given.
    pub class: Option<ClassName>,
    /// Site of the devices that join with it.
    pub site: String,
    /// Labels of the devices that join with it.
    pub labels: BTreeMap<String, String>,
    /// Whether a device may take over a name that is enrolled (a board that was replaced).
    pub replaces: bool,
    /// How many devices may join with it.
    pub uses: u32,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A token as people see it; its secret was shown once, when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its number.
    pub id: u64,
    /// See [`NewToken::class`].
    pub class: Option<ClassName>,
    /// See [`NewToken::site`].
    pub site: String,
    /// See [`NewToken::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`NewToken::replaces`].
    pub replaces: bool,
    /// Devices that may still join.
    pub uses_left: u32,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// See [`NewToken::expires_at`].
    pub expires_at: Timestamp,
}

/// Why a token does not let a device in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// No token has this secret.
    #[error("the token is not known; make one with `leeward token create`")]
    Unknown,
    /// Its time is over.
    #[error("the token expired at {0}; make a new one with `leeward token create`")]
    Expired(Timestamp),
    /// All its uses are spent.
    #[error("the token was used already; make a new one with `leeward token create`")]
    Used,
    /// It is for another class.
    #[error("the token is for class {wanted}, the device says {told}")]
    Class {
        /// The token's.
        wanted: ClassName,
        /// The device's.
        told: ClassName,
    },
}

/// A certificate as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// `identity` or `operational`.
    pub kind: String,
    /// Hash of its public key, hexadecimal.
    pub key: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// A certificate as the hub remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// See [`NewCertificate::serial`].
    pub serial: String,
    /// Whose.
    pub device: DeviceName,
    /// See [`NewCertificate::kind`].
    pub kind: String,
    /// See [`NewCertificate::key`].
    pub key: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

const TOKEN: &str =
    "SELECT id, class, site, labels, replaces, uses_left, created_by, created_at, expires_at FROM tokens";

fn read_token(row: &Row<'_>) -> Result<Token, StoreError> {
    Ok(Token {
        id: convert::uint(row.get(0)?),
        class: row
            .get::<_, Option<String>>(1)?
            .map(|class| convert::name("class name", &class))
            .transpose()?,
        site: row.get(2)?,
        labels: convert::from_json("labels", &row.get::<_, String>(3)?)?,
        replaces: row.get(4)?,
        uses_left: row.get(5)?,
        created_by: row.get(6)?,
        created_at: convert::time(row.get(7)?),
        expires_at: convert::time(row.get(8)?),
    })
}

fn read_certificate(row: &Row<'_>) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        serial: row.get(0)?,
        device: convert::name("device name", &row.get::<_, String>(1)?)?,
        kind: row.get(2)?,
        key: row.get(3)?,
        issued_at: convert::time(row.get(4)?),
        not_after: convert::time(row.get(5)?),
        revoked_at: row.get::<_, Option<i64>>(6)?.map(convert::time),
    })
}

/// A token that lets a device in.
struct Admitted {
    token: Token,
    /// The same device joined with it before and asks again: the answer was lost on its way.
    again: bool,
}

/// The token of `secret`, if it lets this device in at `now`; `key` is the hash of its identity key.
fn admit(
    sql: &rusqlite::Connection,
    secret: &str,
    device: &DeviceName,
    class: &ClassName,
    key: &str,
    now: Timestamp,
) -> Result<Admitted, StoreError> {
    let mut statement = sql.prepare_cached(&format!("{TOKEN} WHERE hash = ?1"))?;
    let mut rows = statement.query([hash(secret)])?;
    let token = rows
        .next()?
        .map(read_token)
        .transpose()?
        .ok_or(TokenRefusal::Unknown)?;
    let again = joined_before(sql, &token, device, key)?;
    if token.uses_left == 0 && !again {
        return Err(TokenRefusal::Used.into());
    }
    if token.expires_at <= now {
        return Err(TokenRefusal::Expired(token.expires_at).into());
    }
    if let Some(wanted) = token.class.as_ref().filter(|wanted| *wanted != class) {
        let (wanted, told) = (wanted.clone(), class.clone());
        return Err(TokenRefusal::Class { wanted, told }.into());
    }
    if !again && !token.replaces {
        let taken = sql
            .prepare_cached("SELECT 1 FROM devices WHERE name = ?1")?
            .exists([device.as_str()])?;
        if taken {
            return Err(StoreError::NameTaken(device.clone()));
        }
    }
    Ok(Admitted { token, again })
}

/// Whether this device joined with this token and this key: whoever proves the key may ask for the answer again.
fn joined_before(
    sql: &rusqlite::Connection,
    token: &Token,
    device: &DeviceName,
    key: &str,
) -> Result<bool, StoreError> {
    let mut statement = sql.prepare_cached(
        "SELECT 1 FROM devices d JOIN certificates c ON c.device = d.name
         WHERE d.name = ?1 AND d.token = ?2 AND d.revoked_at IS NULL
           AND c.kind = 'identity' AND c.key = ?3 AND c.revoked_at IS NULL",
    )?;
    Ok(statement.exists(params![device.as_str(), convert::int(token.id), key])?)
}

fn insert_certificate(tx: &Tx<'_>, device: &DeviceName, new: &NewCertificate) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached("INSERT INTO certificates VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)")?
        .execute(params![
            new.serial,
            device.as_str(),
            new.kind,
            new.key,
            convert::millis(tx.now),
            convert::millis(new.not_after)
        ])?;
    Ok(())
}

/// Uses the token up for a device that is new, or takes over a name.
fn make_device(tx: &Tx<'_>, token: &Token, device: &DeviceName, class: &ClassName) -> Result<(), StoreError> {
    let now = convert::millis(tx.now);
    tx.sql.execute(
        "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1",
        [convert::int(token.id)],
    )?;
    // A board that takes over a name makes the old board's certificates worthless.
    tx.sql.execute(
        "UPDATE certificates SET revoked_at = ?2 WHERE device = ?1 AND revoked_at IS NULL",
        params![device.as_str(), now],
    )?;
    tx.sql.execute(
        "INSERT INTO devices (name, class, site, labels, enrolled_at, token) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO UPDATE SET class = excluded.class, site = excluded.site, labels = excluded.labels,
           enrolled_at = excluded.enrolled_at, token = excluded.token, revoked_at = NULL, revoked_why = NULL",
        params![
            device.as_str(),
            class.as_str(),
            token.site,
            convert::to_json("labels", &token.labels)?,
            now,
            convert::int(token.id)
        ],
    )?;
    Ok(())
}

fn join(
    tx: &mut Tx<'_>,
    secret: &str,
    device: &DeviceName,
    class: &ClassName,
    certificates: &[NewCertificate],
) -> Result<Token, StoreError> {
    let key = certificates
        .iter()
        .find(|c| c.kind == "identity")
        .map_or("", |c| &c.key);
    let Admitted { token, again } = admit(tx.sql, secret, device, class, key, tx.now)?;
    if !again {
        make_device(tx, &token, device, class)?;
    }
    for certificate in certificates {
        insert_certificate(tx, device, certificate)?;
    }
    tx.tell(Change::Device(device.clone()));
    Ok(token)
}

impl Store {
    /// Makes an enrolment token; `secret` is kept as a hash. Returns its number.
    pub async fn create_token(&self, secret: &str, new: NewToken, by: &str) -> Result<u64, StoreError> {
        let (hash, by) = (hash(secret), by.to_owned());
        self.front
            .write(move |tx| {
                tx.sql.execute(
                    "INSERT INTO tokens (hash, class, site, labels, replaces, uses_left, created_by, created_at, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        hash,
                        new.class.as_ref().map(ClassName::as_str),
                        new.site,
                        convert::to_json("labels", &new.labels)?,
                        new.replaces,
                        new.uses,
                        by,
                        convert::millis(tx.now),
                        convert::millis(new.expires_at)
                    ],
                )?;
                let id = convert::uint(tx.sql.last_insert_rowid());
                let act = Act {
                    who: by,
                    action: "token.create".into(),
                    target: format!("token/{id}"),
                    outcome: "ok".into(),
                    detail: format!(
                        "site {}, class {}, {} uses, expires {}",
                        new.site,
                        new.class.as_ref().map_or("any", ClassName::as_str),
                        new.uses,
                        new.expires_at.strftime("%Y-%m-%d %H:%M:%S UTC")
                    ),
                };
                audit::append(tx, act)?;
                Ok(id)
            })
            .await
    }

    /// All tokens, newest first, spent and expired ones included.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.front
            .read(|sql| {
                let mut statement = sql.prepare_cached(&format!("{TOKEN} ORDER BY id DESC"))?;
                collect(statement.query([])?, read_token)
            })
            .await
    }

    /// Spends what is left of a token; false where none has this number.
    pub async fn cancel_token(&self, id: u64, by: &str) -> Result<bool, StoreError> {
        let by = by.to_owned();
        self.front
            .write(move |tx| {
                let found = tx.sql.execute(
                    "UPDATE tokens SET uses_left = 0 WHERE id = ?1",
                    [convert::int(id)],
                )?;
                let act = Act {
                    who: by,
                    action: "token.cancel".into(),
                    target: format!("token/{id}"),
                    outcome: if found > 0 { "ok" } else { "no such token" }.into(),
                    detail: String::new(),
                };
                audit::append(tx, act)?;
                Ok(found > 0)
            })
            .await
    }

    /// Looks whether a token would let this device in, without using it: asked before a certificate is signed.
    /// `key` is the hash of the identity key whose possession it proved.
    pub async fn check_token(
        &self,
        secret: &str,
        device: &DeviceName,
        class: &ClassName,
        key: &str,
    ) -> Result<Token, StoreError> {
        let (secret, device, class) = (secret.to_owned(), device.clone(), class.clone());
        let (key, now) = (key.to_owned(), self.options.clock.now());
        self.front
            .read(move |sql| Ok(admit(sql, &secret, &device, &class, &key, now)?.token))
            .await
    }

    /// Uses a token, makes the device and files its certificates, all or nothing; hand the certificates out
    /// only after this. A refusal is written into the audit trail too.
    ///
    /// A device that joined with this token before and holds the same identity key is let in again without using the
    /// token: the first answer may have been lost on its way, and a device must not be lost with it.
    pub async fn enrol(
        &self,
        secret: &str,
        device: &DeviceName,
        class: &ClassName,
        certificates: Vec<NewCertificate>,
    ) -> Result<Token, StoreError> {
        let (secret, device, class) = (secret.to_owned(), device.clone(), class.clone());
        let mut act = Act {
            who: device.to_string(),
            action: "device.enrol".into(),
            target: device.to_string(),
            ..Act::default()
        };
        let joined = self
            .front
            .write(move |tx| {
                let token = join(tx, &secret, &device, &class, &certificates)?;
                let act = Act {
                    outcome: "ok".into(),
                    detail: format!("class {class}, site {}, token/{}", token.site, token.id),
                    who: device.to_string(),
                    action: "device.enrol".into(),
                    target: device.to_string(),
                };
                audit::append(tx, act)?;
                Ok(token)
            })
            .await;
        if let Err(refusal @ (StoreError::Token(_) | StoreError::NameTaken(_))) = &joined {
            act.outcome = refusal.to_string();
            self.audit(act).await?;
        }
        joined
    }

    /// Files a certificate of an enrolled device (a renewal).
    pub async fn add_certificate(&self, device: &DeviceName, new: NewCertificate) -> Result<(), StoreError> {
        let device = device.clone();
        self.front
            .write(move |tx| {
                super::devices::must_be_enrolled(tx, &device)?;
                insert_certificate(tx, &device, &new)?;
                let act = Act {
                    who: device.to_string(),
                    action: "certificate.renew".into(),
                    target: device.to_string(),
                    outcome: "ok".into(),
                    detail: format!(
                        "{} {}, until {}",
                        new.kind,
                        new.serial,
                        new.not_after.strftime("%Y-%m-%d")
                    ),
                };
                audit::append(tx, act)
            })
            .await
    }

    /// A certificate by its serial number; what the hub never issued is `None` and must be refused.
    pub async fn certificate(&self, serial: &str) -> Result<Option<Certificate>, StoreError> {
        let serial = serial.to_owned();
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached("SELECT * FROM certificates WHERE serial = ?1")?;
                let mut rows = statement.query([serial])?;
                rows.next()?.map(read_certificate).transpose()
            })
            .await
    }

    /// All certificates of a device, newest first.
    pub async fn certificates(&self, device: &DeviceName) -> Result<Vec<Certificate>, StoreError> {
        let device = device.clone();
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT * FROM certificates WHERE device = ?1 ORDER BY issued_at DESC, not_after DESC",
                )?;
                collect(statement.query([device.as_str()])?, read_certificate)
            })
            .await
    }

    /// Serial numbers that must be refused although they are still valid by date.
    pub async fn revoked_serials(&self) -> Result<Vec<String>, StoreError> {
        let now = convert::millis(self.options.clock.now());
        self.front
            .read(move |sql| {
                let mut statement = sql.prepare_cached(
                    "SELECT serial FROM certificates WHERE revoked_at IS NOT NULL AND not_after > ?1",
                )?;
                collect(statement.query([now])?, |row| Ok(row.get(0)?))
            })
            .await
    }
}

/// What a statement that finds at most one row found.
pub(super) fn maybe<T>(found: rusqlite::Result<T>) -> Result<Option<T>, StoreError> {
    Ok(found.optional()?)
}
