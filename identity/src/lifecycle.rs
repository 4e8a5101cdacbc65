//! What a device should do next about its hub: enrol, renew, ask for the time, connect, or wait. Free of I/O.
//!
//! The caller performs the [`Action`] it is told, and comes back with an [`Event`]. There is no state from which only a
//! person could bring an enrolled device back, except one whose identity certificate has ended after ten years.

use crate::keys::Held;
use jiff::Timestamp;
use kit::Backoff;
use std::time::Duration;

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Exchange the token for certificates.
    Enrol,
    /// Get the next operational certificate.
    Renew,
    /// Ask the hub for its signed time.
    LearnTime,
    /// Open a session.
    Connect,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do this, and tell how it went.
    Do(Action),
    /// Come back with [`Event::Tick`] after this time.
    Wait {
        /// How long.
        time: Duration,
        /// Why, in one line, for status.
        why: String,
    },
    /// Nothing can be done without a (new) enrolment token.
    NeedToken {
        /// Why.
        why: String,
    },
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The hub was not reached, or the connection broke.
    Unreachable(String),
    /// The hub's certificate has expired, by our time.
    HubExpired,
    /// The hub says that our certificate has expired.
    OwnExpired,
    /// The hub has removed this device.
    Revoked,
    /// The token is spent, expired or unknown, or its name is taken.
    TokenRefused(String),
    /// The hub is busy.
    Throttled(Duration),
    /// Refused for another reason.
    Refused(String),
}

impl Failure {
    /// Reads rustls' words, the hub's reason and its time to come back, as `wire`'s errors carry them.
    pub fn of(
        tls: Option<&rustls::Error>,
        reason: Option<&str>,
        retry_after: Option<Duration>,
        told: String,
    ) -> Self {
        use rustls::{AlertDescription, CertificateError, Error};
        match tls {
            Some(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                return Self::HubExpired;
            }
            Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => return Self::OwnExpired,
            _ => {}
        }
        match (reason, retry_after) {
            (Some("Revoked"), _) => Self::Revoked,
            (Some("CertificateExpired" | "CertificateUnknown"), _) => Self::OwnExpired,
            (Some("TokenUsed" | "TokenExpired" | "TokenUnknown" | "TokenForOtherClass" | "NameTaken"), _) => {
                Self::TokenRefused(told)
            }
            (_, Some(time)) => Self::Throttled(time),
            (Some(_), None) => Self::Refused(told),
            (None, None) => Self::Unreachable(told),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The device starts, with what it holds.
    Started {
        /// Certificates, where it has any.
        held: Option<Held>,
        /// Whether there is a token that was not tried yet.
        token: bool,
    },
    /// Enrolment or renewal succeeded.
    Issued(Held),
    /// The time was proven.
    TimeLearned,
    /// A session is open.
    SessionUp,
    /// The session ended after it was open.
    SessionDown(Failure),
    /// An action failed.
    Failed(Action, Failure),
    /// A wait is over, or an hour has passed in a session.
    Tick,
}

/// See the module's words.
#[derive(Debug)]
pub struct Lifecycle {
    held: Option<Held>,
    token: bool,
    token_refused: Option<String>,
    connected: bool,
    /// The time was asked for since the hub's certificate last looked expired.
    time_asked: bool,
    /// A renewal failed that could wait; do not let it stand before the session.
    renewal_put_off: bool,
    /// The hub found our certificate expired although we do not.
    told_expired: bool,
    /// The certificate looks old although it has only just been issued: our clock is wrong, and must not make us renew
    /// again and again. Holds until the time is proven.
    just_issued: bool,
    backoff: Backoff,
}

/// A removed device asks this seldom: its hub may be restored from a backup.
const REVOKED_WAIT: Duration = Duration::from_secs(3600);
/// Between looks at the certificate while a session is open.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

impl Lifecycle {
    /// Waits `first` after the first failure in a row, up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            held: None,
            token: false,
            token_refused: None,
            connected: false,
            time_asked: false,
            renewal_put_off: false,
            told_expired: false,
            just_issued: false,
            backoff: Backoff::new(first, most),
        }
    }

