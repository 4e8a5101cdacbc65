//! The same expressions over the same series, evaluated here and by the real promtool.
//!
//! Series have a sample each 15 s and moments lie between samples: promtool of Prometheus 2 counts a sample at the very
//! start of a range, Prometheus 3 and this crate do not. It also keeps the metric's name behind `atan2`.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use rules::{Labels, Value, evaluate, promql::parse};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use support::{Random, World, promtool};

/// What is worth its own line; random ones follow.
const CORPUS: &[&str] = &[
    "m",
    "m{a=\"1\"}",
    "m{a!=\"1\"}",
    "m{a=~\"1|2\",b!~\"x.*\"}",
    "{__name__=~\"m|n\"}",
    "m{c=\"\"}",
    "m offset 1m",
    "m offset -1m",
    "gone",
    "ended",
    "gappy",
    "m[1m]",
    "timestamp(m)",
    "timestamp(gappy offset 1m)",
    "timestamp(m + 1)",
    "rate(c_total[1m])",
    "rate(c_total[5m])",
    "rate(c_total[10s])",
    "rate(young_total[5m])",
    "rate(gappy[2m])",
    "rate(c_total[1m] offset 2m)",
    "increase(c_total[3m])",
    "increase(young_total[20m])",
    "delta(m[2m])",
    "delta(special[2m])",
    "irate(c_total[2m])",
    "idelta(m[2m])",
    "idelta(c_total[2m])",
    "deriv(m[4m])",
    "deriv(constant[4m])",
    "deriv(special[4m])",
    "predict_linear(m[4m], 3600)",
    "predict_linear(constant[4m], 60)",
    "avg_over_time(m[3m])",
    "avg_over_time(huge[3m])",
    "avg_over_time(special[3m])",
    "sum_over_time(m[3m])",
    "sum_over_time(cancel[10m])",
    "min_over_time(special[5m])",
    "max_over_time(special[5m])",
    "count_over_time(gappy[5m])",
    "stddev_over_time(m[3m])",
    "stdvar_over_time(m[3m])",
    "last_over_time(ended[10m])",
    "present_over_time(ended[10m])",
    "quantile_over_time(0.9, m[3m])",
    "quantile_over_time(2, m[3m])",
    "quantile_over_time(-1, m[3m])",
    "quantile_over_time(0.3, special[5m])",
    "changes(special[5m])",
    "changes(m[5m])",
    "resets(c_total[9m])",
    "absent(m)",
    "absent(nothing)",
    "absent(nothing{a=\"1\",b=~\"x\",c!=\"d\"})",
    "absent(nothing{a=\"1\",a=\"2\"})",
    "absent(sum(nothing{a=\"1\"}))",
    "absent_over_time(nothing{a=\"1\"}[5m])",
    "absent_over_time(ended[1m])",
    "absent_over_time(m[1m])",
    "abs(m - 50)",
    "ceil(m / 7)",
    "floor(m / 7)",
    "round(m / 7)",
    "round(m / 7, 0.1)",
    "round(-m / 7, 5)",
    "clamp(m, 20, 60)",
    "clamp(m, 60, 20)",
    "clamp(special, 0, 5)",
    "clamp_min(m, 40)",
    "clamp_max(special, 40)",
    "clamp_max(m, NaN)",
    "exp(m / 100)",
    "ln(m)",
    "log2(m)",
    "log10(m)",
    "sqrt(m)",
    "sgn(m - 40)",
    "sgn(special)",
    "sin(m) + cos(m) + tan(m)",
    "asin(m / 200) + acos(m / 200) + atan(m)",
    "sinh(m / 100) + cosh(m / 100) + tanh(m)",
    "asinh(m) + acosh(m + 2) + atanh(m / 200)",
    "deg(m) + rad(m)",
    "pi()",
    "time()",
    "vector(1)",
    "vector(time())",
    "scalar(m{a=\"1\",b=\"x\"})",
    "scalar(m)",
    "scalar(nothing)",
    "m * scalar(m{a=\"1\",b=\"x\"})",
    "sort(m)",
    "sort_desc(m)",
    "hour()",
    "minute()",
    "minute(vector(1700000000))",
    "hour(m * 1e7)",
    "day_of_week(m * 1e7)",
    "day_of_month(m * 1e7)",
    "day_of_year(m * 1e7)",
    "days_in_month(m * 1e7)",
    "month(m * 1e7)",
    "year(m * 1e7)",
    "histogram_quantile(0.5, h_bucket)",
    "histogram_quantile(0.99, rate(h_bucket[3m]))",
    "histogram_quantile(0.9, sum by (le) (rate(h_bucket[3m])))",
    "histogram_quantile(1, h_bucket)",
    "histogram_quantile(0, h_bucket)",
    "histogram_quantile(1.1, h_bucket)",
    "histogram_quantile(-0.1, h_bucket)",
    "histogram_quantile(0.5, m)",
    "histogram_quantile(0.5, h_bucket{le!=\"+Inf\"})",
    "histogram_quantile(0.5, -h_bucket)",
    "label_replace(m, \"d\", \"$1-${1}\", \"b\", \"(.).*\")",
    "label_replace(m, \"b\", \"\", \"b\", \"x\")",
    "label_replace(m, \"a\", \"same\", \"a\", \".*\")",
    "label_replace(m, \"d\", \"v\", \"b\", \"nothing\")",
    "label_replace(m, \"__name__\", \"k_$1\", \"__name__\", \"(.*)\")",
    "label_join(m, \"d\", \"-\", \"a\", \"b\", \"none\")",
    "label_join(m, \"d\", \"-\")",
    "sum(m)",
    "sum by (a) (m)",
    "sum(m) by (a, b)",
    "sum without (a) (m)",
    "sum by (__name__) (m)",
    "sum by () (m)",
    "sum without () (m)",
    "sum(huge)",
    "sum(special)",
    "avg by (b) (m)",
    "avg(huge)",
    "avg(special)",
    "min(special)",
    "max(special)",
    "min by (a) (m)",
    "max without (b) (m)",
    "count(m)",
    "count by (b) (m)",
    "count(nothing)",
    "group by (a) (m)",
    "stddev(m)",
    "stdvar by (a) (m)",
    "quantile(0.5, m)",
    "quantile by (b) (0.9, m)",
    "quantile(1.5, m)",
    "quantile(NaN, m)",
    "quantile(0.4, special)",
    "topk(2, m)",
    "topk by (b) (1, m)",
    "topk(0, m)",
    "topk(-1, m)",
    "topk(100, m)",
    "topk(2, special)",
    "bottomk(2, m)",
    "bottomk(3, special)",
    "bottomk without (a) (1, m)",
    "count_values(\"v\", constant)",
    "count_values by (a) (\"v\", special)",
    "m + 1",
    "1 - m",
    "m * 2 / 3 % 5 ^ 2",
    "2 ^ 3 ^ 2",
    "-2 ^ 2",
    "-m ^ 2",
    "2 ^ -1",
    "-m",
    "+m",
    "m % -7",
    "m / 0",
    "sum by (a, b) (m atan2 2)",
    "sum by (a, b) (m atan2 n)",
    "m > 40",
    "40 < m",
    "m > bool 40",
    "m == bool m",
    "1 > bool 2",
    "m != 3",
    "m >= 20 <= 70",
    "special == NaN",
    "special != special",
    "m + n",
    "m + on(a, b) n",
    "m + ignoring(c) n",
    "m > n",
    "m > bool n",
    "m > on(a, b) n",
    "m > bool on(a, b) n",
    "m / on(a) n",
    "m * on(a) group_left(owner) info",
    "m * on(a) group_left info",
    "info * on(a) group_right(owner) m",
    "info * on(a) group_right() m",
    "m > on(a) group_left(owner) info",
    "info < on(a) group_right m",
    "m * on(b) group_left(owner) info",
    "m + on() group_left() vector(1)",
    "m * ignoring(b, owner) group_left(owner) info",
    "m and n",
    "m and on(a) n",
    "m and ignoring(b, c) n",
    "m or n",
    "n or m",
    "m or on(a) n",
    "m or nothing",
    "nothing or m",
    "m unless n",
    "m unless on(b) n",
    "m and m > 30 or n unless n < 40",
    "m > 30 and on(a) n < 80 or vector(0)",
    "0x1F + .5 + 1e3 + 1.5E-1 + 0.",
    "Inf - inf",
    "nan",
    "\"text\"",
    "'it''s'",
    "m{a='1'} # a comment\n + 1",
    "rate(m[5m:])",
    "x{__name__=\"m\"}",
    "sum(m",
    "m[5m] offset 1m",
    "sum(m[5m])",
    "rate({__name__=~\"c_total|young_total\"}[2m])",
    "abs({__name__=~\"m|n\"})",
    "{__name__=~\"m|n\"} + 1",
    "m{b=\"x\"} + ignoring(a) m{b=\"x\"}",
];

