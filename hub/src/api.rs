//! The people's API: see `wire::api` for its routes and types.

use crate::Hub;
use crate::caller::PersonCaller;
use crate::problem::Refusal;
use crate::sessions::Command;
use crate::store::{self, Device, DeviceFilter, HeldEvent};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use identity::EnrolToken;
use jiff::{SignedDuration, Timestamp};
use model::{DeviceName, Intent, IntentKind, WorkloadState};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use wire::api::{
    AuditRow, CertificateRow, DeviceDetail, DeviceSummary, EventRow, GenerationRow, Link, MadeIntent,
    MadeToken, NewIntent, NewToken, Proof, TokenRow, WorkloadRow,
};

/// What a list is limited to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    device: Option<DeviceName>,
    limit: Option<usize>,
}

type Answer<T> = Result<Json<T>, Refusal>;
type Filtered = Result<Query<Filter>, QueryRejection>;

const USUAL_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;
/// How far a device's clock may be behind for an intent that is stated now.
const BEHIND: SignedDuration = SignedDuration::from_mins(1);
const MAX_TTL: u64 = 366 * 24 * 3600;

fn filter(filter: Filtered) -> Result<(Option<DeviceName>, usize), Refusal> {
    let Query(filter) = filter.map_err(|err| Refusal::bad_request(err.body_text()))?;
    Ok((filter.device, filter.limit.unwrap_or(USUAL_LIMIT).min(MAX_LIMIT)))
}

fn life(seconds: Option<u64>, usual: u64) -> Result<SignedDuration, Refusal> {
    let seconds = seconds.unwrap_or(usual);
    if (1..=MAX_TTL).contains(&seconds) {
        Ok(SignedDuration::from_secs(seconds.cast_signed()))
    } else {
        Err(Refusal::bad_request(format!(
            "ttlSeconds must be between 1 and {MAX_TTL}"
        )))
    }
}

impl Hub {
    async fn one(&self, name: &DeviceName) -> Result<Device, Refusal> {
        let found = self.store().device(name).await?;
        found.ok_or_else(|| {
            Refusal::not_found(format!(
                "no device is called {name}; `leeward get devices` lists them"
            ))
        })
    }

    async fn some(&self, name: Option<&DeviceName>) -> Result<Vec<Device>, Refusal> {
        match name {
            Some(name) => Ok(vec![self.one(name).await?]),
            None => Ok(self.store().fleet(DeviceFilter::default()).await?.devices),
        }
    }

    pub(crate) fn age(&self, at: Timestamp) -> u64 {
        u64::try_from(self.now().duration_since(at).as_secs()).unwrap_or(0)
    }

    fn summary(&self, device: Device, proof: Option<Proof>) -> DeviceSummary {
        let status = device.status.as_ref().map(|held| &held.status);
        let workloads = status.map_or(&[][..], |status| &status.workloads);
        let ready = workloads
            .iter()
            .filter(|w| w.state == WorkloadState::Current)
            .count();
        DeviceSummary {
            link: match device.link {
                store::Link::Up { .. } => Link::Connected,
                store::Link::Silent => Link::Silent,
                store::Link::Down => Link::Disconnected,
                store::Link::Never => Link::Never,
            },
            health: device.health.word().into(),
            status_age_seconds: device.status.as_ref().map(|held| self.age(held.received_at)),
            phase: status.map(|status| status.phase.clone()),
            generation: status.map(|status| status.generation.clone()).unwrap_or_default(),
            facts: status.map(|status| status.facts.clone()).unwrap_or_default(),
            workloads_ready: u32::try_from(ready).unwrap_or(u32::MAX),
            workloads: u32::try_from(workloads.len()).unwrap_or(u32::MAX),
            name: device.name,
            class: device.class,
            site: device.site,
            labels: device.labels,
            reason: device.reason,
            message: device.message,
            last_seen: device.last_seen,
            agent: device.agent,
            backlog: device.backlog,
            proof,
        }
    }

    /// Shuts a device out and ends its session.
    ///
    /// # Errors
    /// No such device, or the store fails.
    pub async fn revoke(&self, name: &DeviceName, by: &str, why: &str) -> Result<(), store::StoreError> {
        self.store().revoke_device(name, by, why).await?;
        self.sessions.bye(name, "this device is revoked");
        Ok(())
    }

