//! `logs` of the agent's configuration.

use super::JournalConfig;
use jiff::SignedDuration;
use runtime::logs::Retention;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use telemetry::logs::{Format, Redaction, Rules, Together};

/// The field that is wrong, and why.
pub(crate) type BadLogs = (&'static str, String);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawLogs {
    #[serde(default)]
    collect: Option<bool>,
    #[serde(default)]
    entries_per_second: Option<u32>,
    #[serde(default)]
    redact: Option<Vec<String>>,
    #[serde(default)]
    wait: Option<SignedDuration>,
    #[serde(default)]
    local: RawLocal,
    #[serde(default)]
    journal: RawJournal,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawJournal {
    #[serde(default)]
    collect: bool,
    #[serde(default)]
    units: Vec<String>,
    priority: Option<String>,
    backlog: Option<SignedDuration>,
    directory: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawLocal {
    per_container: Option<String>,
    total: Option<String>,
    age: Option<SignedDuration>,
}

/// Which logs go to the hub, what of them, and what is kept on the device.
#[derive(Debug, Clone)]
pub struct Logs {
    /// False: they stay on the device.
    pub collect: bool,
    /// Entries a second of each source, over a burst.
    pub per_second: u32,
    /// What must not leave the device.
    pub redactions: Vec<Redaction>,
    /// How long an entry waits for others.
    pub wait: Duration,
    /// What is kept of containers' rotated files.
    pub local: Retention,
    /// What is read of the system's journal, if anything.
    pub journal: Option<JournalConfig>,
}

impl Logs {
    /// For logs of this form.
    pub fn rules(&self, format: Format) -> Rules {
        Rules {
            format,
            together: Together::Traces,
            redactions: self.redactions.clone(),
            per_second: self.per_second,
            wait: self.wait,
        }
    }
}

impl RawLogs {
    /// Puts in what is left out.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub(crate) fn resolve(self) -> Result<Logs, BadLogs> {
        let redact = self
            .redact
            .unwrap_or_else(|| vec![":bearer".to_owned(), ":userinfo".to_owned()]);
        Ok(Logs {
            collect: self.collect.unwrap_or(true),
            per_second: self.entries_per_second.unwrap_or(500),
            redactions: redact
                .iter()
                .map(|text| Redaction::parse(text))
                .collect::<Result<_, _>>()
                .map_err(|err| ("logs.redact", kit::chain(&err)))?,
            wait: time("logs.wait", "5s", self.wait, 5)?,
            local: self.local.resolve()?,
            journal: self.journal.resolve()?,
        })
    }
}

impl RawLocal {
    fn resolve(self) -> Result<Retention, BadLogs> {
        let age = time("logs.local.age", "168h", self.age, 7 * 24 * 3600)?;
        let age = SignedDuration::try_from(age).map_err(|err| ("logs.local.age", err.to_string()))?;
        Ok(Retention {
            per_log: size("logs.local.perContainer", self.per_container, 50 << 20)?,
            total: size("logs.local.total", self.total, 500 << 20)?,
            age,
        })
    }
}

impl RawJournal {
    fn resolve(self) -> Result<Option<JournalConfig>, BadLogs> {
        // A word that begins with a dash would be read as an option.
        let plain = |text: &String| !text.is_empty() && !text.starts_with('-') && !text.contains('\0');
        if let Some(unit) = self.units.iter().find(|unit| !plain(unit)) {
            let why = format!("{unit:?} is no name of a unit, such as ssh.service or 'nv*'");
            return Err(("logs.journal.units", why));
        }
        if let Some(priority) = &self.priority
            && !PRIORITIES.contains(&priority.as_str())
        {
            let why = format!("{priority:?} is none; there are {}", PRIORITIES.join(", "));
            return Err(("logs.journal.priority", why));
        }
        let backlog = time("logs.journal.backlog", "1h", self.backlog, 3600)?;
        let backlog =
            SignedDuration::try_from(backlog).map_err(|err| ("logs.journal.backlog", err.to_string()))?;
        Ok(self.collect.then_some(JournalConfig {
            units: self.units,
            priority: self.priority,
            backlog,
            directory: self.directory,
        }))
    }
}

/// As `journalctl --priority` takes them.
const PRIORITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

fn time(
    field: &'static str,
    such_as: &str,
    given: Option<SignedDuration>,
    otherwise: u64,
) -> Result<Duration, BadLogs> {
    match given.map(Duration::try_from) {
        None => Ok(Duration::from_secs(otherwise)),
        Some(Ok(time)) if !time.is_zero() => Ok(time),
        Some(_) => Err((field, format!("must be above zero, such as {such_as}"))),
    }
}

fn size(field: &'static str, given: Option<String>, otherwise: u64) -> Result<u64, BadLogs> {
    given.map_or(Ok(otherwise), |text| {
        model::parse_bytes(&text).map_err(|err| (field, format!("{err}; write 50Mi or 1Gi")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Logs, String> {
        let raw: RawLogs = serde_saphyr::from_str(text).map_err(|err| err.to_string())?;
        raw.resolve().map_err(|(field, why)| format!("{field}: {why}"))
    }

    #[test]
    fn it_has_defaults_and_faults_name_their_field() {
        let logs = resolve("{}").unwrap();
        assert!(logs.collect && logs.local.per_log == 50 << 20);
        assert_eq!(logs.journal, None);
        let logs = resolve("journal: {collect: true, units: [ssh.service]}").unwrap();
        assert_eq!(logs.journal.unwrap().units, ["ssh.service"]);
        let logs = resolve("local: {perContainer: 1Mi, total: 2Gi, age: 1h}").unwrap();
        assert_eq!((logs.local.per_log, logs.local.total), (1 << 20, 2 << 30));
        for (text, want) in [
            ("wait: 0s", "logs.wait: must be above zero"),
            ("local: {age: 0s}", "logs.local.age: must be above zero"),
            ("local: {total: much}", "logs.local.total: "),
            ("redact: ['(']", "logs.redact: "),
            ("colect: true", "colect"),
            ("journal: {units: [-x]}", "logs.journal.units: \"-x\""),
            (
                "journal: {priority: bad}",
                "logs.journal.priority: \"bad\" is none; there are emerg",
            ),
        ] {
            let err = resolve(text).unwrap_err();
            assert!(err.contains(want), "{text}: {err}");
        }
    }
}
