//! The sessions that are open, by device, and how routes talk to them.

use crate::store::SessionId;
use bytes::Bytes;
use model::DeviceName;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;
use wire::frame::Question;

/// What a session is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask the device.
    Ask { id: u64, what: Question, pieces: Pieces },
    /// So many bytes of an answer were taken; as many more may come.
    More { id: u64, bytes: u32 },
    /// Whoever asked has gone.
    Cancel { id: u64 },
    /// There are intents that the device does not have.
    Intents,
    /// End.
    Bye {
        reason: String,
        retry_after: Option<u64>,
    },
}

/// A part of an answer, or its end.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Done { error: Option<String> },
}

/// Parts of an answer on their way to who asked; bounded by what the device was granted.
pub(crate) type Pieces = mpsc::UnboundedSender<Piece>;

/// The way to a session. Unbounded: a command is small, and there are no more than people's requests and parts of
/// answers that were granted.
pub(crate) type Commands = mpsc::UnboundedSender<Command>;

#[derive(Debug)]
struct Live {
    session: SessionId,
    commands: Commands,
}

/// All open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: Mutex<HashMap<DeviceName, Live>>,
    questions: AtomicU64,
}

impl Sessions {
    /// Adds a session; an older one of the same device is ended.
    pub(crate) fn add(&self, name: &DeviceName, session: SessionId, commands: Commands) {
        let old = self.table().insert(name.clone(), Live { session, commands });
        if let Some(old) = old {
            let reason = "a newer session of this device is open".into();
            let _ = old.commands.send(Command::Bye {
                reason,
                retry_after: None,
            });
        }
    }

    /// Takes a session out, unless a newer one stands in its place.
    pub(crate) fn remove(&self, name: &DeviceName, session: SessionId) {
        let mut live = self.table();
        if live.get(name).is_some_and(|held| held.session == session) {
            live.remove(name);
        }
    }

    /// The way to a device's session.
    pub(crate) fn of(&self, name: &DeviceName) -> Option<Commands> {
        self.table().get(name).map(|held| held.commands.clone())
    }

    /// A number for a question, unique in this process.
    pub(crate) fn question(&self) -> u64 {
        self.questions.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends one session.
    pub(crate) fn bye(&self, name: &DeviceName, reason: &str) {
        if let Some(commands) = self.of(name) {
            let _ = commands.send(Command::Bye {
                reason: reason.into(),
                retry_after: None,
            });
        }
    }

    /// Ends all sessions; each is told another moment to come back, up to three times `retry_after` seconds.
    pub(crate) fn bye_all(&self, reason: &str, retry_after: u64) {
        for held in self.table().values() {
            let retry_after = Some(rand::random_range(retry_after..=retry_after * 3));
            let _ = held.commands.send(Command::Bye {
                reason: reason.into(),
                retry_after,
            });
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceName, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
