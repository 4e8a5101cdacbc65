//! What an expression gives at a moment, as Prometheus 3 computes it.

mod aggregate;
mod binary;
pub(crate) mod dates;
mod functions;
mod histogram;
pub(crate) mod over;
mod relabel;

use crate::Sample;
use crate::labels::Labels;
use crate::promql::{Expr, Kind, Selector};
use std::collections::HashSet;
use thiserror::Error;

/// How far back the newest value of a series may be, in milliseconds.
pub const LOOKBACK: i64 = 5 * 60 * 1000;

/// Where series are.
pub trait Source {
    /// Calls `visit` for every series that the selector means, in order of their labels, with all its samples, oldest
    /// first.
    fn select(&self, selector: &Selector, visit: &mut dyn FnMut(&Labels, &[Sample]));
}

/// A series with one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Which.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// What an expression gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A text.
    Text(String),
    /// Series, none twice.
    Vector(Vec<Element>),
}

/// Why an expression gives nothing at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvalError {
    /// Two series would be the same one.
    #[error("{what} gives the series {labels} twice")]
    Twice {
        /// What does.
        what: String,
        /// Its labels.
        labels: String,
    },
    /// Several series of a side belong to one of the other.
    #[error(
        "several series on the {side} side of the operator have the labels {labels}; add labels to on, or {remedy}"
    )]
    Several {
        /// Which side.
        side: &'static str,
        /// What they have in common.
        labels: String,
        /// What to write.
        remedy: &'static str,
    },
}

/// Evaluates an expression at a moment in milliseconds since 1970. A range vector gives nothing by itself: it is empty.
///
/// # Errors
/// [`EvalError`], where series do not fit one another.
pub fn evaluate(expr: &Expr, source: &dyn Source, now: i64) -> Result<Value, EvalError> {
    Moment { source, now }.value(expr)
}

/// What is evaluated, and when.
struct Moment<'a> {
    source: &'a dyn Source,
    now: i64,
}

/// The samples of a series within a span.
struct Window {
    labels: Labels,
    samples: Vec<Sample>,
}

impl Moment<'_> {
    fn value(&self, expr: &Expr) -> Result<Value, EvalError> {
        Ok(match &expr.kind {
            Kind::Number(number) => Value::Scalar(*number),
            Kind::Text(text) => Value::Text(text.clone()),
            Kind::Selector(selector) => {
                Value::Vector(self.newest(selector).map(|(element, _)| element).collect())
            }
            Kind::Range(..) => Value::Vector(Vec::new()),
            Kind::Call(call) => self.call(call)?,
            Kind::Aggregate(aggregate) => Value::Vector(self.aggregate(aggregate)?),
            Kind::Binary(binary) => self.binary(binary)?,
            Kind::Negative(inner) => match self.value(inner)? {
                Value::Scalar(number) => Value::Scalar(-number),
                Value::Vector(elements) => Value::Vector(unique("-", each(elements, |value| -value))?),
                text @ Value::Text(_) => text,
            },
        })
    }

    /// Types were checked: what is no vector has no elements.
    fn vector(&self, expr: &Expr) -> Result<Vec<Element>, EvalError> {
        Ok(match self.value(expr)? {
            Value::Vector(elements) => elements,
            Value::Scalar(_) | Value::Text(_) => Vec::new(),
        })
    }

    fn scalar(&self, expr: &Expr) -> Result<f64, EvalError> {
        Ok(match self.value(expr)? {
            Value::Scalar(number) => number,
            Value::Vector(_) | Value::Text(_) => f64::NAN,
        })
    }

    fn text(&self, expr: &Expr) -> Result<String, EvalError> {
        Ok(match self.value(expr)? {
            Value::Text(text) => text,
            Value::Vector(_) | Value::Scalar(_) => String::new(),
        })
    }

    /// The newest value of each series, and when that was.
    fn newest(&self, selector: &Selector) -> impl Iterator<Item = (Element, i64)> + use<> {
        let end = self.now - selector.offset;
        let mut found = Vec::new();
        self.source.select(selector, &mut |labels, samples| {
            let upto = samples.partition_point(|sample| sample.time <= end);
            let Some(last) = samples[..upto].last() else {
                return;
            };
            if last.time > end - LOOKBACK && !last.is_end() {
                let element = Element {
                    labels: labels.clone(),
                    value: last.value,
                };
                found.push((element, last.time));
            }
        });
        found.into_iter()
    }

    /// The samples of each series within a range, which is open at its start. Ends of series are none.
    fn windows(&self, selector: &Selector, range: i64) -> Vec<Window> {
        let span = self.span(selector, range);
        let mut found = Vec::new();
        self.source.select(selector, &mut |labels, samples| {
            let from = samples.partition_point(|sample| sample.time <= span.start);
            let upto = samples.partition_point(|sample| sample.time <= span.end);
            let within = samples.get(from..upto).unwrap_or_default();
            let samples: Vec<Sample> = within.iter().filter(|sample| !sample.is_end()).copied().collect();
            if !samples.is_empty() {
                let labels = labels.clone();
                found.push(Window { labels, samples });
            }
        });
        found
    }

    fn span(&self, selector: &Selector, range: i64) -> over::Span {
        let end = self.now - selector.offset;
        over::Span {
            start: end - range,
            end,
        }
    }
}

/// Changes each value; what comes out is no longer that metric.
fn each(elements: Vec<Element>, of: impl Fn(f64) -> f64) -> Vec<Element> {
    let changed = |element: Element| Element {
        labels: element.labels.unnamed(),
        value: of(element.value),
    };
    elements.into_iter().map(changed).collect()
}

/// Sees that no series is there twice.
fn unique(what: &str, elements: Vec<Element>) -> Result<Vec<Element>, EvalError> {
    let mut seen = HashSet::with_capacity(elements.len());
    match elements.iter().find(|element| !seen.insert(&element.labels)) {
        None => Ok(elements),
        Some(twice) => Err(EvalError::Twice {
            what: what.to_owned(),
            labels: twice.labels.to_string(),
        }),
    }
}
