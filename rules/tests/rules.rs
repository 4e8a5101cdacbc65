//! Groups of rules over time, here and in the real promtool: which alerts are pending and firing, what they say, what is
//! recorded.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use rules::{Group, Labels, Memory, Sample, State, Store, Value, evaluate, promql::parse};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use support::{World, elements, run, shown};

/// Seconds between two evaluations: no multiple of that between samples, and ranges of odd lengths, as promtool counts a
/// sample at the very start of a range.
const EVERY: i64 = 20;
const UPTO: i64 = 1800;

/// Groups do not look at one another's series: promtool evaluates them in any order.
fn groups() -> Json {
    json!([
        {"name": "alerts", "rules": [
            {"alert": "AtOnce", "expr": "m > 80", "labels": {"severity": "page"},
             "annotations": {"summary": "{{ $labels.a }}/{{ .Labels.b }} is at {{ $value }}{{/* nothing */}}"}},
            {"alert": "After", "expr": "m{b=\"x\"} > 30", "for": "40s", "labels": {"b": "other", "of": "{{ $labels.a | toUpper }}-{{ $labels.none }}"}},
            {"alert": "Kept", "expr": "m > 90", "for": "20s", "keep_firing_for": "1m"},
            {"alert": "KeptAtOnce", "expr": "m > 95", "keep_firing_for": "50s"},
            {"alert": "Total", "expr": "sum(m) > 150", "for": "1m"},
            {"alert": "Gone", "expr": "absent(gone{a=\"\"})", "for": "30s"},
            {"alert": "Scalar", "expr": "vector(time() > bool 600) == 1"},
            {"alert": "Never", "expr": "nothing > 0", "for": "10s"},
        ]},
        {"name": "recorded", "rules": [
            {"record": "m:rate", "expr": "rate(c_total{a=\"1\"}[53s])", "labels": {"from": "{{ kept }}", "a": ""}},
            {"record": "c:rate", "expr": "rate(c_total[53s])", "labels": {"from": "rule"}},
            {"record": "c:sum", "expr": "sum(c:rate)"},
            {"record": "high", "expr": "m > 60"},
            {"record": "one", "expr": "1"},
            {"alert": "Fast", "expr": "c:rate > 5", "for": "1m"},
            {"alert": "Firing", "expr": "count(ALERTS{alertstate=\"firing\",alertname=\"Fast\"}) > 0"},
        ]},
        {"name": "limited", "limit": 4, "rules": [
            {"alert": "Limited", "expr": "m > 50", "for": "20s"},
            {"record": "limited", "expr": "m > 50"},
        ]},
        {"name": "texts", "rules": [
            {"alert": "Texts", "expr": "m * 1e7 or c_total / 1e9 or special or constant or -huge", "annotations": {
                "plain": "{{ $value }}", "humanize": "{{ humanize $value }}", "humanize1024": "{{- $value | humanize1024 -}}  x",
                "duration": "{{ humanizeDuration $value }}", "percentage": "a {{- $value | humanizePercentage }}",
                "timestamp": "{{ if_not }}", "f": "{{ printf \"%.2f\" $value }}", "g": "{{ $value | printf \"a%gb%%\" }}",
                "g3": "{{ printf \"%.3g\" $value }}", "e": "{{ $value | printf `%e|%%` }}", "s": "{{ $labels.a | printf \"<%s>\" }}",
                "lower": "{{ toLower \"A\\\"B\" }}",
            }},
        ]},
    ])
}

/// The same, without what only shows how faults are told.
fn without_faults() -> Json {
    let mut groups = groups();
    groups[3]["rules"][0]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("timestamp");
    groups[3]["rules"][0]["annotations"]["timestamp"] = json!("{{ printf \"%s\" \"x\" }}");
    // Prometheus fills nothing in where it records: the text stays.
    groups
}

/// Alerts that fire, as promtool tells them; and every series that rules gave.
struct Seen {
    alerts: BTreeMap<(i64, String), BTreeSet<(String, String)>>,
    series: BTreeMap<i64, BTreeMap<String, f64>>,
}

const GIVEN: &str = "{__name__=~\"ALERTS|m:rate|c:rate|c:sum|high|one|limited\"}";

