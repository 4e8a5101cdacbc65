//! The HTTP side: one connection, credentials from files, answers bounded.

use super::config::ForwarderConfig;
use super::{Reply, Request};
use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::RETRY_AFTER;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A receiver that has not answered by then has not answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER: usize = 4 << 20;
/// Nobody is waited for longer, whatever they ask for.
const LONGEST: Duration = Duration::from_secs(600);

/// Why nothing was sent, or no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("read {path}: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} has no certificate in PEM")]
    NoCertificate { path: PathBuf },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    config: ForwarderConfig,
}

pub(super) fn read(path: &PathBuf) -> Result<String, SendError> {
    let text = std::fs::read_to_string(path).map_err(|source| SendError::File {
        path: path.clone(),
        source,
    })?;
    Ok(text.trim().to_owned())
}

/// Whom to trust.
pub(super) fn tls(config: &ForwarderConfig) -> Result<ClientConfig, SendError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            let pem = read(path)?;
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
                roots.add(certificate)?;
            }
            if roots.is_empty() {
                return Err(SendError::NoCertificate { path: path.clone() });
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Client {
    pub fn new(config: ForwarderConfig) -> Result<Self, SendError> {
        let tls = tls(&config)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("leeward/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(PATIENCE)
            .pool_max_idle_per_host(1)
            // A receiver that moved is to be told by its new address: credentials follow no redirect.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, config })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.config.url.clone();
        if !path.is_empty() {
            let (path, query) = path
                .split_once('?')
                .map_or((path, None), |(path, query)| (path, Some(query)));
            let whole = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&whole);
            url.set_query(query);
        }
        url
    }

    pub async fn send(&self, request: &Request) -> Result<Reply, SendError> {
        let mut call = self.http.post(self.url(request.path)).body(request.body.clone());
        for (name, value) in request.headers {
            call = call.header(*name, *value);
        }
        for (name, value) in &self.config.headers {
            call = call.header(name, value);
        }
        if let Some(path) = &self.config.bearer_token_file {
            call = call.bearer_auth(read(path)?);
        }
        if let (Some(user), Some(path)) = (&self.config.username, &self.config.password_file) {
            call = call.basic_auth(user, Some(read(path)?));
        }
        let mut answer = call.send().await?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| wait(value.to_str().ok()?, Timestamp::now()));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece[..piece.len().min(ANSWER - body.len())]);
            if body.len() >= ANSWER {
                break;
            }
        }
        Ok(Reply {
            status,
            retry_after,
            body,
        })
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
            let until = at.duration_since(now);
            if until.is_negative() {
                Duration::ZERO
            } else {
                until.unsigned_abs()
            }
        }
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_for_ever() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let secs = Duration::from_secs;
        assert_eq!(wait("7", now), Some(secs(7)));
        assert_eq!(wait("Tue, 24 Nov 2026 12:00:30 GMT", now), Some(secs(30)));
        assert_eq!(wait("Tue, 24 Nov 2026 11:00:30 GMT", now), Some(secs(0)));
        assert_eq!(wait("99999999999", now), Some(LONGEST));
        assert_eq!(wait("soon", now), None);
        assert_eq!(wait("-1", now), None);
    }
}
