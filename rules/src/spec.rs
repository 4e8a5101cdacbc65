//! `PrometheusRule` objects: what they say, and everything in them that is not evaluated.

use crate::labels::NAME;
use crate::promql::{self, Expr, Type, is_label};
use crate::template::Template;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// Rules that are evaluated together, one after the other.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, once in an object.
    pub name: String,
    /// Milliseconds between two evaluations, where it says so.
    pub interval: Option<i64>,
    /// Most alerts, or series, of a rule; 0 for no bound.
    pub limit: usize,
    /// In order.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The alert's name, or that of the series that are recorded.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// The expression as it is written.
    pub text: String,
    /// And as it was read.
    pub expr: Expr,
    /// Added to what it gives.
    pub labels: Vec<(String, Template)>,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Each series of the result becomes an alert.
    Alert {
        /// Milliseconds for which the result must have it.
        hold: i64,
        /// Milliseconds for which it goes on without.
        keep: i64,
        /// Texts for people.
        annotations: Vec<(String, Template)>,
    },
    /// The result becomes series.
    Record,
}

/// Something that is not evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Keys and indices from the object's root, such as `spec.groups[0].rules[2].expr`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// Whether it is right for Prometheus, and only more than devices evaluate.
    pub beyond: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Reads the whole object. A rule with a fault is left out; the others are there.
pub fn read(object: &Value) -> (Vec<Group>, Vec<Fault>) {
    let mut reader = Reader { faults: Vec::new() };
    let groups = reader.groups(&object["spec"]);
    (groups, reader.faults)
}

