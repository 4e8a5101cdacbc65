//! `kubernetes.io/dockerconfigjson`: what an `imagePullSecret` holds.

use super::Credentials;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use model::ImageRef;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Credentials by registry host and path prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// Keys as `host[:port][/path]`, without scheme.
    entries: BTreeMap<String, Credentials>,
}

/// Why a pull secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadDockerConfig {
    /// Not the JSON of a Docker configuration.
    #[error("not a Docker configuration (`{{\"auths\": {{\"host\": {{\"auth\": ...}}}}}}`)")]
    Json(#[source] serde_json::Error),
    /// An entry that holds no credentials.
    #[error("the entry of {host:?} holds no credentials: {why}")]
    Entry {
        /// Its key.
        host: String,
        /// In words.
        why: &'static str,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl DockerConfig {
    /// Reads the value of `.dockerconfigjson`, or of a `config.json` of Docker.
    pub fn parse(json: &[u8]) -> Result<Self, BadDockerConfig> {
        let file: File = serde_json::from_slice(json).map_err(BadDockerConfig::Json)?;
        let mut entries = BTreeMap::new();
        for (key, entry) in file.auths {
            let credentials = entry.credentials().map_err(|why| BadDockerConfig::Entry {
                host: key.clone(),
                why,
            })?;
            entries.insert(normal(&key), credentials);
        }
        Ok(Self { entries })
    }

    /// Adds the entries of another secret; the first to name a place wins.
    pub fn merge(&mut self, other: Self) {
        for (key, credentials) in other.entries {
            self.entries.entry(key).or_insert(credentials);
        }
    }

    /// The credentials with the longest key that `image` lies under.
    pub fn find(&self, image: &ImageRef) -> Option<&Credentials> {
        let name = format!("{}/{}", image.registry, image.repository);
        let fits = |key: &str| {
            name.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let fitting = self.entries.iter().filter(|(key, _)| fits(key));
        fitting
            .max_by_key(|(key, _)| key.len())
            .map(|(_, credentials)| credentials)
    }
}

impl AuthEntry {
    fn credentials(self) -> Result<Credentials, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Credentials::Identity(self.identitytoken));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Credentials::Bearer(self.registrytoken));
        }
        if !self.auth.is_empty() {
            let plain = BASE64_STANDARD
                .decode(self.auth.trim())
                .map_err(|_| "`auth` is not base64")?;
            let plain = String::from_utf8(plain).map_err(|_| "`auth` is not text")?;
            let (user, password) = plain.split_once(':').ok_or("`auth` is not `user:password`")?;
            return Ok(Credentials::Basic {
                user: user.to_owned(),
                // Some tools pad the text with zero bytes.
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        if self.username.is_empty() {
            return Err("it has neither `auth` nor `username` nor a token");
        }
        Ok(Credentials::Basic {
            user: self.username,
            password: self.password,
        })
    }
}

/// Docker's hub has an old URL as its key; others may carry a scheme or an API path.
fn normal(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, image: &str, want: Option<&str>) {
        let config = DockerConfig::parse(json.as_bytes()).unwrap();
        let found = config
            .find(&image.parse().unwrap())
            .map(|credentials| match credentials {
                Credentials::Basic { user, password } => format!("{user}:{password}"),
                Credentials::Identity(token) | Credentials::Bearer(token) => token.clone(),
            });
        assert_eq!(found.as_deref(), want);
    }

    #[test]
    fn the_longest_key_wins() {
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "r.example": {"username": "all", "password": "p:w"},
            "r.example/team": {"username": "team", "password": "x"},
            "r.example:5000": {"identitytoken": "tok"}}}"#;
        check(json, "busybox", Some("hub:pw"));
        check(json, "r.example/a", Some("all:p:w"));
        check(json, "r.example/team/a", Some("team:x"));
        check(json, "r.example/teams/a", Some("all:p:w"));
        check(json, "r.example:5000/a", Some("tok"));
        check(json, "other.example/a", None);
    }

    #[test]
    fn a_bad_secret_names_its_entry() {
        let err = |json: &str| DockerConfig::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(err(r#"{"auths": {"r.example": {"auth": "!"}}}"#).contains("r.example"));
        assert!(err(r#"{"auths": {"r.example": {}}}"#).contains("neither"));
        assert!(err("nonsense").contains("auths"));
    }
}
