//! Operators between two.

use super::{Element, EvalError, Moment, Value, unique};
use crate::labels::Labels;
use crate::promql::{Binary, Matching, Operator, Side};
use std::collections::{HashMap, HashSet};

impl Moment<'_> {
    pub(super) fn binary(&self, binary: &Binary) -> Result<Value, EvalError> {
        let (left, right) = (self.value(&binary.left)?, self.value(&binary.right)?);
        let elements = match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                let value = if binary.operator.compares() {
                    f64::from(u8::from(holds(binary.operator, left, right)))
                } else {
                    compute(binary.operator, left, right)
                };
                return Ok(Value::Scalar(value));
            }
            (Value::Vector(left), Value::Scalar(right)) => beside(binary, left, |value| (value, right)),
            (Value::Scalar(left), Value::Vector(right)) => beside(binary, right, |value| (left, value)),
            (Value::Vector(left), Value::Vector(right)) if binary.operator.joins_sets() => {
                sets(binary, left, right)
            }
            (Value::Vector(left), Value::Vector(right)) => matched(binary, left, right)?,
            // The parser lets no text through.
            _ => Vec::new(),
        };
        Ok(Value::Vector(unique("the operator", elements)?))
    }
}

fn holds(operator: Operator, left: f64, right: f64) -> bool {
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Greater => left > right,
        Operator::Less => left < right,
        Operator::GreaterOrEqual => left >= right,
        Operator::LessOrEqual => left <= right,
        _ => false,
    }
}

fn compute(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Power => left.powf(right),
        Operator::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}

/// A vector and a number; `sides` puts them in order.
fn beside(binary: &Binary, elements: Vec<Element>, sides: impl Fn(f64) -> (f64, f64)) -> Vec<Element> {
    let of = |element: Element| {
        let (left, right) = sides(element.value);
        if !binary.operator.compares() {
            return Some(Element {
                labels: element.labels.unnamed(),
                value: compute(binary.operator, left, right),
            });
        }
        let holds = holds(binary.operator, left, right);
        if binary.bool {
            return Some(Element {
                labels: element.labels.unnamed(),
                value: f64::from(u8::from(holds)),
            });
        }
        holds.then_some(element)
    };
    elements.into_iter().filter_map(of).collect()
}

/// What belongs together has these labels in common.
fn common(matching: &Matching, labels: &Labels) -> Labels {
    if matching.on {
        labels.only(&matching.labels)
    } else {
        labels.without(&matching.labels)
    }
}

fn sets(binary: &Binary, left: Vec<Element>, right: Vec<Element>) -> Vec<Element> {
    let key = |element: &Element| common(&binary.matching, &element.labels);
    let keys = |elements: &[Element]| elements.iter().map(key).collect::<HashSet<_>>();
    match binary.operator {
        Operator::And => {
            let there = keys(&right);
            left.into_iter()
                .filter(|element| there.contains(&key(element)))
                .collect()
        }
        Operator::Unless => {
            let there = keys(&right);
            left.into_iter()
                .filter(|element| !there.contains(&key(element)))
                .collect()
        }
        _ => {
            let there = keys(&left);
            let others = right.into_iter().filter(|element| !there.contains(&key(element)));
            left.into_iter().chain(others.collect::<Vec<_>>()).collect()
        }
    }
}

fn matched(binary: &Binary, left: Vec<Element>, right: Vec<Element>) -> Result<Vec<Element>, EvalError> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let matching = &binary.matching;
    let swapped = matching.many == Side::Right;
    let (many, ones) = if swapped { (right, left) } else { (left, right) };
    let mut by_key: HashMap<Labels, Element> = HashMap::with_capacity(ones.len());
    for one in ones {
        let key = common(matching, &one.labels);
        if by_key.contains_key(&key) {
            return Err(EvalError::Several {
                side: if swapped { "left" } else { "right" },
                labels: key.to_string(),
                remedy: "aggregate that side",
            });
        }
        by_key.insert(key, one);
    }
    let mut taken: HashSet<Labels> = HashSet::new();
    let mut results = Vec::new();
    for element in many {
        let key = common(matching, &element.labels);
        let Some(one) = by_key.get(&key) else { continue };
        let (left, right) = if swapped {
            (one.value, element.value)
        } else {
            (element.value, one.value)
        };
        let holds = holds(binary.operator, left, right);
        let value = match (binary.operator.compares(), binary.bool) {
            (false, _) => compute(binary.operator, left, right),
            (true, true) => f64::from(u8::from(holds)),
            (true, false) if holds => left,
            (true, false) => continue,
        };
        if matching.many == Side::Neither && !taken.insert(key.clone()) {
            return Err(EvalError::Several {
                side: "left",
                labels: key.to_string(),
                remedy: "write group_left or group_right",
            });
        }
        let labels = joined(binary, element.labels, &one.labels);
        results.push(Element { labels, value });
    }
    Ok(results)
}

/// Labels of what two series make.
fn joined(binary: &Binary, mut labels: Labels, one: &Labels) -> Labels {
    let matching = &binary.matching;
    if !binary.operator.compares() || binary.bool {
        labels = labels.unnamed();
    }
    if matching.many == Side::Neither {
        if matching.on {
            labels = labels.only(&matching.labels);
        } else {
            for name in &matching.labels {
                labels.remove(name);
            }
        }
    }
    for name in &matching.include {
        labels.set(name, one.get(name).unwrap_or_default());
    }
    labels
}
