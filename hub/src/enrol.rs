//! Certificates for devices, and the hub's time.

use crate::Hub;
use crate::caller::Caller;
use crate::problem::Refusal;
use crate::store::NewCertificate;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use identity::{Authority, CsrError, EnrolToken, IDENTITY_LIFE, Issued, Kind};
use jiff::SignedDuration;
use model::{DeviceName, Signed};
use serde::Deserialize;
use std::sync::Arc;
use wire::client::{EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest};

/// `POST /v1/enrol`: a token and two proofs of possession for two certificates.
pub(crate) async fn enrol(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    request: Result<Json<EnrolRequest>, JsonRejection>,
) -> Result<Json<EnrolAnswer>, Refusal> {
    let Json(request) = request.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let done = enrol_checked(&hub, &request).await;
    if let Err(refusal) = &done {
        tracing::warn!(device = %request.device, address = %caller.address, refusal = %refusal.problem, "enrolment refused");
        hub.refused(
            &caller,
            "unknown",
            "device.enrol",
            request.device.as_str(),
            refusal,
        )
        .await;
    }
    done
}

async fn enrol_checked(hub: &Hub, request: &EnrolRequest) -> Result<Json<EnrolAnswer>, Refusal> {
    let token: EnrolToken = request
        .token
        .parse()
        .map_err(|err: identity::BadToken| Refusal::bad_request(err.to_string()))?;
    let secret = token.reveal();
    // Asked before anything is signed or written: a stranger's guess costs little, and is told as one line at most.
    let key = Authority::key_in(&request.identity_csr).map_err(refused_csr)?;
    hub.store()
        .check_token(&secret, &request.device, &request.class, &key)
        .await?;
    let identity = hub.issue(
        Kind::Identity,
        &request.identity_csr,
        &request.device,
        IDENTITY_LIFE,
    )?;
    let operational = hub.issue(
        Kind::Operational,
        &request.operational_csr,
        &request.device,
        hub.config().operational_life,
    )?;
    // A certificate that is not filed is worth nothing: routes refuse serials that the store does not know.
    let filed = vec![filed(&identity), filed(&operational)];
    hub.store()
        .enrol(&secret, &request.device, &request.class, filed)
        .await?;
    tracing::info!(device = %request.device, class = %request.class, token = token.id(), "device enrolled");
    let bundle = hub.with_authority(|authority| authority.bundle().clone());
    Ok(Json(EnrolAnswer {
        identity: identity.pem,
        operational: operational.pem,
        bundle,
    }))
}

/// `POST /v1/renew`: shown the identity certificate, gives the next operational one.
pub(crate) async fn renew(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    request: Result<Json<RenewRequest>, JsonRejection>,
) -> Result<Json<RenewAnswer>, Refusal> {
    let Json(request) = request.map_err(|err| Refusal::bad_request(err.body_text()))?;
    let device = hub.admit_device(&caller, Kind::Identity).await?;
    let name = &device.peer.name;
    let operational = hub.issue(
        Kind::Operational,
        &request.operational_csr,
        name,
        hub.config().operational_life,
    )?;
    if operational.peer.key == device.peer.key {
        return Err(Refusal::bad_request(
            "the operational key must be another one than the identity key",
        ));
    }
    let identity = hub
        .with_authority(|authority| authority.follow_up(&device.certificate))
        .map_err(|err| Refusal::bad_request(kit::chain(&err)))?;
    for issued in identity.iter().chain([&operational]) {
        hub.store().add_certificate(name, filed(issued)).await?;
    }
    let (bundle, serial) =
        hub.with_authority(|authority| (authority.bundle().clone(), authority.bundle_serial()));
    Ok(Json(RenewAnswer {
        operational: operational.pem,
        identity: identity.map(|issued| issued.pem),
        bundle: (serial > request.bundle_serial).then_some(bundle),
    }))
}

#[derive(Debug, Deserialize)]
pub(crate) struct TimeQuery {
    nonce: String,
}

/// `GET /v1/time`: open to anyone; what is signed is bound to the asker's nonce and to this purpose.
pub(crate) async fn time(
    State(hub): State<Arc<Hub>>,
    Query(query): Query<TimeQuery>,
) -> Result<Json<Signed>, Refusal> {
    check_nonce(&query.nonce)?;
    Ok(Json(
        hub.with_authority(|authority| authority.sign_time(&query.nonce)),
    ))
}

pub(crate) fn check_nonce(nonce: &str) -> Result<(), Refusal> {
    let fits = (16..=64).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_hexdigit());
    if fits {
        Ok(())
    } else {
        Err(Refusal::bad_request(
            "the nonce must be 16 to 64 hexadecimal digits",
        ))
    }
}

fn filed(issued: &Issued) -> NewCertificate {
    NewCertificate {
        serial: issued.peer.serial.clone(),
        kind: issued.peer.kind.as_str().into(),
        key: issued.peer.key.clone(),
        not_after: issued.peer.not_after,
    }
}

impl Hub {
    fn issue(
        &self,
        kind: Kind,
        csr: &str,
        name: &DeviceName,
        life: SignedDuration,
    ) -> Result<Issued, Refusal> {
        self.with_authority(|authority| authority.issue(kind, csr, name, life))
            .map_err(refused_csr)
    }
}

fn refused_csr(err: CsrError) -> Refusal {
    match err {
        CsrError::Request(_) | CsrError::Algorithm => Refusal::bad_request(kit::chain(&err)),
        CsrError::Make(_) | CsrError::ReadBack(_) => {
            tracing::error!(error = kit::chain(&err), "a certificate could not be issued");
            Refusal::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "IssueFailed",
                "the hub could not issue a certificate; see its log",
            )
        }
    }
}
