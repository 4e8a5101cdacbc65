//! What a selector asks of labels.

use super::PromqlError;
use crate::labels::{Labels, NAME};
use regex::Regex;
use std::fmt;

/// How a value is compared.
#[derive(Debug, Clone)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, the whole value.
    Like(Regex),
    /// `!~`
    NotLike(Regex),
}

/// One condition on one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How.
    pub relation: Relation,
    /// With what.
    pub value: String,
}

impl Matcher {
    /// The metric's name is this.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: NAME.to_owned(),
            relation: Relation::Equal,
            value: name.to_owned(),
        }
    }

    pub(super) fn new(name: String, sign: &str, value: String, at: usize) -> Result<Self, PromqlError> {
        let relation = match sign {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            _ => {
                let regex = whole(&value).map_err(|err| PromqlError::syntax(at, err))?;
                if sign == "=~" {
                    Relation::Like(regex)
                } else {
                    Relation::NotLike(regex)
                }
            }
        };
        Ok(Self {
            name,
            relation,
            value,
        })
    }

    /// Whether a label's value (empty where there is none) is as asked.
    pub fn takes(&self, value: &str) -> bool {
        match &self.relation {
            Relation::Equal => value == self.value,
            Relation::NotEqual => value != self.value,
            Relation::Like(regex) => regex.is_match(value),
            Relation::NotLike(regex) => !regex.is_match(value),
        }
    }

    /// Whether a series' label is as asked.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.takes(labels.get(&self.name).unwrap_or_default())
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.relation {
            Relation::Equal => "=",
            Relation::NotEqual => "!=",
            Relation::Like(_) => "=~",
            Relation::NotLike(_) => "!~",
        };
        write!(f, "{}{sign}{:?}", self.name, self.value)
    }
}

/// A regular expression that has to match the whole of a text, line breaks included.
pub(crate) fn whole(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?s:{text})$"))
        .map_err(|err| format!("the regular expression {text:?} is none: {err}"))
}
