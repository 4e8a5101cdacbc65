//! How alerts are told: as records for the hub, and as Alertmanager tells webhooks.

use jiff::Timestamp;
use rules::{ALERTNAME, Alert};
use serde::Serialize;
use std::collections::BTreeMap;

/// An alert that began to fire, or is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub alert: Alert,
    /// Milliseconds since 1970, where it is over.
    pub ended: Option<i64>,
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Told {
    fn began(&self) -> Timestamp {
        time(self.alert.firing_since.unwrap_or(self.alert.active_since))
    }

    fn status(&self) -> &'static str {
        if self.ended.is_some() {
            "resolved"
        } else {
            "firing"
        }
    }
}

/// `postableAlert` of Alertmanager's API v2.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
}

/// A record of the stream `alerts`.
pub(super) fn record(told: &[Told]) -> Vec<u8> {
    let posted: Vec<Posted> = told
        .iter()
        .map(|one| Posted {
            labels: one.alert.labels.to_map(),
            annotations: one.alert.annotations.clone(),
            starts_at: one.began(),
            ends_at: one.ended.map(time),
        })
        .collect();
    // Serialising plain data to memory cannot fail.
    serde_json::to_vec(&posted).unwrap_or_default()
}

/// Alertmanager's data for webhooks, version 4.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: u64,
    status: &'static str,
    receiver: &'a str,
    group_labels: BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: &'static str,
    alerts: Vec<Noticed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Noticed {
    status: &'static str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    /// Go's zero time where it is not over.
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'static str,
    fingerprint: String,
}

/// One body for alerts of one name. `place` are the labels that say where they are from; a label of the alert's own that
/// has such a name becomes `exported_NAME`, as at the hub.
pub(super) fn notice(told: &[&Told], receiver: &str, place: &BTreeMap<String, String>) -> Vec<u8> {
    let alerts: Vec<Noticed> = told.iter().map(|one| noticed(one, place)).collect();
    let name = told
        .first()
        .and_then(|one| one.alert.labels.get(ALERTNAME))
        .unwrap_or_default();
    let firing = told.iter().any(|one| one.ended.is_none());
    let notice = Notice {
        version: "4",
        group_key: format!("{{}}:{{{ALERTNAME}={name:?}}}"),
        truncated_alerts: 0,
        status: if firing { "firing" } else { "resolved" },
        receiver,
        group_labels: [(ALERTNAME.to_owned(), name.to_owned())].into(),
        common_labels: common(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
        external_url: "",
        alerts,
    };
    // Serialising plain data to memory cannot fail.
    serde_json::to_vec(&notice).unwrap_or_default()
}

fn noticed(told: &Told, place: &BTreeMap<String, String>) -> Noticed {
    let mut labels = told.alert.labels.to_map();
    for (name, value) in place {
        if let Some(own) = labels.insert(name.clone(), value.clone()) {
            labels.insert(format!("exported_{name}"), own);
        }
    }
    Noticed {
        status: told.status(),
        fingerprint: fingerprint(&labels),
        labels,
        annotations: told.alert.annotations.clone(),
        starts_at: told.began(),
        ends_at: told.ended.map_or_else(
            || "0001-01-01T00:00:00Z".to_owned(),
            |ended| time(ended).to_string(),
        ),
        generator_url: "",
    }
}

/// What all have and say alike.
fn common<'a>(mut all: impl Iterator<Item = &'a BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut common = all.next().cloned().unwrap_or_default();
    for other in all {
        common.retain(|name, value| other.get(name) == Some(value));
    }
    common
}

/// Prometheus' fingerprint of labels: FNV-1a over names and values, with a byte behind each that no text has.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        text.bytes().for_each(&mut add);
        add(0xff);
    }
    format!("{hash:016x}")
}
