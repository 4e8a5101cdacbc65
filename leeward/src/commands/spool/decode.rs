//! What is in a record of a telemetry stream, for people.

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message as _;
use telemetry::metrics::{Batch, is_stale};

/// A line per sample or log entry; `None` where the record is none of these, or cannot be read as one.
pub fn lines(stream: &str, payload: &[u8]) -> Option<Vec<String>> {
    match stream {
        "metrics" => Some(samples(&Batch::decode(payload).ok()?)),
        "logs" => Some(entries(&ExportLogsServiceRequest::decode(payload).ok()?)),
        _ => None,
    }
}

fn samples(batch: &Batch) -> Vec<String> {
    let mut lines = Vec::new();
    for series in &batch.series {
        for sample in &series.samples {
            let at = Timestamp::from_millisecond(sample.time).unwrap_or_default();
            let value = if is_stale(sample.value) {
                "stale".to_owned()
            } else {
                sample.value.to_string()
            };
            lines.push(format!("{at}  {} {value}", series.labels));
        }
        if !series.histograms.is_empty() {
            lines.push(format!(
                "{} ({} histograms)",
                series.labels,
                series.histograms.len()
            ));
        }
    }
    lines
}

fn entries(request: &ExportLogsServiceRequest) -> Vec<String> {
    let mut lines = Vec::new();
    for resource in &request.resource_logs {
        let attributes = resource
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let from: Vec<String> = [
            "k8s.namespace.name",
            "k8s.pod.name",
            "k8s.container.name",
            "service.name",
        ]
        .iter()
        .filter_map(|key| text_of(attributes, key))
        .collect();
        for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            let nanos = if record.time_unix_nano > 0 {
                record.time_unix_nano
            } else {
                record.observed_time_unix_nano
            };
            let at = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
            let body = record.body.as_ref().map(told).unwrap_or_default();
            lines.push(format!(
                "{at}  {}  {} {body}",
                from.join("/"),
                record.severity_text
            ));
        }
    }
    lines
}

fn text_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref().map(told)
}

fn told(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.trim_end().replace('\n', "\\n"),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use telemetry::metrics::{Labels, Sample, Series, stale};

    #[test]
    fn metrics_are_a_line_per_sample() {
        let labels = Labels::new([("__name__", "up"), ("job", "node")]).unwrap();
        let mut series = Series::new(labels);
        series.samples = vec![
            Sample {
                time: 1_000,
                value: 1.5,
            },
            Sample {
                time: 2_000,
                value: stale(),
            },
        ];
        let record = Batch { series: vec![series] }.encode().unwrap();
        let told = lines("metrics", &record).unwrap();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("1970-01-01T00:00:01Z") && told[0].ends_with(" 1.5"),
            "{told:?}"
        );
        assert!(
            told[0].contains("up") && told[0].contains("node") && told[1].ends_with("stale"),
            "{told:?}"
        );
        assert_eq!(lines("metrics", b"rubbish"), None);
        assert_eq!(lines("events", &record), None);
    }

    #[test]
    fn logs_are_a_line_per_entry() {
        let text = |text: &str| AnyValue {
            value: Some(Value::StringValue(text.to_owned())),
        };
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![LogRecord {
                        time_unix_nano: 5_000_000_000,
                        severity_text: "WARN".to_owned(),
                        body: Some(text("two\nlines")),
                        ..LogRecord::default()
                    }],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        };
        let told = lines("logs", &request.encode_to_vec()).unwrap();
        assert_eq!(told, ["1970-01-01T00:00:05Z    WARN two\\nlines"]);
    }
}
