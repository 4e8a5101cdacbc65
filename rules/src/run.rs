//! The rules of a group, evaluated one after the other, and what became of their alerts.

use crate::eval::{Element, EvalError, Value, evaluate};
use crate::labels::{Labels, NAME};
use crate::spec::{Action, Group, Rule};
use crate::store::{NotReady, Store};
use crate::template::Template;
use crate::{Sample, promql::Type};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// The label that holds an alert's name.
pub const ALERTNAME: &str = "alertname";
/// The series that say which alerts there are.
const ALERTS: &str = "ALERTS";

/// How far an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It holds, but not for long enough.
    Pending,
    /// It holds.
    Firing,
}

/// One alert that holds; times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// What makes it this alert.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: BTreeMap<String, String>,
    /// The expression's value at the last evaluation. No JSON has a NaN: it is kept as a text.
    #[serde(with = "as_text")]
    pub value: f64,
    /// How far it is.
    pub state: State,
    /// Since when it holds.
    pub active_since: i64,
    /// Since when it fires.
    #[serde(default)]
    pub firing_since: Option<i64>,
    /// Since when it fires only because of `keep_firing_for`.
    #[serde(default)]
    pub kept_since: Option<i64>,
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began to hold.
    Pending,
    /// It began to fire.
    Firing,
    /// It fired and does so no more.
    Resolved,
}

/// What is known of a rule from one evaluation to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Alerts that hold.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// Series that it gave: where one is missing next time, it ends.
    #[serde(skip)]
    given: BTreeSet<Labels>,
}

/// Why a rule was not evaluated. Its alerts stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Not now.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Its series do not fit one another.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Labels of the rule made two alerts or series the same one.
    #[error("the rule's labels make {0} of more than one series; leave a label that tells them apart")]
    Same(String),
    /// More than its group allows; all its alerts are dropped.
    #[error("{found} alerts or series, more than the group's limit of {limit}")]
    Limit {
        /// What it gave.
        found: usize,
        /// The bound.
        limit: usize,
    },
}

/// What an evaluation gave.
#[derive(Debug, Default)]
pub struct Given {
    /// Changes of alerts.
    pub changes: Vec<(Change, Alert)>,
    /// Series of recording rules, and `ALERTS`; they are in the store already.
    pub samples: Vec<(Labels, Sample)>,
    /// By rule, in order.
    pub errors: Vec<Option<RuleError>>,
}

impl Group {
    /// Evaluates all rules at a moment in milliseconds since 1970. `memories` are those of its rules, in order.
    /// Each rule sees what those before it recorded.
    pub fn evaluate(&self, memories: &mut [Memory], store: &mut Store, now: i64, settle: i64) -> Given {
        let mut given = Given::default();
        for (rule, memory) in self.rules.iter().zip(memories) {
            let error = rule
                .evaluate(self.limit, memory, store, now, settle, &mut given)
                .err();
            given.errors.push(error);
        }
        given
    }
}

impl Rule {
    fn evaluate(
        &self,
        limit: usize,
        memory: &mut Memory,
        store: &mut Store,
        now: i64,
        settle: i64,
        given: &mut Given,
    ) -> Result<(), RuleError> {
        store.ready(&self.expr, now, settle)?;
        let elements = match evaluate(&self.expr, store, now)? {
            Value::Vector(elements) => elements,
            Value::Scalar(value) => vec![Element {
                labels: Labels::default(),
                value,
            }],
            Value::Text(_) => Vec::new(),
        };
        debug_assert!(
            matches!(self.expr.gives(), Type::Scalar | Type::Vector),
            "read() sees to it"
        );
        let series = match &self.action {
            Action::Record => self.record(elements, limit)?,
            Action::Alert {
                hold,
                keep,
                annotations,
            } => {
                let timing = Timing {
                    hold: *hold,
                    keep: *keep,
                    now,
                };
                let found = self.alerts(elements, annotations, timing)?;
                follow(memory, found, timing, &mut given.changes);
                if limit > 0 && memory.alerts.len() > limit {
                    let found = memory.alerts.len();
                    for alert in memory
                        .alerts
                        .drain(..)
                        .filter(|alert| alert.state == State::Firing)
                    {
                        given.changes.push((Change::Resolved, alert));
                    }
                    end(memory, BTreeSet::new(), store, now, given);
                    return Err(RuleError::Limit { found, limit });
                }
                memory.alerts.iter().map(series_of).collect()
            }
        };
        let names = series.iter().map(|element| element.labels.clone()).collect();
        for Element { labels, value } in series {
            let sample = Sample { time: now, value };
            store.put(&labels, sample);
            given.samples.push((labels, sample));
        }
        end(memory, names, store, now, given);
        Ok(())
    }

