//! The API of each Kubernetes version, from `schemas/kubernetes.tsv.gz` (made by `schemas/make.py`).

use flate2::read::GzDecoder;
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt,
    io::Read as _,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// A minor version of Kubernetes whose API is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion(u16);

/// A version whose API is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API of Kubernetes {given} is not known here: use {} to {}", .oldest, .latest)]
pub struct UnknownVersion {
    given: String,
    oldest: KubernetesVersion,
    latest: KubernetesVersion,
}

impl KubernetesVersion {
    /// The oldest one known.
    pub const OLDEST: Self = Self(25);
    /// The latest one known.
    pub const LATEST: Self = Self(37);

    /// `37` of 1.37.
    pub(crate) fn minor(self) -> u16 {
        self.0
    }
}

impl Default for KubernetesVersion {
    fn default() -> Self {
        Self::LATEST
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl FromStr for KubernetesVersion {
    type Err = UnknownVersion;
    /// `1.33`, `v1.33`, `1.33.4`, `v1.33.4+k3s1`.
    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let minor = text
            .trim_start_matches('v')
            .strip_prefix("1.")
            .and_then(|rest| rest.split(['.', '+', '-']).next())
            .and_then(|minor| minor.parse().ok())
            .map(Self)
            .filter(|version| (Self::OLDEST..=Self::LATEST).contains(version));
        minor.ok_or_else(|| UnknownVersion {
            given: text.to_owned(),
            oldest: Self::OLDEST,
            latest: Self::LATEST,
        })
    }
}

/// One line of the file.
#[derive(Debug)]
struct Row {
    name: &'static str,
    first: u16,
    last: u16,
    kinds: &'static str,
    json: &'static str,
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("../schemas/kubernetes.tsv.gz")[..])
        .read_to_string(&mut text)
        .expect("a test reads what is compiled in");
    text
});

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut parts = line.split('\t');
        let mut next = || parts.next().unwrap_or_default();
        Row {
            name: next(),
            first: next().parse().unwrap_or_default(),
            last: next().parse().unwrap_or_default(),
            kinds: next(),
            json: next(),
        }
    };
    TEXT.lines().map(row).collect()
});

/// Definitions by row, parsed when first asked for.
static PARSED: LazyLock<Mutex<HashMap<usize, Arc<Value>>>> = LazyLock::new(Mutex::default);

/// The API of one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api(KubernetesVersion);

/// A definition with its name.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub name: &'static str,
    pub schema: Arc<Value>,
}

impl Api {
    pub fn of(version: KubernetesVersion) -> Self {
        Self(version)
    }

    fn get(at: usize) -> Definition {
        let row = &ROWS[at];
        let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
        let schema = parsed
            .entry(at)
            .or_insert_with(|| Arc::new(serde_json::from_str(row.json).unwrap_or_default()))
            .clone();
        Definition {
            name: row.name,
            schema,
        }
    }

    /// What a `$ref` names.
    pub fn definition(self, name: &str) -> Option<Definition> {
        let from = ROWS.partition_point(|row| row.name < name);
        let serves = |row: &Row| (row.first..=row.last).contains(&self.0.minor());
        (from..ROWS.len())
            .take_while(|at| ROWS[*at].name == name)
            .find(|at| serves(&ROWS[*at]))
            .map(Self::get)
    }

    /// The definition of a kind.
    pub fn kind(self, api_version: &str, kind: &str) -> Option<Definition> {
        let wanted = full(api_version, kind);
        let of_kind = KINDS.get(wanted.as_str())?;
        let serves = |at: &&usize| (ROWS[**at].first..=ROWS[**at].last).contains(&self.0.minor());
        of_kind.iter().find(serves).map(|at| Self::get(*at))
    }

    /// The API versions that serve a kind, the most stable ones first.
    pub fn versions_of(self, kind: &str) -> Vec<String> {
        let mut found: Vec<(usize, String)> = KINDS
            .iter()
            .filter(|(full, rows)| {
                full.rsplit('/').next() == Some(kind)
                    && rows
                        .iter()
                        .any(|at| (ROWS[*at].first..=ROWS[*at].last).contains(&self.0.minor()))
            })
            .map(|(full, _)| {
                let api_version = full[..full.len() - kind.len() - 1].trim_start_matches('/');
                let unstable = usize::from(api_version.contains("beta"))
                    + 2 * usize::from(api_version.contains("alpha"));
                (unstable, api_version.to_owned())
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, api_version)| api_version).collect()
    }

    /// Whether a version that is not this one serves the kind: the first and the last that do.
    pub fn served_elsewhere(api_version: &str, kind: &str) -> Option<(KubernetesVersion, KubernetesVersion)> {
        let rows = KINDS.get(full(api_version, kind).as_str())?;
        let first = rows.iter().map(|at| ROWS[*at].first).min()?;
        let last = rows.iter().map(|at| ROWS[*at].last).max()?;
        Some((KubernetesVersion(first), KubernetesVersion(last)))
    }

    /// Whether Kubernetes itself has kinds of this group.
    pub fn knows_group(group: &str) -> bool {
        KINDS.keys().any(|full| full.split('/').next() == Some(group))
    }
}

fn full(api_version: &str, kind: &str) -> String {
    match api_version.split_once('/') {
        Some(_) => format!("{api_version}/{kind}"),
        None => format!("/{api_version}/{kind}"),
    }
}

/// Rows by `group/version/kind`.
static KINDS: LazyLock<HashMap<&'static str, Vec<usize>>> = LazyLock::new(|| {
    let mut kinds: HashMap<&'static str, Vec<usize>> = HashMap::new();
    for (at, row) in ROWS.iter().enumerate() {
        for kind in row.kinds.split(',').filter(|kind| !kind.is_empty()) {
            kinds.entry(kind).or_default().push(at);
        }
    }
    kinds
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_parse_and_every_reference_leads_somewhere() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(Api::get(at).schema.is_object(), "{}", row.name);
            for version in row.first..=row.last {
                let api = Api::of(KubernetesVersion(version));
                for reference in row.json.split("\"$ref\":\"").skip(1) {
                    let name = reference.split('"').next().unwrap();
                    assert!(
                        api.definition(name).is_some(),
                        "{} in 1.{version}: {name}",
                        row.name
                    );
                }
            }
        }
        let first = ROWS.iter().map(|row| row.first).min();
        let last = ROWS.iter().map(|row| row.last).max();
        assert_eq!(first, Some(KubernetesVersion::OLDEST.0));
        assert_eq!(last, Some(KubernetesVersion::LATEST.0));
    }

    #[test]
    fn kinds_are_found_by_version() {
        let api = |text: &str| Api::of(text.parse().unwrap());
        assert!(api("1.37").kind("apps/v1", "Deployment").is_some());
        assert!(api("v1.25.3+k3s1").kind("v1", "Pod").is_some());
        assert!(
            api("1.33")
                .kind("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema")
                .is_none()
        );
        assert!(
            api("1.31")
                .kind("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema")
                .is_some()
        );
        assert_eq!(api("1.37").versions_of("CronJob"), ["batch/v1"]);
        let err = "1.12".parse::<KubernetesVersion>().unwrap_err().to_string();
        assert_eq!(
            err,
            "the API of Kubernetes 1.12 is not known here: use 1.25 to 1.37"
        );
    }
}
