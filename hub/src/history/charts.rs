//! What the dashboard's charts show: samples of the usual exporters' metrics, a point for each step.

use crate::Hub;
use crate::dashboard::charts::{Chart, Charts, Line, Unit, Window};
use jiff::Timestamp;
use model::DeviceName;
use serde_json::Value;
use std::collections::BTreeMap;

/// Lines of one chart.
const LINES: usize = 5;
const ROWS: usize = 100_000;

/// One series: metric, the labels that matter, device; and its last value in each step.
type Series = BTreeMap<(String, String, String), BTreeMap<i64, f64>>;

pub(crate) async fn charts(hub: &Hub, device: Option<&DeviceName>, window: Window, now: Timestamp) -> Charts {
    let found = match device {
        Some(device) => of_device(hub, device, window, now).await,
        None => of_fleet(hub, window, now).await,
    };
    found.map_err(|refusal| refusal.problem.message)
}

/// Lines of a chart in the making, by name; a value for each step that was measured.
type Lines = Vec<(String, BTreeMap<i64, f64>)>;

type Found<T> = Result<T, crate::problem::Refusal>;

async fn of_device(hub: &Hub, device: &DeviceName, window: Window, now: Timestamp) -> Found<Vec<Chart>> {
    // A device's name holds no quote.
    let of = format!("device = '{device}'");
    let names = [
        "node_cpu_seconds_total",
        "node_memory_MemAvailable_bytes",
        "node_memory_MemTotal_bytes",
        "node_thermal_zone_temp",
        "node_hwmon_temp_celsius",
        "node_filesystem_avail_bytes",
        "node_filesystem_size_bytes",
        "node_network_receive_bytes_total",
        "node_network_transmit_bytes_total",
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
    ];
    let series = read(hub, &of, &names, window, now).await?;
    let step = window.step().as_secs();
    let all = [
        (Unit::Percent, "CPU", busy(&series, step)),
        (
            Unit::Percent,
            "Memory",
            used(
                &series,
                "node_memory_MemAvailable_bytes",
                "node_memory_MemTotal_bytes",
                "used",
            ),
        ),
        (Unit::Celsius, "Temperature", temperatures(&series)),
        (
            Unit::Percent,
            "Disk",
            used(
                &series,
                "node_filesystem_avail_bytes",
                "node_filesystem_size_bytes",
                "",
            ),
        ),
        (Unit::BytesPerSecond, "Network", network(&series, step)),
        (
            Unit::Cores,
            "CPU of workloads",
            by_workload(&series, "container_cpu_usage_seconds_total", Some(step)),
        ),
        (
            Unit::Bytes,
            "Memory of workloads",
            by_workload(&series, "container_memory_working_set_bytes", None),
        ),
    ];
    Ok(drawn(all))
}

async fn of_fleet(hub: &Hub, window: Window, now: Timestamp) -> Found<Vec<Chart>> {
    let names = ["node_thermal_zone_temp", "node_hwmon_temp_celsius"];
    let hottest = read(hub, "true", &names, window, now).await?;
    let mut by_device: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for ((_, _, device), points) in &hottest {
        let held = by_device.entry(device.clone()).or_default();
        for (second, value) in points {
            let most = held.entry(*second).or_insert(f64::NEG_INFINITY);
            *most = most.max(*value);
        }
    }
    let measured = measured(hub, window, now).await?;
    Ok(drawn([
        (Unit::Count, "Devices that measured", measured),
        (Unit::Celsius, "Hottest devices", by_device.into_iter().collect()),
    ]))
}

/// The few lines that reach highest, the highest first.
fn drawn(all: impl IntoIterator<Item = (Unit, &'static str, Lines)>) -> Vec<Chart> {
    let chart = |(unit, title, mut lines): (Unit, &'static str, Lines)| {
        let most = |points: &BTreeMap<i64, f64>| points.values().copied().fold(f64::NEG_INFINITY, f64::max);
        lines.retain(|(_, points)| !points.is_empty());
        lines.sort_by(|(_, one), (_, other)| most(other).total_cmp(&most(one)));
        lines.truncate(LINES);
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|(name, points)| Line {
                name,
                points: points.into_iter().collect(),
            })
            .collect();
        (!lines.is_empty()).then_some(Chart { title, unit, lines })
    };
    all.into_iter().filter_map(chart).collect()
}

fn since(window: Window, now: Timestamp) -> Timestamp {
    // One step more: a rate needs the value before its first.
    now.saturating_sub(window.length() + window.step())
        .unwrap_or_default()
}

