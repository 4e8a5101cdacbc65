//! The people's side of the JSON API.

use crate::api::{
    AuditRow, AuthorityState, DeviceDetail, DeviceSummary, ERROR_TRAILER, EventRow, ForwarderRow,
    GenerationRow, LoginLink, MadeIntent, MadeToken, NewIntent, NewRollout, NewStep, NewToken, PolicyState,
    QueryAnswer, QueryAsk, QueryTable, RolloutAct, TokenRow, WorkloadRow,
};
use crate::client::{ANSWER_WITHIN, ConnectError, Connection, HubAddress, body_of, open};
use crate::frame::LogAsk;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::{DeviceName, Rollout, RolloutPolicy};
use rustls::ClientConfig;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Lists of a large fleet fit.
const MOST: usize = 256 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Not reached, or refused.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    BrokeOff(String),
}

/// Calls a hub's API; each call is a connection of its own.
#[derive(Debug, Clone)]
pub struct ApiClient {
    hub: HubAddress,
    tls: Arc<ClientConfig>,
    token: String,
}

impl ApiClient {
    /// `tls` trusts the hub's authority (`identity::tls::person`), `token` is a person's bearer token.
    pub fn new(hub: HubAddress, tls: Arc<ClientConfig>, token: &str) -> Self {
        Self {
            hub,
            tls,
            token: token.to_owned(),
        }
    }

    /// All devices, by name.
    ///
    /// # Errors
    /// See [`ApiError`], as for all calls.
    pub async fn devices(&self) -> Result<Vec<DeviceSummary>, ApiError> {
        self.get("/v1/devices").await
    }

    /// One device.
    ///
    /// # Errors
    /// Reason `NotFound`.
    pub async fn device(&self, name: &DeviceName) -> Result<DeviceDetail, ApiError> {
        self.get(&format!("/v1/devices/{name}")).await
    }

    /// Refuses a device's certificates from now on.
    ///
    /// # Errors
    /// Reason `NotFound`.
    pub async fn revoke(&self, name: &DeviceName) -> Result<(), ApiError> {
        let _: serde_json::Value = self
            .call(Method::DELETE, &format!("/v1/devices/{name}"), None::<&()>)
            .await?;
        Ok(())
    }

