//! One request to somebody's own address, and what its answer means.

use crate::http::{ClientError, Trust, client};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use std::fmt;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of a refusal's text that is told.
const MOST_TEXT: usize = 300;

/// An address that takes JSON.
#[derive(Clone)]
pub struct Webhook {
    client: reqwest::Client,
    url: String,
    authorization: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: no answer, 408, 429, 5xx; when it says to come back, and why.
    Later(Option<Duration>, String),
    /// Never; why.
    Never(String),
}

impl Webhook {
    /// Talks to nobody yet. `authorization` is that header's value.
    ///
    /// # Errors
    /// If whom it trusts cannot be read.
    pub fn new(url: &str, trust: &Trust, authorization: Option<String>) -> Result<Self, ClientError> {
        Ok(Self {
            client: client(trust)?,
            url: url.to_owned(),
            authorization,
        })
    }

    /// Posts one body.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn post(&self, body: Vec<u8>) -> Result<(), Refusal> {
        let mut request = self
            .client
            .post(&self.url)
            .timeout(PATIENCE)
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        // The address may hold a secret: it is in no message.
        let failed = |err: reqwest::Error| Refusal::Later(None, kit::chain(&err.without_url()));
        let mut response = request.body(body).send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = response.headers().get(RETRY_AFTER);
        let after = after
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut text = Vec::new();
        while let Ok(Some(part)) = response.chunk().await {
            text.extend_from_slice(&part[..part.len().min(MOST_TEXT - text.len())]);
            if text.len() >= MOST_TEXT {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text).replace(['\n', '\r'], " ");
        let why = format!("{status} {}", text.trim());
        Err(match status.as_u16() {
            408 | 425 | 429 | 500..=599 => Refusal::Later(after, why),
            _ => Refusal::Never(why),
        })
    }
}
