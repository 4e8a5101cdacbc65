//! Samples: the columnar record of `telemetry` as rows, a series' samples one after the other.

use crate::error::Unreadable;
use crate::otlp::{Map, batch, map, times};
use crate::record::Record;
use crate::table::Signal;
use datafusion::arrow::array::{Float64Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder};
use std::sync::Arc;
use telemetry::metrics::{Batch, Labels, NAME, is_stale};

pub(crate) fn samples(record: &Record) -> Result<RecordBatch, Unreadable> {
    let held = Batch::decode(&record.payload).map_err(|err| Unreadable(err.to_string()))?;
    let mut rows = Rows {
        device: StringBuilder::new(),
        time: times(),
        name: StringBuilder::new(),
        labels: map(),
        value: Float64Builder::with_capacity(held.samples()),
    };
    for series in &held.series {
        let name = series.labels.name();
        for sample in &series.samples {
            rows.push(record, sample.time, (name, ""), &series.labels, sample.value);
        }
        for sample in &series.histograms {
            let histogram = &sample.histogram;
            // Where the series has ended, the sum says so.
            if !is_stale(histogram.sum) {
                rows.push(
                    record,
                    sample.time,
                    (name, "_count"),
                    &series.labels,
                    histogram.count,
                );
                rows.push(record, sample.time, (name, "_sum"), &series.labels, histogram.sum);
            }
        }
    }
    batch(
        Signal::Metrics,
        vec![
            Arc::new(rows.device.finish()),
            Arc::new(rows.time.finish()),
            Arc::new(rows.name.finish()),
            Arc::new(rows.labels.finish()),
            Arc::new(rows.value.finish()),
        ],
    )
}

struct Rows {
    device: StringBuilder,
    time: TimestampNanosecondBuilder,
    name: StringBuilder,
    labels: Map,
    value: Float64Builder,
}

impl Rows {
    fn push(&mut self, record: &Record, millis: i64, name: (&str, &str), labels: &Labels, value: f64) {
        // The end of a series is no value of it: that rows stop says the same.
        if is_stale(value) {
            return;
        }
        self.device.append_value(&record.device);
        self.time.append_value(millis.saturating_mul(1_000_000));
        if name.1.is_empty() {
            self.name.append_value(name.0);
        } else {
            self.name.append_value(format!("{}{}", name.0, name.1));
        }
        for (key, value) in labels.iter().filter(|(key, _)| *key != NAME) {
            self.labels.keys().append_value(key);
            self.labels.values().append_value(value);
        }
        // Keys and values were appended in pairs: their lengths are equal.
        let _ = self.labels.append(true);
        self.value.append_value(value);
    }
}
