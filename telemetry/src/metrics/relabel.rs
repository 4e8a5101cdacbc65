//! Relabelling, as Prometheus does it.

use md5::{Digest as _, Md5};
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// Labels while they are being changed.
pub type LabelMap = BTreeMap<String, String>;

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sets the target label to the replacement, where the expression matches.
    #[default]
    Replace,
    /// Leaves out what does not match.
    Keep,
    /// Leaves out what matches.
    Drop,
    /// Leaves out what differs from the target label.
    KeepEqual,
    /// Leaves out what equals the target label.
    DropEqual,
    /// Sets the target label to the sources' hash.
    HashMod,
    /// Copies labels whose names match to the replacement's name.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target label to the sources in small letters.
    Lowercase,
    /// Sets the target label to the sources in capitals.
    Uppercase,
}

/// A rule as it is written; monitors' objects write it in their own case, which is taken too.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    #[serde(default, alias = "sourceLabels")]
    source_labels: Vec<String>,
    #[serde(default)]
    separator: Option<String>,
    #[serde(default, alias = "targetLabel")]
    target_label: Option<String>,
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    modulus: u64,
    #[serde(default)]
    replacement: Option<String>,
    #[serde(default)]
    action: Option<String>,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    sources: Vec<String>,
    separator: String,
    target: String,
    expression: Regex,
    modulus: u64,
    replacement: String,
    action: Action,
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRule {
    /// No such action.
    #[error(
        "action {0:?} does not exist: replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase or uppercase"
    )]
    Action(String),
    /// The expression cannot be read.
    #[error("regex {regex:?}: {why}")]
    Regex {
        /// The expression.
        regex: String,
        /// What is wrong.
        why: String,
    },
    /// The action needs a label to write to.
    #[error("action {0} needs target_label")]
    NoTarget(String),
    /// The action needs a modulus.
    #[error("action hashmod needs a modulus above 0")]
    NoModulus,
}

impl TryFrom<RawRule> for Rule {
    type Error = BadRule;

    fn try_from(raw: RawRule) -> Result<Self, BadRule> {
        let said = raw.action.unwrap_or_else(|| "replace".to_owned()).to_lowercase();
        let action = match said.as_str() {
            "replace" => Action::Replace,
            "keep" => Action::Keep,
            "drop" => Action::Drop,
            "keepequal" => Action::KeepEqual,
            "dropequal" => Action::DropEqual,
            "hashmod" => Action::HashMod,
            "labelmap" => Action::LabelMap,
            "labeldrop" => Action::LabelDrop,
            "labelkeep" => Action::LabelKeep,
            "lowercase" => Action::Lowercase,
            "uppercase" => Action::Uppercase,
            _ => return Err(BadRule::Action(said)),
        };
        let target = raw.target_label.unwrap_or_default();
        let writes = !matches!(
            action,
            Action::Keep | Action::Drop | Action::LabelMap | Action::LabelDrop | Action::LabelKeep
        );
        if writes && target.is_empty() {
            return Err(BadRule::NoTarget(said));
        }
        if action == Action::HashMod && raw.modulus == 0 {
            return Err(BadRule::NoModulus);
        }
        let regex = raw.regex.unwrap_or_else(|| "(.*)".to_owned());
        // Whole values are matched, line breaks included.
        let expression = Regex::new(&format!("^(?s:{regex})$")).map_err(|err| BadRule::Regex {
            regex,
            why: err.to_string(),
        })?;
        Ok(Self {
            sources: raw.source_labels,
            separator: raw.separator.unwrap_or_else(|| ";".to_owned()),
            target,
            expression,
            modulus: raw.modulus,
            replacement: raw.replacement.unwrap_or_else(|| "$1".to_owned()),
            action,
        })
    }
}

impl Rule {
    /// Sets `target` where `sources` (joined by `;`) match `regex`: for rules that this program makes itself.
    ///
    /// # Errors
    /// If the expression cannot be read.
    pub fn new(action: &str, sources: &[&str], regex: &str, target: &str) -> Result<Self, BadRule> {
        Self::try_from(RawRule {
            source_labels: sources.iter().map(|name| (*name).to_owned()).collect(),
            separator: None,
            target_label: Some(target.to_owned()),
            regex: Some(regex.to_owned()),
            modulus: 0,
            replacement: None,
            action: Some(action.to_owned()),
        })
    }

