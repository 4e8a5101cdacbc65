//! Which receivers, and how they are reached.

use reqwest::Url;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What a receiver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ForwarderKind {
    /// Remote write 1.0: Prometheus, Mimir, VictoriaMetrics. Takes metrics.
    RemoteWrite,
    /// Loki's push API. Takes logs.
    Loki,
    /// `_bulk` of OpenSearch and Elasticsearch. Takes logs.
    Opensearch,
    /// OTLP over HTTP. Takes logs and traces.
    Otlp,
    /// Alertmanager's API v2. Takes alerts.
    Alertmanager,
    /// Fluentd's forward protocol: Fluentd, Fluent Bit. Takes logs.
    Fluent,
}

impl ForwarderKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remoteWrite",
            Self::Loki => "loki",
            Self::Opensearch => "opensearch",
            Self::Otlp => "otlp",
            Self::Alertmanager => "alertmanager",
            Self::Fluent => "fluent",
        }
    }

    /// Streams that it can take.
    pub fn takes(self) -> &'static [&'static str] {
        match self {
            Self::RemoteWrite => &["metrics"],
            Self::Loki | Self::Opensearch | Self::Fluent => &["logs"],
            Self::Otlp => &["logs", "traces"],
            Self::Alertmanager => &["alerts"],
        }
    }
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwarderConfig {
    /// Names its cursor: another name starts over.
    pub name: String,
    /// What it is.
    pub kind: ForwarderKind,
    /// Its address. For remote write the whole of it; for the others the API's paths are put behind it.
    #[serde(deserialize_with = "url")]
    pub url: Url,
    /// Only these of the streams that its kind takes.
    #[serde(default)]
    pub streams: Vec<String>,
    /// File of authorities (PEM) to trust; those of the system where absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File of a bearer token; read anew for each request, so that it may be rotated.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// User of basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// File of its password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// More headers, such as `X-Scope-OrgID`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Labels beside `device`, `class` and `site`, such as `cluster`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Index of OpenSearch; `leeward-logs` where absent.
    #[serde(default)]
    pub index: Option<String>,
    /// Tag of Fluentd's events; `leeward.logs` where absent.
    #[serde(default)]
    pub tag: Option<String>,
    /// Whether Fluentd's events are compressed.
    #[serde(default)]
    pub gzip: bool,
    /// File of the key that a Fluentd asks for.
    #[serde(default)]
    pub shared_key_file: Option<PathBuf>,
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    Url::parse(&text).map_err(|err| serde::de::Error::custom(format!("{text:?} is no URL: {err}")))
}

/// Why forwarders cannot be as they are described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("forwarder {name}: {field}: {why}")]
pub struct BadForwarder {
    /// Which.
    pub name: String,
    /// Which field.
    pub field: &'static str,
    /// What is wrong, and what to write.
    pub why: String,
}

impl ForwarderConfig {
    /// The streams that it gets.
    pub fn streams(&self) -> Vec<&'static str> {
        let takes = self.kind.takes().iter().copied();
        takes
            .filter(|stream| self.streams.is_empty() || self.streams.iter().any(|wanted| wanted == stream))
            .collect()
    }

    /// Checks what can be checked before anything is sent.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_all(all: &[Self]) -> Result<(), BadForwarder> {
        let mut names = BTreeSet::new();
        for one in all {
            one.check()?;
            if !names.insert(&one.name) {
                return Err(one.bad(
                    "name",
                    "another forwarder has this name; each needs its own".into(),
                ));
            }
        }
        Ok(())
    }

    fn bad(&self, field: &'static str, why: String) -> BadForwarder {
        BadForwarder {
            name: self.name.clone(),
            field,
            why,
        }
    }

    fn check(&self) -> Result<(), BadForwarder> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.bytes().all(good) {
            return Err(self.bad("name", "use 1 to 63 lower-case letters, digits and '-'".into()));
        }
        let fluent = self.kind == ForwarderKind::Fluent;
        let schemes = if fluent { ["tcp", "tls"] } else { ["http", "https"] };
        let hostless = self.url.host_str().is_none_or(str::is_empty);
        if !schemes.contains(&self.url.scheme()) || hostless {
            let why = format!("{} is no {} URL with a host", self.url, schemes.join(" or "));
            return Err(self.bad("url", why));
        }
        for (field, given) in [
            ("bearerTokenFile", self.bearer_token_file.is_some()),
            ("headers", !self.headers.is_empty()),
        ] {
            if fluent && given {
                return Err(self.bad(
                    field,
                    "Fluentd's protocol is no HTTP; it has sharedKeyFile".into(),
                ));
            }
        }
        for (field, given) in [
            ("tag", self.tag.is_some()),
            ("gzip", self.gzip),
            ("sharedKeyFile", self.shared_key_file.is_some()),
        ] {
            if !fluent && given {
                return Err(self.bad(field, "only fluent has one".into()));
            }
        }
        if fluent && self.username.is_some() && self.shared_key_file.is_none() {
            return Err(self.bad(
                "username",
                "Fluentd asks for a user only with sharedKeyFile".into(),
            ));
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return Err(self.bad(
                "url",
                "credentials do not belong into it; use username and passwordFile".into(),
            ));
        }
        let takes = self.kind.takes();
        if let Some(other) = self
            .streams
            .iter()
            .find(|stream| !takes.contains(&stream.as_str()))
        {
            let why = format!("{} takes {}, not {other}", self.kind.word(), takes.join(" and "));
            return Err(self.bad("streams", why));
        }
        if self.username.is_some() != self.password_file.is_some() {
            return Err(self.bad("username", "it and passwordFile belong together".into()));
        }
        if self.username.is_some() && self.bearer_token_file.is_some() {
            return Err(self.bad(
                "bearerTokenFile",
                "either a token or a user with a password".into(),
            ));
        }
        for name in self.labels.keys() {
            let good = |(at, byte): (usize, u8)| {
                byte.is_ascii_alphabetic() || byte == b'_' || (at > 0 && byte.is_ascii_digit())
            };
            if name.is_empty() || !name.bytes().enumerate().all(good) {
                return Err(self.bad("labels", format!("{name:?} is no name of a label")));
            }
            if ["device", "class", "site"].contains(&name.as_str()) {
                return Err(self.bad("labels", format!("{name} is set by the hub")));
            }
        }
        for (name, value) in &self.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                return Err(self.bad("headers", format!("{name}: {value:?} is no header")));
            }
        }
        if self.index.is_some() && self.kind != ForwarderKind::Opensearch {
            return Err(self.bad("index", "only OpenSearch has one".into()));
        }
        Ok(())
    }
}