fn ours(world: &World, groups: &[Group]) -> Seen {
    let mut store = Store::new(64 << 20);
    let given = parse(GIVEN).unwrap();
    let exprs = groups
        .iter()
        .flat_map(|group| &group.rules)
        .map(|rule| &rule.expr);
    store.follow(exprs.chain([&given]), -10_000_000);
    let mut memories: Vec<Vec<Memory>> = groups
        .iter()
        .map(|group| vec![Memory::default(); group.rules.len()])
        .collect();
    let mut timeline = world.timeline().into_iter().peekable();
    let mut seen = Seen {
        alerts: BTreeMap::new(),
        series: BTreeMap::new(),
    };
    for second in (0..=UPTO).step_by(EVERY as usize) {
        let now = second * 1000;
        while let Some((_, samples)) = timeline.next_if(|(time, _)| *time <= now) {
            for (labels, sample) in samples {
                store.put(labels, sample);
            }
        }
        for (group, memories) in groups.iter().zip(&mut memories) {
            group.evaluate(memories, &mut store, now, 0);
            // As an agent that is started anew finds them.
            let kept = serde_json::to_string(memories).unwrap();
            let read: Vec<Memory> = serde_json::from_str(&kept).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), kept);
        }
        for alert in memories.iter().flatten().flat_map(|memory| &memory.alerts) {
            if alert.state == State::Firing {
                let annotations = alert.annotations.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                let name = alert.labels.get("alertname").unwrap().to_owned();
                let told = (shown(&alert.labels), shown(&Labels::new(annotations)));
                seen.alerts.entry((second, name)).or_default().insert(told);
            }
        }
        let Value::Vector(elements) = evaluate(&given, &store, now).unwrap() else {
            unreachable!()
        };
        let series = elements
            .iter()
            .map(|element| (shown(&element.labels), element.value));
        seen.series.insert(second, series.collect());
    }
    seen
}

fn theirs(world: &World, groups: &Json, names: &[String]) -> Seen {
    let mut file = format!(
        "rule_files: [rules.yml]\nevaluation_interval: {EVERY}s\ntests:\n- interval: 15s\n  input_series:\n{}",
        world.input_series()
    );
    file.push_str("  alert_rule_test:\n");
    for second in (0..=UPTO).step_by(EVERY as usize) {
        for name in names {
            writeln!(file, "  - {{alertname: {name}, eval_time: {second}s}}").unwrap();
        }
    }
    file.push_str("  promql_expr_test:\n");
    for second in (0..=UPTO).step_by(EVERY as usize) {
        writeln!(file, "  - {{expr: '{GIVEN}', eval_time: {second}s}}").unwrap();
    }
    let said = run(&file, &[("rules.yml", &json!({"groups": groups}).to_string())]);
    let mut seen = Seen {
        alerts: BTreeMap::new(),
        series: (0..=UPTO)
            .step_by(EVERY as usize)
            .map(|second| (second, BTreeMap::new()))
            .collect(),
    };
    let (mut at, mut labels) = ((0, String::new()), String::new());
    for line in said.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("alertname: ") {
            let (name, time) = rest.split_once(", time: ").unwrap();
            at = (seconds(time), name.to_owned());
        } else if let Some(rest) = line.strip_prefix("expr: ") {
            at.0 = seconds(rest.rsplit_once("time: ").unwrap().1);
        } else if let Some(found) = line.strip_prefix("Labels:") {
            labels = found.to_owned();
        } else if let Some(found) = line.strip_prefix("Annotations:") {
            let annotations = found
                .strip_suffix("},")
                .map_or(found.to_owned(), |found| format!("{found}}}"));
            seen.alerts
                .entry(at.clone())
                .or_default()
                .insert((labels.clone(), annotations));
        } else if let Some(got) = line.strip_prefix("got: ") {
            seen.series.insert(at.0, elements(got));
        }
    }
    assert!(
        !seen.alerts.is_empty(),
        "promtool said nothing that can be read: {said}"
    );
    seen
}

/// `1m20s`
fn seconds(text: &str) -> i64 {
    rules::promql::duration(text.trim_end_matches([',', ' '])).unwrap_or(0) / 1000
}

#[test]
fn promtool_finds_the_same_alerts_and_series() {
    let world = World::new();
    let groups = without_faults();
    let (ours_read, faults) = rules::read(&json!({"spec": {"groups": groups}}));
    assert_eq!(faults, Vec::new());
    let names: Vec<String> = ours_read
        .iter()
        .flat_map(|group| &group.rules)
        .filter(|rule| matches!(rule.action, rules::Action::Alert { .. }))
        .map(|rule| rule.name.clone())
        .collect();
    let (ours, theirs) = (ours(&world, &ours_read), theirs(&world, &groups, &names));
    let mut wrong = String::new();
    for at in ours
        .alerts
        .keys()
        .chain(theirs.alerts.keys())
        .collect::<BTreeSet<_>>()
    {
        let (ours, theirs) = (ours.alerts.get(at), theirs.alerts.get(at));
        if ours != theirs {
            writeln!(wrong, "{at:?}\n  ours:   {ours:?}\n  theirs: {theirs:?}").unwrap();
        }
    }
    for (at, ours) in &ours.series {
        let theirs = &theirs.series[at];
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * a.abs();
        if !ours.keys().eq(theirs.keys()) || !ours.values().zip(theirs.values()).all(same) {
            writeln!(wrong, "at {at}\n  ours:   {ours:?}\n  theirs: {theirs:?}").unwrap();
        }
    }
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.chars().take(6000).collect::<String>()
    );
    for name in names.iter().filter(|name| *name != "Never") {
        assert!(
            ours.alerts.keys().any(|(_, held)| held == name),
            "{name} never fired"
        );
    }
}

