//! The device's side of its hub: enrol, renew, one session, records up, orders down.
//!
//! `identity` says what to do next; this module does it and tells how it went. Nothing here is in the path of what
//! the device runs.

mod budget;
mod lanes;
mod links;
mod send;

pub use crate::orders::Orders;
use crate::report::Reported;
pub use budget::{Budget, Now, Policy, Usage};
use identity::{Action, DeviceKeys, EnrolToken, Event, Failure, Held, Lifecycle, Step, TimeKeeper};
use kit::Clock;
pub use links::{Links, RawLink, Rule};
use model::{ClassName, DeviceName};
pub use send::Sender;

use runtime::Engine;
use spool::Stream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::client::{
    ConnectError, Ended, EnrolRequest, HubAddress, Meter, RenewRequest, Session, enrol, renew, signed_time,
};
use wire::frame::{Cursor, Hello};

/// Under this name the hub's acknowledgements are kept in the spool.
pub const SINK: &str = "hub";
/// How often it is looked whether the month's use is worth writing down.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// How the link is, for people at the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A session is open.
    Up,
    /// There is none; why.
    Down(String),
}

/// Everything that the uplink needs.
#[derive(Debug)]
pub struct Inputs<E> {
    /// Where the hub is.
    pub hub: HubAddress,
    /// Keys and certificates; pulls from the hub's registry use them too.
    pub keys: Arc<Mutex<DeviceKeys>>,
    /// For the first time.
    pub token: Option<EnrolToken>,
    /// Who.
    pub device: DeviceName,
    /// Its class.
    pub class: ClassName,
    /// Random id of this boot.
    pub boot_id: String,
    /// What is sent, most urgent first.
    pub streams: Vec<Stream>,
    /// Epoch of the spool.
    pub epoch: u64,
    /// What the links may carry.
    pub links: Links,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Newest status, for the greeting.
    pub status: watch::Receiver<Option<Reported>>,
    /// What to do with the hub's orders.
    pub orders: Orders<E>,
    /// Certificates changed: whoever holds a TLS configuration makes a new one.
    pub renewed: watch::Sender<u64>,
    /// How the link is.
    pub link: watch::Sender<Link>,
}

/// Keeps the device connected, for ever.
pub async fn run<E: Engine>(mut inputs: Inputs<E>) {
    let time: Arc<TimeKeeper> = Arc::clone(keys(&inputs.keys).time());
    let mut life = Lifecycle::default();
    let started = Event::Started {
        held: keys(&inputs.keys).held(),
        token: inputs.token.is_some(),
    };
    let mut step = life.handle(started, time.now());
    loop {
        let event = match step {
            Step::Do(Action::Enrol) => outcome(Action::Enrol, enrol_now(&inputs).await),
            Step::Do(Action::Renew) => outcome(Action::Renew, renew_now(&inputs).await),
            Step::Do(Action::LearnTime) => match learn_time(&inputs).await {
                Ok(()) => Event::TimeLearned,
                Err(failure) => Event::Failed(Action::LearnTime, failure),
            },
            Step::Do(Action::Connect) => connect(&mut inputs, &mut life, &time).await,
            Step::Wait { time, why } => {
                tell(&inputs.link, Link::Down(why));
                tokio::time::sleep(time).await;
                Event::Tick
            }
            Step::NeedToken { why } => {
                let told = format!("{why}; put a new enrolment token into the agent's configuration");
                tell(&inputs.link, Link::Down(told));
                std::future::pending().await
            }
        };
        if matches!(event, Event::Issued(_)) {
            inputs.renewed.send_modify(|count| *count += 1);
        }
        step = life.handle(event, time.now());
    }
}

fn keys(keys: &Mutex<DeviceKeys>) -> MutexGuard<'_, DeviceKeys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(link: &watch::Sender<Link>, now: Link) {
    link.send_if_modified(|held| {
        let news = *held != now;
        if news {
            tracing::info!(link = ?now, "link to the hub");
            *held = now;
        }
        news
    });
}

fn outcome(action: Action, result: Result<Held, Failure>) -> Event {
    match result {
        Ok(held) => Event::Issued(held),
        Err(failure) => Event::Failed(action, failure),
    }
}

fn failure(err: &ConnectError) -> Failure {
    Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(err))
}

fn own_fault(err: impl std::error::Error + 'static) -> Failure {
    Failure::Refused(kit::chain(&err))
}

async fn enrol_now<E>(inputs: &Inputs<E>) -> Result<Held, Failure> {
    let Some(token) = &inputs.token else {
        return Err(Failure::TokenRefused("there is no enrolment token".to_owned()));
    };
    let (requests, tls) = {
        let keys = keys(&inputs.keys);
        (
            keys.requests(&inputs.device).map_err(own_fault)?,
            keys.enrol_tls(token).map_err(own_fault)?,
        )
    };
    let request = EnrolRequest {
        token: token.reveal(),
        device: inputs.device.clone(),
        class: inputs.class.clone(),
        identity_csr: requests.identity_csr.clone(),
        operational_csr: requests.operational_csr.clone(),
    };
    let answer = enrol(&inputs.hub, tls, &request)
        .await
        .map_err(|err| failure(&err))?;
    keys(&inputs.keys)
        .store_enrolment(
            token,
            &requests,
            &answer.identity,
            &answer.operational,
            &answer.bundle,
        )
        .map_err(own_fault)
}

