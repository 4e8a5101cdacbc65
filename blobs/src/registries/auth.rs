//! Who asks: the `WWW-Authenticate` challenge (RFC 7235) and the token exchange of the distribution's auth spec.

use super::config::Place;
use super::send::{error_of, unreachable};
use super::{Registries, RegistryError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Name and password.
    Basic {
        /// Name.
        user: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token for the token exchange.
    Identity(String),
    /// A bearer token that needs no exchange.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets have no place in a log.
        f.write_str(match self {
            Self::Basic { .. } => "Basic(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Bearer(_) => "Bearer(..)",
        })
    }
}

/// Tokens that are still good, by place, scope and who asked.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, Token>>);

#[derive(Clone)]
struct Token {
    header: String,
    good_until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("good_until", &self.good_until)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    pub fn header(&self, key: &str) -> Option<String> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.good_until > Instant::now());
        tokens.get(key).map(|token| token.header.clone())
    }

    fn keep(&self, key: String, header: String, good_for: Duration) {
        let token = Token {
            header,
            good_until: Instant::now() + good_for,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, token);
    }
}

/// Under which key a place's token for a scope is kept.
pub(super) fn key(place: &Place, scope: &str, credentials: Option<&Credentials>) -> String {
    let who = match credentials {
        None => "anonymous".to_owned(),
        Some(Credentials::Basic { user, password }) => format!("basic {user} {password}"),
        Some(Credentials::Identity(token)) => format!("identity {token}"),
        Some(Credentials::Bearer(token)) => format!("bearer {token}"),
    };
    // Hashed, so that no secret lies around as a map's key.
    model::Digest::of(format!("{} {scope} {who}", place.base).as_bytes()).hex()
}

/// One challenge: its scheme in lower case and its parameters.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

/// Reads `Scheme a="b", c=d`; what does not parse ends the list.
fn challenge(text: &str) -> Challenge {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut parameters = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after
                .split_once(',')
                .map_or((after, ""), |(value, rest)| (value, rest)),
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Challenge {
        scheme: scheme.to_ascii_lowercase(),
        parameters,
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(alias = "access_token")]
    token: Option<String>,
    expires_in: Option<u64>,
}

impl Registries {
    /// Answers a 401: finds out what is wanted and keeps the header that satisfies it.
    pub(super) async fn authenticate(
        &self,
        place: &Place,
        url: &str,
        scope: &str,
        credentials: Option<&Credentials>,
        headers: &HeaderMap,
    ) -> Result<String, RegistryError> {
        let denied = |why: &str| RegistryError::Denied {
            url: url.to_owned(),
            status: 401,
            why: why.to_owned(),
        };
        let offered: Vec<_> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(challenge)
            .collect();
        let key = key(place, scope, credentials);
        if let Some(bearer) = offered.iter().find(|challenge| challenge.scheme == "bearer") {
            let (token, good_for) = self.exchange(place, bearer, url, scope, credentials).await?;
            let header = format!("Bearer {token}");
            self.0.tokens.keep(key, header.clone(), good_for);
            return Ok(header);
        }
        if offered.iter().any(|challenge| challenge.scheme == "basic") {
            let header = match credentials {
                Some(credentials @ Credentials::Basic { .. }) => plain_header(credentials),
                _ => None,
            };
            let header = header
                .ok_or_else(|| denied("it wants a user name and password; give an imagePullSecret for it"))?;
            self.0.tokens.keep(key, header.clone(), Duration::from_secs(3600));
            return Ok(header);
        }
        Err(denied(
            "it does not say how to authenticate; it may want a client certificate",
        ))
    }

    async fn exchange(
        &self,
        place: &Place,
        bearer: &Challenge,
        url: &str,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(String, Duration), RegistryError> {
        if let Some(Credentials::Bearer(_)) = credentials {
            return Err(RegistryError::Denied {
                url: url.to_owned(),
                status: 401,
                why: "the configured bearer token is not accepted".to_owned(),
            });
        }
        let wrong = |what: String| RegistryError::Wrong {
            url: url.to_owned(),
            what,
        };
        let realm = bearer.parameters.get("realm").map_or("", String::as_str);
        let mut realm =
            reqwest::Url::parse(realm).map_err(|err| wrong(format!("its token realm {realm:?}: {err}")))?;
        if realm.scheme() != "https" && !place.plain_http {
            return Err(wrong(format!("its token realm {realm} is not https")));
        }
        let service = bearer.parameters.get("service").cloned().unwrap_or_default();
        let request = match credentials {
            Some(Credentials::Identity(token)) => place
                .client
                .post(realm.clone())
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&[
                    ("grant_type", "refresh_token"),
                    ("service", &service),
                    ("client_id", "leeward"),
                    ("scope", scope),
                    ("refresh_token", token),
                ])),
            other => {
                realm
                    .query_pairs_mut()
                    .append_pair("service", &service)
                    .append_pair("scope", scope);
                let request = place.client.get(realm.clone());
                match other.and_then(plain_header) {
                    Some(header) => request.header(reqwest::header::AUTHORIZATION, header),
                    None => request,
                }
            }
        };
        let response = request
            .send()
            .await
            .map_err(|err| unreachable(realm.as_str(), err))?;
        if !response.status().is_success() {
            return Err(error_of("the token", response).await);
        }
        let bytes = super::send::bounded(response, 1024 * 1024).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|err| wrong(format!("token from {realm}: {err}")))?;
        let token = answer
            .token
            .ok_or_else(|| wrong(format!("no token from {realm}")))?;
        // The auth spec's default is a minute; a margin covers the way.
        let good_for = answer.expires_in.unwrap_or(60).clamp(15, 3600) - 10;
        Ok((token, Duration::from_secs(good_for)))
    }
}

/// The header that says who we are without asking anyone.
pub(super) fn plain_header(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::Basic { user, password } => Some(format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{user}:{password}"))
        )),
        Credentials::Bearer(token) => Some(format!("Bearer {token}")),
        Credentials::Identity(_) => None,
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    // The URL type knows the form encoding.
    let mut url = reqwest::Url::parse("http://form.invalid/").expect("a constant URL parses");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = challenge(
            r#"Bearer realm="https://auth.example/token?a=b,c",service="registry.example",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.parameters["realm"], "https://auth.example/token?a=b,c");
        assert_eq!(bearer.parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(challenge("Basic realm=x, charset=utf-8").parameters["realm"], "x");
        assert_eq!(challenge("Negotiate").scheme, "negotiate");
        assert_eq!(form(&[("a", "b c&d")]), "a=b+c%26d");
    }
}