    fn record(&self, elements: Vec<Element>, limit: usize) -> Result<Vec<Element>, RuleError> {
        if limit > 0 && elements.len() > limit {
            return Err(RuleError::Limit {
                found: elements.len(),
                limit,
            });
        }
        let mut seen = BTreeSet::new();
        let mut series = Vec::with_capacity(elements.len());
        for Element { mut labels, value } in elements {
            labels.set(NAME, &self.name);
            for (name, text) in &self.labels {
                labels.set(name, &text.fill(&Labels::default(), value));
            }
            if !seen.insert(labels.clone()) {
                return Err(RuleError::Same(labels.to_string()));
            }
            series.push(Element { labels, value });
        }
        Ok(series)
    }

    fn alerts(
        &self,
        elements: Vec<Element>,
        annotations: &[(String, Template)],
        timing: Timing,
    ) -> Result<BTreeMap<Labels, Alert>, RuleError> {
        let mut found = BTreeMap::new();
        for Element { labels: own, value } in elements {
            let mut labels = own.clone().unnamed();
            for (name, text) in &self.labels {
                labels.set(name, &text.fill(&own, value));
            }
            labels.set(ALERTNAME, &self.name);
            let filled = annotations
                .iter()
                .map(|(name, text)| (name.clone(), text.fill(&own, value)));
            let alert = Alert {
                labels: labels.clone(),
                annotations: filled.collect(),
                value,
                state: State::Pending,
                active_since: timing.now,
                firing_since: None,
                kept_since: None,
            };
            if found.insert(labels, alert).is_some() {
                return Err(RuleError::Same(format!("one alert {:?}", self.name)));
            }
        }
        Ok(found)
    }
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    hold: i64,
    keep: i64,
    now: i64,
}

/// Brings what was known to what was found.
fn follow(
    memory: &mut Memory,
    mut found: BTreeMap<Labels, Alert>,
    timing: Timing,
    changes: &mut Vec<(Change, Alert)>,
) {
    let now = timing.now;
    memory
        .alerts
        .retain_mut(|alert| match found.remove(&alert.labels) {
            Some(newer) => {
                alert.value = newer.value;
                alert.annotations = newer.annotations;
                alert.kept_since = None;
                true
            }
            None => {
                let kept = alert.state == State::Firing && timing.keep > 0 && {
                    let since = *alert.kept_since.get_or_insert(now);
                    now - since < timing.keep
                };
                if !kept && alert.state == State::Firing {
                    changes.push((Change::Resolved, alert.clone()));
                }
                kept
            }
        });
    for alert in found.into_values() {
        if timing.hold > 0 {
            changes.push((Change::Pending, alert.clone()));
        }
        memory.alerts.push(alert);
    }
    for alert in &mut memory.alerts {
        if alert.state == State::Pending && now - alert.active_since >= timing.hold {
            alert.state = State::Firing;
            alert.firing_since = Some(now);
            changes.push((Change::Firing, alert.clone()));
        }
    }
    memory.alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
}

fn series_of(alert: &Alert) -> Element {
    let mut labels = alert.labels.clone();
    labels.set(NAME, ALERTS);
    let state = match alert.state {
        State::Pending => "pending",
        State::Firing => "firing",
    };
    labels.set("alertstate", state);
    Element { labels, value: 1.0 }
}

/// Series that were given before and are not any more end.
fn end(memory: &mut Memory, now_given: BTreeSet<Labels>, store: &mut Store, now: i64, given: &mut Given) {
    for gone in memory.given.difference(&now_given) {
        let sample = Sample::end(now);
        store.put(gone, sample);
        given.samples.push((gone.clone(), sample));
    }
    memory.given = now_given;
}
