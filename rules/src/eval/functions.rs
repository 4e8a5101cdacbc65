//! The functions.

use super::{Element, EvalError, Moment, Value, each, histogram, over, relabel, unique};
use crate::labels::{Labels, NAME};
use crate::promql::{Call, Expr, Function, Kind, Relation, Selector};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use std::collections::HashSet;

impl Moment<'_> {
    pub(super) fn call(&self, call: &Call) -> Result<Value, EvalError> {
        let arguments = Arguments {
            moment: self,
            of: &call.arguments,
        };
        let elements = match call.function {
            Function::Scalar => {
                let one = arguments.vector(0)?;
                let value = if let [one] = one.as_slice() {
                    one.value
                } else {
                    f64::NAN
                };
                return Ok(Value::Scalar(value));
            }
            // Milliseconds since 1970: exact.
            Function::Time => return Ok(Value::Scalar(self.now as f64 / 1e3)),
            Function::Pi => return Ok(Value::Scalar(std::f64::consts::PI)),
            Function::Vector => vec![unlabelled(arguments.scalar(0)?)],
            Function::Absent => self.absent(&arguments)?,
            Function::Timestamp => self.timestamp(&arguments)?,
            Function::Math(of) => each(arguments.vector(0)?, of),
            Function::Date(of) => self.date(&arguments, of)?,
            Function::Over(of) => self.over(&arguments, 0, |window, _| of(window)),
            Function::LastOverTime => self.last_over_time(&arguments),
            Function::Slope { counter, rate } => self.slope(&arguments, counter, rate),
            Function::LastTwo { counter } => {
                self.over(&arguments, 0, |window, _| over::last_two(window, counter))
            }
            Function::QuantileOverTime => {
                let of = arguments.scalar(0)?;
                self.over(&arguments, 1, |window, _| {
                    let values = window.iter().map(|sample| sample.value).collect();
                    Some(over::quantile(of, values))
                })
            }
            Function::PredictLinear => {
                let ahead = arguments.scalar(1)?;
                self.over(&arguments, 0, |window, now| {
                    let (slope, value) = over::line(window, now);
                    (window.len() >= 2).then_some(slope * ahead + value)
                })
            }
            Function::Clamp => {
                let (least, most) = (arguments.scalar(1)?, arguments.scalar(2)?);
                if most < least {
                    return Ok(Value::Vector(Vec::new()));
                }
                let within = |value| lesser(most, greater(least, value));
                each(arguments.vector(0)?, within)
            }
            Function::ClampMin => {
                let least = arguments.scalar(1)?;
                each(arguments.vector(0)?, |value| greater(least, value))
            }
            Function::ClampMax => {
                let most = arguments.scalar(1)?;
                each(arguments.vector(0)?, |value| lesser(most, value))
            }
            Function::Round => {
                let to = if arguments.of.len() > 1 {
                    arguments.scalar(1)?
                } else {
                    1.0
                };
                // Prometheus divides by the inverse, as 0.1 is none in binary.
                let inverse = 1.0 / to;
                each(arguments.vector(0)?, |value| {
                    (value * inverse + 0.5).floor() / inverse
                })
            }
            Function::Sort => arguments.vector(0)?,
            Function::HistogramQuantile => histogram::quantiles(arguments.scalar(0)?, arguments.vector(1)?),
            Function::LabelReplace => {
                let texts = [
                    arguments.text(1)?,
                    arguments.text(2)?,
                    arguments.text(3)?,
                    arguments.text(4)?,
                ];
                relabel::replace(arguments.vector(0)?, &texts)
            }
            Function::LabelJoin => {
                let texts = (1..arguments.of.len())
                    .map(|place| arguments.text(place))
                    .collect::<Result<Vec<_>, _>>()?;
                relabel::join(arguments.vector(0)?, &texts)
            }
        };
        Ok(Value::Vector(unique(call.name, elements)?))
    }

    fn over(
        &self,
        arguments: &Arguments<'_>,
        place: usize,
        of: impl Fn(&[crate::Sample], i64) -> Option<f64>,
    ) -> Vec<Element> {
        let Some((selector, range)) = arguments.range(place) else {
            return Vec::new();
        };
        let windows = self.windows(selector, range).into_iter();
        windows
            .filter_map(|window| {
                let value = of(&window.samples, self.now)?;
                let labels = window.labels.unnamed();
                Some(Element { labels, value })
            })
            .collect()
    }

    /// Keeps the metric's name: the value is one of it.
    fn last_over_time(&self, arguments: &Arguments<'_>) -> Vec<Element> {
        let Some((selector, range)) = arguments.range(0) else {
            return Vec::new();
        };
        let windows = self.windows(selector, range).into_iter();
        windows
            .filter_map(|window| {
                let value = window.samples.last()?.value;
                Some(Element {
                    labels: window.labels,
                    value,
                })
            })
            .collect()
    }

    fn slope(&self, arguments: &Arguments<'_>, counter: bool, rate: bool) -> Vec<Element> {
        let Some((selector, range)) = arguments.range(0) else {
            return Vec::new();
        };
        let span = self.span(selector, range);
        let per = if rate { range as f64 / 1e3 } else { 1.0 };
        self.over(arguments, 0, |window, _| {
            over::gained(window, span, counter).map(|gain| gain / per)
        })
    }

    fn absent(&self, arguments: &Arguments<'_>) -> Result<Vec<Element>, EvalError> {
        let expr = &arguments.of[0];
        let (there, selector) = match &expr.kind {
            Kind::Range(selector, range) => (!self.windows(selector, *range).is_empty(), Some(selector)),
            Kind::Selector(selector) => (self.newest(selector).next().is_some(), Some(selector)),
            _ => (!self.vector(expr)?.is_empty(), None),
        };
        if there {
            return Ok(Vec::new());
        }
        let labels = selector.map(said_for_certain).unwrap_or_default();
        Ok(vec![Element { labels, value: 1.0 }])
    }

    fn timestamp(&self, arguments: &Arguments<'_>) -> Result<Vec<Element>, EvalError> {
        if let Kind::Selector(selector) = &arguments.of[0].kind {
            let found = self.newest(selector).map(|(element, time)| Element {
                labels: element.labels.unnamed(),
                value: time as f64 / 1e3,
            });
            return Ok(found.collect());
        }
        let now = self.now as f64 / 1e3;
        Ok(each(arguments.vector(0)?, |_| now))
    }

    fn date(&self, arguments: &Arguments<'_>, of: fn(DateTime) -> f64) -> Result<Vec<Element>, EvalError> {
        let part = |seconds: f64| {
            // Beyond what a calendar has, there is no answer; parts of a second do not matter here.
            let moment = Timestamp::from_second(seconds as i64).ok();
            moment.map_or(f64::NAN, |moment| of(Offset::UTC.to_datetime(moment)))
        };
        if arguments.of.is_empty() {
            return Ok(vec![unlabelled(part(self.now as f64 / 1e3))]);
        }
        Ok(each(arguments.vector(0)?, part))
    }
}

