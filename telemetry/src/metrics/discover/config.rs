//! Prometheus' own `scrape_configs`: static targets and pods of this device.

use super::candidate::{Defaults, Place, duration, finish, size};
use super::pods::{Pod, strings};
use super::{Found, Object};
use crate::metrics::relabel::{BadRule, LabelMap, RawRule, Rule};
use crate::metrics::target::{Access, Job};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why a scrape configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadScrapeConfig {
    /// The text is none, or has a field that is not supported.
    #[error("{0}")]
    Text(String),
    /// A value.
    #[error("scrape config {job}: {why}")]
    Value {
        /// Which.
        job: String,
        /// What is wrong.
        why: String,
    },
    /// A rule.
    #[error("scrape config {job}: {list}, rule {number}: {source}")]
    Rule {
        /// Which.
        job: String,
        /// Which list of rules.
        list: &'static str,
        /// From 1.
        number: usize,
        /// What is wrong.
        source: BadRule,
    },
}

#[derive(Debug, Deserialize)]
struct RawFile {
    #[serde(default)]
    global: RawGlobal,
    #[serde(default)]
    scrape_configs: Vec<RawScrapeConfig>,
}

#[derive(Debug, Default, Deserialize)]
struct RawGlobal {
    scrape_interval: Option<String>,
    scrape_timeout: Option<String>,
}