async fn renew_now<E>(inputs: &Inputs<E>) -> Result<Held, Failure> {
    let (requests, tls, bundle_serial) = {
        let keys = keys(&inputs.keys);
        let requests = keys.requests(&inputs.device).map_err(own_fault)?;
        (
            requests,
            keys.renew_tls().map_err(own_fault)?,
            keys.bundle_serial(),
        )
    };
    let request = RenewRequest {
        operational_csr: requests.operational_csr.clone(),
        bundle_serial,
    };
    let answer = renew(&inputs.hub, tls, &request)
        .await
        .map_err(|err| failure(&err))?;
    keys(&inputs.keys)
        .store_renewal(
            &requests,
            answer.identity.as_deref(),
            &answer.operational,
            answer.bundle.as_ref(),
        )
        .map_err(own_fault)
}

async fn learn_time<E>(inputs: &Inputs<E>) -> Result<(), Failure> {
    let tls = keys(&inputs.keys).time_tls().map_err(own_fault)?;
    let nonce = TimeKeeper::nonce();
    let signed = signed_time(&inputs.hub, tls, &nonce)
        .await
        .map_err(|err| failure(&err))?;
    keys(&inputs.keys).prove_time(&signed, &nonce).map_err(own_fault)
}

/// Opens a session and serves it to its end.
async fn connect<E: Engine>(inputs: &mut Inputs<E>, life: &mut Lifecycle, time: &TimeKeeper) -> Event {
    let tls = match keys(&inputs.keys).session_tls() {
        Ok(tls) => tls,
        Err(err) => return Event::Failed(Action::Connect, own_fault(err)),
    };
    let nonce = TimeKeeper::nonce();
    let meter = Meter::default();
    let opened = Session::connect_metered(&inputs.hub, tls, hello(inputs, &nonce), &meter).await;
    let (session, mut orders) = match opened {
        Ok(opened) => opened,
        Err(err) => return Event::Failed(Action::Connect, failure(&err)),
    };
    let welcome = session.welcome();
    {
        let mut keys = keys(&inputs.keys);
        if let Err(err) = keys.prove_time(&welcome.time, &nonce) {
            tracing::warn!(err = kit::chain(&err), "the hub's time is not believed");
        }
        if let Some(Err(err)) = welcome.bundle.as_ref().map(|bundle| keys.accept_bundle(bundle)) {
            tracing::warn!(err = kit::chain(&err), "the hub's trust bundle is not believed");
        }
    }
    // Renewal of a certificate that nears its end happens beside an open session, at the hourly tick.
    let mut pause = match life.handle(Event::SessionUp, time.now()) {
        Step::Wait { time, .. } => time,
        _ => Duration::ZERO,
    };
    tell(&inputs.link, Link::Up);
    let clock = Arc::clone(&inputs.clock);
    let now = || Now {
        since_boot: clock.since_boot(),
        wall: clock.now(),
    };
    let (rule, budget) = inputs.links.budget(meter.peer(), now());
    let budget = Arc::new(Mutex::new(budget));
    let sender = Sender::new(&session, meter, &inputs.streams, inputs.epoch, Arc::clone(&clock));
    let sending = sender.run(Arc::clone(&budget));
    tokio::pin!(sending);
    let mut keep = tokio::time::interval(KEEP_EVERY);
    let ended = loop {
        tokio::select! {
            ended = session.ended() => break ended,
            () = &mut sending => break session.ended().await,
            Some(order) = orders.recv() => inputs.orders.take(order, session.sender(), &inputs.keys).await,
            _ = keep.tick() => kept(&mut inputs.links, rule.as_deref(), &budget, now(), false),
            () = tokio::time::sleep(pause) => match life.handle(Event::Tick, time.now()) {
                Step::Wait { time, .. } => pause = time,
                _ => {
                    let event = outcome(Action::Renew, renew_now(inputs).await);
                    let renewed = matches!(event, Event::Issued(_));
                    life.handle(event, time.now());
                    if renewed {
                        inputs.renewed.send_modify(|count| *count += 1);
                    }
                    pause = Duration::from_secs(600);
                }
            },
        }
    };
    kept(&mut inputs.links, rule.as_deref(), &budget, now(), true);
    inputs.orders.forget_questions();
    tell(&inputs.link, Link::Down(ended.to_string()));
    Event::SessionDown(match ended {
        Ended::ByHub {
            retry_after: Some(time),
            ..
        } => Failure::Throttled(time),
        other => Failure::Unreachable(other.to_string()),
    })
}

fn kept(links: &mut Links, rule: Option<&str>, budget: &Mutex<Budget>, now: Now, at_once: bool) {
    if let Some(rule) = rule {
        let budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        links.keep(rule, &budget, now, at_once);
    }
}

fn hello<E>(inputs: &Inputs<E>, nonce: &str) -> Hello {
    let keys = keys(&inputs.keys);
    let reported = inputs.status.borrow().clone();
    Hello {
        versions: wire::OURS,
        device: inputs.device.clone(),
        class: inputs.class.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: inputs.boot_id.clone(),
        nonce: nonce.to_owned(),
        bundle_serial: keys.bundle_serial(),
        last_intent: keys.last_intent(),
        status_at: reported.as_ref().map(|r| Cursor {
            epoch: inputs.epoch,
            upto: r.sequence,
        }),
        status: reported.map(|r| r.status),
    }
}
