//! People at the hub: their bearer tokens, and the passes that the dashboard gives for them.

use super::access::{hash, maybe};
use super::{Act, Store, StoreError, audit, convert};
use jiff::Timestamp;
use rusqlite::params;
use serde::{Deserialize, Serialize};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// See everything.
    Viewer,
    /// See and change everything.
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    fn of(word: &str) -> Self {
        // What is not known may least.
        if word == "admin" {
            Self::Admin
        } else {
            Self::Viewer
        }
    }
}

/// Somebody whom the hub knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Their name, as the audit trail writes it.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Opens one session, once: the code in a link.
    Login,
    /// A session of a browser.
    Session,
}

impl PassKind {
    fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Session => "session",
        }
    }
}

fn read_person(row: &rusqlite::Row<'_>) -> rusqlite::Result<Person> {
    Ok(Person {
        name: row.get(0)?,
        role: Role::of(&row.get::<_, String>(1)?),
    })
}

impl Store {
    /// Sets a person's bearer token; a person of this name keeps the name and gets the new token and role.
    pub async fn set_person(
        &self,
        name: &str,
        secret: &str,
        role: Role,
        expires_at: Option<Timestamp>,
        by: &str,
    ) -> Result<(), StoreError> {
        let (name, hash, by) = (name.to_owned(), hash(secret), by.to_owned());
        self.front
            .write(move |tx| {
                tx.sql.execute(
                    "INSERT INTO people VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role,
                       expires_at = excluded.expires_at",
                    params![
                        name,
                        hash,
                        role.word(),
                        convert::millis(tx.now),
                        expires_at.map(convert::millis)
                    ],
                )?;
                let act = Act {
                    who: by,
                    action: "person.set".into(),
                    target: format!("person/{name}"),
                    outcome: "ok".into(),
                    detail: format!("role {}", role.word()),
                };
                audit::append(tx, act)
            })
            .await
    }

    /// Whether anybody at all has a bearer token, expired ones included: a new hub makes the first one.
    pub async fn has_people(&self) -> Result<bool, StoreError> {
        self.front
            .read(|sql| Ok(sql.prepare_cached("SELECT 1 FROM people")?.exists([])?))
            .await
    }

    /// Who has this bearer token, if it holds now.
    pub async fn person(&self, secret: &str) -> Result<Option<Person>, StoreError> {
        let (hash, now) = (hash(secret), convert::millis(self.options.clock.now()));
        self.front
            .read(move |sql| {
                let found = sql
                    .prepare_cached(
                        "SELECT name, role FROM people WHERE hash = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
                    )?
                    .query_row(params![hash, now], read_person);
                maybe(found)
            })
            .await
    }

    /// Gives a person a pass; expired ones of everybody are cleared away.
    pub async fn give_pass(
        &self,
        person: &str,
        kind: PassKind,
        secret: &str,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (person, hash) = (person.to_owned(), hash(secret));
        self.front
            .write(move |tx| {
                tx.sql.execute(
                    "DELETE FROM passes WHERE expires_at <= ?1",
                    [convert::millis(tx.now)],
                )?;
                tx.sql.execute(
                    "INSERT INTO passes VALUES (?1, ?2, ?3, ?4)",
                    params![hash, person, kind.word(), convert::millis(expires_at)],
                )?;
                Ok(())
            })
            .await
    }

    /// Whose session pass this is, if it holds now.
    pub async fn session_of(&self, secret: &str) -> Result<Option<Person>, StoreError> {
        let (hash, now) = (hash(secret), convert::millis(self.options.clock.now()));
        self.front
            .read(move |sql| {
                let found = sql
                    .prepare_cached(
                        "SELECT p.name, p.role FROM passes s JOIN people p ON p.name = s.person
                         WHERE s.hash = ?1 AND s.kind = 'session' AND s.expires_at > ?2
                           AND (p.expires_at IS NULL OR p.expires_at > ?2)",
                    )?
                    .query_row(params![hash, now], read_person);
                maybe(found)
            })
            .await
    }

    /// Uses a login code up; whoever comes second gets `None`.
    pub async fn use_login(&self, secret: &str) -> Result<Option<Person>, StoreError> {
        let hash = hash(secret);
        self.front
            .write(move |tx| {
                let person = maybe(tx.sql.query_row(
                    "DELETE FROM passes WHERE hash = ?1 AND kind = 'login' AND expires_at > ?2 RETURNING person",
                    params![hash, convert::millis(tx.now)],
                    |row| row.get::<_, String>(0),
                ))?;
                let Some(person) = person else { return Ok(None) };
                maybe(tx.sql.query_row(
                    "SELECT name, role FROM people WHERE name = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
                    params![person, convert::millis(tx.now)],
                    read_person,
                ))
            })
            .await
    }

    /// Ends a session.
    pub async fn end_session(&self, secret: &str) -> Result<(), StoreError> {
        let hash = hash(secret);
        self.front
            .write(move |tx| {
                tx.sql.execute("DELETE FROM passes WHERE hash = ?1", [hash])?;
                Ok(())
            })
            .await
    }
}
