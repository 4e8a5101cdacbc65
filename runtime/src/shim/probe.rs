//! When to probe and what the answers mean; no I/O but the sockets of [`net`].

pub(super) mod net;

use model::Probe;
use std::time::{Duration, Instant};

/// Which of a container's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Startup,
    Readiness,
    Liveness,
}

impl Which {
    /// Kubernetes' word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A probe with its history.
#[derive(Debug)]
pub(crate) struct Prober {
    pub(crate) which: Which,
    pub(crate) probe: Probe,
    /// When to try next; `None` while a try is under way.
    next: Option<Instant>,
    successes: u32,
    failures: u32,
}

/// What a series of answers has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough answers in a row to change anything.
    Open,
    Good,
    Bad,
}

impl Prober {
    /// A probe of a container that started at `now`.
    pub(crate) fn new(which: Which, probe: Probe, now: Instant) -> Self {
        let next = Some(now + Duration::from_secs(probe.initial_delay_seconds.into()));
        Self {
            which,
            probe,
            next,
            successes: 0,
            failures: 0,
        }
    }

    /// When the next try is due, where none is under way.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// A try begins; says when it counts as failed.
    pub(crate) fn begin(&mut self, now: Instant) -> Instant {
        self.next = None;
        now + Duration::from_secs(self.probe.timeout_seconds.max(1).into())
    }

    /// A try has ended.
    pub(crate) fn answer(&mut self, good: bool, now: Instant) -> Verdict {
        self.next = Some(now + self.period());
        if good {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.probe.success_threshold.max(1) {
                Verdict::Good
            } else {
                Verdict::Open
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.probe.failure_threshold.max(1) {
                Verdict::Bad
            } else {
                Verdict::Open
            }
        }
    }

    /// Whether the last answer was the one that made failures count.
    pub(crate) fn just_failed(&self) -> bool {
        self.failures == self.probe.failure_threshold.max(1)
    }

    fn period(&self) -> Duration {
        Duration::from_secs(self.probe.period_seconds.max(1).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ProbeKind;

    #[test]
    fn only_answers_in_a_row_count() {
        let probe = Probe {
            kind: ProbeKind::TcpSocket { port: 1 },
            initial_delay_seconds: 5,
            period_seconds: 10,
            timeout_seconds: 1,
            failure_threshold: 2,
            success_threshold: 2,
        };
        let now = Instant::now();
        let mut prober = Prober::new(Which::Readiness, probe, now);
        assert_eq!(prober.due(), Some(now + Duration::from_secs(5)));
        assert_eq!(prober.begin(now), now + Duration::from_secs(1));
        assert_eq!(prober.due(), None);
        let answers = [true, false, true, true, true, false, false, false];
        let verdicts = answers.map(|good| prober.answer(good, now));
        use Verdict::{Bad, Good, Open};
        assert_eq!(verdicts, [Open, Open, Open, Good, Good, Open, Bad, Bad]);
        assert_eq!(prober.due(), Some(now + Duration::from_secs(10)));
    }
}
