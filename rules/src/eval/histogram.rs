//! Quantiles of classic histograms.

use super::Element;
use crate::labels::Labels;
use std::collections::BTreeMap;

/// Counts this much apart, in parts of them, are the same but for rounding.
const SAME: f64 = 1e-12;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    upto: f64,
    count: f64,
}

/// One value for each histogram among the buckets.
pub(super) fn quantiles(of: f64, buckets: Vec<Element>) -> Vec<Element> {
    let mut histograms: BTreeMap<Labels, Vec<Bucket>> = BTreeMap::new();
    for bucket in buckets {
        let bound = bucket.labels.get("le").and_then(|le| le.parse().ok());
        let Some(upto) = bound else { continue };
        let mut labels = bucket.labels.unnamed();
        labels.remove("le");
        histograms.entry(labels).or_default().push(Bucket {
            upto,
            count: bucket.value,
        });
    }
    histograms
        .into_iter()
        .map(|(labels, buckets)| Element {
            labels,
            value: quantile(of, buckets),
        })
        .collect()
}

fn quantile(of: f64, mut buckets: Vec<Bucket>) -> f64 {
    if of.is_nan() {
        return f64::NAN;
    }
    if of < 0.0 {
        return f64::NEG_INFINITY;
    }
    if of > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.upto.total_cmp(&b.upto));
    if buckets.last().is_none_or(|last| last.upto != f64::INFINITY) {
        return f64::NAN;
    }
    let mut joined: Vec<Bucket> = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        match joined.last_mut() {
            Some(last) if last.upto == bucket.upto => last.count += bucket.count,
            _ => joined.push(bucket),
        }
    }
    rising(&mut joined);
    let [.., before_last, last] = joined.as_slice() else {
        return f64::NAN;
    };
    if last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    let rank = of * last.count;
    let at = joined[..joined.len() - 1].partition_point(|bucket| bucket.count < rank);
    if at == joined.len() - 1 {
        return before_last.upto;
    }
    let bucket = joined[at];
    let Some(below) = at.checked_sub(1).map(|at| joined[at]) else {
        if bucket.upto <= 0.0 {
            return bucket.upto;
        }
        return bucket.upto * (rank / bucket.count);
    };
    below.upto + (bucket.upto - below.upto) * ((rank - below.count) / (bucket.count - below.count))
}

/// Buckets are cumulative; where scrapes or sums made one fall, it is lifted.
fn rising(buckets: &mut [Bucket]) {
    let mut before = f64::NEG_INFINITY;
    for bucket in buckets {
        let apart = (bucket.count - before).abs();
        if bucket.count < before || apart < SAME * before.abs() {
            bucket.count = before;
        }
        before = bucket.count;
    }
}