/// As it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScrapeConfig {
    job_name: String,
    scrape_interval: Option<String>,
    scrape_timeout: Option<String>,
    metrics_path: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    #[serde(default)]
    static_configs: Vec<RawStatic>,
    #[serde(default)]
    kubernetes_sd_configs: Vec<RawKubernetes>,
    #[serde(default)]
    relabel_configs: Vec<RawRule>,
    #[serde(default)]
    metric_relabel_configs: Vec<RawRule>,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    body_size_limit: Option<String>,
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    bearer_token: Option<String>,
    #[serde(default)]
    tls_config: RawTls,
    /// Taken and of no effect: bodies are taken compressed or not, redirects followed.
    #[expect(dead_code, reason = "accepted in configurations that say it")]
    enable_compression: Option<bool>,
    #[expect(dead_code, reason = "accepted in configurations that say it")]
    follow_redirects: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatic {
    targets: Vec<String>,
    #[serde(default)]
    labels: LabelMap,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKubernetes {
    role: String,
    namespaces: Option<RawNamespaces>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNamespaces {
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasic {
    username: String,
    #[serde(default)]
    password: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthorization {
    #[serde(rename = "type")]
    kind: Option<String>,
    credentials: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    #[serde(default)]
    insecure_skip_verify: bool,
    ca: Option<String>,
}

/// One entry of `scrape_configs`, checked.
#[derive(Debug, Clone)]
pub struct ScrapeConfig {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    /// With a default rhythm, which is replaced where there is none of its own.
    job: Job,
    place: Place,
    statics: Vec<RawStatic>,
    /// Namespaces whose pods are looked at; an empty list is all of them.
    pods: Vec<Vec<String>>,
}

/// Reads a Prometheus configuration: its `scrape_configs`, and of `global` the rhythm.
///
/// # Errors
/// With the place in the text, or the job and field.
pub fn scrape_configs(text: &str) -> Result<Vec<ScrapeConfig>, BadScrapeConfig> {
    let file: RawFile = serde_saphyr::from_str(text).map_err(|err| BadScrapeConfig::Text(err.to_string()))?;
    let RawFile {
        global,
        scrape_configs,
    } = file;
    scrape_configs
        .into_iter()
        .map(|mut raw| {
            raw.scrape_interval = raw.scrape_interval.or_else(|| global.scrape_interval.clone());
            raw.scrape_timeout = raw.scrape_timeout.or_else(|| global.scrape_timeout.clone());
            ScrapeConfig::try_from(raw)
        })
        .collect()
}

/// Rules of a list, or which one is wrong.
pub fn rules(raw: Vec<RawRule>) -> Result<Vec<Rule>, (usize, BadRule)> {
    let numbered = raw.into_iter().enumerate();
    numbered
        .map(|(index, raw)| Rule::try_from(raw).map_err(|err| (index + 1, err)))
        .collect()
}

impl TryFrom<RawScrapeConfig> for ScrapeConfig {
    type Error = BadScrapeConfig;

    fn try_from(raw: RawScrapeConfig) -> Result<Self, BadScrapeConfig> {
        let name = raw.job_name;
        let value = |why: String| BadScrapeConfig::Value {
            job: name.clone(),
            why,
        };
        let rule = |list| {
            let job = name.clone();
            move |(number, source)| BadScrapeConfig::Rule {
                job,
                list,
                number,
                source,
            }
        };
        let time = |text: Option<String>| text.map(|text| duration(&text)).transpose().map_err(value);
        let interval = time(raw.scrape_interval)?;
        let timeout = time(raw.scrape_timeout)?;
        if interval
            .zip(timeout)
            .is_some_and(|(interval, timeout)| timeout > interval)
        {
            return Err(value("scrape_timeout is longer than scrape_interval".to_owned()));
        }
        let mut job = Job::new(&name, Duration::from_secs(15));
        job.honor_labels = raw.honor_labels;
        job.honor_timestamps = raw.honor_timestamps.unwrap_or(true);
        job.metric_relabel = rules(raw.metric_relabel_configs).map_err(rule("metric_relabel_configs"))?;
        let limits = &mut job.limits;
        // As in Prometheus, 0 says nothing; the device's own bound stays.
        let set = |bound: &mut usize, said: Option<usize>| *bound = said.filter(|n| *n > 0).unwrap_or(*bound);
        set(&mut limits.samples, raw.sample_limit);
        set(&mut limits.labels, raw.label_limit);
        set(&mut limits.name_bytes, raw.label_name_length_limit);
        set(&mut limits.value_bytes, raw.label_value_length_limit);
        let body = raw
            .body_size_limit
            .map(|text| size(&text))
            .transpose()
            .map_err(value)?;
        set(&mut limits.body_bytes, body);
        job.access = Access {
            authorization: authorization(raw.basic_auth, raw.authorization, raw.bearer_token)
                .map_err(value)?,
            insecure_skip_verify: raw.tls_config.insecure_skip_verify,
            ca: raw.tls_config.ca.map(String::into_bytes),
        };
        let place = Place {
            scheme: raw.scheme.unwrap_or_else(|| "http".to_owned()),
            path: raw.metrics_path.unwrap_or_else(|| "/metrics".to_owned()),
            params: raw
                .params
                .into_iter()
                .filter_map(|(name, values)| Some((name, values.into_iter().next()?)))
                .collect(),
            rules: rules(raw.relabel_configs).map_err(rule("relabel_configs"))?,
        };
        let mut pods = Vec::new();
        for discovery in raw.kubernetes_sd_configs {
            if discovery.role != "pod" {
                let why = "kubernetes_sd_configs: role {}: a device knows its own pods only; use pod";
                return Err(value(why.replace("{}", &discovery.role)));
            }
            pods.push(discovery.namespaces.map(|said| said.names).unwrap_or_default());
        }
        Ok(Self {
            interval,
            timeout,
            job,
            place,
            statics: raw.static_configs,
            pods,
        })
    }
}

fn authorization(
    basic: Option<RawBasic>,
    said: Option<RawAuthorization>,
    bearer: Option<String>,
) -> Result<Option<String>, String> {
    match (basic, said, bearer) {
        (None, None, None) => Ok(None),
        (Some(basic), None, None) => Ok(Some(crate::http::basic(&basic.username, &basic.password))),
        (None, Some(said), None) => Ok(Some(format!(
            "{} {}",
            said.kind.as_deref().unwrap_or("Bearer"),
            said.credentials
        ))),
        (None, None, Some(token)) => Ok(Some(format!("Bearer {token}"))),
        _ => Err("give one of basic_auth, authorization and bearer_token".to_owned()),
    }
}

impl ScrapeConfig {
    /// The job's name.
    pub fn name(&self) -> &str {
        &self.job.name
    }

    pub(super) fn targets(&self, pods: &[Pod], defaults: Defaults, found: &mut Found) {
        let mut job = self.job.clone();
        job.interval = self.interval.unwrap_or(defaults.interval);
        job.timeout = self.timeout.unwrap_or(Duration::from_secs(10)).min(job.interval);
        let job = Arc::new(job);
        let mut candidates: Vec<LabelMap> = Vec::new();
        for group in &self.statics {
            for address in &group.targets {
                let mut labels = group.labels.clone();
                labels.insert("__address__".to_owned(), address.clone());
                candidates.push(labels);
            }
        }
        for namespaces in &self.pods {
            let here = |pod: &&Pod| namespaces.is_empty() || namespaces.contains(&pod.namespace);
            candidates.extend(pods.iter().filter(here).flat_map(Pod::meta_of_ports));
        }
        for labels in candidates {
            match finish(labels, &self.place, &job) {
                Ok(target) => found.targets.extend(target),
                Err(why) => found.warnings.push(format!("scrape config {}: {why}", job.name)),
            }
        }
    }
}

/// Every text of a ConfigMap is a configuration of its own.
pub(super) fn config_map(object: &Object, pods: &[Pod], defaults: Defaults, found: &mut Found) {
    for (key, text) in strings(&object.value()["data"]) {
        match scrape_configs(&text) {
            Ok(configs) => {
                for config in configs {
                    config.targets(pods, defaults, found);
                }
            }
            Err(err) => found.warnings.push(format!(
                "ConfigMap {}/{}, {key}, is left out: {err}",
                object.namespace(),
                object.name()
            )),
        }
    }
}
