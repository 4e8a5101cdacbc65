//! The life cycle as a table of what must follow what, and under every order of failures.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use identity::{Action, Event, Failure, Held, Lifecycle, Step};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::time::Duration;

const DAY: i64 = 86_400;
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn day(number: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(number * DAY)
}

/// Enrolled on day 0, with an operational certificate from day `from` on.
fn held(from: i64) -> Held {
    Held {
        name: "a".parse().unwrap(),
        identity_until: day(3650),
        operational: Some((day(from), day(from + 30))),
    }
}

fn life(held: Option<Held>, token: bool, now: Timestamp) -> (Lifecycle, Step) {
    let mut life = Lifecycle::new(Duration::from_secs(1), Duration::from_secs(8));
    let step = life.handle(Event::Started { held, token }, now);
    (life, step)
}

fn why(step: &Step) -> &str {
    match step {
        Step::Wait { why, .. } | Step::NeedToken { why } => why,
        Step::Do(_) => "",
    }
}

fn unreachable() -> Failure {
    Failure::Unreachable("no route to host".into())
}

#[test]
fn each_age_of_the_certificates_has_its_step() {
    let bare = |held: Held| Held {
        operational: None,
        ..held
    };
    for (case, held, now, step) in [
        ("fresh", held(0), 1, Action::Connect),
        ("a third of its life is over", held(0), 11, Action::Renew),
        ("expired", held(0), 31, Action::Renew),
        ("expired for years", held(0), 3000, Action::Renew),
        (
            "the clock says that it is not valid yet",
            held(0),
            -700,
            Action::Connect,
        ),
        ("lost", bare(held(0)), 1, Action::Renew),
        (
            "the identity has ended, or the clock is wrong",
            held(0),
            4000,
            Action::LearnTime,
        ),
    ] {
        assert_eq!(life(Some(held), false, day(now)).1, Step::Do(step), "{case}");
    }
    assert_eq!(life(None, true, NOW).1, Step::Do(Action::Enrol));
    assert!(matches!(life(None, false, NOW).1, Step::NeedToken { .. }));
}

#[test]
fn a_renewal_that_can_wait_does_not_stand_before_the_session() {
    let (mut life, step) = life(Some(held(0)), false, day(15));
    assert_eq!(step, Step::Do(Action::Renew));
    let step = life.handle(Event::Failed(Action::Renew, unreachable()), day(15));
    assert_eq!(step, Step::Do(Action::Connect));
    // It is tried again an hour into the session, while the session goes on.
    assert!(matches!(
        life.handle(Event::SessionUp, day(15)),
        Step::Wait { .. }
    ));
    assert_eq!(life.handle(Event::Tick, day(15)), Step::Do(Action::Renew));
    let step = life.handle(Event::Issued(held(15)), day(15));
    assert!(matches!(step, Step::Wait { .. }), "{step:?}");
}

#[test]
fn a_renewal_that_cannot_wait_is_tried_with_growing_pauses() {
    let (mut life, _) = life(Some(held(0)), false, day(40));
    let mut last = Duration::ZERO;
    for _ in 0..4 {
        let Step::Wait { time, why } = life.handle(Event::Failed(Action::Renew, unreachable()), day(40))
        else {
            panic!("no pause")
        };
        assert!(
            time > last / 2 && time <= Duration::from_secs(8),
            "{time:?} after {last:?}"
        );
        assert_eq!(why, "no route to host");
        last = time;
        assert_eq!(life.handle(Event::Tick, day(40)), Step::Do(Action::Renew));
    }
}

#[test]
fn the_hub_knows_better_than_a_slow_clock() {
    let (mut life, _) = life(Some(held(0)), false, day(-700));
    let step = life.handle(Event::Failed(Action::Connect, Failure::OwnExpired), day(-700));
    assert_eq!(step, Step::Do(Action::Renew));
    assert_eq!(
        life.handle(Event::Issued(held(50)), day(-700)),
        Step::Do(Action::Connect)
    );
}

#[test]
fn an_expired_hub_is_asked_for_the_time_once_and_then_waited_for() {
    let (mut life, _) = life(Some(held(0)), false, day(1));
    let expired = || Event::Failed(Action::Connect, Failure::HubExpired);
    assert_eq!(life.handle(expired(), day(1)), Step::Do(Action::LearnTime));
    assert_eq!(life.handle(Event::TimeLearned, day(1)), Step::Do(Action::Connect));
    let step = life.handle(expired(), day(1));
    assert!(
        matches!(step, Step::Wait { .. }) && why(&step).contains("hub's certificate"),
        "{step:?}"
    );
    assert_eq!(life.handle(Event::Tick, day(1)), Step::Do(Action::Connect));
    assert_eq!(
        life.handle(expired(), day(1)),
        Step::Do(Action::LearnTime),
        "it may have been mended since"
    );
}

#[test]
fn a_removed_device_asks_seldom_and_never_gives_up() {
    let (mut life, _) = life(Some(held(0)), false, day(1));
    let step = life.handle(Event::Failed(Action::Connect, Failure::Revoked), day(1));
    assert!(
        matches!(step, Step::Wait { time, .. } if time >= Duration::from_secs(3600)),
        "{step:?}"
    );
    assert_eq!(life.handle(Event::Tick, day(1)), Step::Do(Action::Connect));
}

