//! What may be said of a device now: what it said last, unless that is too old to be believed.

use super::Options;
use jiff::Timestamp;
use model::{Phase, Status};
use serde::{Deserialize, Serialize};

/// One word for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// The current generation is healthy.
    Ready,
    /// A candidate is being brought to health.
    Progressing,
    /// It has no generation yet.
    Waiting,
    /// Held by intent.
    Paused,
    /// A candidate failed; the last good generation runs.
    RolledBack,
    /// What it runs is not healthy.
    Degraded,
    /// Nothing was heard for too long: whatever it said last may no longer hold.
    Unknown,
    /// It may not come back.
    Revoked,
}

impl Health {
    /// All of them, best first.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Progressing,
        Self::Waiting,
        Self::Paused,
        Self::RolledBack,
        Self::Degraded,
        Self::Unknown,
        Self::Revoked,
    ];

    /// The word itself.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Waiting => "Waiting",
            Self::Paused => "Paused",
            Self::RolledBack => "RolledBack",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
            Self::Revoked => "Revoked",
        }
    }

    fn of_phase(word: &str) -> Self {
        match word {
            "ready" => Self::Ready,
            "progressing" => Self::Progressing,
            "rolledBack" => Self::RolledBack,
            "degraded" => Self::Degraded,
            "paused" => Self::Paused,
            _ => Self::Waiting,
        }
    }

    /// Of a status alone, however old.
    pub fn told(status: &Status) -> Self {
        match status.phase {
            Phase::WaitingForSource => Self::Waiting,
            Phase::Progressing => Self::Progressing,
            Phase::Ready => Self::Ready,
            Phase::RolledBack => Self::RolledBack,
            Phase::Degraded => Self::Degraded,
            Phase::Paused => Self::Paused,
        }
    }
}

/// The state of a device's link to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "link")]
pub enum Link {
    /// Its session is open and it was heard of lately.
    Up {
        /// Since when.
        since: Timestamp,
        /// Its address as the hub sees it.
        address: String,
    },
    /// Its session is open and silent.
    Silent,
    /// No session.
    Down,
    /// It has never had one.
    Never,
}

/// What health rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts<'a> {
    pub revoked: bool,
    pub phase: Option<&'a str>,
    pub last_seen: Option<Timestamp>,
    pub session: bool,
}

/// Health with a CamelCase reason and a sentence; the reason of a fresh status is its own `Ready` condition's.
pub(super) fn judge(
    facts: &Facts<'_>,
    now: Timestamp,
    options: &Options,
) -> (Health, Option<(&'static str, String)>) {
    let say = |reason, message: String| Some((reason, message));
    if facts.revoked {
        return (
            Health::Revoked,
            say("Revoked", "Its certificates are revoked.".into()),
        );
    }
    let Some(last_seen) = facts.last_seen else {
        let message = "Enrolled; it has not opened a session yet.".into();
        return (Health::Unknown, say("NeverConnected", message));
    };
    if !options.fresh(last_seen, now) {
        let (reason, link) = if facts.session {
            ("Silent", "Its session is open, but nothing comes")
        } else {
            ("LinkDown", "Its link is down")
        };
        let message = format!("{link}; it goes on with its own generation.");
        return (Health::Unknown, say(reason, message));
    }
    match facts.phase {
        None => (
            Health::Unknown,
            say("NoStatus", "Connected; no status was received yet.".into()),
        ),
        Some(phase) => (Health::of_phase(phase), None),
    }
}
