//! Which objects a patch or a replacement is for.

use crate::{
    error::{RenderError, Result},
    kustomization::Selector,
    resource::{Id, Resource, Resources},
};
use regex::Regex;

/// An anchored regular expression; plain names are compared without one.
#[derive(Debug)]
enum Pattern {
    Any,
    Exactly(String),
    Regex(Regex),
}

impl Pattern {
    fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Any);
        }
        if text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'/')
        {
            return Ok(Self::Exactly(text.to_owned()));
        }
        Regex::new(&format!("^(?:{text})$"))
            .map(Self::Regex)
            .map_err(|error| {
                RenderError::configuration(format!("{text:?} is no regular expression: {error}"))
                    .field("target")
            })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A selector ready to be asked.
#[derive(Debug)]
pub(crate) struct Matcher {
    group: Pattern,
    version: Pattern,
    kind: Pattern,
    name: Pattern,
    namespace: Pattern,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
}

impl Matcher {
    pub fn new(selector: &Selector) -> Result<Self> {
        Ok(Self {
            group: Pattern::new(&selector.group)?,
            version: Pattern::new(&selector.version)?,
            kind: Pattern::new(&selector.kind)?,
            name: Pattern::new(&selector.name)?,
            namespace: Pattern::new(&selector.namespace)?,
            labels: parse_selector(&selector.label_selector)?,
            annotations: parse_selector(&selector.annotation_selector)?,
        })
    }

    /// Matches group, version and kind as they are, name and namespace as they are or were at first.
    pub fn matches(&self, resource: &Resource) -> bool {
        let (now, original) = (resource.id(), resource.original_id());
        (self.namespace.matches(original.namespace) || self.namespace.matches(now.namespace))
            && (self.name.matches(original.name) || self.name.matches(now.name))
            && self.matches_type(&now)
            && self.matches_metadata(resource)
    }

    pub fn matches_type(&self, id: &Id<'_>) -> bool {
        self.group.matches(id.group) && self.version.matches(id.version) && self.kind.matches(id.kind)
    }

    pub fn matches_name(&self, id: &Id<'_>) -> bool {
        self.namespace.matches(id.namespace) && self.name.matches(id.name)
    }

    pub fn matches_metadata(&self, resource: &Resource) -> bool {
        let all = |requirements: &[Requirement], field: &str| {
            requirements.iter().all(|requirement| {
                let value = resource
                    .metadata_texts(field)
                    .find(|(key, _)| *key == requirement.key)
                    .map(|(_, value)| value);
                requirement.accepts(value)
            })
        };
        all(&self.labels, "labels") && all(&self.annotations, "annotations")
    }

    /// The places of the objects that match.
    pub fn select(&self, resources: &Resources) -> Vec<usize> {
        let all = resources.0.iter().enumerate();
        all.filter(|(_, resource)| self.matches(resource))
            .map(|(at, _)| at)
            .collect()
    }
}

/// One requirement of a label selector.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Requirement {
    fn accepts(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(wanted) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            Test::NotIn(unwanted) => value.is_none_or(|value| unwanted.iter().all(|w| w != value)),
            Test::Greater(bound) => number().is_some_and(|number| number > *bound),
            Test::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Kubernetes label selectors: `a=b, c!=d, e in (x, y), f notin (z), g, !h, i>1`.
fn parse_selector(text: &str) -> Result<Vec<Requirement>> {
    let mut requirements = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                let part = text[start..at].trim();
                if !part.is_empty() {
                    requirements.push(parse_requirement(part).ok_or_else(|| {
                        RenderError::configuration(format!("{part:?} is no label selector"))
                            .remedy("write key=value, key!=value, key in (a, b), key or !key")
                    })?);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    Ok(requirements)
}

fn parse_requirement(text: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        (!key.is_empty() && !key.contains(char::is_whitespace)).then(|| Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let one = |value: &str| {
        let value = value.trim();
        (!value.contains(char::is_whitespace)).then(|| vec![value.to_owned()])
    };
    if let Some(key) = text.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some(list) = text.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let head = head.trim_end();
        if let Some(key) = head.strip_suffix(" notin") {
            return requirement(key, Test::NotIn(values));
        }
        return requirement(head.strip_suffix(" in")?, Test::In(values));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return requirement(key, Test::NotIn(one(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return requirement(key, Test::In(one(value)?));
    }
    if let Some((key, value)) = text.split_once('>') {
        return requirement(key, Test::Greater(value.trim().parse().ok()?));
    }
    if let Some((key, value)) = text.split_once('<') {
        return requirement(key, Test::Less(value.trim().parse().ok()?));
    }
    requirement(text, Test::Exists)
}
