//! How many spans a sender may send: a burst, and then so many a second. What comes together passes together or is
//! told when to come again; nothing is thrown away.

use std::time::Duration;

/// Seconds' worth that may come at once.
const BURST: f64 = 10.0;

/// One sender's bucket.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    left: f64,
    at: Duration,
}

impl Rate {
    /// A full bucket at `now`; times are any that only rise.
    pub fn new(per_second: u32, now: Duration) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            left: per_second * BURST,
            at: now,
        }
    }

    /// Whether so many may pass together; otherwise when to ask again. More than a burst pass where a whole burst is
    /// left, and are paid for afterwards.
    ///
    /// # Errors
    /// The time until then.
    pub fn admits(&mut self, now: Duration, count: u64) -> Result<(), Duration> {
        let burst = self.per_second * BURST;
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(burst);
        self.at = now;
        // Far below 2^53.
        let count = count as f64;
        let missing = count.min(burst) - self.left;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64((missing / self.per_second).min(60.0)));
        }
        self.left -= count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_together_passes_together_or_is_told_when() {
        let at = Duration::from_secs;
        let mut rate = Rate::new(10, at(0));
        assert_eq!(rate.admits(at(0), 90), Ok(()));
        assert_eq!(rate.admits(at(0), 30), Err(at(2)));
        assert_eq!(rate.admits(at(2), 30), Ok(()));
        // More than a burst would never pass otherwise.
        assert_eq!(rate.admits(at(12), 150), Ok(()));
        assert_eq!(rate.admits(at(12), 1), Err(Duration::from_millis(5100)));
    }
}