    /// Changes the labels; false where what they stand for is to be left out.
    fn apply(&self, labels: &mut LabelMap) -> bool {
        let value = || {
            let values = self
                .sources
                .iter()
                .map(|name| labels.get(name).map_or("", String::as_str));
            values.collect::<Vec<_>>().join(&self.separator)
        };
        match self.action {
            Action::Keep => return self.expression.is_match(&value()),
            Action::Drop => return !self.expression.is_match(&value()),
            Action::KeepEqual => return value() == *labels.get(&self.target).map_or("", String::as_str),
            Action::DropEqual => return value() != *labels.get(&self.target).map_or("", String::as_str),
            Action::Replace => self.replace(&value(), labels),
            Action::HashMod => {
                let hash = Md5::digest(value().as_bytes());
                let tail: [u8; 8] = hash[8..].try_into().unwrap_or_default();
                let part = u64::from_be_bytes(tail) % self.modulus;
                labels.insert(self.target.clone(), part.to_string());
            }
            Action::Lowercase => {
                let value = value().to_lowercase();
                set(labels, self.target.clone(), value);
            }
            Action::Uppercase => {
                let value = value().to_uppercase();
                set(labels, self.target.clone(), value);
            }
            Action::LabelMap => {
                let copies: Vec<_> = labels
                    .iter()
                    .filter(|(name, _)| self.expression.is_match(name))
                    .map(|(name, value)| (self.expand(name), value.clone()))
                    .collect();
                labels.extend(copies);
            }
            Action::LabelDrop => labels.retain(|name, _| !self.expression.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.expression.is_match(name)),
        }
        true
    }

    fn expand(&self, text: &str) -> String {
        self.expression
            .replace(text, self.replacement.as_str())
            .into_owned()
    }

    fn replace(&self, value: &str, labels: &mut LabelMap) {
        let Some(found) = self.expression.captures(value) else {
            return;
        };
        let mut target = String::new();
        found.expand(&self.target, &mut target);
        let mut text = String::new();
        found.expand(&self.replacement, &mut text);
        if !super::text::is_plain_name(&target) || target.contains(':') {
            return;
        }
        set(labels, target, text);
    }
}

/// An empty value means that there is no such label.
fn set(labels: &mut LabelMap, name: String, value: String) {
    if value.is_empty() {
        labels.remove(&name);
    } else {
        labels.insert(name, value);
    }
}

/// Applies rules in order; false once one leaves out what the labels stand for.
pub fn relabel(rules: &[Rule], labels: &mut LabelMap) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule, BadRule> {
        serde_json::from_str::<RawRule>(json).unwrap().try_into()
    }

    /// Labels after a rule, as `name=value` with blanks between; `-` where left out.
    #[track_caller]
    fn check(json: &str, want: &str) {
        let mut labels: LabelMap = [("a", "foo"), ("b", "bar"), ("c", "baz"), ("__tmp_x", "Y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let kept = relabel(&[rule(json).unwrap()], &mut labels);
        let shown: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            if kept { shown.join(" ") } else { "-".to_owned() },
            want,
            "{json}"
        );
    }

    /// Expected values are those that Prometheus' documentation of its actions gives.
    #[test]
    fn every_action() {
        let same = "__tmp_x=Y a=foo b=bar c=baz";
        check(
            r#"{"source_labels":["a"],"regex":"f(.*)","target_label":"d","replacement":"ch${1}-ch${1}"}"#,
            &format!("{same} d=choo-choo"),
        );
        check(
            r#"{"source_labels":["a","b"],"regex":"fo.;bar","target_label":"a","replacement":""}"#,
            "__tmp_x=Y b=bar c=baz",
        );
        check(r#"{"source_labels":["a"],"regex":"o","target_label":"d"}"#, same);
        check(
            r#"{"source_labels":["a"],"regex":"(.*)","target_label":"${1}_new","replacement":"x"}"#,
            &format!("{same} foo_new=x"),
        );
        check(r#"{"source_labels":["a"],"regex":"foo","action":"keep"}"#, same);
        check(r#"{"source_labels":["a"],"regex":"fo","action":"keep"}"#, "-");
        check(r#"{"source_labels":["a"],"regex":".*o.*","action":"drop"}"#, "-");
        check(
            r#"{"source_labels":["a"],"target_label":"b","action":"keepequal"}"#,
            "-",
        );
        check(
            r#"{"source_labels":["a"],"target_label":"b","action":"DropEqual"}"#,
            same,
        );
        check(
            r#"{"source_labels":["c"],"target_label":"d","action":"hashmod","modulus":1000}"#,
            &format!("{same} d=976"),
        );
        check(
            r#"{"regex":"__tmp_(.+)","action":"labelmap","replacement":"m_$1"}"#,
            &same.replace(" c=baz", " c=baz m_x=Y"),
        );
        check(r#"{"regex":"[ab]","action":"labeldrop"}"#, "__tmp_x=Y c=baz");
        check(r#"{"regex":"[ab]","action":"labelkeep"}"#, "a=foo b=bar");
        check(
            r#"{"sourceLabels":["a"],"targetLabel":"a","action":"uppercase"}"#,
            "__tmp_x=Y a=FOO b=bar c=baz",
        );
        check(
            r#"{"source_labels":["__tmp_x"],"target_label":"d","action":"lowercase"}"#,
            &format!("{same} d=y"),
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, want) in [
            (r#"{"action":"remove"}"#, "action \"remove\" does not exist"),
            (r#"{"action":"hashmod","target_label":"x"}"#, "needs a modulus"),
            (r#"{"action":"lowercase"}"#, "lowercase needs target_label"),
            (r#"{"regex":"(","target_label":"x"}"#, "regex \"(\""),
        ] {
            let err = rule(json).unwrap_err().to_string();
            assert!(err.contains(want), "{json}: {err}");
        }
    }
}
