//! The roll-over of the hub's authority, step by step, for people: see [`identity::Authority`].

use crate::caller::PersonCaller;
use crate::problem::Refusal;
use crate::store::{Act, Certificate, DeviceFilter};
use crate::{Hub, HubError};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use http::StatusCode;
use identity::AuthorityError;
use model::DeviceName;
use std::sync::Arc;
use wire::api::{AuthorityRow, AuthorityState, NewStep, RollOver};

/// Devices that a refusal names.
const NAMED: usize = 5;

pub(crate) async fn state(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
) -> Result<Json<AuthorityState>, Refusal> {
    hub.authority_state().await.map(Json)
}

pub(crate) async fn step(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    new: Result<Json<NewStep>, JsonRejection>,
) -> Result<Json<AuthorityState>, Refusal> {
    let Json(new) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    if new.step == RollOver::Retire && !new.force {
        refuse_to_shut_out(&hub.authority_state().await?.behind)?;
    }
    let (action, made) = match new.step {
        RollOver::Prepare => (
            "authority.prepare",
            hub.roll_over(|authority| authority.prepare()),
        ),
        RollOver::Activate => (
            "authority.activate",
            hub.roll_over(|authority| authority.activate()),
        ),
        RollOver::Retire => ("authority.retire", hub.roll_over(|authority| authority.retire())),
    };
    made.map_err(refusal)?;
    let state = hub.authority_state().await?;
    let act = Act {
        who: person.name,
        action: action.into(),
        target: "hub".into(),
        outcome: "ok".into(),
        detail: state
            .behind
            .iter()
            .map(DeviceName::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    };
    hub.store().audit(act).await?;
    Ok(Json(state))
}

fn refuse_to_shut_out(behind: &[DeviceName]) -> Result<(), Refusal> {
    if behind.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = behind.iter().take(NAMED).map(DeviceName::as_str).collect();
    if behind.len() > NAMED {
        names.push("...");
    }
    Err(Refusal::new(
        StatusCode::CONFLICT,
        "Behind",
        format!(
            "{} devices hold no certificate of the new authority yet and would have to be enrolled again by hand: {}; \
             wait until they have been connected, or force it",
            behind.len(),
            names.join(", ")
        ),
    ))
}

fn refusal(err: HubError) -> Refusal {
    match err {
        HubError::Authority(err @ AuthorityError::RollOver(_)) => {
            Refusal::new(StatusCode::CONFLICT, "RollOver", err.to_string())
        }
        other => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", kit::chain(&other)),
    }
}

impl Hub {
    async fn authority_state(&self) -> Result<AuthorityState, Refusal> {
        let (trusted, changed_at) =
            self.with_authority(|authority| (authority.trusted(), authority.changed_at()));
        let trusted = trusted.map_err(|err| refusal(err.into()))?;
        let mut behind = Vec::new();
        if trusted.iter().any(|trusted| trusted.role == "old") {
            for device in self.store().fleet(DeviceFilter::default()).await?.devices {
                let issued = self.store().certificates(&device.name).await?;
                // The list begins with the newest.
                let newest = issued.iter().find(|c| c.revoked_at.is_none());
                // The store keeps no more than milliseconds.
                let before = |c: &Certificate| c.issued_at.as_millisecond() < changed_at.as_millisecond();
                if newest.is_some_and(before) {
                    behind.push(device.name);
                }
            }
        }
        let row = |trusted: identity::Trusted| AuthorityRow {
            role: trusted.role.to_owned(),
            fingerprint: trusted.fingerprint,
            not_after: trusted.not_after,
            certificate: trusted.certificate,
        };
        Ok(AuthorityState {
            authorities: trusted.into_iter().map(row).collect(),
            changed_at,
            behind,
        })
    }
}
