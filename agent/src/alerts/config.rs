//! The section `alerts` of the agent's configuration.

use crate::receivers;
use jiff::SignedDuration;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
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
pub(crate) type Fault = (String, String);

impl RawAlerts {
    pub(crate) fn resolve(self) -> Result<AlertsConfig, Fault> {
        let interval = match self.interval.map(Duration::try_from) {
            None => Duration::from_secs(30),
            Some(Ok(interval)) if interval >= Duration::from_millis(100) => interval,
            Some(_) => return Err(fault("interval", "at least 100ms, such as 30s or 1m")),
        };
        let memory = match &self.memory {
            None => 8 << 20,
            Some(text) => model::parse_bytes(text)
                .ok()
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| fault("memory", format!("{text:?} is no size such as 8Mi")))?,
        };
        let mut webhooks: Vec<Receiver> = Vec::new();
        for raw in self.webhooks {
            if webhooks.iter().any(|held| held.name == raw.name) {
                return Err(fault("webhooks", format!("two have the name {}", raw.name)));
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
            return Err(fault("webhooks[].name", "a name belongs here"));
        }
        let of = |why: &str| format!("{}: {why}", self.name);
        let given = receivers::Given {
            url: &self.url,
            token_file: self.token_file.as_deref(),
            user: self.user.as_deref(),
            password_file: self.password_file.as_deref(),
            ca_file: self.ca_file.as_deref(),
            insecure_skip_verify: self.insecure_skip_verify,
        };
        let (authorization, trust) = given.resolve().map_err(|wrong| match wrong {
            receivers::Fault::Read { field, path, source } => fault(
                &format!("webhooks[].{field}"),
                format!("cannot read {}: {source}", path.display()),
            ),
            receivers::Fault::Value { field, why } => fault(&format!("webhooks[].{field}"), of(why)),
        })?;
        let webhook = Webhook::new(&self.url, &trust, authorization)
            .map_err(|err| fault("webhooks[]", of(&kit::chain(&err))))?;
        Ok(Receiver {
            name: self.name,
            webhook,
            send_resolved: self.send_resolved.unwrap_or(true),
        })
    }
}

fn fault(field: &str, why: impl Into<String>) -> Fault {
    (format!("alerts.{field}"), why.into())
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
