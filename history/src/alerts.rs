//! Alerts: the list that Alertmanager's API v2 takes, as rows.

use crate::error::Unreadable;
use crate::otlp::{append, batch, map, times};
use crate::record::{Record, nanos};
use crate::table::Signal;
use datafusion::arrow::array::{RecordBatch, StringBuilder};
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `postableAlert` of Alertmanager's API v2.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    starts_at: Option<Timestamp>,
    #[serde(default)]
    ends_at: Option<Timestamp>,
}

pub(crate) fn alerts(record: &Record) -> Result<RecordBatch, Unreadable> {
    let list: Vec<Alert> = serde_json::from_slice(&record.payload)
        .map_err(|err| Unreadable(format!("it is no list of alerts: {err}")))?;
    let (mut device, mut name, mut state, mut severity) = (
        StringBuilder::new(),
        StringBuilder::new(),
        StringBuilder::new(),
        StringBuilder::new(),
    );
    let (mut time, mut labels, mut annotations) = (times(), map(), map());
    for (index, alert) in list.iter().enumerate() {
        let Some(called) = alert.labels.get("alertname") else {
            return Err(Unreadable(format!("alert {index} has no label alertname")));
        };
        // An end in the future is Alertmanager's time-out for a firing one that is not told again.
        let ended = alert.ends_at.filter(|end| *end <= record.received_at);
        device.append_value(&record.device);
        time.append_value(nanos(ended.or(alert.starts_at).unwrap_or(record.received_at)));
        name.append_value(called);
        state.append_value(if ended.is_some() { "resolved" } else { "firing" });
        severity.append_option(alert.labels.get("severity"));
        append(&mut labels, &alert.labels);
        append(&mut annotations, &alert.annotations);
    }
    batch(
        Signal::Alerts,
        vec![
            Arc::new(device.finish()),
            Arc::new(time.finish()),
            Arc::new(name.finish()),
            Arc::new(state.finish()),
            Arc::new(severity.finish()),
            Arc::new(labels.finish()),
            Arc::new(annotations.finish()),
        ],
    )
}
