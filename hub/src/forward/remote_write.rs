//! Prometheus remote write 1.0: protobuf in snappy's block format.
//!
//! A sample that comes twice is the same (series, millisecond, value): Prometheus with an out-of-order window, Mimir and
//! others keep it once. 400 says that samples are out of order or out of bounds: they will never be taken, and of a
//! request for several records those are found by halving it.

use super::{Item, Request, Unfit};
use prost::Message;
use telemetry::metrics::{Batch, Labels};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// One request; none where the records hold no samples.
pub(super) fn encode(items: &[Item]) -> Result<Option<Request>, Unfit> {
    let mut request = WriteRequest::default();
    for item in items {
        let batch = Batch::decode(&item.record.payload).map_err(|err| Unfit(err.to_string()))?;
        for series in batch.series.iter().filter(|series| !series.samples.is_empty()) {
            request.timeseries.push(TimeSeries {
                labels: labels(&series.labels, item),
                samples: series
                    .samples
                    .iter()
                    .map(|sample| Sample {
                        value: sample.value,
                        timestamp: sample.time,
                    })
                    .collect(),
            });
        }
    }
    if request.timeseries.is_empty() {
        return Ok(None);
    }
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .map_err(|err| Unfit(err.to_string()))?;
    Ok(Some(Request {
        path: "",
        headers: &[
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ],
        body,
    }))
}

/// Sorted by name, as the protocol asks. Where the sample itself has a label of ours, ours counts and the other is kept
/// as `exported_NAME`, as Prometheus does it.
fn labels(own: &Labels, item: &Item) -> Vec<Label> {
    let own = own.iter().map(|(name, value)| {
        let name = if item.place.contains_key(name) {
            format!("exported_{name}")
        } else {
            name.to_owned()
        };
        (name, value.to_owned())
    });
    let place = item
        .place
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let mut all: Vec<Label> = own
        .chain(place)
        .map(|(name, value)| Label { name, value })
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}
