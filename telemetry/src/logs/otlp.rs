//! Entries as the record of the spool: one OTLP `ExportLogsServiceRequest`
//! (OpenTelemetry protocol 1.x, logs data model; attribute names of the semantic conventions).

use super::read::Reading;
use super::{Attributes, Entry};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

/// The attribute of a resource that names the file; with [`UPTO`] it tells a receiver what it has already.
pub const FILE: &str = "log.file.id";
/// The attribute of an entry with its end in the file, in bytes.
pub const UPTO: &str = "log.file.offset";

/// Encodes entries of one source and, unless that is empty, one file.
pub(super) fn encode(attributes: &Attributes, file: &str, records: Vec<LogRecord>) -> Vec<u8> {
    let mut attributes: Vec<KeyValue> = attributes.iter().map(|(key, value)| text(key, value)).collect();
    if !file.is_empty() {
        attributes.push(text(FILE, file));
    }
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "leeward".to_owned(),
                    ..InstrumentationScope::default()
                }),
                log_records: records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    request.encode_to_vec()
}

/// One entry; `seen` is when it was read, in nanoseconds since 1970.
pub(super) fn record(entry: &Entry, reading: Reading, seen: u64) -> LogRecord {
    let nanos = |time: jiff::Timestamp| u64::try_from(time.as_nanosecond()).unwrap_or(0);
    let mut attributes: Vec<KeyValue> = reading
        .fields
        .into_iter()
        .map(|(key, value)| key_value(key, value))
        .collect();
    if let Some(stream) = entry.stream {
        attributes.push(text("log.iostream", stream.word()));
    }
    if !entry.file.is_empty() {
        attributes.push(key_value(UPTO.to_owned(), entry.upto.into()));
    }
    LogRecord {
        time_unix_nano: entry.time.or(reading.time).map_or(0, nanos),
        observed_time_unix_nano: seen,
        severity_number: reading.level.map_or(0, |level| level as i32),
        severity_text: reading
            .level
            .map_or_else(String::new, |level| level.word().to_owned()),
        body: Some(AnyValue {
            value: Some(Value::StringValue(reading.message)),
        }),
        attributes,
        ..LogRecord::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    key_value(key.to_owned(), serde_json::Value::String(value.to_owned()))
}

fn key_value(key: String, value: serde_json::Value) -> KeyValue {
    KeyValue {
        key,
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn any(value: serde_json::Value) -> AnyValue {
    use serde_json::Value as Json;
    let value = match value {
        Json::Null => None,
        Json::Bool(it) => Some(Value::BoolValue(it)),
        Json::Number(number) => Some(match number.as_i64() {
            Some(whole) => Value::IntValue(whole),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(it) => Some(Value::StringValue(it)),
        Json::Array(values) => Some(Value::ArrayValue(ArrayValue {
            values: values.into_iter().map(any).collect(),
        })),
        Json::Object(fields) => {
            let values = fields
                .into_iter()
                .map(|(key, value)| key_value(key, value))
                .collect();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}
