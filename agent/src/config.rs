//! The agent's configuration: one YAML file, read once, resolved before anything starts.

use crate::alerts::{AlertsConfig, RawAlerts};
use crate::logs::{Logs, RawLogs};
use crate::telemetry::{BadMetrics, MetricsConfig, RawMetrics};
use crate::traces::{RawTraces, Traces};
use crate::uplink;
use jiff::SignedDuration;
use model::{ClassName, DeviceName};
use serde::Deserialize;
use source::{BucketSpec, GitAuth, GitRef, GitSpec, OciRef, OciSpec, S3Keys, SourceSpec};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
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
        field: String,
        /// What is wrong, and what to write.
        why: String,
    },
    /// The section on metrics.
    #[error("{path}: {source}", path = .path.display())]
    Metrics {
        /// Which.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<BadMetrics>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "kind")]
    kind: String,
    device: DeviceName,
    class: ClassName,
    #[serde(default)]
    site: Option<String>,
    #[serde(default)]
    state: Option<PathBuf>,
    #[serde(default)]
    sysroot: Option<PathBuf>,
    hub: Option<RawHub>,
    source: RawSource,
    #[serde(default)]
    registries: Vec<RawRegistry>,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    health: RawHealth,
    #[serde(default)]
    heartbeat: Option<SignedDuration>,
    #[serde(default)]
    cgroup: Option<String>,
    #[serde(default)]
    metrics: RawMetrics,
    #[serde(default)]
    logs: RawLogs,
    #[serde(default)]
    alerts: RawAlerts,
    #[serde(default)]
    traces: RawTraces,
    #[serde(default)]
    uplink: RawUplink,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawUplink {
    #[serde(default)]
    links: Vec<uplink::RawLink>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHub {
    address: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSource {
    url: String,
    #[serde(default)]
    branch: Option<String>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    semver: Option<String>,
    #[serde(default)]
    commit: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    interval: Option<SignedDuration>,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default)]
    ssh_key: Option<PathBuf>,
    #[serde(default)]
    known_hosts: Option<PathBuf>,
    #[serde(default)]
    on_history_rewrite: HistoryPolicy,
    /// Of an artifact (`oci://`).
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    semver_filter: Option<String>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    docker_config_file: Option<PathBuf>,
    /// Of a bucket (`s3://`).
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    access_key: Option<String>,
    #[serde(default)]
    secret_key_file: Option<PathBuf>,
    /// Of both.
    #[serde(default)]
    insecure: bool,
    /// Of all.
    #[serde(default)]
    ignore: Option<String>,
}

/// What to do when the source's history was rolled back or rewritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HistoryPolicy {
    /// Follow it, and say so in an event.
    #[default]
    Follow,
    /// Stay on what is held until the reference moves forward from there, and say so in the status.
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRegistry {
    host: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    hub: bool,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    insecure_http: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawNetwork {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(default, rename = "serviceCIDR")]
    service_cidr: Option<String>,
    #[serde(default)]
    bridge: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawHealth {
    #[serde(default)]
    deadline: Option<SignedDuration>,
    #[serde(default)]
    settle: Option<SignedDuration>,
}

/// The configuration, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who the device is.
    pub device: DeviceName,
    /// Its hardware class.
    pub class: ClassName,
    /// Where it stands.
    pub site: Option<String>,
    /// Root of all state.
    pub state: PathBuf,
    /// `/`, or a fixture of another machine's `proc` and `sys`.
    pub sysroot: PathBuf,
    /// Where to report to.
    pub hub: Option<Hub>,
    /// Where desired state comes from.
    pub source: SourceSpec,
    /// Folder of the tree that is this device's; the class's where absent.
    pub path: Option<String>,
    /// Time between two looks at the source.
    pub interval: Duration,
    /// See [`HistoryPolicy`].
    pub history: HistoryPolicy,
    /// Where images come from, by the host in their names.
    pub registries: Vec<Registry>,
    /// Address ranges on the device; the engine's own where absent.
    pub pod_cidr: Option<String>,
    /// As above.
    pub service_cidr: Option<String>,
    /// Name of the bridge.
    pub bridge: Option<String>,
    /// How candidates are judged.
    pub health: crate::HealthPolicy,
    /// Time between two reports while nothing changes.
    pub heartbeat: Duration,
    /// What the links to the hub may carry; the first that fits counts.
    pub links: Vec<uplink::Rule>,
    /// Parent of all pods' cgroups, such as `/leeward`; `none` on a machine without, where no limit is held.
    pub cgroup: String,
    /// What is measured, and where that goes beside the hub.
    pub metrics: MetricsConfig,
    /// What becomes of containers' logs.
    pub logs: Logs,
    /// Rules on the device.
    pub alerts: AlertsConfig,
    /// What becomes of pods' spans.
    pub traces: Traces,
}

/// Where a hub is.
#[derive(Clone, PartialEq, Eq)]
pub struct Hub {
    /// `host[:port]`.
    pub address: String,
    /// Enrolment token; used once, useless afterwards.
    pub token: Option<String>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Where images under one registry name come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Registry {
    /// The host in image names.
    pub host: String,
    /// Base URL; `https://<host>` where absent.
    pub url: Option<String>,
    /// The hub's own registry, reached with the device's certificate.
    pub hub: bool,
    /// CA certificates in PEM beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Basic authentication.
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("host", &self.host)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads and resolves a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, place and remedy.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = serde_saphyr::from_str(text).map_err(|err| ConfigError::Parse {
            path: path.to_owned(),
            why: err.to_string(),
        })?;
        let value = |field: &str, why: &str| ConfigError::Value {
            path: path.to_owned(),
            field: field.to_owned(),
            why: why.to_owned(),
        };
        if (raw.api_version.as_str(), raw.kind.as_str()) != ("leeward.dev/v1alpha1", "Agent") {
            return Err(value(
                "apiVersion, kind",
                "must be leeward.dev/v1alpha1 and Agent",
            ));
        }
        let duration = |field, given: Option<SignedDuration>, otherwise: u64| match given {
            None => Ok(Duration::from_secs(otherwise)),
            Some(given) => Duration::try_from(given)
                .ok()
                .filter(|d| !d.is_zero())
                .ok_or_else(|| value(field, "must be above zero, such as 30s or 5m")),
        };
        let hub = match raw.hub {
            None => None,
            Some(hub) => Some(Hub {
                address: hub
                    .address
                    .trim_start_matches("https://")
                    .trim_end_matches('/')
                    .to_owned(),
                token: secret(hub.token, hub.token_file)?,
            }),
        };
        if raw.registries.iter().any(|r| r.hub) && hub.is_none() {
            return Err(value("registries[].hub", "needs a hub; give `hub.address`"));
        }
        Ok(Self {
            device: raw.device,
            class: raw.class,
            site: raw.site,
            state: raw.state.unwrap_or_else(|| PathBuf::from("/var/lib/leeward")),
            sysroot: raw.sysroot.unwrap_or_else(|| PathBuf::from("/")),
            hub,
            path: raw.source.path.clone(),
            interval: duration("source.interval", raw.source.interval, 60)?,
            history: raw.source.on_history_rewrite,
            source: source_spec(raw.source, value)?,
            registries: raw
                .registries
                .into_iter()
                .map(registry)
                .collect::<Result<_, _>>()?,
            pod_cidr: raw.network.pod_cidr,
            service_cidr: raw.network.service_cidr,
            bridge: raw.network.bridge,
            health: crate::HealthPolicy {
                deadline: duration("health.deadline", raw.health.deadline, 300)?,
                settle: duration("health.settle", raw.health.settle, 10)?,
            },
            heartbeat: duration("heartbeat", raw.heartbeat, 30)?,
            links: raw
                .uplink
                .links
                .into_iter()
                .map(|link| link.resolve().map_err(|why| value("uplink.links", &why)))
                .collect::<Result<_, _>>()?,
            cgroup: raw.cgroup.unwrap_or_else(|| "/leeward".to_owned()),
            logs: raw.logs.resolve().map_err(|(field, why)| value(field, &why))?,
            alerts: raw.alerts.resolve().map_err(|(field, why)| value(&field, &why))?,
            traces: raw.traces.resolve().map_err(|(field, why)| value(field, &why))?,
            metrics: raw.metrics.resolve().map_err(|err| ConfigError::Metrics {
                path: path.to_owned(),
                source: Box::new(err),
            })?,
        })
    }
}

fn source_spec(
    raw: RawSource,
    value: impl Fn(&'static str, &str) -> ConfigError,
) -> Result<SourceSpec, ConfigError> {
    if raw.url.starts_with("oci://") {
        return oci_spec(raw, value).map(SourceSpec::Oci);
    }
    if let Some(rest) = raw.url.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        return bucket_spec(raw, bucket, prefix, value).map(SourceSpec::Bucket);
    }
    let foreign = [
        ("source.digest", raw.digest.is_some()),
        ("source.semverFilter", raw.semver_filter.is_some()),
        ("source.mediaType", raw.media_type.is_some()),
        ("source.dockerConfigFile", raw.docker_config_file.is_some()),
        ("source.endpoint", raw.endpoint.is_some()),
        ("source.region", raw.region.is_some()),
        ("source.accessKey", raw.access_key.is_some()),
        ("source.secretKeyFile", raw.secret_key_file.is_some()),
        ("source.insecure", raw.insecure),
    ];
    if let Some((field, _)) = foreign.iter().find(|(_, given)| *given) {
        return Err(value(
            field,
            "a Git repository has no such field; it goes with oci:// or s3://",
        ));
    }
    git_spec(raw, value).map(SourceSpec::Git)
}

fn oci_spec(
    raw: RawSource,
    value: impl Fn(&'static str, &str) -> ConfigError,
) -> Result<OciSpec, ConfigError> {
    if raw.branch.is_some() || raw.commit.is_some() || raw.ssh_key.is_some() || !raw.include.is_empty() {
        return Err(value(
            "source",
            "an artifact is named by tag, semver or digest, and read by user and token",
        ));
    }
    let reference = match (raw.digest, raw.semver, raw.tag) {
        (Some(digest), None, None) => OciRef::Digest(
            digest
                .parse()
                .map_err(|_| value("source.digest", "write sha256: and 64 hexadecimal digits"))?,
        ),
        (None, Some(range), None) => OciRef::Semver {
            range,
            filter: raw.semver_filter,
        },
        (None, None, tag) => OciRef::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
        _ => return Err(value("source", "give one of tag, semver and digest")),
    };
    let login = secret(raw.token, raw.token_file)?.map(|token| (raw.user.unwrap_or_default(), token));
    Ok(OciSpec {
        url: raw.url,
        reference,
        media_type: raw.media_type,
        docker_config: raw.docker_config_file.as_deref().map(read).transpose()?,
        login,
        ca: raw.ca_file.as_deref().map(read).transpose()?,
        insecure: raw.insecure,
        ignore: raw.ignore,
    })
}

fn bucket_spec(
    raw: RawSource,
    bucket: String,
    prefix: String,
    value: impl Fn(&'static str, &str) -> ConfigError,
) -> Result<BucketSpec, ConfigError> {
    let git = [&raw.branch, &raw.tag, &raw.semver, &raw.commit]
        .iter()
        .any(|held| held.is_some());
    if git || raw.token.is_some() || raw.ssh_key.is_some() || !raw.include.is_empty() {
        return Err(value(
            "source",
            "a bucket has no branch, tag or commit, and is read by accessKey and secretKeyFile",
        ));
    }
    let keys = match (raw.access_key, secret(None, raw.secret_key_file)?) {
        (Some(id), Some(secret)) => Some(S3Keys { id, secret }),
        (None, None) => None,
        _ => return Err(value("source", "accessKey and secretKeyFile go together")),
    };
    Ok(BucketSpec {
        endpoint: raw.endpoint.ok_or_else(|| {
            value(
                "source.endpoint",
                "name the server of the bucket, host or host:port",
            )
        })?,
        bucket,
        region: raw.region,
        prefix,
        keys,
        ca: raw.ca_file.as_deref().map(read).transpose()?,
        insecure: raw.insecure,
        ignore: raw.ignore,
    })
}

fn git_spec(
    raw: RawSource,
    value: impl Fn(&'static str, &str) -> ConfigError,
) -> Result<GitSpec, ConfigError> {
    let mut references = [
        raw.branch.map(GitRef::Branch),
        raw.tag.map(GitRef::Tag),
        raw.semver.map(GitRef::Semver),
        raw.commit.map(GitRef::Commit),
    ]
    .into_iter()
    .flatten();
    let reference = references
        .next()
        .unwrap_or_else(|| GitRef::Branch("main".to_owned()));
    if references.next().is_some() {
        return Err(value("source", "give one of branch, tag, semver and commit"));
    }
    let token = secret(raw.token, raw.token_file)?;
    let auth = match (token, raw.ssh_key, raw.known_hosts) {
        (Some(token), None, None) => GitAuth::Token {
            user: raw.user.unwrap_or_default(),
            token,
        },
        (None, Some(key), Some(known_hosts)) => GitAuth::Ssh { key, known_hosts },
        (None, None, None) => GitAuth::None,
        (None, _, _) => return Err(value("source", "sshKey and knownHosts go together")),
        (Some(_), _, _) => return Err(value("source", "give a token or an ssh key, not both")),
    };
    Ok(GitSpec {
        url: raw.url,
        reference,
        auth,
        ca: raw.ca_file.as_deref().map(read).transpose()?,
        include: raw.include,
        ignore: raw.ignore,
    })
}

fn registry(raw: RawRegistry) -> Result<Registry, ConfigError> {
    let password = raw
        .password_file
        .map(|path| secret(None, Some(path)))
        .transpose()?
        .flatten();
    let url = raw
        .url
        .or_else(|| raw.insecure_http.then(|| format!("http://{}", raw.host)));
    Ok(Registry {
        host: raw.host,
        url,
        hub: raw.hub,
        ca: raw.ca_file.as_deref().map(read).transpose()?,
        login: raw.user.zip(password),
    })
}

fn secret(inline: Option<String>, file: Option<PathBuf>) -> Result<Option<String>, ConfigError> {
    match (inline, file) {
        (Some(text), _) => Ok(Some(text)),
        (None, Some(path)) => Ok(Some(String::from_utf8_lossy(&read(&path)?).trim().to_owned())),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Config, String> {
        let text = format!(
            "apiVersion: leeward.dev/v1alpha1\nkind: Agent\ndevice: pi-1\nclass: raspberry-pi-5\n{rest}"
        );
        Config::parse(&text, Path::new("agent.yaml")).map_err(|err| err.to_string())
    }

    #[test]
    fn defaults_are_for_a_device_in_the_field() {
        let config = parse("source: {url: 'https://git.example/fleet.git'}").unwrap();
        let SourceSpec::Git(git) = &config.source else {
            panic!("a Git repository");
        };
        assert_eq!(git.reference, GitRef::Branch("main".to_owned()));
        assert_eq!(config.interval, Duration::from_secs(60));
        assert_eq!(config.state, Path::new("/var/lib/leeward"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let source = "source: {url: 'https://git.example/fleet.git', ";
        for (text, part) in [
            (format!("{source} branc: main}}"), "branc"),
            (format!("{source} branch: main, tag: v1}}"), "one of branch, tag"),
            (format!("{source} interval: 0s}}"), "source.interval"),
            (format!("{source} sshKey: /k}}"), "knownHosts"),
            (
                format!("{source}}}\nregistries: [{{host: r, hub: true}}]"),
                "needs a hub",
            ),
        ] {
            let err = parse(&text).unwrap_err();
            assert!(err.contains(part) && err.contains("agent.yaml"), "{text}: {err}");
        }
    }

    #[test]
    fn artifacts_and_buckets_are_told_by_their_address() {
        let oci =
            parse("source: {url: 'oci://registry.example/fleet', semver: '>=1.0', path: clusters/edge-pi}\n")
                .unwrap();
        let SourceSpec::Oci(oci) = oci.source else {
            panic!("an artifact");
        };
        assert!(matches!(oci.reference, OciRef::Semver { .. }));
        let bucket = parse("source: {url: 's3://fleet/prod', endpoint: 's3.example:9000'}\n").unwrap();
        let SourceSpec::Bucket(bucket) = bucket.source else {
            panic!("a bucket");
        };
        assert_eq!(
            (bucket.bucket.as_str(), bucket.prefix.as_str()),
            ("fleet", "prod")
        );
        for (wrong, told) in [
            (
                "{url: 'oci://r.example/f', branch: main}",
                "tag, semver or digest",
            ),
            ("{url: 's3://fleet'}", "source.endpoint"),
            (
                "{url: 'https://git.example/f', insecure: true}",
                "source.insecure",
            ),
            ("{url: 's3://fleet', endpoint: e, accessKey: a}", "go together"),
        ] {
            let err = parse(&format!("source: {wrong}\n")).unwrap_err();
            assert!(err.contains(told), "{wrong}: {err}");
        }
    }
}
