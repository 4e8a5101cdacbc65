//! The section `alerts` of the agent's configuration.

use jiff::SignedDuration;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use telemetry::http::{Trust, basic};
use telemetry::webhook::Webhook;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawAlerts {
    enabled: Option<bool>,
    interval: Option<SignedDuration>,
    memory: Option<String>,
    #[serde(default)]
    webhooks: Vec<RawWebhook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawWebhook {
    name: String,
    url: String,
    send_resolved: Option<bool>,
    token_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// Whether rules are evaluated, and who is told on the spot.
#[derive(Debug, Clone)]
pub struct AlertsConfig {
    /// Whether rules are evaluated.
    pub enabled: bool,
    /// Time between two evaluations, where a group says no other.
    pub interval: Duration,
    /// Bytes of samples that are held for rules.
    pub memory: usize,
    /// Who is told.
    pub webhooks: Vec<Receiver>,
}

/// Somebody who is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Its address.
    pub webhook: Webhook,
    /// Also when an alert is over.
    pub send_resolved: bool,
}

/// A field, and what is wrong with it.
pub(crate) type Fault = (&'static str, String);

impl RawAlerts {
    pub(crate) fn resolve(self) -> Result<AlertsConfig, Fault> {
        let interval = match self.interval.map(Duration::try_from) {
            None => Duration::from_secs(30),
            Some(Ok(interval)) if interval >= Duration::from_millis(100) => interval,
            Some(_) => return Err(("alerts.interval", "at least 100ms, such as 30s or 1m".to_owned())),
        };
        let memory = match &self.memory {
            None => 8 << 20,
            Some(text) => model::parse_bytes(text)
                .ok()
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| ("alerts.memory", format!("{text:?} is no size such as 8Mi")))?,
        };
        let mut webhooks: Vec<Receiver> = Vec::new();
        for raw in self.webhooks {
            if webhooks.iter().any(|held| held.name == raw.name) {
                return Err(("alerts.webhooks", format!("two have the name {}", raw.name)));
            }
            webhooks.push(raw.resolve()?);
        }
        Ok(AlertsConfig {
            enabled: self.enabled.unwrap_or(true),
            interval,
            memory,
            webhooks,
        })
    }
}

impl RawWebhook {
    fn resolve(self) -> Result<Receiver, Fault> {
        if self.name.is_empty() {
            return Err(("alerts.webhooks[].name", "a name belongs here".to_owned()));
        }
        let of = |why: &str| format!("{}: {why}", self.name);
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(("alerts.webhooks[].url", of("must begin with http:// or https://")));
        }
        let authorization = match (&self.token_file, &self.user, &self.password_file) {
            (None, None, None) => None,
            (Some(token), None, None) => {
                Some(format!("Bearer {}", read("alerts.webhooks[].tokenFile", token)?))
            }
            (None, Some(user), Some(password)) => {
                Some(basic(user, &read("alerts.webhooks[].passwordFile", password)?))
            }
            _ => {
                let why = of("give tokenFile, or user and passwordFile");
                return Err(("alerts.webhooks[].tokenFile", why));
            }
        };
        let trust = match (&self.ca_file, self.insecure_skip_verify) {
            (None, false) => Trust::System,
            (Some(path), false) => Trust::Only(read("alerts.webhooks[].caFile", path)?.into_bytes()),
            (None, true) => Trust::Anybody,
            (Some(_), true) => {
                return Err((
                    "alerts.webhooks[].caFile",
                    of("says nothing beside insecureSkipVerify"),
                ));
            }
        };
        let webhook = Webhook::new(&self.url, &trust, authorization)
            .map_err(|err| ("alerts.webhooks[]", of(&kit::chain(&err))))?;
        Ok(Receiver {
            name: self.name,
            webhook,
            send_resolved: self.send_resolved.unwrap_or(true),
        })
    }
}

fn read(field: &'static str, path: &Path) -> Result<String, Fault> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(err) => Err((field, format!("cannot read {}: {err}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<AlertsConfig, String> {
        let raw: RawAlerts = serde_saphyr::from_str(text).map_err(|err| err.to_string())?;
        raw.resolve().map_err(|(field, why)| format!("{field}: {why}"))
    }

    #[test]
    fn it_is_on_by_default_and_faults_name_their_field() {
        let config = resolve("{}").unwrap();
        assert!(config.enabled && config.memory == 8 << 20);
        assert_eq!(resolve("memory: 2Mi").unwrap().memory, 2 << 20);
        for (text, want) in [
            ("interval: 0s", "alerts.interval: at least 100ms"),
            ("memory: much", "alerts.memory: \"much\" is no size"),
            (
                "webhooks: [{name: a, url: x}]",
                "alerts.webhooks[].url: a: must begin",
            ),
            (
                "webhooks: [{name: a, url: 'http://x', user: u}]",
                "alerts.webhooks[].tokenFile: a: give",
            ),
            (
                "webhooks: [{name: a, url: 'http://x', tokenFile: /nowhere}]",
                "cannot read /nowhere",
            ),
            (
                "webhooks: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]",
                "two have the name a",
            ),
            ("webhook: []", "webhook"),
        ] {
            let err = resolve(text).unwrap_err();
            assert!(err.contains(want), "{text}: {err}");
        }
    }
}
