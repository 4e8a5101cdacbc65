//! The section `metrics` of the agent's configuration.

use crate::receivers;
use ::telemetry::http::Trust;
use ::telemetry::metrics::discover::{BadScrapeConfig, ScrapeConfig, scrape_configs};
use ::telemetry::metrics::remote::Version;
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why the section cannot be used.
#[derive(Debug, Error)]
pub enum BadMetrics {
    /// A file that it names cannot be read.
    #[error("metrics.{field}: cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which field.
        field: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The scrape configurations.
    #[error("metrics.scrapeConfigFile: {path}: {source}", path = .path.display())]
    Scrape {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: BadScrapeConfig,
    },
    /// A value.
    #[error("metrics.{field}: {why}")]
    Value {
        /// Which field.
        field: String,
        /// What is wrong, and what to write.
        why: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawMetrics {
    enabled: Option<bool>,
    interval: Option<SignedDuration>,
    window: Option<SignedDuration>,
    scrape_config_file: Option<PathBuf>,
    #[serde(default)]
    export: Vec<RawExport>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawExport {
    name: String,
    url: String,
    version: Option<RawVersion>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    token_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawVersion {
    #[serde(rename = "1.0")]
    One,
    #[serde(rename = "2.0")]
    Two,
}

/// What is measured, and where that goes beside the hub.
#[derive(Debug, Clone)]
pub struct MetricsConfig {
    /// Whether anything is measured.
    pub enabled: bool,
    /// Time between two scrapes, where a target says no other.
    pub interval: Duration,
    /// Scrapes are gathered for so long; a crash may cost them.
    pub window: Duration,
    /// Prometheus' own.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Receivers of remote write.
    pub exports: Vec<Export>,
}

/// A receiver of remote write.
#[derive(Clone)]
pub struct Export {
    /// Names its cursor.
    pub name: String,
    /// Where.
    pub url: String,
    /// Found out where absent.
    pub version: Option<Version>,
    /// Added to every series.
    pub labels: BTreeMap<String, String>,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
    /// Whom it trusts.
    pub trust: Trust,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl RawMetrics {
    pub(crate) fn resolve(self) -> Result<MetricsConfig, BadMetrics> {
        let time = |field: &str, given: Option<SignedDuration>, otherwise: u64| match given {
            None => Ok(Duration::from_secs(otherwise)),
            Some(given) => match Duration::try_from(given) {
                Ok(given) if given >= Duration::from_millis(100) => Ok(given),
                _ => Err(value(field, "at least 100ms, such as 15s or 1m")),
            },
        };
        let interval = time("interval", self.interval, 15)?;
        let scrape_configs = match self.scrape_config_file {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read(&path).map_err(|source| BadMetrics::Read {
                    field: "scrapeConfigFile".to_owned(),
                    path: path.clone(),
                    source,
                })?;
                scrape_configs(&String::from_utf8_lossy(&text))
                    .map_err(|source| BadMetrics::Scrape { path, source })?
            }
        };
        let exports: Vec<Export> = self
            .export
            .into_iter()
            .map(RawExport::resolve)
            .collect::<Result<_, _>>()?;
        for (index, export) in exports.iter().enumerate() {
            if exports[..index].iter().any(|other| other.name == export.name) {
                return Err(value(
                    "export",
                    &format!("two receivers have the name {}", export.name),
                ));
            }
        }
        Ok(MetricsConfig {
            enabled: self.enabled.unwrap_or(true),
            interval,
            window: time("window", self.window, 60)?,
            scrape_configs,
            exports,
        })
    }
}

impl RawExport {
    fn resolve(self) -> Result<Export, BadMetrics> {
        let field = |name: &str| format!("export[{}].{name}", self.name);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(plain) {
            return Err(value(&field("name"), "1 to 40 letters, digits and dashes"));
        }
        let given = receivers::Given {
            url: &self.url,
            token_file: self.token_file.as_deref(),
            user: self.user.as_deref(),
            password_file: self.password_file.as_deref(),
            ca_file: self.ca_file.as_deref(),
            insecure_skip_verify: self.insecure_skip_verify,
        };
        let (authorization, trust) = given.resolve().map_err(|wrong| match wrong {
            receivers::Fault::Read { field, path, source } => BadMetrics::Read {
                field: format!("export.{field}"),
                path,
                source,
            },
            receivers::Fault::Value { field: wrong, why } => value(&field(wrong), why),
        })?;
        Ok(Export {
            name: self.name,
            url: self.url,
            version: self.version.map(|version| match version {
                RawVersion::One => Version::V1,
                RawVersion::Two => Version::V2,
            }),
            labels: self.labels,
            authorization,
            trust,
        })
    }
}

fn value(field: &str, why: &str) -> BadMetrics {
    BadMetrics::Value {
        field: field.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<MetricsConfig, String> {
        let raw: RawMetrics = serde_saphyr::from_str(text).map_err(|err| err.to_string())?;
        raw.resolve().map_err(|err| err.to_string())
    }

    #[test]
    fn it_is_on_by_default_and_faults_name_their_field() {
        let config = resolve("{}").unwrap();
        assert!(config.enabled && config.interval == Duration::from_secs(15));
        let config = resolve("export: [{name: mimir, url: 'https://m/push', version: '2.0'}]").unwrap();
        assert_eq!(config.exports[0].version, Some(Version::V2));
        for (text, want) in [
            ("interval: 0s", "metrics.interval: at least"),
            (
                "export: [{name: 'a b', url: 'http://x'}]",
                "metrics.export[a b].name",
            ),
            ("export: [{name: a, url: 'x'}]", "metrics.export[a].url"),
            (
                "export: [{name: a, url: 'http://x', user: u}]",
                "metrics.export[a].tokenFile",
            ),
            (
                "export: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]",
                "two receivers",
            ),
            (
                "export: [{name: a, url: 'http://x', tokenFile: /nowhere}]",
                "cannot read /nowhere",
            ),
            (
                "scrapeConfigFile: /nowhere",
                "metrics.scrapeConfigFile: cannot read",
            ),
            ("intervall: 1s", "intervall"),
        ] {
            let err = resolve(text).unwrap_err();
            assert!(err.contains(want), "{text}: {err}");
        }
    }
}
