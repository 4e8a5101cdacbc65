//! What the values of one series over a time make.

use crate::Sample;

/// A sum that carries what rounding would lose (Kahan and Neumaier), as Prometheus sums.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        self.lost = if total.is_infinite() {
            0.0
        } else if self.sum.abs() >= value.abs() {
            self.lost + ((self.sum - total) + value)
        } else {
            self.lost + ((value - total) + self.sum)
        };
        self.sum = total;
    }

    pub fn value(self) -> f64 {
        if self.sum.is_infinite() {
            self.sum
        } else {
            self.sum + self.lost
        }
    }
}

pub(crate) fn sum_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    values.for_each(|value| sum.add(value));
    sum.value()
}

/// The mean; step by step where the sum would be too large for a number.
pub(crate) fn mean(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let count = values.clone().count();
    if count == 0 {
        return None;
    }
    // Counts of values in memory: exact.
    let sum = sum_of(values.clone());
    if sum.is_finite() || !values.clone().all(f64::is_finite) {
        return Some(sum / count as f64);
    }
    let step = |(mean, seen): (f64, f64), value: f64| {
        let seen = seen + 1.0;
        (mean + (value / seen - mean / seen), seen)
    };
    Some(values.fold((0.0, 0.0), step).0)
}

/// The variance of the whole (Welford).
pub(crate) fn variance(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    (count > 0.0).then(|| squares / count)
}

/// Between the two nearest values; numbers that are none count as the smallest.
pub(crate) fn quantile(of: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || of.is_nan() {
        return f64::NAN;
    }
    if of < 0.0 {
        return f64::NEG_INFINITY;
    }
    if of > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    });
    let last = values.len() - 1;
    let rank = of * last as f64;
    // Between 0 and the number of values.
    let lower = rank.floor() as usize;
    let upper = last.min(lower + 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

fn values(samples: &[Sample]) -> impl Iterator<Item = f64> + Clone + '_ {
    samples.iter().map(|sample| sample.value)
}

pub(crate) fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        value
    }
}

pub(crate) fn avg(samples: &[Sample]) -> Option<f64> {
    mean(values(samples))
}

pub(crate) fn sum(samples: &[Sample]) -> Option<f64> {
    (!samples.is_empty()).then(|| sum_of(values(samples)))
}

pub(crate) fn min(samples: &[Sample]) -> Option<f64> {
    values(samples).reduce(|least, value| {
        if value < least || least.is_nan() {
            value
        } else {
            least
        }
    })
}

pub(crate) fn max(samples: &[Sample]) -> Option<f64> {
    values(samples).reduce(|most, value| {
        if value > most || most.is_nan() {
            value
        } else {
            most
        }
    })
}

pub(crate) fn count(samples: &[Sample]) -> Option<f64> {
    (!samples.is_empty()).then_some(samples.len() as f64)
}

pub(crate) fn stdvar(samples: &[Sample]) -> Option<f64> {
    variance(values(samples))
}

pub(crate) fn stddev(samples: &[Sample]) -> Option<f64> {
    stdvar(samples).map(f64::sqrt)
}

pub(crate) fn present(samples: &[Sample]) -> Option<f64> {
    (!samples.is_empty()).then_some(1.0)
}

fn pairs(samples: &[Sample], counts: impl Fn(f64, f64) -> bool) -> Option<f64> {
    let found = samples
        .windows(2)
        .filter(|two| counts(two[0].value, two[1].value))
        .count();
    (!samples.is_empty()).then_some(found as f64)
}

pub(crate) fn changes(samples: &[Sample]) -> Option<f64> {
    pairs(samples, |before, now| {
        before != now && !(before.is_nan() && now.is_nan())
    })
}

pub(crate) fn resets(samples: &[Sample]) -> Option<f64> {
    pairs(samples, |before, now| now < before)
}

pub(crate) fn deriv(samples: &[Sample]) -> Option<f64> {
    if samples.len() < 2 {
        return None;
    }
    Some(line(samples, samples[0].time).0)
}

/// Slope per second, and value at `zero`, of the line through the samples with the least squares.
pub(crate) fn line(samples: &[Sample], zero: i64) -> (f64, f64) {
    let (mut x, mut y, mut xy, mut xx) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    let first = samples.first().map_or(f64::NAN, |sample| sample.value);
    if values(samples).all(|value| value == first) {
        let flat = if first.is_infinite() { f64::NAN } else { 0.0 };
        return (flat, first + flat);
    }
    for sample in samples {
        // Milliseconds within a range: exact.
        let at = (sample.time - zero) as f64 / 1e3;
        x.add(at);
        y.add(sample.value);
        xy.add(at * sample.value);
        xx.add(at * at);
    }
    let count = samples.len() as f64;
    let (x, y, xy, xx) = (x.value(), y.value(), xy.value(), xx.value());
    let slope = (xy - x * y / count) / (xx - x * x / count);
    (slope, y / count - slope * x / count)
}

/// `irate` and `idelta`: by the last two samples.
pub(crate) fn last_two(samples: &[Sample], counter: bool) -> Option<f64> {
    let [.., before, last] = samples else { return None };
    let reset = counter && last.value < before.value;
    let moved = if reset {
        last.value
    } else {
        last.value - before.value
    };
    let milliseconds = last.time - before.time;
    if milliseconds == 0 {
        return None;
    }
    Some(if counter {
        moved / (milliseconds as f64 / 1e3)
    } else {
        moved
    })
}

/// A time span in milliseconds, open at its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub start: i64,
    pub end: i64,
}

/// What a series gained within a span: from its first to its last sample there, resets made good, and carried on to
/// the span's ends where these are not further away than samples usually are from one another. A counter is not
/// carried on below zero.
pub(crate) fn gained(samples: &[Sample], span: Span, counter: bool) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let mut gain = last.value - first.value;
    if counter {
        for two in samples.windows(2) {
            if two[1].value < two[0].value {
                gain += two[0].value;
            }
        }
    }
    let seconds = |milliseconds: i64| milliseconds as f64 / 1e3;
    let sampled = seconds(last.time - first.time);
    let usual = sampled / (samples.len() - 1) as f64;
    let near = |distance: f64| {
        if distance >= usual * 1.1 {
            usual / 2.0
        } else {
            distance
        }
    };
    let mut before = near(seconds(first.time - span.start));
    if counter && gain > 0.0 && first.value >= 0.0 {
        before = before.min(sampled * (first.value / gain));
    }
    let after = near(seconds(span.end - last.time));
    Some(gain * ((sampled + before + after) / sampled))
}