/// A call's arguments; the parser has checked that they are there and of their types.
struct Arguments<'a> {
    moment: &'a Moment<'a>,
    of: &'a [Expr],
}

impl Arguments<'_> {
    fn vector(&self, place: usize) -> Result<Vec<Element>, EvalError> {
        self.of
            .get(place)
            .map_or(Ok(Vec::new()), |expr| self.moment.vector(expr))
    }

    fn scalar(&self, place: usize) -> Result<f64, EvalError> {
        self.of
            .get(place)
            .map_or(Ok(f64::NAN), |expr| self.moment.scalar(expr))
    }

    fn text(&self, place: usize) -> Result<String, EvalError> {
        self.of
            .get(place)
            .map_or(Ok(String::new()), |expr| self.moment.text(expr))
    }

    fn range(&self, place: usize) -> Option<(&Selector, i64)> {
        match &self.of.get(place)?.kind {
            Kind::Range(selector, range) => Some((selector, *range)),
            _ => None,
        }
    }
}

fn unlabelled(value: f64) -> Element {
    Element {
        labels: Labels::default(),
        value,
    }
}

/// As Go has it: what is no number stays so.
fn greater(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

fn lesser(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The labels that every series of a selector has: those it names once, with `=`.
fn said_for_certain(selector: &Selector) -> Labels {
    let mut labels = Labels::default();
    let mut seen = HashSet::new();
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name != NAME) {
        let first = seen.insert(matcher.name.as_str());
        if first && matches!(matcher.relation, Relation::Equal) {
            labels.set(&matcher.name, &matcher.value);
        } else {
            labels.remove(&matcher.name);
        }
    }
    labels
}
