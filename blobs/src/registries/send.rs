//! One request: authenticated, and its answer sorted into the errors that callers tell apart.

use super::config::Place;
use super::{Credentials, Registries, RegistryError, auth};
use kit::Clock as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

/// Who asks, and for what right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub credentials: Option<&'a Credentials>,
    /// As in `repository:apps/web:pull`.
    pub scope: &'a str,
}

impl Registries {
    /// Sends the request that `make` builds, a second time with proof where the first is not let in.
    ///
    /// A status of 400 and above becomes an error that speaks of `what`.
    pub(super) async fn send(
        &self,
        place: &Place,
        asker: Asker<'_>,
        what: &str,
        url: &Url,
        make: impl Fn(Url) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let credentials = asker.credentials.or(place.credentials.as_ref());
        let key = auth::key(place, asker.scope, credentials);
        let header = self.0.tokens.header(&key).or_else(|| match credentials {
            Some(bearer @ Credentials::Bearer(_)) => auth::plain_header(bearer),
            // A password goes out only to a registry that asks for it.
            _ => None,
        });
        let first = with(make(url.clone()), header);
        let mut response = first.send().await.map_err(|err| unreachable(url.as_str(), err))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers().clone();
            let header = self
                .authenticate(place, url.as_str(), asker.scope, credentials, &headers)
                .await?;
            let second = with(make(url.clone()), Some(header));
            response = second
                .send()
                .await
                .map_err(|err| unreachable(url.as_str(), err))?;
        }
        if response.status().is_client_error() || response.status().is_server_error() {
            return Err(error_of(what, response).await);
        }
        Ok(response)
    }
}

fn with(request: RequestBuilder, header: Option<String>) -> RequestBuilder {
    match header {
        Some(header) => request.header(AUTHORIZATION, header),
        None => request,
    }
}

pub(super) fn unreachable(url: &str, source: reqwest::Error) -> RegistryError {
    RegistryError::Unreachable {
        url: url.to_owned(),
        // The URL is told already; a redirect's may hold a signature.
        source: source.without_url(),
    }
}

/// The body, where it has no more than `most` bytes.
pub(super) async fn bounded(mut response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
    let url = response.url().to_string();
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|err| unreachable(&url, err))? {
        if (bytes.len() + piece.len()) as u64 > most {
            return Err(RegistryError::Wrong {
                url,
                what: format!("more than {most} bytes"),
            });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Sorts an error answer.
pub(super) async fn error_of(what: &str, response: Response) -> RegistryError {
    let url = plain(response.url());
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let message = match bounded(response, 64 * 1024).await {
        Ok(body) => message(&body),
        Err(_) => String::new(),
    };
    let message = if message.is_empty() {
        status.canonical_reason().unwrap_or("no reason given").to_owned()
    } else {
        message
    };
    let number = status.as_u16();
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound {
            what: what.to_owned(),
            url,
        },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
            url,
            status: number,
            why: format!("{message}; check the credentials and their rights"),
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => RegistryError::Busy {
            url,
            status: number,
            message,
            retry_after,
        },
        _ if status.is_server_error() => RegistryError::Busy {
            url,
            status: number,
            message,
            retry_after,
        },
        _ => RegistryError::Refused {
            url,
            status: number,
            message,
        },
    }
}

/// Without the query, which may hold a signature.
pub(super) fn plain(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// The words in the spec's error document, or what else the body says, shortened.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(errors) => {
            let texts = errors
                .errors
                .iter()
                .map(|one| format!("{}: {}", one.code, one.message));
            texts.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).trim().chars().take(200).collect(),
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = date.duration_since(kit::SystemClock.now());
    Some(wait.try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        let past = retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT"));
        assert_eq!(past, Some(Duration::ZERO));
        let later = retry_after(&headers("Wed, 21 Oct 2415 07:28:00 GMT")).unwrap();
        assert!(later > Duration::from_secs(86_400));
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
