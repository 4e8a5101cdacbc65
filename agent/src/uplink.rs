//! The device's side of its hub: enrol, renew, one session, records up, orders down.
//!
//! `identity` says what to do next; this module does it and tells how it went. Nothing here is in the path of what
//! the device runs.

use crate::orders::Orders;
use crate::report::Reported;
use bytes::Bytes;
use identity::{Action, DeviceKeys, EnrolToken, Event, Failure, Held, Lifecycle, Step, TimeKeeper};
use model::{ClassName, DeviceName};
use runtime::Engine;
use spool::Stream;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::client::{
    ConnectError, Ended, EnrolRequest, HubAddress, RenewRequest, Session, enrol, renew, signed_time,
};
use wire::frame::{Cursor, Hello, Records};

/// Under this name the hub's acknowledgements are kept in the spool.
pub const SINK: &str = "hub";
/// Bytes of one batch.
const BATCH: usize = 256 * 1024;
/// Bytes that may be on their way without acknowledgement, per stream.
const IN_FLIGHT: usize = 1024 * 1024;

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
    let opened = Session::connect(&inputs.hub, tls, hello(inputs, &nonce)).await;
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
    let sending = send_all(&session, &inputs.streams, inputs.epoch);
    tokio::pin!(sending);
    let ended = loop {
        tokio::select! {
            ended = session.ended() => break ended,
            () = &mut sending => break session.ended().await,
            Some(order) = orders.recv() => inputs.orders.take(order, session.sender(), &inputs.keys).await,
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

/// Sends every stream from where the hub stands, and keeps its acknowledgements. Ends with the session.
async fn send_all(session: &Session, streams: &[Stream], epoch: u64) {
    let all = streams.iter().map(|stream| async move {
        if let Err(why) = send_one(session, stream, epoch).await {
            tracing::debug!(stream = stream.name(), why, "sending stopped");
        }
    });
    futures_util::future::join_all(all).await;
}

async fn send_one(session: &Session, stream: &Stream, epoch: u64) -> Result<(), String> {
    let name = stream.name();
    let mut acks = session.acks();
    let stored = |held: &BTreeMap<String, Cursor>| {
        held.get(name)
            .filter(|cursor| cursor.epoch == epoch)
            .map_or(0, |cursor| cursor.upto)
    };
    // What the hub has already need not be sent; what it lost (restored from a backup) is sent again, where it is here.
    let mut sent = stored(&acks.borrow_and_update());
    let mut on_the_way: VecDeque<(u64, usize)> = VecDeque::new();
    loop {
        let acked = stored(&acks.borrow_and_update());
        keep(stream, acked)?;
        on_the_way.retain(|(last, _)| *last > acked);
        let full = on_the_way.iter().map(|(_, bytes)| bytes).sum::<usize>() >= IN_FLIGHT;
        let records = if full {
            Vec::new()
        } else {
            stream.read(sent, BATCH).map_err(|err| kit::chain(&err))?
        };
        if records.is_empty() {
            tokio::select! {
                moved = acks.changed() => moved.map_err(|_| "the session ended".to_owned())?,
                () = stream.changed(sent), if !full => {
                    // Announced but not to be read: a moment, so that damage does not become a busy loop.
                    if stream.read(sent, 1).is_ok_and(|records| records.is_empty()) {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
        for run in records.chunk_by(|a, b| b.seq == a.seq + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let payloads: Vec<Bytes> = run
                .iter()
                .map(|record| Bytes::from(record.payload.clone()))
                .collect();
            on_the_way.push_back((last.seq, payloads.iter().map(Bytes::len).sum()));
            let mut batch = Records::new(name, epoch, first.seq, payloads);
            // After a crash numbers are left out; the hub must not count them as lost.
            batch.unused = stream.unused(sent, first.seq);
            session
                .sender()
                .records(batch)
                .await
                .map_err(|err| err.to_string())?;
            sent = last.seq;
        }
    }
}

/// Remembers what the hub has stored. A hub that claims more than there is remembers another life of this spool.
fn keep(stream: &Stream, upto: u64) -> Result<(), String> {
    if upto > stream.acked(SINK) {
        stream.ack(SINK, upto).map_err(|err| kit::chain(&err))
    } else {
        Ok(())
    }
}