struct Reader {
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            path: path.to_owned(),
            message: message.into(),
            beyond: false,
        });
    }

    fn beyond(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            path: path.to_owned(),
            message: message.into(),
            beyond: true,
        });
    }

    fn groups(&mut self, spec: &Value) -> Vec<Group> {
        let Some(spec) = self.map(spec, "spec", &["groups"]) else {
            return Vec::new();
        };
        let Some(list) = spec.get("groups") else {
            return Vec::new();
        };
        let mut names = BTreeSet::new();
        let mut groups = Vec::new();
        for (at, group) in self.list(list, "spec.groups").iter().enumerate() {
            let path = format!("spec.groups[{at}]");
            let Some(group) = self.group(group, &path) else {
                continue;
            };
            if !names.insert(group.name.clone()) {
                self.fault(
                    &format!("{path}.name"),
                    format!("two groups have the name {:?}", group.name),
                );
            }
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, value: &Value, path: &str) -> Option<Group> {
        const FIELDS: &[&str] = &[
            "name",
            "interval",
            "limit",
            "rules",
            "labels",
            "query_offset",
            "partial_response_strategy",
        ];
        let map = self.map(value, path, FIELDS)?;
        let name = self.text(map, "name", path)?;
        if map.contains_key("query_offset") {
            let why = "query_offset is not evaluated on devices: their own samples come without delay";
            self.beyond(&format!("{path}.query_offset"), why);
        }
        let limit = match map.get("limit") {
            None | Some(Value::Null) => 0,
            Some(limit) => match limit.as_u64().and_then(|limit| usize::try_from(limit).ok()) {
                Some(limit) => limit,
                None => {
                    self.fault(&format!("{path}.limit"), "must be a whole number from 0 on");
                    0
                }
            },
        };
        let shared = self.labels(map.get("labels"), &format!("{path}.labels"), false);
        let interval = self
            .duration(map, "interval", path)
            .filter(|interval| *interval > 0);
        let mut rules = Vec::new();
        if let Some(list) = map.get("rules") {
            for (at, rule) in self.list(list, &format!("{path}.rules")).iter().enumerate() {
                rules.extend(self.rule(rule, &shared, &format!("{path}.rules[{at}]")));
            }
        }
        Some(Group {
            name,
            interval,
            limit,
            rules,
        })
    }

    fn rule(&mut self, value: &Value, shared: &[(String, Template)], path: &str) -> Option<Rule> {
        const FIELDS: &[&str] = &[
            "alert",
            "record",
            "expr",
            "for",
            "keep_firing_for",
            "labels",
            "annotations",
        ];
        let before = self.faults.len();
        let map = self.map(value, path, FIELDS)?;
        let is_alert = match (map.contains_key("alert"), map.contains_key("record")) {
            (true, false) => true,
            (false, true) => false,
            _ => {
                self.fault(path, "a rule has either alert or record");
                return None;
            }
        };
        let name = self.text(map, if is_alert { "alert" } else { "record" }, path)?;
        if !is_alert {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit()) {
                self.fault(&format!("{path}.record"), format!("{name:?} is no metric's name"));
            }
            for field in ["for", "keep_firing_for", "annotations"] {
                if map.contains_key(field) {
                    self.fault(&format!("{path}.{field}"), "belongs to alerts; this rule records");
                }
            }
        }
        let read = self.expr(map.get("expr"), &format!("{path}.expr"));
        let mut labels = shared.to_vec();
        for (name, value) in self.labels(map.get("labels"), &format!("{path}.labels"), is_alert) {
            labels.retain(|(held, _)| *held != name);
            labels.push((name, value));
        }
        let action = if is_alert {
            Action::Alert {
                hold: self.duration(map, "for", path).unwrap_or(0),
                keep: self.duration(map, "keep_firing_for", path).unwrap_or(0),
                annotations: self.labels(map.get("annotations"), &format!("{path}.annotations"), true),
            }
        } else {
            Action::Record
        };
        let (text, expr) = read?;
        (self.faults.len() == before).then_some(Rule {
            name,
            action,
            text,
            expr,
            labels,
        })
    }

    fn expr(&mut self, value: Option<&Value>, path: &str) -> Option<(String, Expr)> {
        let text = match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => {
                self.fault(path, "an expression belongs here");
                return None;
            }
        };
        match promql::parse(&text) {
            Ok(expr) if matches!(expr.gives(), Type::Scalar | Type::Vector) => Some((text, expr)),
            Ok(expr) => {
                self.fault(
                    path,
                    format!(
                        "a rule's expression gives a vector or a scalar, not {}",
                        expr.gives()
                    ),
                );
                None
            }
            Err(err) => {
                let message = err.shown(&text);
                match err {
                    promql::PromqlError::Unsupported { .. } => self.beyond(path, message),
                    promql::PromqlError::Syntax { .. } => self.fault(path, message),
                }
                None
            }
        }
    }

    /// Names with texts, which are filled in where they may be.
    fn labels(&mut self, value: Option<&Value>, path: &str, filled: bool) -> Vec<(String, Template)> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let Some(map) = value.as_object() else {
            self.fault(path, "names with texts belong here");
            return Vec::new();
        };
        let mut labels = Vec::new();
        for (name, value) in map {
            let here = format!("{path}.{name}");
            if !is_label(name) || name == NAME {
                self.fault(&here, format!("{name:?} may not be the name of a label"));
            }
            let Some(text) = value.as_str() else {
                self.fault(&here, "a text belongs here; put it into quotes");
                continue;
            };
            let template = if filled {
                Template::parse(text)
            } else {
                Ok(Template::plain(text))
            };
            match template {
                Ok(template) => labels.push((name.clone(), template)),
                Err(err) => self.beyond(&here, err.to_string()),
            }
        }
        labels
    }

    fn duration(&mut self, map: &Map<String, Value>, field: &str, path: &str) -> Option<i64> {
        let value = map.get(field).filter(|value| !value.is_null())?;
        let read = value.as_str().and_then(promql::duration);
        if read.is_none() {
            self.fault(
                &format!("{path}.{field}"),
                format!("{value} is no duration such as 30s or 5m"),
            );
        }
        read
    }

    fn text(&mut self, map: &Map<String, Value>, field: &str, path: &str) -> Option<String> {
        match map.get(field).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                self.fault(&format!("{path}.{field}"), "a name belongs here");
                None
            }
        }
    }

    fn map<'a>(&mut self, value: &'a Value, path: &str, fields: &[&str]) -> Option<&'a Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.fault(path, "fields belong here");
            return None;
        };
        for unknown in map.keys().filter(|name| !fields.contains(&name.as_str())) {
            let message = format!("there is no such field; there are {}", fields.join(", "));
            self.fault(&format!("{path}.{unknown}"), message);
        }
        Some(map)
    }

    fn list<'a>(&mut self, value: &'a Value, path: &str) -> &'a [Value] {
        match value {
            Value::Null => &[],
            Value::Array(list) => list,
            _ => {
                self.fault(path, "a list belongs here");
                &[]
            }
        }
    }
}
