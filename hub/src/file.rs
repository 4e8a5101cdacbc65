//! The hub's configuration file: what is kept, and where telemetry is sent onward. Everything else is on its command
//! line.

use crate::forward::{BadForwarder, ForwarderConfig};
use crate::history::HistoryConfig;
use jiff::SignedDuration;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileConfigError {
    /// It cannot be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no configuration of a hub.
    #[error("{path}: {why}", path = .path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where in it, and what.
        why: String,
    },
    /// A value makes no sense.
    #[error("{path}: {field}: {why}", path = .path.display())]
    Value {
        /// Which.
        path: PathBuf,
        /// Which field.
        field: &'static str,
        /// What is wrong, and what to write.
        why: String,
    },
    /// A forwarder cannot be as it is described.
    #[error("{path}: {fault}", path = .path.display())]
    Forwarder {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to write.
        fault: BadForwarder,
    },
}

const VERSION: &str = "leeward.dev/v1alpha1";
const KIND: &str = "Hub";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    api_version: String,
    kind: String,
    #[serde(default)]
    history: RawHistory,
    #[serde(default)]
    forwarders: Vec<ForwarderConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHistory {
    keep: Option<SignedDuration>,
    keep_bytes: Option<String>,
    staged_bytes: Option<String>,
}

/// What a file says.
#[derive(Debug, Clone)]
pub struct FileConfig {
    /// What is kept of telemetry.
    pub history: HistoryConfig,
    /// Where it is sent onward.
    pub forwarders: Vec<ForwarderConfig>,
}

impl FileConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn read(path: &Path) -> Result<Self, FileConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// The same from its text; `path` is for what is told.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileConfigError> {
        let raw: Raw = serde_saphyr::from_str(text).map_err(|err| FileConfigError::Parse {
            path: path.to_owned(),
            why: err.to_string(),
        })?;
        let bad = |field, why| FileConfigError::Value {
            path: path.to_owned(),
            field,
            why,
        };
        if (raw.api_version.as_str(), raw.kind.as_str()) != (VERSION, KIND) {
            let why = format!(
                "the file is of {} {}; write {VERSION} {KIND}",
                raw.api_version, raw.kind
            );
            return Err(bad("apiVersion", why));
        }
        let usual = HistoryConfig::default();
        let keep = raw.history.keep.unwrap_or(usual.keep);
        if keep < SignedDuration::from_hours(1) {
            return Err(bad(
                "history.keep",
                format!("{keep:#} is less than an hour; write 168h, for instance"),
            ));
        }
        let bytes = |field, given: Option<String>, usual: u64| match given {
            None => Ok(usual),
            Some(text) => {
                let bytes = model::parse_bytes(&text).map_err(|err| bad(field, err.to_string()))?;
                if bytes < 64 << 20 {
                    return Err(bad(field, format!("{text} is less than 64Mi")));
                }
                Ok(bytes)
            }
        };
        let history = HistoryConfig {
            keep,
            keep_bytes: bytes("history.keepBytes", raw.history.keep_bytes, usual.keep_bytes)?,
            staged_bytes: bytes(
                "history.stagedBytes",
                raw.history.staged_bytes,
                usual.staged_bytes,
            )?,
            ..usual
        };
        ForwarderConfig::check_all(&raw.forwarders).map_err(|fault| FileConfigError::Forwarder {
            path: path.to_owned(),
            fault,
        })?;
        Ok(Self {
            history,
            forwarders: raw.forwarders,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<FileConfig, String> {
        let text = format!("apiVersion: leeward.dev/v1alpha1\nkind: Hub\n{rest}");
        FileConfig::parse(Path::new("hub.yaml"), &text).map_err(|err| kit::chain(&err))
    }

    #[test]
    fn a_file_says_what_is_kept_and_where_it_is_sent() {
        let file = parse(
            "history: {keep: 48h, keepBytes: 1Gi}
forwarders:
- {name: prom, kind: remoteWrite, url: 'http://prom:9090/api/v1/write', labels: {cluster: harbour}}
- {name: traces, kind: otlp, url: 'https://tempo.example/otlp', streams: [traces]}
",
        )
        .unwrap();
        assert_eq!(file.history.keep, SignedDuration::from_hours(48));
        assert_eq!(file.history.keep_bytes, 1 << 30);
        assert_eq!(file.forwarders[0].streams(), ["metrics"]);
        assert_eq!(file.forwarders[1].streams(), ["traces"]);
        assert!(parse("").unwrap().forwarders.is_empty());
    }

    #[test]
    fn a_fault_is_told_with_its_field_and_a_remedy() {
        let forwarder = |rest: &str| parse(&format!("forwarders: [{{name: a, {rest}}}]")).unwrap_err();
        for (rest, told) in [
            (
                "kind: loki, url: 'ftp://x'",
                "forwarder a: url: ftp://x/ is no http or https URL with a host",
            ),
            (
                "kind: loki, url: 'http://u:p@x'",
                "forwarder a: url: credentials do not belong into it",
            ),
            (
                "kind: loki, url: 'http://x', streams: [metrics]",
                "loki takes logs, not metrics",
            ),
            (
                "kind: loki, url: 'http://x', username: u",
                "it and passwordFile belong together",
            ),
            (
                "kind: loki, url: 'http://x', labels: {device: x}",
                "device is set by the hub",
            ),
            (
                "kind: loki, url: 'http://x', labels: {'1a': x}",
                "is no name of a label",
            ),
            ("kind: loki, url: 'http://x', index: i", "only OpenSearch has one"),
            ("kind: loki, url: 'http://x', headers: {'a b': x}", "is no header"),
            ("kind: loki, url: 'no url'", "is no URL"),
            ("kind: kafka, url: 'http://x'", "kafka"),
            ("kind: loki, url: 'http://x', topic: t", "topic"),
        ] {
            let err = forwarder(rest);
            assert!(
                err.starts_with("hub.yaml: ") && err.contains(told),
                "{rest}: {err}"
            );
        }
        let twice =
            "forwarders: [{name: a, kind: loki, url: 'http://x'}, {name: a, kind: loki, url: 'http://y'}]";
        assert!(
            parse(twice)
                .unwrap_err()
                .contains("another forwarder has this name")
        );
        assert!(parse("history: {keep: 5m}").unwrap_err().contains("history.keep"));
        assert!(
            parse("history: {keepBytes: 1Mi}")
                .unwrap_err()
                .contains("less than 64Mi")
        );
        assert!(
            parse("history: {keepBytes: lots}")
                .unwrap_err()
                .contains("history.keepBytes")
        );
        let other = FileConfig::parse(Path::new("x"), "{apiVersion: v1, kind: Pod}").unwrap_err();
        assert!(
            other.to_string().contains("write leeward.dev/v1alpha1 Hub"),
            "{other}"
        );
    }
}