/// Expressions that promtool's Prometheus reads and ours refuses by name.
const REFUSED: &[&str] = &["rate(m[5m:])"];

/// An expression of a scalar or a vector, at random.
fn random(random: &mut Random, depth: u32) -> String {
    let selector = |random: &mut Random| {
        let metric = random.of(&[
            "m",
            "n",
            "c_total",
            "gappy",
            "ended",
            "young_total",
            "special",
            "constant",
        ]);
        let condition = random.of(&["", "", "{a=\"1\"}", "{a=~\"1|3\"}", "{b!=\"x\"}", "{b!~\"y.*\"}"]);
        format!("{metric}{condition}")
    };
    let offset = |random: &mut Random| random.of(&["", "", "", " offset 1m", " offset 200s"]);
    if depth == 0 {
        return match random.below(4) {
            0 => random.of(&["0", "1", "2.5", "50", "-3"]).to_owned(),
            _ => selector(random) + offset(random),
        };
    }
    match random.below(10) {
        0..=2 => {
            let over = random.of(&[
                "rate",
                "increase",
                "delta",
                "irate",
                "idelta",
                "deriv",
                "avg_over_time",
                "sum_over_time",
                "min_over_time",
                "max_over_time",
                "count_over_time",
                "stddev_over_time",
                "last_over_time",
                "changes",
                "resets",
                "present_over_time",
                "absent_over_time",
            ]);
            let range = random.of(&["30s", "1m", "2m10s", "5m", "1h"]);
            format!("{over}({}[{range}]{})", selector(random), offset(random))
        }
        3..=4 => {
            let how = random.of(&[
                "sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk",
                "quantile",
            ]);
            let group = random.of(&[
                "",
                " by (a)",
                " by (b)",
                " without (a)",
                " without (b)",
                " by (a, b)",
            ]);
            let parameter = match how {
                "topk" | "bottomk" => "2, ",
                "quantile" => "0.7, ",
                _ => "",
            };
            format!("{how}{group} ({parameter}{})", random_vector(random, depth - 1))
        }
        5 => {
            let of = random.of(&[
                "abs",
                "ceil",
                "floor",
                "sgn",
                "round",
                "absent",
                "-",
                "timestamp",
                "vector(1) or ",
            ]);
            format!("{of}({})", random_vector(random, depth - 1))
        }
        _ => {
            let operator = random.of(&[
                "+", "-", "*", "/", "%", ">", "<", ">=", "== bool", "!=", "> bool", "and", "or", "unless",
            ]);
            let matching = random.of(&[
                "",
                "",
                "on(a)",
                "on(a, b)",
                "ignoring(b)",
                "on(b)",
                "on(a) group_left()",
            ]);
            let (left, right) = (random_of(random, depth - 1), random_of(random, depth - 1));
            format!("({left}) {operator} {matching} ({right})")
        }
    }
}

