//! Values that Flux's API would refuse, and its source objects.

use super::types::{
    BucketSpec, GitRepositorySpec, KustomizationSpec, OciRepositorySpec, PostBuild, decode_spec,
};
use crate::{
    error::{RenderError, Result},
    yaml,
};
use model::Object;
use std::time::Duration;

/// Refuses a value that is none of those that Flux's API has.
fn one_of(field: &str, value: Option<&str>, known: &[&str]) -> Result<()> {
    match value {
        Some(value) if !known.contains(&value) => {
            Err(RenderError::configuration(format!("{value:?} is not known"))
                .field(field)
                .remedy(format!("write {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

/// A duration as Flux's API takes them: Go's, in hours, minutes, seconds and milliseconds, such as `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = rest[..rest.len() - behind.len()].parse().ok()?;
        let (unit, seconds) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| behind.starts_with(unit))?;
        total += number * seconds;
        rest = &behind[unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Refuses what is no [`duration`].
fn check_duration(field: &str, text: Option<&str>) -> Result<()> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if duration(text).is_none() => {
            Err(RenderError::configuration(format!("{text:?} is no duration"))
                .field(field)
                .remedy("write hours, minutes, seconds or milliseconds, such as 1h30m"))
        }
        _ => Ok(()),
    }
}

/// A variable's name, as bash has them.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl KustomizationSpec {
    /// What the API server would refuse by the schema of the kind.
    pub(super) fn validate(&self) -> Result<()> {
        check_duration("spec.interval", Some(&self.interval))?;
        check_duration("spec.retryInterval", self.retry_interval.as_deref())?;
        check_duration("spec.timeout", self.timeout.as_deref())?;
        one_of(
            "spec.sourceRef.kind",
            Some(&self.source_ref.kind),
            &["GitRepository", "OCIRepository", "Bucket", "ExternalArtifact"],
        )?;
        one_of(
            "spec.deletionPolicy",
            self.deletion_policy.as_deref(),
            &["MirrorPrune", "Delete", "WaitForTermination", "Orphan"],
        )?;
        let missing = |field: String| Err(RenderError::configuration("the value is missing").field(field));
        if let Some(at) = self.depends_on.iter().position(|given| given.name.is_empty()) {
            return missing(format!("spec.dependsOn[{at}].name"));
        }
        if let Some(at) = self
            .health_checks
            .iter()
            .position(|given| given.name.is_empty() || given.kind.is_empty())
        {
            return missing(format!("spec.healthChecks[{at}].kind, name"));
        }
        let Some(post_build) = &self.post_build else {
            return Ok(());
        };
        one_of(
            "spec.postBuild.substituteStrategy",
            post_build.substitute_strategy.as_deref(),
            &["WithVariables", "Always"],
        )?;
        for (at, from) in post_build.substitute_from.iter().enumerate() {
            let field = format!("spec.postBuild.substituteFrom[{at}].kind");
            one_of(&field, Some(&from.kind), &["ConfigMap", "Secret"])?;
        }
        if let Some(name) = post_build.substitute.keys().find(|name| !is_variable(name)) {
            return Err(
                RenderError::configuration(format!("{name:?} is no name of a variable"))
                    .field("spec.postBuild.substitute")
                    .remedy("take letters, digits and underscores, no digit first"),
            );
        }
        Ok(())
    }
}

impl PostBuild {
    /// Whether text is substituted where there is no variable at all.
    pub(super) fn always(&self) -> bool {
        self.substitute_strategy.as_deref() == Some("Always")
    }
}

/// A source object of `source.toolkit.fluxcd.io`, decoded strictly.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceSpec {
    /// A Git repository.
    Git(GitRepositorySpec),
    /// Artifacts in a registry.
    Oci(OciRepositorySpec),
    /// A bucket.
    Bucket(BucketSpec),
}

impl SourceSpec {
    /// Decodes an object; `None` for one of another kind.
    ///
    /// # Errors
    /// Unknown fields, wrong types, durations and providers that Flux does not have, a missing address.
    pub fn decode(object: &Object) -> Result<Option<Self>> {
        if object.group() != "source.toolkit.fluxcd.io" {
            return Ok(None);
        }
        let node = yaml::from_json(object.value());
        let place = |error: RenderError| error.on(object.key());
        let decoded = match object.kind() {
            "GitRepository" => Self::Git(decode_spec(&node).map_err(place)?),
            "OCIRepository" => Self::Oci(decode_spec(&node).map_err(place)?),
            "Bucket" => Self::Bucket(decode_spec(&node).map_err(place)?),
            _ => return Ok(None),
        };
        decoded.validate().map_err(place)?;
        Ok(Some(decoded))
    }

    fn validate(&self) -> Result<()> {
        let (interval, timeout, provider, known, addresses): (_, _, _, &[&str], &[(&str, &str)]) = match self
        {
            Self::Git(spec) => (
                &spec.interval,
                &spec.timeout,
                &spec.provider,
                &["generic", "aws", "azure", "github"],
                &[("spec.url", &spec.url)],
            ),
            Self::Oci(spec) => (
                &spec.interval,
                &spec.timeout,
                &spec.provider,
                &["generic", "aws", "azure", "gcp"],
                &[("spec.url", &spec.url)],
            ),
            Self::Bucket(spec) => (
                &spec.interval,
                &spec.timeout,
                &spec.provider,
                &["generic", "aws", "azure", "gcp"],
                &[
                    ("spec.bucketName", &spec.bucket_name),
                    ("spec.endpoint", &spec.endpoint),
                ],
            ),
        };
        check_duration("spec.interval", Some(interval))?;
        check_duration("spec.timeout", timeout.as_deref())?;
        one_of("spec.provider", provider.as_deref(), known)?;
        if let Some((field, _)) = addresses.iter().find(|(_, value)| value.is_empty()) {
            return Err(RenderError::configuration("the value is missing").field(*field));
        }
        let (schemes, url): (&[&str], _) = match self {
            Self::Git(spec) => (&["https://", "http://", "ssh://"], &spec.url),
            Self::Oci(spec) => (&["oci://"], &spec.url),
            Self::Bucket(_) => return Ok(()),
        };
        if schemes.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(());
        }
        Err(
            RenderError::configuration(format!("{url:?} is no address of this source"))
                .field("spec.url")
                .remedy(format!("start it with {}", schemes.join(", "))),
        )
    }
}
