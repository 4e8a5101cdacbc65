//! Telemetry as devices send it.

use bytes::Bytes;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

fn text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.into())),
    }
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(text(value)),
        ..KeyValue::default()
    }
}

/// One log line of the container `edge/reader-0/reader`, an error.
pub fn line(body: &str) -> Bytes {
    line_at(body, Timestamp::now())
}

/// The same, written at a time.
pub fn line_at(body: &str, at: Timestamp) -> Bytes {
    let record = LogRecord {
        time_unix_nano: u64::try_from(at.as_nanosecond()).unwrap_or_default(),
        severity_number: 17,
        body: Some(text(body)),
        ..LogRecord::default()
    };
    let resource = Resource {
        attributes: vec![
            pair("k8s.namespace.name", "edge"),
            pair("k8s.pod.name", "reader-0"),
            pair("k8s.container.name", "reader"),
        ],
        ..Resource::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec().into()
}