fn random_of(source: &mut Random, depth: u32) -> String {
    random(source, depth)
}

fn random_vector(source: &mut Random, depth: u32) -> String {
    loop {
        let text = random(source, depth);
        // Most of what is no vector: promtool would only say so.
        if parse(&text).is_ok_and(|expr| expr.gives() == rules::promql::Type::Vector) {
            return text;
        }
    }
}

type Answer = Result<BTreeMap<String, f64>, String>;

fn ours(world: &World, text: &str, now: i64) -> Answer {
    let expr = parse(text).map_err(|err| err.shown(text))?;
    match evaluate(&expr, world, now).map_err(|err| err.to_string())? {
        Value::Scalar(value) => Ok([(support::shown(&Labels::default()), value)].into()),
        Value::Text(_) => Err("a text".to_owned()),
        Value::Vector(_) if expr.gives() == rules::promql::Type::Range => Err("a range".to_owned()),
        Value::Vector(elements) => Ok(elements
            .iter()
            .map(|element| (support::shown(&element.labels), element.value))
            .collect()),
    }
}

fn same(ours: f64, theirs: f64) -> bool {
    let close = (ours - theirs).abs() <= 1e-9 * ours.abs().max(theirs.abs());
    ours == theirs || (ours.is_nan() && theirs.is_nan()) || close
}

#[test]
fn promtool_finds_the_same() {
    let world = World::new();
    let mut source = Random::new(7);
    let mut asked: Vec<(String, i64)> = Vec::new();
    for text in CORPUS {
        asked.extend([607, 3607].map(|seconds| ((*text).to_owned(), seconds)));
    }
    for number in 0..1500_u32 {
        let text = random(&mut source, 1 + number % 3);
        // Of values that are infinite, Prometheus 2 finds one a deviation of 0, Prometheus 3 none.
        let deviation = text.contains("std") && text.contains("special");
        // Which of equal values are the top ones, Prometheus leaves open.
        let ties = text.contains("topk") || text.contains("bottomk");
        if deviation || (ties && text.contains("constant")) {
            continue;
        }
        asked.push((text, [67, 607, 1207][number as usize % 3]));
    }
    // Promtool holds samples up to the last moment that is asked for.
    asked.push(("time()".to_owned(), 3661));
    asked.sort();
    asked.dedup();
    let theirs = promtool(&world, &asked);
    let (mut wrong, mut answered, mut refused) = (String::new(), 0, 0);
    for ((text, seconds), theirs) in asked.iter().zip(theirs) {
        if REFUSED.contains(&text.as_str()) {
            assert!(parse(text).is_err(), "{text}");
            continue;
        }
        let ours = ours(&world, text, seconds * 1000);
        let agree = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                answered += usize::from(!ours.is_empty());
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .all(|(labels, value)| theirs.get(labels).is_some_and(|other| same(*value, *other)))
            }
            (Err(_), Err(_)) => {
                refused += 1;
                true
            }
            _ => false,
        };
        if !agree {
            writeln!(
                wrong,
                "{text} at {seconds}\n  ours:   {ours:?}\n  theirs: {theirs:?}"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // The corpus says something.
    assert!(
        answered > 800 && refused > 50,
        "{answered} answered, {refused} refused"
    );
}