    /// Makes an enrolment token; what is returned is told only once.
    ///
    /// # Errors
    /// The store fails.
    pub async fn make_token(
        &self,
        new: store::NewToken,
        by: &str,
    ) -> Result<(u64, EnrolToken), store::StoreError> {
        let fingerprint = self.with_authority(|authority| authority.fingerprint());
        let fingerprint = fingerprint.map_err(|err| store::StoreError::Stored {
            what: "authority",
            why: err.to_string(),
        })?;
        let token = EnrolToken::generate(fingerprint);
        let id = self.store().create_token(&token.reveal(), new, by).await?;
        Ok((id, token))
    }

    /// Signs an intent for a device and sends it, or keeps it until the device returns. Says its number, and whether a
    /// session took it.
    ///
    /// # Errors
    /// No such device, a revoked one, or the store fails.
    pub async fn state(
        self: &Arc<Self>,
        device: &DeviceName,
        kind: IntentKind,
        valid_for: SignedDuration,
        by: &str,
    ) -> Result<(u64, bool, Timestamp), store::StoreError> {
        let now = self.now();
        // A device counts on from the time that the hub signed, and is behind by what its answer was under way.
        let not_before = now.saturating_sub(BEHIND).unwrap_or(Timestamp::MIN);
        let not_after = now.saturating_add(valid_for).unwrap_or(Timestamp::MAX);
        let word = match &kind {
            IntentKind::SyncNow => "syncNow",
            IntentKind::Pause => "pause",
            IntentKind::Resume => "resume",
            IntentKind::Restart { .. } => "restart",
            IntentKind::Admit(_) => "admit",
        };
        let (hub, name, who) = (self.clone(), device.clone(), by.to_owned());
        let sign = move |id| {
            let intent = Intent {
                id,
                device: name,
                kind,
                by: who,
                not_before,
                not_after,
            };
            let signed = hub.with_authority(|authority| authority.sign_intent(&intent));
            serde_json::to_vec(&signed).expect("three texts serialise")
        };
        let id = self
            .store()
            .state_intent(device, word, not_after, by, sign)
            .await?;
        let sent = self
            .sessions
            .of(device)
            .is_some_and(|commands| commands.send(Command::Intents).is_ok());
        Ok((id, sent, not_after))
    }
}

pub(crate) async fn devices(State(hub): State<Arc<Hub>>, _: PersonCaller) -> Answer<Vec<DeviceSummary>> {
    let fleet = hub.some(None).await?;
    let mut proofs = hub.store().proofs(None).await?;
    let summaries = fleet.into_iter().map(|device| {
        let proof = proofs.remove(&device.name);
        hub.summary(device, proof)
    });
    Ok(Json(summaries.collect()))
}

pub(crate) async fn device(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    Path(name): Path<DeviceName>,
) -> Answer<DeviceDetail> {
    let device = hub.one(&name).await?;
    let certificates = hub.store().certificates(&name).await?;
    let proof = hub.store().proofs(Some(&name)).await?.remove(&name);
    Ok(Json(DeviceDetail {
        enrolled_at: device.enrolled_at,
        revoked: device.revoked.clone(),
        status: device.status.as_ref().map(|held| held.status.clone()),
        certificates: certificates
            .into_iter()
            .map(|c| CertificateRow {
                serial: c.serial,
                kind: c.kind,
                issued_at: c.issued_at,
                not_after: c.not_after,
                revoked_at: c.revoked_at,
            })
            .collect(),
        summary: hub.summary(device, proof),
    }))
}

pub(crate) async fn revoke(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    Path(name): Path<DeviceName>,
) -> Answer<serde_json::Value> {
    hub.revoke(&name, &person.name, "revoked through the API").await?;
    Ok(Json(json!({ "revoked": name })))
}

pub(crate) async fn workloads(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    query: Filtered,
) -> Answer<Vec<WorkloadRow>> {
    let (name, _) = filter(query)?;
    let mut rows = Vec::new();
    for device in hub.some(name.as_ref()).await? {
        let fresh = !matches!(device.health, store::Health::Unknown | store::Health::Revoked);
        let Some(held) = device.status else { continue };
        let age_seconds = hub.age(held.received_at);
        rows.extend(held.status.workloads.into_iter().map(|workload| WorkloadRow {
            device: device.name.clone(),
            fresh,
            age_seconds,
            workload,
        }));
    }
    Ok(Json(rows))
}

