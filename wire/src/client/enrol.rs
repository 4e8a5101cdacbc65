//! Certificates: the first ones for a token, later ones for the device's identity certificate; and the hub's time.

use super::connect::{ConnectError, Connection, HubAddress, body_of, open};
use bytes::Bytes;
use http::Method;
use model::{ClassName, DeviceName, Signed};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Certificates and bundle fit many times.
const MOST: usize = 256 * 1024;

/// `POST /v1/enrol`, without a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolRequest {
    /// The whole enrolment token.
    pub token: String,
    /// The name that the device asks for; a token may fix it.
    pub device: DeviceName,
    /// Its hardware class.
    pub class: ClassName,
    /// PKCS #10 request (PEM) for the long-lived identity key.
    pub identity_csr: String,
    /// PKCS #10 request (PEM) for the operational key.
    pub operational_csr: String,
}

/// What an enrolled device holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolAnswer {
    /// Identity certificate (PEM).
    pub identity: String,
    /// Operational certificate (PEM).
    pub operational: String,
    /// Whom to trust from now on.
    pub bundle: Signed,
}

/// `POST /v1/renew`, with the identity certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS #10 request (PEM) for a fresh operational key.
    pub operational_csr: String,
    /// The trust bundle that the device holds.
    pub bundle_serial: u64,
}

/// The next certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewAnswer {
    /// Operational certificate (PEM).
    pub operational: String,
    /// A new identity certificate for the same key, where the old one nears its end or its authority retires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// A newer trust bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Signed>,
}

/// Exchanges a token for certificates. `tls` comes from the token: it trusts the authority that the token names.
///
/// The same request may be sent again after a lost answer: the hub knows the key and issues again.
///
/// # Errors
/// [`ConnectError::Refused`] with reason `TokenUsed`, `TokenExpired`, `TokenUnknown`, `NameTaken`, `BadRequest`.
pub async fn enrol(
    hub: &HubAddress,
    tls: Arc<ClientConfig>,
    request: &EnrolRequest,
) -> Result<EnrolAnswer, ConnectError> {
    post(open(hub, tls).await?, "/v1/enrol", request).await
}

/// Gets the next operational certificate. `tls` shows the identity certificate.
///
/// # Errors
/// [`ConnectError::Refused`] with reason `Revoked` where the hub has removed the device.
pub async fn renew(
    hub: &HubAddress,
    tls: Arc<ClientConfig>,
    request: &RenewRequest,
) -> Result<RenewAnswer, ConnectError> {
    post(open(hub, tls).await?, "/v1/renew", request).await
}

/// Asks the hub for its time, signed together with `nonce`. `tls` may overlook that the hub's certificate has expired:
/// the signature is what is believed.
///
/// # Errors
/// See [`ConnectError`].
pub async fn signed_time(
    hub: &HubAddress,
    tls: Arc<ClientConfig>,
    nonce: &str,
) -> Result<Signed, ConnectError> {
    let connection = open(hub, tls).await?;
    let request = connection
        .request(Method::GET, &format!("/v1/time?nonce={nonce}"))
        .body(body_of(Bytes::new()));
    exchange(connection, request).await
}

async fn post<T: DeserializeOwned>(
    connection: Connection,
    path: &str,
    what: &impl Serialize,
) -> Result<T, ConnectError> {
    let json =
        serde_json::to_vec(what).map_err(|err| connection.nonsense("a request of ours", err.into()))?;
    let request = connection
        .request(Method::POST, path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body_of(json.into()));
    exchange(connection, request).await
}

async fn exchange<T: DeserializeOwned>(
    mut connection: Connection,
    request: http::Result<http::Request<super::connect::OutBody>>,
) -> Result<T, ConnectError> {
    let request = request.map_err(|err| connection.nonsense("a request of ours", err.into()))?;
    let body = connection.exchange(request, MOST).await?;
    serde_json::from_slice(&body).map_err(|err| connection.nonsense("certificates", err.into()))
}
