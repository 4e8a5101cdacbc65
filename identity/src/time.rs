//! What time it is, on a machine whose clock may be anywhere.
//!
//! Three sources, best first: a time that the hub signed together with our nonce during this boot, counted on by the
//! boot clock; the wall clock, but never below the floor; the floor itself. The floor is the latest time that was ever
//! *proven*, kept on disk; the wall clock never raises it, because a clock that once stood in the future would then
//! make everything look expired for ever.

use crate::signed::{BadSignature, Purpose, verify};
use jiff::{SignedDuration, Timestamp};
use kit::Clock;
use model::Signed;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The floor on disk is at most this much behind: one small write an hour.
const PERSIST_EVERY: Duration = Duration::from_secs(3600);
/// The floor of a device that has never heard a hub: this code is not older.
const BUILT_AFTER: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// A time that is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    /// Not signed by one whom the device trusts.
    #[error("the hub's time is refused")]
    Signature(#[from] BadSignature),
    /// Signed, but for another question: a replay.
    #[error("the hub's time answers another question than ours")]
    OtherNonce,
    /// Below what was proven before.
    #[error("the hub's time {told} is before {floor}, which was proven earlier: the hub's clock is wrong")]
    BeforeFloor {
        /// What the hub said.
        told: Timestamp,
        /// What was proven.
        floor: Timestamp,
    },
    /// Signed, but no time.
    #[error("the hub's time does not parse")]
    Parse(#[from] serde_json::Error),
    /// The floor could not be kept.
    #[error("write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The text that a hub signs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TimeStatement {
    pub(crate) nonce: String,
    pub(crate) time: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    floor: Timestamp,
}

#[derive(Debug)]
struct State {
    floor: Timestamp,
    floor_on_disk: Timestamp,
    /// A proven time, and when it was, by the boot clock.
    anchor: Option<(Timestamp, Duration)>,
}

/// Keeps the best known time.
#[derive(Debug)]
pub struct TimeKeeper {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl TimeKeeper {
    /// Reads the floor from `dir/time.json`. A file that is absent or damaged means the floor of the build: a device
    /// that lost its floor must still start.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Self {
        let path = dir.join("time.json");
        let kept = std::fs::read(&path)
            .ok()
            .and_then(|data| serde_json::from_slice::<Kept>(&data).ok());
        let floor = kept.map_or(BUILT_AFTER, |kept| kept.floor.max(BUILT_AFTER));
        let state = State {
            floor,
            floor_on_disk: floor,
            anchor: None,
        };
        Self {
            path,
            clock,
            state: Mutex::new(state),
        }
    }

    /// The best known time.
    pub fn now(&self) -> Timestamp {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.anchor {
            // Two hubs need not agree to the second; what was proven stays proven.
            Some((proven, at)) => later(proven, self.clock.since_boot().saturating_sub(at)).max(state.floor),
            None => self.clock.now().max(state.floor),
        }
    }

    /// Whether [`TimeKeeper::now`] rests on a proof of this boot.
    pub fn proven(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .anchor
            .is_some()
    }

    /// The latest time ever proven.
    pub fn floor(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).floor
    }

    /// A fresh nonce for a question.
    pub fn nonce() -> String {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the system has random numbers");
        hex::encode(bytes)
    }

    /// Takes the hub's answer to our `nonce`: from now on this boot counts from it, whatever the wall clock says.
    ///
    /// # Errors
    /// See [`TimeError`]; nothing changes then, except that a floor that could not be written holds until the next boot.
    pub fn prove(&self, signed: &Signed, nonce: &str, signers: &[String]) -> Result<(), TimeError> {
        let statement: TimeStatement = serde_json::from_str(verify(signed, Purpose::Time, signers)?)?;
        if statement.nonce != nonce {
            return Err(TimeError::OtherNonce);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A little slack: two replicas of a hub need not agree to the second.
        if later(statement.time, Duration::from_secs(300)) < state.floor {
            return Err(TimeError::BeforeFloor {
                told: statement.time,
                floor: state.floor,
            });
        }
        state.anchor = Some((statement.time, self.clock.since_boot()));
        state.floor = state.floor.max(statement.time);
        self.persist(&mut state)
    }

    /// Raises the floor to what this boot has proven and keeps it; to be called about once an hour.
    ///
    /// # Errors
    /// [`TimeError::Write`].
    pub fn keep(&self) -> Result<(), TimeError> {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.anchor.is_none() {
            return Ok(());
        }
        state.floor = state.floor.max(now);
        self.persist(&mut state)
    }

    fn persist(&self, state: &mut State) -> Result<(), TimeError> {
        if later(state.floor_on_disk, PERSIST_EVERY) > state.floor {
            return Ok(());
        }
        let kept = serde_json::to_vec(&Kept { floor: state.floor })?;
        kit::disk::replace(&self.path, &kept).map_err(|source| TimeError::Write {
            path: self.path.clone(),
            source,
        })?;
        state.floor_on_disk = state.floor;
        Ok(())
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::sign;
    use kit::FakeClock;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    const TODAY: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const DAY: Duration = Duration::from_secs(86_400);

    struct Rig {
        dir: tempfile::TempDir,
        key: Ed25519KeyPair,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                key: Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap(),
            }
        }

        fn boot(&self, wall: Timestamp) -> (TimeKeeper, FakeClock) {
            let clock = FakeClock::at(wall);
            (TimeKeeper::open(self.dir.path(), Arc::new(clock.clone())), clock)
        }

        fn tell(&self, keeper: &TimeKeeper, time: Timestamp, nonce: &str) -> Result<(), TimeError> {
            let text = serde_json::to_string(&TimeStatement {
                nonce: nonce.into(),
                time,
            })
            .unwrap();
            let signers = [hex::encode(self.key.public_key())];
            keeper.prove(&sign(&self.key, Purpose::Time, text), "n", &signers)
        }
    }

    #[test]
    fn a_clock_without_a_battery_starts_at_the_floor() {
        let rig = Rig::new();
        let (keeper, _) = rig.boot(Timestamp::UNIX_EPOCH);
        assert_eq!(keeper.now(), BUILT_AFTER);
        rig.tell(&keeper, TODAY, "n").unwrap();
        let (keeper, _) = rig.boot(Timestamp::UNIX_EPOCH);
        assert_eq!((keeper.now(), keeper.proven()), (TODAY, false));
    }

    #[test]
    fn a_proof_beats_a_clock_in_the_future_and_counts_on_by_the_boot_clock() {
        let rig = Rig::new();
        let (keeper, clock) = rig.boot(later(TODAY, DAY * 3650));
        rig.tell(&keeper, TODAY, "n").unwrap();
        clock.advance(DAY);
        clock.jump_to(Timestamp::UNIX_EPOCH);
        assert_eq!(keeper.now(), later(TODAY, DAY));
        // The wall clock left no trace: the next boot is not locked into the future.
        assert_eq!(rig.boot(TODAY).0.now(), TODAY);
    }

    #[test]
    fn a_replay_a_forgery_and_a_step_back_are_refused() {
        let rig = Rig::new();
        let (keeper, _) = rig.boot(TODAY);
        assert!(matches!(
            rig.tell(&keeper, TODAY, "old"),
            Err(TimeError::OtherNonce)
        ));
        let stranger = Rig {
            key: Ed25519KeyPair::from_seed_unchecked(&[4; 32]).unwrap(),
            dir: tempfile::tempdir().unwrap(),
        };
        let text = r#"{"nonce":"n","time":"2027-01-01T00:00:00Z"}"#.to_owned();
        let signed = sign(&stranger.key, Purpose::Time, text);
        assert!(matches!(
            keeper.prove(&signed, "n", &[hex::encode(rig.key.public_key())]),
            Err(TimeError::Signature(_))
        ));
        rig.tell(&keeper, TODAY, "n").unwrap();
        let other_hub = TODAY.checked_sub(SignedDuration::from_secs(100)).unwrap();
        rig.tell(&keeper, other_hub, "n").unwrap();
        assert_eq!(keeper.now(), TODAY, "time went below what was proven");
        let before = TODAY.checked_sub(SignedDuration::from_hours(1)).unwrap();
        assert!(matches!(
            rig.tell(&keeper, before, "n"),
            Err(TimeError::BeforeFloor { .. })
        ));
    }

    #[test]
    fn a_damaged_floor_does_not_stop_the_device() {
        let rig = Rig::new();
        std::fs::write(rig.dir.path().join("time.json"), b"{\"flo").unwrap();
        assert_eq!(rig.boot(TODAY).0.now(), TODAY);
    }
}