#[test]
fn a_busy_hub_is_not_asked_before_its_time() {
    let (mut life, _) = life(Some(held(0)), false, day(1));
    let busy = Failure::Throttled(Duration::from_secs(10));
    let step = life.handle(Event::Failed(Action::Connect, busy), day(1));
    assert!(
        matches!(step, Step::Wait { time, .. } if (10..=20).contains(&time.as_secs())),
        "{step:?}"
    );
}

#[test]
fn a_refused_token_is_asked_for_again() {
    let (mut life, step) = life(None, true, NOW);
    assert_eq!(step, Step::Do(Action::Enrol));
    let step = life.handle(
        Event::Failed(Action::Enrol, Failure::TokenRefused("it is spent".into())),
        NOW,
    );
    assert_eq!(
        step,
        Step::NeedToken {
            why: "it is spent".into()
        }
    );
    let step = life.handle(
        Event::Started {
            held: None,
            token: true,
        },
        NOW,
    );
    assert_eq!(step, Step::Do(Action::Enrol));
    // The link is no reason to give a token up.
    let step = life.handle(Event::Failed(Action::Enrol, unreachable()), NOW);
    assert!(matches!(step, Step::Wait { .. }), "{step:?}");
    assert_eq!(life.handle(Event::Tick, NOW), Step::Do(Action::Enrol));
}

#[test]
fn errors_of_the_link_are_read() {
    use rustls::{AlertDescription, CertificateError, Error};
    let of = |tls: Option<Error>, reason: Option<&str>, wait: Option<u64>| {
        Failure::of(tls.as_ref(), reason, wait.map(Duration::from_secs), "told".into())
    };
    assert_eq!(
        of(Some(CertificateError::Expired.into()), None, None),
        Failure::HubExpired
    );
    let alert = Error::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(of(Some(alert), None, None), Failure::OwnExpired);
    assert_eq!(
        of(Some(CertificateError::UnknownIssuer.into()), None, None),
        Failure::Unreachable("told".into())
    );
    assert_eq!(of(None, Some("Revoked"), None), Failure::Revoked);
    // A hub restored from a backup does not know what it issued since.
    assert_eq!(of(None, Some("CertificateUnknown"), None), Failure::OwnExpired);
    assert_eq!(
        of(None, Some("TokenUsed"), None),
        Failure::TokenRefused("told".into())
    );
    assert_eq!(
        of(None, Some("Busy"), Some(3)),
        Failure::Throttled(Duration::from_secs(3))
    );
    assert_eq!(
        of(None, Some("WrongCertificate"), None),
        Failure::Refused("told".into())
    );
    assert_eq!(of(None, None, None), Failure::Unreachable("told".into()));
}

#[test]
fn a_clock_that_runs_ahead_does_not_renew_for_ever() {
    for ahead in [11, 31, 80] {
        let (mut life, step) = life(Some(held(0)), false, day(ahead));
        assert_eq!(step, Step::Do(Action::Renew), "{ahead}");
        // The hub issues by its own time: today is day 1.
        assert_eq!(
            life.handle(Event::Issued(held(1)), day(ahead)),
            Step::Do(Action::Connect),
            "{ahead}"
        );
    }
}

fn any_failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(unreachable()),
        Just(Failure::HubExpired),
        Just(Failure::OwnExpired),
        Just(Failure::Revoked),
        Just(Failure::TokenRefused("spent".into())),
        Just(Failure::Throttled(Duration::from_secs(5))),
        Just(Failure::Refused("odd".into())),
    ]
}

proptest! {
    /// Whatever went wrong before and wherever the clock stands: as soon as the world behaves, an enrolled device is
    /// connected after a few steps, and none of them needs a person.
    #[test]
    fn an_enrolled_device_always_comes_back(
        clock in -30_000i64..30_000,
        truth in 0i64..3600,
        lost in any::<bool>(),
        failures in prop::collection::vec((any_failure(), -30_000i64..30_000), 0..30),
    ) {
        let mut start = held(0);
        if lost {
            start.operational = None;
        }
        let (mut life, mut step) = life(Some(start), false, day(clock));
        let mut clock = day(clock);
        for (failure, jump) in failures {
            let event = match step {
                Step::Do(Action::Connect) if failure == Failure::Revoked => Event::SessionDown(failure),
                Step::Do(action) => Event::Failed(action, failure),
                Step::Wait { .. } => Event::Tick,
                // A clock beyond ten years that could not be checked: a restart looks again.
                Step::NeedToken { .. } => Event::Started { held: Some(held(0)), token: false },
            };
            clock = day(jump);
            step = life.handle(event, clock);
        }
        for _ in 0..12 {
            let event = match step {
                Step::Do(Action::Connect) => {
                    let connected = life.handle(Event::SessionUp, clock);
                    let fine = matches!(connected, Step::Wait { .. } | Step::Do(Action::Renew | Action::LearnTime));
                    prop_assert!(fine, "{:?}", connected);
                    return Ok(());
                }
                Step::Do(Action::Renew) => Event::Issued(held(truth)),
                Step::Do(Action::LearnTime) => {
                    clock = day(truth);
                    Event::TimeLearned
                }
                Step::Do(Action::Enrol) => return Err(TestCaseError::fail("enrolled twice")),
                Step::Wait { .. } => Event::Tick,
                Step::NeedToken { why } => return Err(TestCaseError::fail(why)),
            };
            step = life.handle(event, clock);
        }
        prop_assert!(false, "it turns in a circle");
    }
}
