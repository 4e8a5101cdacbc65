//! The life cycle drives a real device against a real hub: this is the loop that an agent runs.

use crate::rig::*;
use identity::{Action, EnrolToken, Event, Failure, Lifecycle, Step, TimeKeeper};
use jiff::{SignedDuration, Timestamp};
use kit::Clock as _;
use std::time::Duration;
use wire::client::{ConnectError, HubAddress, Orders, Session};

fn failed(action: Action, err: &ConnectError) -> Event {
    Event::Failed(
        action,
        Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(err)),
    )
}

/// Goes on until a session is open or nothing can be done; tells the actions on the way.
async fn drive(
    device: &mut Device,
    hub: &HubAddress,
    token: Option<&EnrolToken>,
) -> (Vec<Action>, Result<(Session, Orders), Step>) {
    let mut life = Lifecycle::new(Duration::from_millis(1), Duration::from_millis(5));
    let mut done = Vec::new();
    let started = Event::Started {
        held: device.keys.held(),
        token: token.is_some(),
    };
    let mut step = life.handle(started, device.keys.time().now());
    for _ in 0..20 {
        let Step::Do(action) = step else {
            return (done, Err(step));
        };
        done.push(action);
        let event = match action {
            Action::Enrol => match device.enrol(hub, token.unwrap()).await {
                Ok(()) => Event::Issued(device.keys.held().unwrap()),
                Err(err) => failed(action, &err),
            },
            Action::Renew => match device.renew(hub).await {
                Ok(()) => Event::Issued(device.keys.held().unwrap()),
                Err(err) => failed(action, &err),
            },
            Action::LearnTime => {
                let nonce = TimeKeeper::nonce();
                match wire::client::signed_time(hub, device.keys.time_tls().unwrap(), &nonce).await {
                    Ok(signed) => {
                        device.keys.prove_time(&signed, &nonce).unwrap();
                        Event::TimeLearned
                    }
                    Err(err) => failed(action, &err),
                }
            }
            Action::Connect => match device.connect(hub).await {
                Ok(open) => {
                    life.handle(Event::SessionUp, device.keys.time().now());
                    return (done, Ok(open));
                }
                Err(err) => failed(action, &err),
            },
        };
        step = life.handle(event, device.keys.time().now());
    }
    panic!("it turns in a circle: {done:?}")
}

#[tokio::test]
async fn from_a_token_to_a_session() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    let mut device = rig.stranger("a");
    let (done, open) = drive(&mut device, &rig.at(), Some(&token)).await;
    assert_eq!(done, [Action::Enrol, Action::Connect]);
    open.unwrap();
    device.reopen();
    let (done, open) = drive(&mut device, &rig.at(), None).await;
    assert_eq!(done, [Action::Connect]);
    open.unwrap();
}

#[tokio::test]
async fn away_for_a_year_with_the_clock_in_1970() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    rig.clock.advance(Duration::from_secs(365 * 86_400));
    let rig = rig.restart().await;
    device.clock.jump_to(Timestamp::UNIX_EPOCH);
    device.reopen();
    // By its own clock its certificate is good; the hub knows better.
    let (done, open) = drive(&mut device, &rig.at(), None).await;
    assert_eq!(done, [Action::Connect, Action::Renew, Action::Connect]);
    open.unwrap();
}

#[tokio::test]
async fn away_for_a_year_with_the_clock_in_2050() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    rig.clock.advance(Duration::from_secs(365 * 86_400));
    let rig = rig.restart().await;
    // Within the identity certificate's life, far beyond everything else.
    device
        .clock
        .jump_to(rig.clock.now() + SignedDuration::from_hours(24 * 365 * 8));
    device.reopen();
    let (done, open) = drive(&mut device, &rig.at(), None).await;
    assert_eq!(
        done,
        [Action::Renew, Action::LearnTime, Action::Renew, Action::Connect]
    );
    open.unwrap();
}

#[tokio::test]
async fn a_clock_beyond_every_certificate_is_asked_about_first() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    device
        .clock
        .jump_to(rig.clock.now() + SignedDuration::from_hours(24 * 365 * 40));
    device.reopen();
    let (done, open) = drive(&mut device, &rig.at(), None).await;
    assert_eq!(done, [Action::LearnTime, Action::Connect]);
    open.unwrap();
}

#[tokio::test]
async fn a_spent_token_is_told_and_not_tried_for_ever() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    rig.stranger("a").enrol(&rig.at(), &token).await.unwrap();
    let (done, open) = drive(&mut rig.stranger("b"), &rig.at(), Some(&token)).await;
    assert_eq!(done, [Action::Enrol]);
    assert!(matches!(open.unwrap_err(), Step::NeedToken { why } if why.contains("used already")));
}

#[tokio::test]
async fn a_clock_that_runs_forty_days_ahead_renews_once() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    device
        .clock
        .jump_to(rig.clock.now() + SignedDuration::from_hours(24 * 40));
    device.reopen();
    let (done, open) = drive(&mut device, &rig.at(), None).await;
    assert_eq!(done, [Action::Renew, Action::Connect]);
    open.unwrap();
    let off = device.keys.time().now().duration_until(rig.clock.now()).abs();
    assert!(off < SignedDuration::from_secs(60), "{off}");
}
