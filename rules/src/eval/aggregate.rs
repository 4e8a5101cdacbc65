//! Groups of series made to one each.

use super::{Element, EvalError, Moment, over};
use crate::labels::Labels;
use crate::promql::{Aggregate, Aggregation};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

impl Moment<'_> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate) -> Result<Vec<Element>, EvalError> {
        let elements = self.vector(&aggregate.of)?;
        let parameter = aggregate.parameter.as_ref();
        let number = match (aggregate.aggregation, parameter) {
            (Aggregation::CountValues, Some(parameter)) => {
                let label = self.text(parameter)?;
                return Ok(count_values(aggregate, elements, &label));
            }
            (_, Some(parameter)) => self.scalar(parameter)?,
            (_, None) => 0.0,
        };
        let mut groups: BTreeMap<Labels, Vec<Element>> = BTreeMap::new();
        for element in elements {
            groups
                .entry(group(aggregate, &element.labels))
                .or_default()
                .push(element);
        }
        let of = |(labels, members): (Labels, Vec<Element>)| match aggregate.aggregation {
            Aggregation::Topk => ranked(members, number, true),
            Aggregation::Bottomk => ranked(members, number, false),
            other => {
                let value = one(other, number, &members);
                vec![Element { labels, value }]
            }
        };
        Ok(groups.into_iter().flat_map(of).collect())
    }
}

fn group(aggregate: &Aggregate, labels: &Labels) -> Labels {
    if aggregate.without {
        labels.without(&aggregate.labels)
    } else {
        labels.only(&aggregate.labels)
    }
}

fn one(aggregation: Aggregation, number: f64, members: &[Element]) -> f64 {
    let values = members.iter().map(|member| member.value);
    let best = |better: fn(&f64, &f64) -> bool| {
        values
            .clone()
            .reduce(|held, value| {
                if better(&value, &held) || held.is_nan() {
                    value
                } else {
                    held
                }
            })
            .unwrap_or(f64::NAN)
    };
    match aggregation {
        Aggregation::Sum => over::sum_of(values),
        Aggregation::Avg => over::mean(values).unwrap_or(f64::NAN),
        Aggregation::Min => best(f64::lt),
        Aggregation::Max => best(f64::gt),
        // Series in memory: exact.
        Aggregation::Count => members.len() as f64,
        Aggregation::Stdvar => over::variance(values).unwrap_or(f64::NAN),
        Aggregation::Stddev => over::variance(values).map_or(f64::NAN, f64::sqrt),
        Aggregation::Quantile => over::quantile(number, values.collect()),
        Aggregation::Group | Aggregation::Topk | Aggregation::Bottomk | Aggregation::CountValues => 1.0,
    }
}

/// The largest or smallest; of equal ones the first, and what is no number last.
fn ranked(mut members: Vec<Element>, count: f64, largest: bool) -> Vec<Element> {
    let order = |a: &Element, b: &Element| match (a.value.is_nan(), b.value.is_nan()) {
        (false, false) if largest => b.value.partial_cmp(&a.value).unwrap_or(Ordering::Equal),
        (false, false) => a.value.partial_cmp(&b.value).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    };
    members.sort_by(order);
    // Below 1, and where it is no number, there are none; too many are all.
    members.truncate(count as usize);
    members
}

fn count_values(aggregate: &Aggregate, elements: Vec<Element>, label: &str) -> Vec<Element> {
    let mut counts: HashMap<Labels, f64> = HashMap::new();
    let mut order: Vec<Labels> = Vec::new();
    for element in elements {
        let mut labels = group(aggregate, &element.labels);
        labels.set(label, &plain(element.value));
        let count = counts.entry(labels.clone()).or_insert_with(|| {
            order.push(labels);
            0.0
        });
        *count += 1.0;
    }
    order
        .into_iter()
        .map(|labels| Element {
            value: counts[&labels],
            labels,
        })
        .collect()
}

/// A number without an exponent, as Go writes it.
fn plain(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}
