//! The functions: their names, what they take and what they give.

use super::ast::Type;
use crate::Sample;
use crate::eval::{dates, over};
use jiff::civil::DateTime;

/// What a function does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    /// To each value.
    Math(fn(f64) -> f64),
    /// To the values of each series; without the metric's name.
    Over(fn(&[Sample]) -> Option<f64>),
    /// To a moment: of each value, or of now.
    Date(fn(DateTime) -> f64),
    /// `rate`, `increase`, `delta`.
    Slope {
        /// It starts over at zero.
        counter: bool,
        /// Per second.
        rate: bool,
    },
    /// `irate`, `idelta`.
    LastTwo {
        /// As above.
        counter: bool,
    },
    LastOverTime,
    QuantileOverTime,
    PredictLinear,
    Absent,
    Scalar,
    Vector,
    Time,
    Pi,
    Timestamp,
    Clamp,
    ClampMin,
    ClampMax,
    Round,
    Sort,
    HistogramQuantile,
    LabelReplace,
    LabelJoin,
}

impl Function {
    pub fn gives(self) -> Type {
        match self {
            Self::Scalar | Self::Time | Self::Pi => Type::Scalar,
            _ => Type::Vector,
        }
    }
}

/// Name, what it does, what it takes, how many of these it needs.
pub(super) struct Row {
    pub name: &'static str,
    pub function: Function,
    pub takes: &'static [Type],
    pub needs: usize,
    /// The last one as often as wanted.
    pub more: bool,
}

const fn row(name: &'static str, function: Function, takes: &'static [Type]) -> Row {
    Row {
        name,
        function,
        takes,
        needs: takes.len(),
        more: false,
    }
}

const V: Type = Type::Vector;
const S: Type = Type::Scalar;
const R: Type = Type::Range;
const T: Type = Type::Text;

const fn math(name: &'static str, of: fn(f64) -> f64) -> Row {
    row(name, Function::Math(of), &[V])
}

const fn over(name: &'static str, of: fn(&[Sample]) -> Option<f64>) -> Row {
    row(name, Function::Over(of), &[R])
}

const fn date(name: &'static str, of: fn(DateTime) -> f64) -> Row {
    Row {
        needs: 0,
        ..row(name, Function::Date(of), &[V])
    }
}

const fn slope(name: &'static str, counter: bool, rate: bool) -> Row {
    row(name, Function::Slope { counter, rate }, &[R])
}

const ROWS: &[Row] = &[
    math("abs", f64::abs),
    math("ceil", f64::ceil),
    math("floor", f64::floor),
    math("exp", f64::exp),
    math("ln", f64::ln),
    math("log2", f64::log2),
    math("log10", f64::log10),
    math("sqrt", f64::sqrt),
    math("sgn", over::sign),
    math("sin", f64::sin),
    math("cos", f64::cos),
    math("tan", f64::tan),
    math("asin", f64::asin),
    math("acos", f64::acos),
    math("atan", f64::atan),
    math("sinh", f64::sinh),
    math("cosh", f64::cosh),
    math("tanh", f64::tanh),
    math("asinh", f64::asinh),
    math("acosh", f64::acosh),
    math("atanh", f64::atanh),
    math("deg", f64::to_degrees),
    math("rad", f64::to_radians),
    over("avg_over_time", over::avg),
    over("sum_over_time", over::sum),
    over("min_over_time", over::min),
    over("max_over_time", over::max),
    over("count_over_time", over::count),
    over("stddev_over_time", over::stddev),
    over("stdvar_over_time", over::stdvar),
    over("present_over_time", over::present),
    over("changes", over::changes),
    over("resets", over::resets),
    over("deriv", over::deriv),
    slope("rate", true, true),
    slope("increase", true, false),
    slope("delta", false, false),
    row("irate", Function::LastTwo { counter: true }, &[R]),
    row("idelta", Function::LastTwo { counter: false }, &[R]),
    row("last_over_time", Function::LastOverTime, &[R]),
    row("quantile_over_time", Function::QuantileOverTime, &[S, R]),
    row("predict_linear", Function::PredictLinear, &[R, S]),
    row("absent", Function::Absent, &[V]),
    row("absent_over_time", Function::Absent, &[R]),
    row("scalar", Function::Scalar, &[V]),
    row("vector", Function::Vector, &[S]),
    row("time", Function::Time, &[]),
    row("pi", Function::Pi, &[]),
    row("timestamp", Function::Timestamp, &[V]),
    row("clamp", Function::Clamp, &[V, S, S]),
    row("clamp_min", Function::ClampMin, &[V, S]),
    row("clamp_max", Function::ClampMax, &[V, S]),
    Row {
        needs: 1,
        ..row("round", Function::Round, &[V, S])
    },
    row("sort", Function::Sort, &[V]),
    row("sort_desc", Function::Sort, &[V]),
    row("histogram_quantile", Function::HistogramQuantile, &[S, V]),
    row("label_replace", Function::LabelReplace, &[V, T, T, T, T]),
    Row {
        needs: 3,
        more: true,
        ..row("label_join", Function::LabelJoin, &[V, T, T, T])
    },
    date("minute", dates::minute),
    date("hour", dates::hour),
    date("day_of_week", dates::day_of_week),
    date("day_of_month", dates::day_of_month),
    date("day_of_year", dates::day_of_year),
    date("days_in_month", dates::days_in_month),
    date("month", dates::month),
    date("year", dates::year),
];

/// Functions of Prometheus that are not among ours, with what to do instead.
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("holt_winters", SMOOTHING),
    ("double_exponential_smoothing", SMOOTHING),
    ("mad_over_time", EXPERIMENTAL),
    ("ts_of_min_over_time", EXPERIMENTAL),
    ("ts_of_max_over_time", EXPERIMENTAL),
    ("ts_of_last_over_time", EXPERIMENTAL),
    ("ts_of_first_over_time", EXPERIMENTAL),
    ("first_over_time", EXPERIMENTAL),
    ("info", EXPERIMENTAL),
    ("limitk", EXPERIMENTAL),
    ("limit_ratio", EXPERIMENTAL),
    ("sort_by_label", EXPERIMENTAL),
    ("sort_by_label_desc", EXPERIMENTAL),
    ("histogram_count", NATIVE),
    ("histogram_sum", NATIVE),
    ("histogram_avg", NATIVE),
    ("histogram_fraction", NATIVE),
    ("histogram_stddev", NATIVE),
    ("histogram_stdvar", NATIVE),
];

const SMOOTHING: &str = "avg_over_time or predict_linear may do";
const EXPERIMENTAL: &str = "it is an experiment of Prometheus";
const NATIVE: &str = "devices hold classic histograms: use _bucket, _count and _sum";

pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
