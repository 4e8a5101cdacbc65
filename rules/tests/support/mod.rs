//! Series for both sides, and the way to promtool.
#![expect(dead_code, reason = "each test uses a part of it")]

use rules::promql::Selector;
use rules::{Labels, NAME, Sample, Source};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// Seconds between two samples.
const STEP: i64 = 15;

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }

    pub fn of(&mut self, list: &[&'static str]) -> &'static str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// A place in a series: a value, none, or the end.
#[derive(Clone, Copy)]
pub enum Place {
    Value(f64),
    Nothing,
    End,
}

/// Series as both sides are given them.
pub struct World {
    series: Vec<(Labels, Vec<Place>, Vec<Sample>)>,
}

impl World {
    pub fn new() -> Self {
        use Place::{End, Nothing, Value};
        let mut world = Self { series: Vec::new() };
        let mut random = Random::new(3);
        let whole = |random: &mut Random| Value(random.below(100) as f64);
        for (a, b) in [("1", "x"), ("1", "y"), ("2", "x"), ("3", "yz")] {
            let places = (0..245).map(|_| whole(&mut random)).collect();
            world.add(&[(NAME, "m"), ("a", a), ("b", b)], places);
        }
        for (a, b, c) in [("1", "x", ""), ("2", "x", ""), ("2", "y", "z"), ("4", "x", "z")] {
            let places = (0..245).map(|_| whole(&mut random)).collect();
            world.add(&[(NAME, "n"), ("a", a), ("b", b), ("c", c)], places);
        }
        for (a, owner) in [("1", "ann"), ("2", "bob"), ("9", "eve")] {
            let places = vec![Value(1.0); 245];
            world.add(&[(NAME, "info"), ("a", a), ("owner", owner)], places);
        }
        // Counters that start over at times, and one that began late. Where a counter begins low, but not at zero,
        // Prometheus 2 and 3 carry it on to the range's start in different ways.
        for a in ["1", "2"] {
            let mut held = 500.0;
            let places = (0..245)
                .map(|_| {
                    held = if random.below(15) == 0 {
                        0.0
                    } else {
                        held + random.below(1000) as f64 / 8.0
                    };
                    Value(held)
                })
                .collect();
            world.add(&[(NAME, "c_total"), ("a", a)], places);
        }
        let young = (0..245_i32).map(|n| {
            if n < 30 {
                Nothing
            } else {
                Value(f64::from(n - 30) * 2.5)
            }
        });
        world.add(&[(NAME, "young_total"), ("a", "1")], young.collect());
        let gappy = (0..245_i32).map(|n| match n % 7 {
            2 | 3 => Nothing,
            5 => End,
            _ => Value(f64::from(n)),
        });
        world.add(&[(NAME, "gappy"), ("a", "1")], gappy.collect());
        let ended = (0..245_i32).map(|n| match n % 60 {
            0..=30 => Value(f64::from(n)),
            31 => End,
            _ => Nothing,
        });
        world.add(&[(NAME, "ended"), ("a", "1")], ended.collect());
        let gone = (0..245_i32).map(|n| if n < 18 { Value(1.0) } else { Nothing });
        world.add(&[(NAME, "gone")], gone.collect());
        for (a, shift) in [("1", 0_usize), ("2", 3), ("3", 5)] {
            let odd = [
                1.5,
                f64::NAN,
                -7.0,
                f64::INFINITY,
                0.0,
                f64::NEG_INFINITY,
                3.0,
                3.0,
            ];
            let places = (0..245).map(|n| Value(odd[(n + shift) % odd.len()])).collect();
            world.add(&[(NAME, "special"), ("a", a)], places);
        }
        for (a, value) in [("1", 4.5), ("2", 4.5), ("3", 1e21)] {
            world.add(&[(NAME, "constant"), ("a", a)], vec![Value(value); 245]);
        }
        for a in ["1", "2"] {
            world.add(&[(NAME, "huge"), ("a", a)], vec![Value(1.2e308); 245]);
        }
        let cancel = (0..245).map(|n| Value([1e16, 1.0, -1e16][n % 3]));
        world.add(&[(NAME, "cancel")], cancel.collect());
        for (job, most) in [("p", 40_u64), ("q", 7)] {
            let mut held = [0.0; 5];
            let mut rows: [Vec<Place>; 5] = Default::default();
            for _ in 0..245 {
                let mut below = 0.0;
                for (bucket, row) in held.iter_mut().zip(&mut rows) {
                    below += random.below(most) as f64;
                    *bucket += below;
                    row.push(Value(*bucket));
                }
            }
            for (le, row) in ["0.1", "0.5", "1", "5", "+Inf"].iter().zip(rows) {
                world.add(&[(NAME, "h_bucket"), ("job", job), ("le", le)], row);
            }
        }
        world.series.sort_by(|a, b| a.0.cmp(&b.0));
        world
    }

    pub fn add(&mut self, labels: &[(&str, &str)], places: Vec<Place>) {
        let samples = (0_i64..).zip(&places).filter_map(|(at, place)| {
            let time = at * STEP * 1000;
            match place {
                Place::Value(value) => Some(Sample { time, value: *value }),
                Place::End => Some(Sample::end(time)),
                Place::Nothing => None,
            }
        });
        let samples = samples.collect();
        self.series
            .push((Labels::new(labels.iter().copied()), places, samples));
    }

    /// In promtool's words.
    pub fn input_series(&self) -> String {
        let mut text = String::new();
        for (labels, places, _) in &self.series {
            let mut values = String::new();
            for place in places {
                match place {
                    Place::Value(value) if value.is_nan() => values.push_str("NaN "),
                    Place::Value(value) if value.is_infinite() => {
                        values.push_str(if *value > 0.0 { "Inf " } else { "-Inf " });
                    }
                    Place::Value(value) => write!(values, "{value:e} ").unwrap(),
                    Place::Nothing => values.push_str("_ "),
                    Place::End => values.push_str("stale "),
                }
            }
            writeln!(
                text,
                "  - series: {}\n    values: '{values}'",
                quoted(&labels.to_string())
            )
            .unwrap();
        }
        text
    }

    /// All samples, by time.
    pub fn timeline(&self) -> BTreeMap<i64, Vec<(&Labels, Sample)>> {
        let mut timeline: BTreeMap<i64, Vec<(&Labels, Sample)>> = BTreeMap::new();
        for (labels, _, samples) in &self.series {
            for sample in samples {
                timeline.entry(sample.time).or_default().push((labels, *sample));
            }
        }
        timeline
    }
}

impl Source for World {
    fn select(&self, selector: &Selector, visit: &mut dyn FnMut(&Labels, &[Sample])) {
        for (labels, _, samples) in &self.series {
            if selector.matches(labels) {
                visit(labels, samples);
            }
        }
    }
}

/// As a YAML scalar.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Labels as promtool prints them.
pub fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// What promtool says of each expression at its second.
pub fn promtool(world: &World, asked: &[(String, i64)]) -> Vec<Result<BTreeMap<String, f64>, String>> {
    let mut file = format!(
        "evaluation_interval: {STEP}s\ntests:\n- interval: {STEP}s\n  input_series:\n{}  promql_expr_test:\n",
        world.input_series()
    );
    for (text, seconds) in asked {
        writeln!(file, "  - {{expr: {}, eval_time: {seconds}s}}", quoted(text)).unwrap();
    }
    let said = run(&file, &[]);
    // Only what is not empty is told: nothing is what the file expects.
    let mut answers: BTreeMap<String, Result<BTreeMap<String, f64>, String>> = BTreeMap::new();
    let mut last = String::new();
    for line in said.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("expr: ") {
            let (key, why) = rest
                .split_once(", err: ")
                .map_or((rest, None), |(key, why)| (key, Some(why)));
            last = key.trim_end_matches(',').to_owned();
            if let Some(why) = why {
                answers.insert(last.clone(), Err(why.to_owned()));
            }
        } else if let Some(got) = line.trim_start().strip_prefix("got: ") {
            answers.insert(last.clone(), Ok(elements(got)));
        }
    }
    assert!(
        !answers.is_empty(),
        "promtool said nothing that can be read: {said}"
    );
    let key = |text: &str, seconds: i64| {
        let (minutes, rest) = (seconds / 60, seconds % 60);
        let time = if minutes >= 60 {
            format!("{}h{}m{rest}s", minutes / 60, minutes % 60)
        } else {
            format!("{minutes}m{rest}s")
        };
        // Prometheus' durations leave out what is zero.
        let time = time.replace("h0m", "h");
        format!("{}, time: {time}", quoted(text))
    };
    asked
        .iter()
        .map(|(text, seconds)| {
            answers
                .get(&key(text, *seconds))
                .cloned()
                .unwrap_or(Ok(BTreeMap::new()))
        })
        .collect()
}

/// `{a="1"} 2E+00, {a="2"} NaN`
pub fn elements(text: &str) -> BTreeMap<String, f64> {
    text.split(", {")
        .map(|one| {
            let (labels, value) = one.rsplit_once(' ').unwrap();
            let labels = labels.trim_start_matches('{');
            (format!("{{{labels}"), value.parse().unwrap())
        })
        .collect()
}

/// Runs promtool's tests; what it says.
pub fn run(file: &str, beside: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in beside {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("test.yml");
    std::fs::write(&path, file).unwrap();
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(&path)
        .current_dir(dir.path())
        .output()
        .expect("promtool is of Debian's package prometheus: cargo xtask test installs it");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.into_owned()
}
