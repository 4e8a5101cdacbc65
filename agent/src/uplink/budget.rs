//! What the link to the hub may carry: a token bucket in bytes as the socket counts them, by windows of the day, and a
//! budget for the month. No clock and no I/O: times come in, answers go out.
//!
//! The bucket may go below zero: what the session itself says (pings, answers to people) is never held back, only
//! counted, and records wait until it is paid.

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};
use spool::Class;
use std::time::Duration;

/// Share of a month's budget that normal records leave to critical ones.
const FOR_CRITICAL: f64 = 0.05;
/// How far bulk records may be ahead of an even month, as a share of it: about a day.
const AHEAD: f64 = 1.0 / 30.0;
/// Where nothing says when there is more, look again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Bytes per second; absent for no limit.
pub type Rate = Option<u64>;

/// What one kind of link may carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Outside of all windows.
    pub rate: Rate,
    /// Bytes that may go at once after a silence; a second's worth where absent.
    pub burst: Option<u64>,
    /// The first that holds the time of day counts.
    pub windows: Vec<Window>,
    /// Bytes per calendar month (UTC), both ways.
    pub monthly: Option<u64>,
}

/// A part of each day (UTC) with a rate of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: civil::Time,
    /// The first moment after it; before `from` where it goes over midnight.
    pub to: civil::Time,
    /// Within it.
    pub rate: Rate,
}

impl Window {
    fn holds(&self, time: civil::Time) -> bool {
        if self.from <= self.to {
            self.from <= time && time < self.to
        } else {
            time >= self.from || time < self.to
        }
    }
}

/// The two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Rises whatever the wall clock does.
    pub since_boot: Duration,
    /// For windows and months.
    pub wall: Timestamp,
}

/// Bytes of one month; survives restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// `2026-05`.
    pub month: String,
    /// Sent and received.
    pub bytes: u64,
}

/// Whether records of a class may go now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowance {
    /// They may.
    Go,
    /// Not before this time has passed; then it is worth asking again.
    Wait(Duration),
}

/// One link's account.
#[derive(Debug)]
pub struct Budget {
    policy: Policy,
    tokens: f64,
    at: Duration,
    usage: Usage,
}

impl Budget {
    /// A full bucket, and what the month has used.
    pub fn new(policy: Policy, usage: Usage, now: Now) -> Self {
        let mut budget = Self {
            policy,
            tokens: 0.0,
            at: now.since_boot,
            usage,
        };
        budget.tokens = budget.depth(budget.rate(now));
        budget.turn_month(now);
        budget
    }

    /// Bytes that a month may use.
    pub fn monthly(&self) -> Option<u64> {
        self.policy.monthly
    }

    /// What the month has used.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The rate that holds now.
    pub fn rate(&self, now: Now) -> Rate {
        let time = TimeZone::UTC.to_datetime(now.wall).time();
        let window = self.policy.windows.iter().find(|window| window.holds(time));
        window.map_or(self.policy.rate, |window| window.rate)
    }

    /// Takes note of bytes that went over the socket.
    pub fn spent(&mut self, sent: u64, received: u64, now: Now) {
        self.refill(now);
        if self.rate(now).is_some() {
            self.tokens -= sent as f64;
        }
        self.usage.bytes = self.usage.bytes.saturating_add(sent).saturating_add(received);
    }

    /// Whether records of a class may go. `on_the_way` bytes were handed over and have not reached the socket.
    pub fn allows(&mut self, class: Class, on_the_way: u64, now: Now) -> Allowance {
        self.refill(now);
        if let Allowance::Wait(wait) = self.month_allows(class, on_the_way, now) {
            return Allowance::Wait(wait);
        }
        let rate = match self.rate(now) {
            None => return Allowance::Go,
            Some(0) => return Allowance::Wait(self.until_other_rate(now)),
            Some(rate) => rate as f64,
        };
        let left = self.tokens - on_the_way as f64;
        if left > 0.0 {
            return Allowance::Go;
        }
        let wait = Duration::try_from_secs_f64((1.0 - left) / rate).unwrap_or(LOOK_AGAIN);
        Allowance::Wait(wait.min(self.until_other_rate(now)))
    }

    fn depth(&self, rate: Rate) -> f64 {
        self.policy.burst.or(rate).unwrap_or(0).max(1) as f64
    }

    fn refill(&mut self, now: Now) {
        let passed = now.since_boot.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now.since_boot);
        let rate = self.rate(now);
        match rate {
            // No debts are carried out of a time without a limit.
            None => self.tokens = self.depth(rate),
            Some(0) => self.tokens = self.tokens.min(0.0),
            Some(rate) => {
                let depth = self.depth(Some(rate));
                self.tokens = (self.tokens + passed * rate as f64).min(depth);
            }
        }
        self.turn_month(now);
    }

    fn turn_month(&mut self, now: Now) {
        let month = now.wall.strftime("%Y-%m").to_string();
        // A clock that was set back must not give the month's budget again.
        if month > self.usage.month {
            self.usage = Usage { month, bytes: 0 };
        }
    }

    fn month_allows(&self, class: Class, on_the_way: u64, now: Now) -> Allowance {
        let Some(budget) = self.policy.monthly else {
            return Allowance::Go;
        };
        let used = self.usage.bytes.saturating_add(on_the_way) as f64;
        let share = match class {
            Class::Critical => 1.0,
            Class::Normal => 1.0 - FOR_CRITICAL,
            Class::Bulk => (month_passed(now.wall) + AHEAD).min(1.0 - FOR_CRITICAL),
        };
        if used < budget as f64 * share {
            Allowance::Go
        } else {
            Allowance::Wait(LOOK_AGAIN)
        }
    }

    /// Time until a window begins or ends; at most a minute, for clocks are set.
    fn until_other_rate(&self, now: Now) -> Duration {
        let time = TimeZone::UTC.to_datetime(now.wall).time();
        let edges = self
            .policy
            .windows
            .iter()
            .flat_map(|window| [window.from, window.to]);
        let next = edges
            .filter(|edge| *edge > time)
            .filter_map(|edge| Duration::try_from(time.duration_until(edge)).ok())
            .min();
        next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }
}