pub(crate) async fn generations(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    query: Filtered,
) -> Answer<Vec<GenerationRow>> {
    let (name, _) = filter(query)?;
    let mut rows = Vec::new();
    for device in hub.some(name.as_ref()).await? {
        for seen in hub.store().generations(&device.name).await? {
            rows.push(GenerationRow {
                device: device.name.clone(),
                id: seen.id,
                revision: seen.revision,
                first_seen: seen.first_seen,
                last_seen: seen.last_seen,
                outcome: seen.outcome,
                reason: seen.reason,
            });
        }
    }
    Ok(Json(rows))
}

pub(crate) async fn events(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    query: Filtered,
) -> Answer<Vec<EventRow>> {
    let (name, limit) = filter(query)?;
    let events = match name {
        Some(name) => {
            hub.one(&name).await?;
            hub.store().events(&name, None, limit).await?
        }
        None => hub.store().fleet_events(limit).await?,
    };
    let row = |held: HeldEvent| EventRow {
        device: held.device,
        received_at: held.received_at,
        event: held.event,
    };
    Ok(Json(events.into_iter().map(row).collect()))
}

pub(crate) async fn audit(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    query: Filtered,
) -> Answer<Vec<AuditRow>> {
    let (_, limit) = filter(query)?;
    let rows = hub.store().audit_rows(None, limit).await?;
    let row = |row: store::AuditRow| AuditRow {
        sequence: row.sequence,
        time: row.time,
        who: row.who,
        action: row.action,
        target: row.target,
        outcome: row.outcome,
        detail: row.detail,
        hash: row.hash,
    };
    Ok(Json(rows.into_iter().map(row).collect()))
}

pub(crate) async fn tokens(State(hub): State<Arc<Hub>>, _: PersonCaller) -> Answer<Vec<TokenRow>> {
    let row = |token: store::Token| TokenRow {
        id: token.id,
        class: token.class,
        site: token.site,
        labels: token.labels,
        replaces: token.replaces,
        uses_left: token.uses_left,
        created_by: token.created_by,
        created_at: token.created_at,
        expires_at: token.expires_at,
    };
    Ok(Json(hub.store().tokens().await?.into_iter().map(row).collect()))
}

pub(crate) async fn create_token(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    new: Result<Json<NewToken>, JsonRejection>,
) -> Answer<MadeToken> {
    let Json(new) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let expires_at = hub
        .now()
        .saturating_add(life(new.ttl_seconds, 3600)?)
        .unwrap_or(Timestamp::MAX);
    let uses = new.uses.unwrap_or(1);
    if uses == 0 {
        return Err(Refusal::bad_request("uses must be at least 1"));
    }
    let new = store::NewToken {
        class: new.class,
        site: new.site.unwrap_or_else(|| "default".into()),
        labels: new.labels,
        replaces: new.replaces,
        uses,
        expires_at,
    };
    let (id, token) = hub.make_token(new, &person.name).await?;
    Ok(Json(MadeToken {
        id,
        token: token.reveal(),
        expires_at,
    }))
}

pub(crate) async fn cancel_token(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    Path(id): Path<u64>,
) -> Answer<serde_json::Value> {
    if hub.store().cancel_token(id, &person.name).await? {
        Ok(Json(json!({ "cancelled": id })))
    } else {
        Err(Refusal::not_found(format!("no token has the number {id}")))
    }
}

pub(crate) async fn intend(
    State(hub): State<Arc<Hub>>,
    PersonCaller(person): PersonCaller,
    Path(name): Path<DeviceName>,
    new: Result<Json<NewIntent>, JsonRejection>,
) -> Answer<MadeIntent> {
    let Json(new) = new.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let (id, sent, not_after) = hub
        .state(&name, new.kind, life(new.ttl_seconds, 600)?, &person.name)
        .await?;
    Ok(Json(MadeIntent { id, sent, not_after }))
}

pub(crate) async fn intents(
    State(hub): State<Arc<Hub>>,
    _: PersonCaller,
    Path(name): Path<DeviceName>,
) -> Answer<Vec<store::Intent>> {
    hub.one(&name).await?;
    Ok(Json(hub.store().intents(&name, USUAL_LIMIT).await?))
}