    /// Takes what happened and says what to do next; `now` is the best known time.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Step {
        match event {
            Event::Started { held, token } => {
                (self.held, self.token, self.token_refused, self.connected) = (held, token, None, false);
            }
            Event::Issued(held) => {
                let old = |(from, until)| third(from, until) < now;
                self.just_issued = held.operational.is_some_and(old);
                (self.held, self.token) = (Some(held), false);
                (self.told_expired, self.renewal_put_off) = (false, false);
                self.backoff.succeeded();
            }
            Event::TimeLearned => self.just_issued = false,
            Event::Tick => {}
            Event::SessionUp => {
                (self.connected, self.time_asked, self.just_issued) = (true, false, false);
                self.backoff.succeeded();
            }
            Event::SessionDown(failure) => {
                self.connected = false;
                return self.after_failure(Action::Connect, failure, now);
            }
            Event::Failed(action, failure) => return self.after_failure(action, failure, now),
        }
        self.next(now)
    }

    fn next(&mut self, now: Timestamp) -> Step {
        let Some(held) = &self.held else {
            return if self.token {
                Step::Do(Action::Enrol)
            } else {
                let why = self
                    .token_refused
                    .clone()
                    .unwrap_or_else(|| "the device is not enrolled".into());
                Step::NeedToken { why }
            };
        };
        if held.identity_until < now && !self.time_asked {
            // Ten years are long: more likely the clock is wrong.
            self.time_asked = true;
            return Step::Do(Action::LearnTime);
        }
        if held.identity_until < now {
            let why = format!("the identity certificate ended at {}", held.identity_until);
            return if self.token {
                Step::Do(Action::Enrol)
            } else {
                Step::NeedToken { why }
            };
        }
        match held.operational {
            None => Step::Do(Action::Renew),
            Some(_) if self.just_issued && !self.connected => Step::Do(Action::Connect),
            Some((_, until)) if until < now || self.told_expired => Step::Do(Action::Renew),
            // A clock before the certificate's begin says nothing about its age.
            Some((from, until)) if third(from, until) < now && !self.renewal_put_off => {
                Step::Do(Action::Renew)
            }
            Some(_) if self.connected => {
                self.renewal_put_off = false;
                Step::Wait {
                    time: LOOK_EVERY,
                    why: "connected".into(),
                }
            }
            Some(_) => Step::Do(Action::Connect),
        }
    }

    fn after_failure(&mut self, action: Action, failure: Failure, now: Timestamp) -> Step {
        if action == Action::LearnTime {
            self.time_asked = false;
        }
        match failure {
            Failure::HubExpired if !self.time_asked && action != Action::Enrol => {
                self.time_asked = true;
                Step::Do(Action::LearnTime)
            }
            Failure::HubExpired => {
                self.time_asked = false;
                self.wait("the hub's certificate has expired".into())
            }
            Failure::OwnExpired if action == Action::Connect => {
                self.told_expired = true;
                Step::Do(Action::Renew)
            }
            Failure::OwnExpired => self.wait("the hub finds the identity certificate expired".into()),
            Failure::Revoked => Step::Wait {
                time: REVOKED_WAIT,
                why: "the hub has removed this device".into(),
            },
            Failure::TokenRefused(why) if action == Action::Enrol => {
                self.token = false;
                self.token_refused = Some(why);
                self.next(now)
            }
            Failure::Throttled(time) => {
                // All who were sent away at once must not return at once.
                let spread = time.mul_f64(rand::random_range(1.0..=2.0));
                Step::Wait {
                    time: spread,
                    why: "the hub is busy".into(),
                }
            }
            Failure::Unreachable(why) | Failure::Refused(why) | Failure::TokenRefused(why) => {
                if action == Action::Renew && !self.must_renew(now) {
                    self.renewal_put_off = true;
                    return self.next(now);
                }
                self.wait(why)
            }
        }
    }

    fn must_renew(&self, now: Timestamp) -> bool {
        let usable = |held: &Held| held.operational.is_some_and(|(_, until)| until >= now);
        self.told_expired || !self.held.as_ref().is_some_and(usable)
    }

    fn wait(&mut self, why: String) -> Step {
        Step::Wait {
            time: self.backoff.failed(),
            why,
        }
    }
}

/// Renewal is due after a third of the life.
fn third(from: Timestamp, until: Timestamp) -> Timestamp {
    from.saturating_add(from.duration_until(until) / 3)
        .unwrap_or(until)
}