async fn read(hub: &Hub, of: &str, names: &[&str], window: Window, now: Timestamp) -> Found<Series> {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let sql = format!(
        "SELECT name, concat_ws('|', labels['cpu'], labels['mode'], labels['zone'], labels['type'], labels['chip'],
             labels['sensor'], labels['mountpoint'], labels['device'], labels['namespace'], labels['pod'],
             labels['container']) AS key, device, to_unixtime(date_bin(interval '{step} seconds', time)) AS bucket,
           last_value(value ORDER BY time) AS value
         FROM metrics WHERE {of} AND name IN ({names}) AND time >= '{since}' AND time <= '{now}'
         GROUP BY name, key, device, bucket ORDER BY bucket",
        step = window.step().as_secs(),
        names = names.join(", "),
        since = since(window, now),
    );
    let answer = hub.query(&sql, ROWS).await?;
    let mut series = Series::new();
    for row in answer.rows {
        if let [
            Value::String(name),
            Value::String(key),
            Value::String(device),
            at,
            value,
        ] = &row[..]
            && let (Some(at), Some(value)) = (at.as_i64(), value.as_f64())
        {
            let key = (name.clone(), key.clone(), device.clone());
            series.entry(key).or_default().insert(at, value);
        }
    }
    Ok(series)
}

async fn measured(hub: &Hub, window: Window, now: Timestamp) -> Found<Lines> {
    let sql = format!(
        "SELECT to_unixtime(date_bin(interval '{step} seconds', time)) AS bucket, count(DISTINCT device) AS devices
         FROM metrics WHERE time >= '{since}' AND time <= '{now}' GROUP BY bucket ORDER BY bucket",
        step = window.step().as_secs(),
        since = since(window, now),
    );
    let answer = hub.query(&sql, ROWS).await?;
    let point = |row: &Vec<Value>| Some((row.first()?.as_i64()?, row.get(1)?.as_f64()?));
    Ok(vec![(
        "devices".to_owned(),
        answer.rows.iter().filter_map(point).collect(),
    )])
}

fn of<'a>(series: &'a Series, name: &str) -> impl Iterator<Item = (&'a str, &'a BTreeMap<i64, f64>)> {
    let name = name.to_owned();
    series
        .iter()
        .filter(move |((held, _, _), _)| *held == name)
        .map(|((_, key, _), points)| (key.as_str(), points))
}

/// By how much a counter rose in each step; none where the step before is missing or the counter began anew.
fn rises(points: &BTreeMap<i64, f64>, step: i64) -> impl Iterator<Item = (i64, f64)> {
    points
        .iter()
        .zip(points.iter().skip(1))
        .filter(move |((before, low), (at, high))| **at - **before == step && high >= low)
        .map(|((_, low), (at, high))| (*at, high - low))
}

/// Of all cores.
fn busy(series: &Series, step: i64) -> Lines {
    let mut sums: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for (key, points) in of(series, "node_cpu_seconds_total") {
        let idle = key.split('|').any(|label| label == "idle" || label == "iowait");
        for (at, rise) in rises(points, step) {
            let (resting, all) = sums.entry(at).or_default();
            *all += rise;
            *resting += if idle { rise } else { 0.0 };
        }
    }
    let share =
        |(at, (resting, all)): (i64, (f64, f64))| (all > 0.0).then(|| (at, 100.0 * (1.0 - resting / all)));
    vec![("busy".to_owned(), sums.into_iter().filter_map(share).collect())]
}

fn used(series: &Series, free: &str, all: &str, name: &str) -> Lines {
    let sizes: BTreeMap<&str, &BTreeMap<i64, f64>> = of(series, all).collect();
    of(series, free)
        .filter_map(|(key, free)| {
            let sizes = sizes.get(key)?;
            let share = |(at, free): (&i64, &f64)| {
                let size = sizes.get(at).filter(|size| **size > 0.0)?;
                Some((*at, 100.0 * (1.0 - free / size)))
            };
            let named = if name.is_empty() {
                key.split('|').next().unwrap_or(key)
            } else {
                name
            };
            Some((named.to_owned(), free.iter().filter_map(share).collect()))
        })
        .collect()
}

fn temperatures(series: &Series) -> Lines {
    let zones = of(series, "node_thermal_zone_temp").chain(of(series, "node_hwmon_temp_celsius"));
    zones
        .map(|(key, points)| (key.replace('|', " "), points.clone()))
        .collect()
}

fn network(series: &Series, step: i64) -> Lines {
    let sum = |metric: &str| {
        let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
        for (_, points) in of(series, metric).filter(|(key, _)| *key != "lo") {
            for (at, rise) in rises(points, step) {
                *sums.entry(at).or_default() += rise / step as f64;
            }
        }
        sums
    };
    vec![
        ("received".to_owned(), sum("node_network_receive_bytes_total")),
        ("sent".to_owned(), sum("node_network_transmit_bytes_total")),
    ]
}

/// Containers of a pod together; a counter as its rate.
fn by_workload(series: &Series, metric: &str, rate: Option<i64>) -> Lines {
    let mut pods: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for (key, points) in of(series, metric) {
        let pod = key.splitn(3, '|').take(2).collect::<Vec<_>>().join("/");
        let sums = pods.entry(pod).or_default();
        match rate {
            Some(step) => {
                rises(points, step).for_each(|(at, rise)| *sums.entry(at).or_default() += rise / step as f64)
            }
            None => points
                .iter()
                .for_each(|(at, value)| *sums.entry(*at).or_default() += value),
        }
    }
    pods.into_iter().collect()
}
