//! The rules, by the names that reports and `leeward:ignore` comments use.

use crate::Severity;
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The folder cannot be rendered.
    Render,
    /// A field that the kind does not have.
    UnknownField,
    /// A value of another type than the field's.
    WrongType,
    /// A field without which the object is refused.
    MissingField,
    /// A value that the field may not have.
    BadValue,
    /// Two items of a list under one key.
    DuplicateItem,
    /// A kind without a schema: its objects are not checked.
    UnknownKind,
    /// An API version that the target Kubernetes does not serve.
    RemovedApi,
    /// An API version that will be removed.
    DeprecatedApi,
    /// A reference to an object that nothing defines.
    MissingReference,
    /// A reference to a key that the ConfigMap or Secret does not have.
    MissingKey,
    /// A selector that selects no pods.
    NoPods,
    /// A workload whose selector does not match its own pods.
    SelectorMismatch,
    /// A port by a name or number that is not there.
    UnknownPort,
    /// A mount of a volume that the pod does not have.
    UnknownVolume,
    /// An image that its registry does not have.
    ImageMissing,
    /// An image that does not run on the devices of the cluster.
    ImageArchitecture,
    /// Requests that are more than a device can give.
    Resources,
    /// Something that Leeward's own engine refuses to run.
    Engine,
    /// Objects that a device leaves out.
    LeftOut,
    /// A source that a Flux object refers to and that is not there.
    FluxSource,
    /// A dependency on a Kustomization that is not there, or on itself.
    FluxDependency,
    /// A validation rule of a CRD that is not met.
    Validation,
    /// A ValidatingAdmissionPolicy that is not met.
    Policy,
}

/// Rule, id, severity, and what it finds.
const RULES: &[(Rule, &str, Severity, &str)] = &[
    (
        Rule::Render,
        "render",
        Severity::Error,
        "the folder cannot be rendered",
    ),
    (
        Rule::UnknownField,
        "unknown-field",
        Severity::Error,
        "a field that the kind does not have",
    ),
    (
        Rule::WrongType,
        "wrong-type",
        Severity::Error,
        "a value of another type than the field's",
    ),
    (
        Rule::MissingField,
        "missing-field",
        Severity::Error,
        "a field without which the object is refused",
    ),
    (
        Rule::BadValue,
        "bad-value",
        Severity::Error,
        "a value that the field may not have",
    ),
    (
        Rule::DuplicateItem,
        "duplicate-item",
        Severity::Error,
        "two items of a list under one key",
    ),
    (
        Rule::UnknownKind,
        "unknown-kind",
        Severity::Note,
        "a kind without a schema: its objects are not checked",
    ),
    (
        Rule::RemovedApi,
        "removed-api",
        Severity::Error,
        "an API version that the target Kubernetes does not serve",
    ),
    (
        Rule::DeprecatedApi,
        "deprecated-api",
        Severity::Warning,
        "an API version that will be removed",
    ),
    (
        Rule::MissingReference,
        "missing-reference",
        Severity::Error,
        "a reference to an object that nothing defines",
    ),
    (
        Rule::MissingKey,
        "missing-key",
        Severity::Error,
        "a reference to a key that the ConfigMap or Secret does not have",
    ),
    (
        Rule::NoPods,
        "no-pods",
        Severity::Warning,
        "a selector that selects no pods",
    ),
    (
        Rule::SelectorMismatch,
        "selector-mismatch",
        Severity::Error,
        "a workload whose selector does not match its own pods",
    ),
    (
        Rule::UnknownPort,
        "unknown-port",
        Severity::Error,
        "a port by a name or number that is not there",
    ),
    (
        Rule::UnknownVolume,
        "unknown-volume",
        Severity::Error,
        "a mount of a volume that the pod does not have",
    ),
    (
        Rule::ImageMissing,
        "image-missing",
        Severity::Error,
        "an image that its registry does not have",
    ),
    (
        Rule::ImageArchitecture,
        "image-architecture",
        Severity::Error,
        "an image that does not run on the devices of the cluster",
    ),
    (
        Rule::Resources,
        "resources",
        Severity::Error,
        "requests that are more than a device can give",
    ),
    (
        Rule::Engine,
        "engine",
        Severity::Error,
        "something that Leeward's own engine refuses to run",
    ),
    (
        Rule::LeftOut,
        "left-out",
        Severity::Note,
        "objects that a device leaves out",
    ),
    (
        Rule::FluxSource,
        "flux-source",
        Severity::Error,
        "a source that a Flux object refers to and that is not there",
    ),
    (
        Rule::FluxDependency,
        "flux-dependency",
        Severity::Error,
        "a dependency on a Kustomization that is not there, or on itself",
    ),
    (
        Rule::Validation,
        "validation",
        Severity::Error,
        "a validation rule of a CRD that is not met",
    ),
    (
        Rule::Policy,
        "policy",
        Severity::Error,
        "a ValidatingAdmissionPolicy that is not met",
    ),
];

impl Rule {
    /// All rules.
    pub fn all() -> impl Iterator<Item = Self> {
        RULES.iter().map(|(rule, ..)| *rule)
    }

    fn row(self) -> &'static (Self, &'static str, Severity, &'static str) {
        RULES
            .iter()
            .find(|(rule, ..)| *rule == self)
            .expect("a test sees that every rule has its row")
    }

    /// Its name in reports and comments.
    pub fn id(self) -> &'static str {
        self.row().1
    }

    /// How bad its findings are, unless there is reason to be milder.
    pub fn severity(self) -> Severity {
        self.row().2
    }

    /// Whether it compares an object with others, so that it can judge only where all of them are known.
    pub(crate) fn is_about_others(self) -> bool {
        matches!(
            self,
            Self::MissingReference | Self::MissingKey | Self::NoPods | Self::UnknownPort
        )
    }

    /// What it finds, in a few words.
    pub fn about(self) -> &'static str {
        self.row().3
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// There is no such rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no rule {0:?}")]
pub struct NoSuchRule(String);

impl FromStr for Rule {
    type Err = NoSuchRule;
    fn from_str(id: &str) -> Result<Self, NoSuchRule> {
        let found = RULES.iter().find(|(_, known, ..)| *known == id);
        found
            .map(|(rule, ..)| *rule)
            .ok_or_else(|| NoSuchRule(id.to_owned()))
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_one_row_in_order() {
        let rules: Vec<Rule> = Rule::all().collect();
        assert!(
            rules.is_sorted() && rules.first() == Some(&Rule::Render) && rules.last() == Some(&Rule::Policy)
        );
        assert_eq!(rules.len(), Rule::Policy as usize + 1);
        for rule in rules {
            assert_eq!(rule.id().parse(), Ok(rule));
        }
    }
}
