//! Time as a parameter: tests own it.

use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Wall time and boot time.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Wall time; may jump in either direction.
    fn now(&self) -> Timestamp;
    /// Time since boot, suspended time included; never goes back.
    fn since_boot(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Mutex<(Timestamp, Duration)>>);

impl FakeClock {
    /// Starts at `now`, at boot.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new((now, Duration::ZERO))))
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 += SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        held.1 += by;
    }

    /// Sets wall time alone, as a clock without battery does.
    pub fn jump_to(&self, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = now;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn since_boot(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