/// How much of its month has passed at a moment, 0 to 1.
fn month_passed(wall: Timestamp) -> f64 {
    let zoned = TimeZone::UTC.to_datetime(wall);
    let seconds = f64::from(zoned.day() - 1) * 86_400.0
        + f64::from(zoned.hour()) * 3_600.0
        + f64::from(zoned.minute()) * 60.0;
    seconds / (f64::from(zoned.days_in_month()) * 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(since: f64, wall: &str) -> Now {
        Now {
            since_boot: Duration::from_secs_f64(since),
            wall: wall.parse().unwrap(),
        }
    }

    fn noon(since: f64) -> Now {
        now(since, "2026-05-10T12:00:00Z")
    }

    fn policy(rate: Rate) -> Policy {
        Policy {
            rate,
            ..Policy::default()
        }
    }

    #[test]
    fn without_a_limit_all_goes() {
        let mut budget = Budget::new(Policy::default(), Usage::default(), noon(0.0));
        budget.spent(1 << 40, 0, noon(1.0));
        assert_eq!(budget.allows(Class::Bulk, 1 << 40, noon(1.0)), Allowance::Go);
    }

    #[test]
    fn a_bucket_pays_its_debts_at_its_rate() {
        let mut budget = Budget::new(policy(Some(8_000)), Usage::default(), noon(0.0));
        assert_eq!(budget.allows(Class::Bulk, 0, noon(0.0)), Allowance::Go);
        // What was handed over counts until the socket has it.
        assert!(matches!(
            budget.allows(Class::Bulk, 9_000, noon(0.0)),
            Allowance::Wait(_)
        ));
        budget.spent(24_000, 0, noon(0.0));
        let Allowance::Wait(wait) = budget.allows(Class::Critical, 0, noon(0.0)) else {
            panic!("nothing is left")
        };
        assert!((1.9..2.1).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(budget.allows(Class::Critical, 0, noon(2.1)), Allowance::Go);
        // A long silence saves up one burst, not more.
        budget.spent(0, 0, noon(1000.0));
        budget.spent(8_001, 0, noon(1000.0));
        assert!(matches!(
            budget.allows(Class::Critical, 0, noon(1000.0)),
            Allowance::Wait(_)
        ));
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_go_until_the_window_ends() {
        let night = Window {
            from: civil::time(22, 0, 0, 0),
            to: civil::time(6, 0, 0, 0),
            rate: Some(8_000),
        };
        let day = Policy {
            rate: Some(0),
            windows: vec![night],
            ..Policy::default()
        };
        let at = |since: f64, wall| now(since, wall);
        let mut budget = Budget::new(day, Usage::default(), at(0.0, "2026-05-10T21:59:30Z"));
        let wait = budget.allows(Class::Critical, 0, at(0.0, "2026-05-10T21:59:30Z"));
        assert_eq!(wait, Allowance::Wait(Duration::from_secs(30)));
        budget.spent(300, 0, at(1.0, "2026-05-10T21:59:31Z"));
        assert_eq!(
            budget.allows(Class::Critical, 0, at(31.0, "2026-05-10T22:00:01Z")),
            Allowance::Go
        );
        assert_eq!(budget.rate(at(0.0, "2026-05-11T05:59:59Z")), Some(8_000));
        assert_eq!(budget.rate(at(0.0, "2026-05-11T06:00:00Z")), Some(0));
    }

    #[test]
    fn a_months_budget_is_spread_for_bulk_and_kept_for_what_is_critical() {
        let monthly = Policy {
            monthly: Some(1_000_000),
            ..Policy::default()
        };
        let mut budget = Budget::new(
            monthly.clone(),
            Usage::default(),
            now(0.0, "2026-05-10T00:00:00Z"),
        );
        let at = now(1.0, "2026-05-10T00:00:00Z");
        let may = |budget: &mut Budget, at| {
            [Class::Critical, Class::Normal, Class::Bulk]
                .map(|class| budget.allows(class, 0, at) == Allowance::Go)
        };
        // 9 of 31 days have passed: 29 %, and a day ahead.
        budget.spent(300_000, 20_000, at);
        assert_eq!(may(&mut budget, at), [true, true, true]);
        budget.spent(10_000, 0, at);
        assert_eq!(may(&mut budget, at), [true, true, false]);
        budget.spent(625_000, 0, at);
        assert_eq!(may(&mut budget, at), [true, false, false]);
        budget.spent(50_000, 0, at);
        assert_eq!(may(&mut budget, at), [false, false, false]);
        // It survives a restart, also with a clock that was set back; the next month begins anew.
        let kept: Usage = serde_json::from_str(&serde_json::to_string(budget.usage()).unwrap()).unwrap();
        let back = now(0.0, "2026-04-30T00:00:00Z");
        let mut budget = Budget::new(monthly, kept, back);
        assert_eq!(may(&mut budget, back), [false, false, false]);
        let june = now(2.0, "2026-06-01T00:00:00Z");
        assert_eq!(may(&mut budget, june), [true, true, true]);
    }
}
