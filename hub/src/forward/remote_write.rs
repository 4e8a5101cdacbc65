//! Prometheus remote write 1.0, with the labels of the place that a record is from.
//!
//! A sample that comes twice is the same (series, millisecond, value): Prometheus with an out-of-order window, Mimir and
//! others keep it once. 400 says that samples are out of order or out of bounds: they will never be taken, and of a
//! request for several records those are found by halving it.

use super::{Item, Request, Unfit};
use telemetry::metrics::remote::{Version, request};
use telemetry::metrics::{Batch, Labels};

/// One request; none where the records hold no samples.
pub(super) fn encode(items: &[Item]) -> Result<Option<Request>, Unfit> {
    let unfit = |err: &dyn std::error::Error| Unfit(err.to_string());
    let mut all = Vec::new();
    for item in items {
        let batch = Batch::decode(&item.record.payload).map_err(|err| unfit(&err))?;
        for mut series in batch.series {
            if !(series.samples.is_empty() && series.histograms.is_empty()) {
                series.labels = labels(&series.labels, item).map_err(|err| unfit(&err))?;
                all.push(series);
            }
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    Ok(Some(Request {
        path: "",
        headers: &[
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ],
        body: request(Version::V1, &all, &[], false),
    }))
}

/// Where the sample itself has a label of ours, ours counts and the other is kept as `exported_NAME`, as Prometheus does.
fn labels(own: &Labels, item: &Item) -> Result<Labels, telemetry::metrics::BadLabels> {
    let own: Vec<(String, &str)> = own
        .iter()
        .map(|(name, value)| match item.place.contains_key(name) {
            true => (format!("exported_{name}"), value),
            false => (name.to_owned(), value),
        })
        .collect();
    let place = item
        .place
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    Labels::new(
        own.iter()
            .map(|(name, value)| (name.as_str(), *value))
            .chain(place),
    )
}
