//! Loki's push API, in JSON. A line that comes twice is the same (stream, nanosecond, line): Loki keeps it once.

use super::otlp::{Line, lines};
use super::{Item, Request, Unfit};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn encode(items: &[Item]) -> Result<Option<Request>, Unfit> {
    let mut streams: BTreeMap<BTreeMap<String, String>, Vec<(u64, String)>> = BTreeMap::new();
    for item in items {
        for line in lines(item)? {
            let labels = labels(item, &line);
            streams.entry(labels).or_default().push((line.time, line.body));
        }
    }
    if streams.is_empty() {
        return Ok(None);
    }
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|(labels, mut values)| {
            // Oldest first; Loki takes late lines, and likes order.
            values.sort_by_key(|(time, _)| *time);
            let values: Vec<Value> = values
                .into_iter()
                .map(|(time, body)| json!([time.to_string(), body]))
                .collect();
            json!({ "stream": labels, "values": values })
        })
        .collect();
    Ok(Some(Request {
        path: "/loki/api/v1/push",
        headers: &[("content-type", "application/json")],
        body: json!({ "streams": streams }).to_string().into_bytes(),
    }))
}

/// Few, and with few values each: every combination is a stream of Loki's.
fn labels(item: &Item, line: &Line) -> BTreeMap<String, String> {
    let mut labels = (*item.place).clone();
    for (label, attribute) in [
        ("namespace", "k8s.namespace.name"),
        ("pod", "k8s.pod.name"),
        ("container", "k8s.container.name"),
        ("service_name", "service.name"),
    ] {
        if let Some(value) = line.attributes.get(attribute).filter(|value| !value.is_empty()) {
            labels.insert(label.into(), value.clone());
        }
    }
    if !line.severity.is_empty() {
        labels.insert("level".into(), line.severity.clone());
    }
    labels
}