#[test]
fn what_is_not_evaluated_is_told_with_its_path_and_the_rest_is_there() {
    let (read, faults) = rules::read(&json!({"spec": {"groups": groups()}}));
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("spec.groups[3].rules[0].annotations.timestamp: {{ if_not }} is not filled in"),
        "{told:?}"
    );
    assert_eq!(read.iter().map(|group| group.rules.len()).sum::<usize>(), 17);
}

/// promtool ends at the first rule that exceeds its limit.
#[test]
fn more_alerts_than_the_limit_are_none() {
    let (groups, faults) = rules::read(&json!({"spec": {"groups": [{"name": "g", "limit": 1, "rules": [
        {"alert": "Up", "expr": "m > 0"}, {"record": "r", "expr": "m"}]}]}}));
    assert_eq!(faults, Vec::new());
    let mut store = Store::new(1 << 20);
    store.follow(groups[0].rules.iter().map(|rule| &rule.expr), 0);
    let mut memories = vec![Memory::default(); 2];
    let put = |store: &mut Store, a: &str, time| {
        store.put(
            &Labels::new([(rules::NAME, "m"), ("a", a)]),
            Sample { time, value: 1.0 },
        );
    };
    put(&mut store, "1", 1000);
    let given = groups[0].evaluate(&mut memories, &mut store, 1000, 0);
    assert_eq!((given.errors, given.samples.len()), (vec![None, None], 2));
    put(&mut store, "2", 2000);
    let given = groups[0].evaluate(&mut memories, &mut store, 2000, 0);
    let told: Vec<String> = given.errors.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(
        told,
        vec!["2 alerts or series, more than the group's limit of 1"; 2]
    );
    assert!(memories[0].alerts.is_empty());
    assert_eq!(
        given.changes.last().map(|(change, _)| *change),
        Some(rules::Change::Resolved)
    );
}

#[test]
fn a_store_holds_what_is_needed_and_says_what_finds_no_room() {
    let wanted = [
        parse("rate(a_total[10m]) > 0").unwrap(),
        parse("b{x=\"1\"}").unwrap(),
    ];
    let mut store = Store::new(20_000);
    store.follow(wanted.iter(), 0);
    let labels = |name: &str, x: &str| Labels::new([(rules::NAME, name), ("x", x)]);
    for second in (0..7200).step_by(15) {
        let time = second * 1000;
        for (name, x) in [("a_total", "1"), ("b", "1"), ("b", "2"), ("c", "1")] {
            store.put(&labels(name, x), Sample { time, value: 1.0 });
        }
    }
    store.trim(7_200_000);
    assert_eq!(store.len(), 2, "{store:?}");
    assert!(store.bytes() < 3000, "{}", store.bytes());
    assert!(wanted.iter().all(|expr| store.ready(expr, 7_200_000, 0).is_ok()));
    // A flood of series of one rule takes nothing from the other.
    for x in 0..1000 {
        store.put(
            &labels("a_total", &x.to_string()),
            Sample {
                time: 7_200_000,
                value: 1.0,
            },
        );
    }
    assert!(store.bytes() <= 20_000);
    let err = store.ready(&wanted[0], 7_201_000, 0).unwrap_err().to_string();
    assert_eq!(
        err,
        "samples of a_total need more than the 20000 bytes that rules have (alerts.memory)"
    );
    store.put(
        &labels("b", "1"),
        Sample {
            time: 7_201_000,
            value: 2.0,
        },
    );
    assert_eq!(store.ready(&wanted[1], 7_201_000, 0), Ok(()));
    let Value::Vector(held) = evaluate(&wanted[1], &store, 7_201_000).unwrap() else {
        unreachable!()
    };
    assert_eq!(held[0].value, 2.0);
    // Once the flood is over and forgotten, the rule is evaluated again.
    store.trim(9_000_000);
    assert_eq!(store.ready(&wanted[0], 9_000_000, 0), Ok(()));
    assert!(store.is_empty(), "{store:?}");
}

#[test]
fn a_rule_waits_until_its_samples_are_gathered() {
    let wanted = [
        parse("rate(a[3m])").unwrap(),
        parse("absent(b)").unwrap(),
        parse("avg_over_time(c[1d])").unwrap(),
    ];
    let mut store = Store::new(1 << 20);
    store.follow(wanted.iter(), 0);
    let ready = |store: &Store, seconds: i64| {
        wanted
            .each_ref()
            .map(|expr| store.ready(expr, seconds * 1000, 30_000).is_ok())
    };
    assert_eq!(ready(&store, 29), [false, false, false]);
    assert_eq!(ready(&store, 30), [false, true, false]);
    assert_eq!(ready(&store, 180), [true, true, false]);
    assert_eq!(ready(&store, 300), [true, true, true]);
    let err = store.ready(&wanted[0], 100_000, 30_000).unwrap_err().to_string();
    assert_eq!(err, "samples of a are gathered for 80 s more");
    // A selector that was there before goes on; a new one begins.
    let new = [parse("a > 1").unwrap(), parse("d").unwrap()];
    store.follow(new.iter(), 400_000);
    assert_eq!(store.ready(&new[0], 400_000, 30_000), Ok(()));
    assert!(store.ready(&new[1], 400_000, 30_000).is_err());
}