    /// Workloads of one device or of all.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workloads(&self, device: Option<&DeviceName>) -> Result<Vec<WorkloadRow>, ApiError> {
        self.get(&with_device("/v1/workloads", device)).await
    }

    /// Generations of one device or of all.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn generations(&self, device: Option<&DeviceName>) -> Result<Vec<GenerationRow>, ApiError> {
        self.get(&with_device("/v1/generations", device)).await
    }

    /// The newest `limit` events, newest first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn events(&self, device: Option<&DeviceName>, limit: u32) -> Result<Vec<EventRow>, ApiError> {
        let path = with_device("/v1/events", device);
        let joint = if path.contains('?') { '&' } else { '?' };
        self.get(&format!("{path}{joint}limit={limit}")).await
    }

    /// The newest `limit` entries of the audit trail, newest first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditRow>, ApiError> {
        self.get(&format!("/v1/audit?limit={limit}")).await
    }

    /// The hub's authorities.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn authority(&self) -> Result<AuthorityState, ApiError> {
        self.get("/v1/authority").await
    }

    /// Makes a step of the authority's roll-over.
    ///
    /// # Errors
    /// Reason `RollOver` where it is not its turn, `Behind` where it would shut devices out.
    pub async fn roll_over(&self, step: &NewStep) -> Result<AuthorityState, ApiError> {
        self.call(Method::POST, "/v1/authority", Some(step)).await
    }

    /// Enrolment tokens.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, ApiError> {
        self.get("/v1/tokens").await
    }

    /// Makes an enrolment token.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_token(&self, new: &NewToken) -> Result<MadeToken, ApiError> {
        self.call(Method::POST, "/v1/tokens", Some(new)).await
    }

    /// Spends what is left of an enrolment token.
    ///
    /// # Errors
    /// Reason `NotFound`.
    pub async fn cancel_token(&self, id: u64) -> Result<(), ApiError> {
        let _: serde_json::Value = self
            .call(Method::DELETE, &format!("/v1/tokens/{id}"), None::<&()>)
            .await?;
        Ok(())
    }

    /// Signs an intent and sends it, or keeps it for the device's return.
    ///
    /// # Errors
    /// Reason `NotFound`, `Revoked`.
    pub async fn intend(&self, device: &DeviceName, new: &NewIntent) -> Result<MadeIntent, ApiError> {
        self.call(Method::POST, &format!("/v1/devices/{device}/intents"), Some(new))
            .await
    }

    /// Roll-outs, newest first.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rollouts(&self, limit: u32) -> Result<Vec<Rollout>, ApiError> {
        self.get(&format!("/v1/rollouts?limit={limit}")).await
    }

    /// One of them.
    ///
    /// # Errors
    /// Reason `NotFound`.
    pub async fn rollout(&self, id: u64) -> Result<Rollout, ApiError> {
        self.get(&format!("/v1/rollouts/{id}")).await
    }

    /// Begins one; one that is under way is superseded.
    ///
    /// # Errors
    /// Reason `NoPolicy`; `NotFound` where no device has told of the revision.
    pub async fn begin_rollout(&self, new: &NewRollout) -> Result<Rollout, ApiError> {
        self.call(Method::POST, "/v1/rollouts", Some(new)).await
    }

    /// Pauses, resumes or aborts one.
    ///
    /// # Errors
    /// Reason `NotFound`, `Ended`.
    pub async fn act_on_rollout(&self, id: u64, act: RolloutAct) -> Result<Rollout, ApiError> {
        self.call(Method::POST, &format!("/v1/rollouts/{id}"), Some(&act))
            .await
    }

    /// How revisions are rolled out.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn rollout_policy(&self) -> Result<PolicyState, ApiError> {
        self.get("/v1/rollout-policy").await
    }

    /// Sets that, or lets devices follow their source freely.
    ///
    /// # Errors
    /// Reason `BadRequest`.
    pub async fn set_rollout_policy(&self, policy: Option<&RolloutPolicy>) -> Result<PolicyState, ApiError> {
        let method = if policy.is_some() {
            Method::PUT
        } else {
            Method::DELETE
        };
        self.call(method, "/v1/rollout-policy", policy).await
    }

    /// Where telemetry is sent onward, and how far.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn forwarders(&self) -> Result<Vec<ForwarderRow>, ApiError> {
        self.get("/v1/forwarders").await
    }

    /// Asks by SQL.
    ///
    /// # Errors
    /// Reasons `BadQuery`, `ReadOnly`, `TooMuchMemory`, `TooSlow`, `Busy`.
    pub async fn query(&self, ask: &QueryAsk) -> Result<QueryAnswer, ApiError> {
        self.call(Method::POST, "/v1/query", Some(ask)).await
    }

    /// The tables that a query may name.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn query_tables(&self) -> Result<Vec<QueryTable>, ApiError> {
        self.get("/v1/query/tables").await
    }

    /// A link that opens the dashboard in a browser without a token being typed.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn login_link(&self) -> Result<LoginLink, ApiError> {
        self.call(Method::POST, "/v1/login-links", None::<&()>).await
    }

    /// A container's output, as it comes.
    ///
    /// # Errors
    /// Reason `NotFound`, `Disconnected`.
    pub async fn logs(&self, device: &DeviceName, ask: &LogAsk) -> Result<LogStream, ApiError> {
        let mut connection = open(&self.hub, self.tls.clone()).await?;
        let path = format!("/v1/devices/{device}/logs?{}", log_query(ask));
        let request = self.request(&connection, Method::GET, &path, Bytes::new())?;
        let opening = tokio::time::timeout(ANSWER_WITHIN, connection.call(request));
        let answer = opening.await.map_err(|_| ConnectError::Silent {
            hub: self.hub.to_string(),
            after: ANSWER_WITHIN,
        })??;
        Ok(LogStream {
            body: answer.into_body(),
            _connection: connection,
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        what: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
        let mut connection = open(&self.hub, self.tls.clone()).await?;
        let json = match what {
            Some(what) => serde_json::to_vec(what)
                .map_err(|err| connection.nonsense("a request of ours", err.into()))?,
            None => Vec::new(),
        };
        let request = self.request(&connection, method, path, json.into())?;
        let body = connection.exchange(request, MOST).await?;
        Ok(serde_json::from_slice(&body)
            .map_err(|err| connection.nonsense("the answer to this call", err.into()))?)
    }

    fn request(
        &self,
        connection: &Connection,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Request<crate::client::OutBody>, ConnectError> {
        connection
            .request(method, path)
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body_of(body))
            .map_err(|err| connection.nonsense("a request of ours", err.into()))
    }
}

fn with_device(path: &str, device: Option<&DeviceName>) -> String {
    device.map_or_else(|| path.to_owned(), |device| format!("{path}?device={device}"))
}

/// A log query as the hub's route reads it back. Values are escaped (RFC 3986), whatever they hold.
fn log_query(ask: &LogAsk) -> String {
    let mut query = format!("namespace={}&pod={}", escape(&ask.namespace), escape(&ask.pod));
    let mut add = |name: &str, value: &str| query.push_str(&format!("&{name}={}", escape(value)));
    if let Some(container) = &ask.container {
        add("container", container);
    }
    for (name, on) in [
        ("follow", ask.follow),
        ("previous", ask.previous),
        ("timestamps", ask.timestamps),
        ("json", ask.json),
    ] {
        if on {
            add(name, "true");
        }
    }
    if let Some(tail) = ask.tail {
        add("tail", &tail.to_string());
    }
    if let Some(since) = ask.since {
        add("since", &since.to_string());
    }
    if let Some(until) = ask.until {
        add("until", &until.to_string());
    }
    if let Some(grep) = &ask.grep {
        add("grep", grep);
    }
    query
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Output of a container; dropped, the device is told to stop.
#[derive(Debug)]
pub struct LogStream {
    body: Incoming,
    _connection: Connection,
}

impl LogStream {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`ApiError::BrokeOff`] with the device's or the hub's words.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(err)) => return Err(ApiError::BrokeOff(err.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => {
                        let error = frame.trailers_ref().and_then(|t| t.get(ERROR_TRAILER));
                        if let Some(text) = error.and_then(|v| v.to_str().ok()) {
                            return Err(ApiError::BrokeOff(text.to_owned()));
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_place_in_the_query() {
        let ask = LogAsk {
            namespace: "a&follow=true".into(),
            pod: "p q".into(),
            tail: Some(3),
            grep: Some("a|b&json=true".into()),
            ..LogAsk::default()
        };
        assert_eq!(
            log_query(&ask),
            "namespace=a%26follow%3Dtrue&pod=p%20q&tail=3&grep=a%7Cb%26json%3Dtrue"
        );
    }
}
