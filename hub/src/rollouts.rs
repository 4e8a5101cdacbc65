//! The hub's part in staged roll-outs: what devices say goes to [`rollout`], and what follows from it to devices.

mod api;

pub(crate) use api::{act, begin, list, one, policy, remove_policy, set_policy};

use crate::Hub;
use crate::store::{Change, Device, DeviceFilter, Link, StoreError};
use jiff::SignedDuration;
use kit::OnEnd;
use model::{Admission, DeviceName, IntentKind, Phase, Revision, Rollout};
use rollout::{Failure, Fleet, Seen};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// Who begins and moves roll-outs where no person does.
const HUB: &str = "hub";
/// Time passes for stages even where nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What happens within this time is looked at together.
const GATHER: Duration = Duration::from_millis(500);
/// How long a device may stay away and still take an admission; it is stated anew after.
const VALID_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Follows the fleet for as long as the hub runs.
pub(crate) fn start(hub: &Arc<Hub>) {
    let weak = Arc::downgrade(hub);
    hub.tasks.spawn("rollouts", OnEnd::Restart, move || {
        let weak = weak.clone();
        async move {
            let Some(mut changes) = weak.upgrade().map(|hub| hub.store().changes()) else {
                return;
            };
            loop {
                let Some(hub) = weak.upgrade() else { return };
                if let Err(err) = turn(&hub).await {
                    tracing::warn!(err = kit::chain(&err), "roll-outs stand still");
                }
                drop(hub);
                tokio::time::sleep(GATHER).await;
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = until_something(&mut changes) => {}
                }
            }
        }
    });
}

async fn until_something(changes: &mut tokio::sync::broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::Device(_) | Change::Rollouts) | Err(RecvError::Lagged(_)) => return,
            Ok(Change::Events(_) | Change::Telemetry | Change::Audit) => {}
            // The store is gone; so are we, soon.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// One look at everything.
async fn turn(hub: &Arc<Hub>) -> Result<(), StoreError> {
    let store = hub.store();
    let Some(held) = store.rollout_policy().await? else {
        return release(hub).await;
    };
    let devices = store.fleet(DeviceFilter::default()).await?.devices;
    let devices: Vec<Device> = devices
        .into_iter()
        .filter(|device| device.revoked.is_none())
        .collect();
    let mut newest = store.rollouts(1).await?.pop();
    if let Some(news) = newest_waiting(&devices).filter(|news| rollout::is_news(news, newest.as_ref())) {
        store.begin_rollout(news.clone(), held.policy, HUB).await?;
        newest = store.rollouts(1).await?.pop();
    }
    let fleet: Fleet = devices
        .iter()
        .map(|device| (device.name.clone(), seen(device)))
        .collect();
    let mut running = newest.filter(|rollout| !rollout.state.has_ended());
    if let Some(rollout) = &mut running {
        let before = rollout.clone();
        if rollout::step(rollout, &fleet, hub.now())
            && !store.save_rollout(before, rollout.clone(), HUB).await?
        {
            // A person was quicker, and woke us again.
            return Ok(());
        }
    }
    admit(hub, &fleet, running.as_ref()).await
}

/// Tells each device what it may move to, where that is not what it was told last.
async fn admit(hub: &Arc<Hub>, fleet: &Fleet, running: Option<&Rollout>) -> Result<(), StoreError> {
    let told = hub.store().admissions().await?;
    let done = hub.store().done_rollout().await?;
    let done = done.as_ref().map(|rollout| rollout.revision.commit.as_str());
    for device in fleet.keys() {
        let last = told.get(device);
        let before = last.and_then(|last| match &last.admission {
            Admission::Only { revision } => revision.as_deref(),
            Admission::Any => None,
        });
        let admission = rollout::admission(device, running, before, done);
        if last.is_none_or(|last| last.admission != admission || !last.stands) {
            state(hub, device, admission).await?;
        }
    }
    Ok(())
}

/// Without a policy devices follow their source again.
async fn release(hub: &Arc<Hub>) -> Result<(), StoreError> {
    for (device, last) in hub.store().admissions().await? {
        if last.admission != Admission::Any || !last.stands {
            state(hub, &device, Admission::Any).await?;
        }
    }
    Ok(())
}

async fn state(hub: &Arc<Hub>, device: &DeviceName, admission: Admission) -> Result<(), StoreError> {
    let stated = hub
        .state(device, IntentKind::Admit(admission.clone()), VALID_FOR, HUB)
        .await;
    match stated {
        Ok((intent, _, _)) => hub.store().set_admission(device, &admission, intent).await,
        // Shut out since we looked: there is nobody to tell.
        Err(StoreError::Revoked(_) | StoreError::NoSuchDevice(_)) => Ok(()),
        Err(err) => Err(err),
    }
}

/// The newest revision that a device has seen, does not run, and may not move to.
fn newest_waiting(devices: &[Device]) -> Option<&Revision> {
    let told = devices.iter().filter_map(|device| device.status.as_ref());
    told.map(|held| &held.status)
        .filter(|status| status.source.waits && status.source.revision != status.generation.revision)
        .filter_map(|status| status.source.revision.as_ref())
        .max_by_key(|revision| revision.committed_at)
}

/// What is known of a device now.
fn seen(device: &Device) -> Seen {
    let mut labels = device.labels.clone();
    labels.insert("class".into(), device.class.to_string());
    labels.insert("site".into(), device.site.clone());
    let status = device.status.as_ref().map(|held| &held.status);
    let phase = status.map(|status| &status.phase);
    let away = match (&device.link, phase) {
        (Link::Up { .. }, Some(Phase::Paused)) => Some("is paused".to_owned()),
        (Link::Up { .. }, Some(_)) => None,
        _ => Some("cannot be reached".to_owned()),
    };
    let generation = status.map(|status| &status.generation);
    let failed = generation.and_then(|generation| {
        let (commit, (_, why)) = (generation.failed_commit.as_ref()?, generation.failed.as_ref()?);
        Some(Failure {
            commit: commit.clone(),
            why: why.clone(),
            tried: matches!(phase, Some(Phase::RolledBack | Phase::Degraded)),
        })
    });
    Seen {
        labels,
        away,
        runs: generation.and_then(|generation| Some(generation.revision.as_ref()?.commit.clone())),
        healthy: phase == Some(&Phase::Ready),
        failed,
    }
}
