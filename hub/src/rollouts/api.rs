//! `/v1/rollouts` and `/v1/rollout-policy`.

use crate::Hub;
use crate::caller::PersonCaller;
use crate::problem::Refusal;
use crate::store::{DeviceFilter, StoreError};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use model::{Revision, Rollout, RolloutPolicy, RolloutState};
use serde::Deserialize;
use std::sync::Arc;
use wire::api::{NewRollout, PolicyState, RolloutAct};

/// Digits of a commit that name it.
const LEAST_DIGITS: usize = 7;
const MOST: usize = 100;

/// How many of the newest.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    limit: Option<usize>,
}

type Answer<T> = Result<Json<T>, Refusal>;

pub(crate) async fn list(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    query: Result<Query<Limit>, QueryRejection>,
) -> Answer<Vec<Rollout>> {
    let Query(asked) = query.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let limit = asked.limit.unwrap_or(MOST).min(MOST);
    Ok(Json(hub.store().rollouts(limit).await?))
}

pub(crate) async fn one(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    Path(id): Path<u64>,
) -> Answer<Rollout> {
    find(&hub, id).await.map(Json)
}

pub(crate) async fn policy(State(hub): State<Arc<Hub>>, _: PersonCaller) -> Answer<PolicyState> {
    let held = hub.store().rollout_policy().await?;
    Ok(Json(match held {
        None => PolicyState::default(),
        Some(held) => PolicyState {
            policy: Some(held.policy),
            set_by: Some(held.by),
            set_at: Some(held.at),
        },
    }))
}

pub(crate) async fn set_policy(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    new: Result<Json<RolloutPolicy>, JsonRejection>,
) -> Answer<PolicyState> {
    let Json(new) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    hub.store().set_rollout_policy(Some(new), &person.name).await?;
    policy(State(hub), PersonCaller(person)).await
}

pub(crate) async fn remove_policy(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
) -> Answer<PolicyState> {
    hub.store().set_rollout_policy(None, &person.name).await?;
    Ok(Json(PolicyState::default()))
}

pub(crate) async fn begin(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    new: Result<Json<NewRollout>, JsonRejection>,
) -> Answer<Rollout> {
    let Json(new) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let Some(held) = hub.store().rollout_policy().await? else {
        let message = "there is no policy for roll-outs, so that devices follow their source by themselves; set one \
                       with `leeward rollout policy --stages 1,25%`";
        return Err(Refusal::new(StatusCode::CONFLICT, "NoPolicy", message));
    };
    let revision = told_of(&hub, &new.revision).await?;
    let id = hub
        .store()
        .begin_rollout(revision, held.policy, &person.name)
        .await?;
    find(&hub, id).await.map(Json)
}

pub(crate) async fn act(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    Path(id): Path<u64>,
    new: Result<Json<RolloutAct>, JsonRejection>,
) -> Answer<Rollout> {
    let Json(what) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    loop {
        let before = find(&hub, id).await?;
        if before.state.has_ended() {
            let message = format!("roll-out {id} has ended: {}", before.state.word());
            return Err(Refusal::new(StatusCode::CONFLICT, "Ended", message));
        }
        let mut after = before.clone();
        match what {
            RolloutAct::Pause => after.state = RolloutState::Paused,
            RolloutAct::Resume => rollout::resume(&mut after, hub.now()),
            RolloutAct::Abort => after.state = RolloutState::Aborted,
        }
        after.changed_at = hub.now();
        // Where a step came between, it is looked at again.
        if hub
            .store()
            .save_rollout(before, after.clone(), &person.name)
            .await?
        {
            return Ok(Json(after));
        }
    }
}

async fn find(hub: &Hub, id: u64) -> Result<Rollout, Refusal> {
    let found = hub.store().rollout(id).await?;
    found.ok_or_else(|| {
        Refusal::not_found(format!(
            "no roll-out has the number {id}; `leeward get rollouts` lists them"
        ))
    })
}

/// The revision that the first digits of a commit mean, among those that devices have told of or that were rolled out.
async fn told_of(hub: &Hub, text: &str) -> Result<Revision, Refusal> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() < LEAST_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::bad_request(format!(
            "`{text}` is no commit: write at least its first {LEAST_DIGITS} digits"
        )));
    }
    let mut known = known(hub).await?;
    known.retain(|revision| revision.commit.starts_with(&text));
    known.sort_by(|one, other| one.commit.cmp(&other.commit));
    known.dedup_by(|one, other| one.commit == other.commit);
    match known.len() {
        0 => Err(Refusal::not_found(format!(
            "no device has told of a revision {text}; push it, and look again when a device has fetched it"
        ))),
        1 => Ok(known.swap_remove(0)),
        more => Err(Refusal::bad_request(format!(
            "{text} means {more} revisions; write more digits"
        ))),
    }
}

async fn known(hub: &Hub) -> Result<Vec<Revision>, StoreError> {
    let devices = hub.store().fleet(DeviceFilter::default()).await?.devices;
    let told = devices.into_iter().filter_map(|device| device.status);
    let told = told.flat_map(|held| [held.status.source.revision, held.status.generation.revision]);
    let mut known: Vec<Revision> = told.flatten().collect();
    let past = hub.store().rollouts(MOST).await?;
    known.extend(past.into_iter().map(|rollout| rollout.revision));
    Ok(known)
}
