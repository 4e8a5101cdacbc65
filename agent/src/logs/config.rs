//! `logs` of the agent's configuration.

use super::{FileLogs, JournalConfig, SyslogAddress};
use jiff::SignedDuration;
use runtime::logs::Retention;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
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
    #[serde(default)]
    syslog: RawSyslog,
    #[serde(default)]
    files: Vec<RawFiles>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSyslog {
    #[serde(default)]
    udp: Vec<String>,
    #[serde(default)]
    tcp: Vec<String>,
    #[serde(default)]
    unix: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFiles {
    name: String,
    paths: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    together: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    entries_per_second: Option<u32>,
    redact: Option<Vec<String>>,
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
    /// Where syslog is received.
    pub syslog: Vec<SyslogAddress>,
    /// Log files beside containers'.
    pub files: Vec<FileLogs>,
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
        let mut logs = Logs {
            collect: self.collect.unwrap_or(true),
            per_second: self.entries_per_second.unwrap_or(500),
            redactions: redactions("logs.redact", &redact)?,
            wait: time("logs.wait", "5s", self.wait, 5)?,
            local: self.local.resolve()?,
            journal: self.journal.resolve()?,
            syslog: self.syslog.resolve()?,
            files: Vec::new(),
        };
        let rules = logs.rules(Format::Plain);
        for files in self.files {
            logs.files.push(files.resolve(&rules)?);
        }
        Ok(logs)
    }
}

fn redactions(field: &'static str, texts: &[String]) -> Result<Vec<Redaction>, BadLogs> {
    let parsed = texts.iter().map(|text| Redaction::parse(text));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|err| (field, kit::chain(&err)))
}

impl RawSyslog {
    fn resolve(self) -> Result<Vec<SyslogAddress>, BadLogs> {
        let address = |field: &'static str, text: String| {
            text.parse::<SocketAddr>().map_err(|_| {
                (
                    field,
                    format!("{text:?} is no address; write 127.0.0.1:514 or [::]:514"),
                )
            })
        };
        let mut all = Vec::new();
        for text in self.udp {
            all.push(SyslogAddress::Udp(address("logs.syslog.udp", text)?));
        }
        for text in self.tcp {
            all.push(SyslogAddress::Tcp(address("logs.syslog.tcp", text)?));
        }
        for path in self.unix {
            if !path.is_absolute() {
                let why = format!("{} is no absolute path, such as /run/leeward/log", path.display());
                return Err(("logs.syslog.unix", why));
            }
            all.push(SyslogAddress::Unix(path));
        }
        Ok(all)
    }
}

impl RawFiles {
    fn resolve(self, rules: &Rules) -> Result<FileLogs, BadLogs> {
        let named = |(field, why): BadLogs| (field, format!("of {:?}: {why}", self.name));
        if self.name.is_empty() {
            return Err((
                "logs.files",
                "each needs a name, such as `name: inference`".to_owned(),
            ));
        }
        if self.paths.is_empty() {
            return Err(named(("logs.files", "paths is empty".to_owned())));
        }
        let globs = |field: &'static str, texts: &[String], absolute: bool| {
            let glob = |text: &String| {
                let pattern = glob::Pattern::new(text)
                    .map_err(|err| named((field, format!("{text:?} is no pattern: {err}"))))?;
                if absolute && !text.starts_with('/') {
                    return Err(named((field, format!("{text:?} must begin with /"))));
                }
                Ok(pattern)
            };
            texts.iter().map(glob).collect::<Result<Vec<_>, _>>()
        };
        let together = match self.together.as_deref() {
            None | Some("traces") => Together::Traces,
            Some("never") => Together::Never,
            Some(start) => {
                let start = regex::bytes::Regex::new(start).map_err(|err| {
                    let why = format!(
                        "{start:?} is neither traces nor never, and no regular expression of an entry's first line: {err}"
                    );
                    named(("logs.files.together", why))
                })?;
                Together::Start(start)
            }
        };
        Ok(FileLogs {
            paths: globs("logs.files.paths", &self.paths, true)?,
            exclude: globs("logs.files.exclude", &self.exclude, false)?,
            rules: Rules {
                together,
                per_second: self.entries_per_second.unwrap_or(rules.per_second),
                redactions: match &self.redact {
                    None => rules.redactions.clone(),
                    Some(redact) => redactions("logs.files.redact", redact).map_err(named)?,
                },
                ..rules.clone()
            },
            attributes: self.attributes.clone(),
            name: self.name,
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
            ("syslog: {udp: [514]}", "logs.syslog.udp: \"514\" is no address"),
            (
                "syslog: {unix: [log]}",
                "logs.syslog.unix: log is no absolute path",
            ),
            (
                "files: [{name: a, paths: []}]",
                "logs.files: of \"a\": paths is empty",
            ),
            ("files: [{name: a, paths: [x.log]}]", "must begin with /"),
            (
                "files: [{name: a, paths: ['/a***']}]",
                "logs.files.paths: of \"a\": ",
            ),
            (
                "files: [{name: a, paths: [/a], together: '('}]",
                "logs.files.together: of \"a\": ",
            ),
            (
                "files: [{name: a, paths: [/a], redact: [':x']}]",
                "logs.files.redact: of \"a\": ",
            ),
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
