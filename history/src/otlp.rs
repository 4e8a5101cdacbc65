//! Logs and spans: OTLP messages as rows.
//!
//! A resource's attributes name where a line is from: `k8s.namespace.name`, `k8s.pod.name`, `k8s.container.name`,
//! `service.name` and `leeward.source` (`container` where there is one and nothing is said) have columns of their own,
//! everything else is in `attributes`. What a record
//! says itself counts more than what its resource says.

use crate::error::Unreadable;
use crate::record::Record;
use crate::table::Signal;
use datafusion::arrow::array::{
    ArrayRef, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder, TimestampNanosecondBuilder,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Attributes that are columns.
const NAMESPACE: &str = "k8s.namespace.name";
const POD: &str = "k8s.pod.name";
const CONTAINER: &str = "k8s.container.name";
const SOURCE: &str = "leeward.source";
const SERVICE: &str = "service.name";

type Attributes = BTreeMap<String, String>;

pub(crate) fn logs(record: &Record) -> Result<RecordBatch, Unreadable> {
    let request = ExportLogsServiceRequest::decode(record.payload.clone())
        .map_err(|err| Unreadable(format!("it is no OTLP logs request: {err}")))?;
    let mut rows = LogRows::default();
    for of_resource in &request.resource_logs {
        let resource = of_resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for log in of_resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            rows.push(record, attributes(resource, &log.attributes), log);
        }
    }
    rows.finish()
}

pub(crate) fn spans(record: &Record) -> Result<RecordBatch, Unreadable> {
    let request = ExportTraceServiceRequest::decode(record.payload.clone())
        .map_err(|err| Unreadable(format!("it is no OTLP trace request: {err}")))?;
    let mut rows = SpanRows::default();
    for of_resource in &request.resource_spans {
        let resource = of_resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for span in of_resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            rows.push(record, attributes(resource, &span.attributes), span);
        }
    }
    rows.finish()
}

struct LogRows {
    device: StringBuilder,
    time: TimestampNanosecondBuilder,
    severity: StringBuilder,
    source: StringBuilder,
    namespace: StringBuilder,
    pod: StringBuilder,
    container: StringBuilder,
    body: StringBuilder,
    attributes: Map,
    trace_id: StringBuilder,
    span_id: StringBuilder,
}

impl Default for LogRows {
    fn default() -> Self {
        Self {
            device: StringBuilder::new(),
            time: times(),
            severity: StringBuilder::new(),
            source: StringBuilder::new(),
            namespace: StringBuilder::new(),
            pod: StringBuilder::new(),
            container: StringBuilder::new(),
            body: StringBuilder::new(),
            attributes: map(),
            trace_id: StringBuilder::new(),
            span_id: StringBuilder::new(),
        }
    }
}

impl LogRows {
    fn push(&mut self, record: &Record, mut attributes: Attributes, log: &LogRecord) {
        self.device.append_value(&record.device);
        self.time
            .append_value(match (log.time_unix_nano, log.observed_time_unix_nano) {
                (0, 0) => crate::record::nanos(record.received_at),
                (0, observed) => held(observed),
                (time, _) => held(time),
            });
        self.severity
            .append_option(severity(log.severity_number, &log.severity_text));
        let (source, container) = (attributes.remove(SOURCE), attributes.remove(CONTAINER));
        let source = source.or_else(|| container.is_some().then(|| "container".to_owned()));
        self.source.append_option(source);
        self.namespace.append_option(attributes.remove(NAMESPACE));
        self.pod.append_option(attributes.remove(POD));
        self.container.append_option(container);
        self.body
            .append_value(log.body.as_ref().map(text).unwrap_or_default());
        append(&mut self.attributes, &attributes);
        self.trace_id.append_option(hex(&log.trace_id));
        self.span_id.append_option(hex(&log.span_id));
    }

    fn finish(mut self) -> Result<RecordBatch, Unreadable> {
        batch(
            Signal::Logs,
            vec![
                Arc::new(self.device.finish()),
                Arc::new(self.time.finish()),
                Arc::new(self.severity.finish()),
                Arc::new(self.source.finish()),
                Arc::new(self.namespace.finish()),
                Arc::new(self.pod.finish()),
                Arc::new(self.container.finish()),
                Arc::new(self.body.finish()),
                Arc::new(self.attributes.finish()),
                Arc::new(self.trace_id.finish()),
                Arc::new(self.span_id.finish()),
            ],
        )
    }
}

struct SpanRows {
    device: StringBuilder,
    time: TimestampNanosecondBuilder,
    duration: Int64Builder,
    trace_id: StringBuilder,
    span_id: StringBuilder,
    parent_id: StringBuilder,
    service: StringBuilder,
    name: StringBuilder,
    kind: StringBuilder,
    status: StringBuilder,
    attributes: Map,
}

impl Default for SpanRows {
    fn default() -> Self {
        Self {
            device: StringBuilder::new(),
            time: times(),
            duration: Int64Builder::new(),
            trace_id: StringBuilder::new(),
            span_id: StringBuilder::new(),
            parent_id: StringBuilder::new(),
            service: StringBuilder::new(),
            name: StringBuilder::new(),
            kind: StringBuilder::new(),
            status: StringBuilder::new(),
            attributes: map(),
        }
    }
}

impl SpanRows {
    fn push(&mut self, record: &Record, mut attributes: Attributes, span: &Span) {
        self.device.append_value(&record.device);
        self.time.append_value(held(span.start_time_unix_nano));
        let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        self.duration.append_value(held(duration));
        self.trace_id
            .append_value(hex(&span.trace_id).unwrap_or_default());
        self.span_id.append_value(hex(&span.span_id).unwrap_or_default());
        self.parent_id.append_option(hex(&span.parent_span_id));
        self.service.append_option(attributes.remove(SERVICE));
        self.name.append_value(&span.name);
        self.kind.append_value(match span.kind() {
            SpanKind::Unspecified => "unspecified",
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
        });
        self.status
            .append_value(match span.status.as_ref().map(|status| status.code()) {
                Some(StatusCode::Ok) => "ok",
                Some(StatusCode::Error) => "error",
                Some(StatusCode::Unset) | None => "unset",
            });
        append(&mut self.attributes, &attributes);
    }

    fn finish(mut self) -> Result<RecordBatch, Unreadable> {
        batch(
            Signal::Traces,
            vec![
                Arc::new(self.device.finish()),
                Arc::new(self.time.finish()),
                Arc::new(self.duration.finish()),
                Arc::new(self.trace_id.finish()),
                Arc::new(self.span_id.finish()),
                Arc::new(self.parent_id.finish()),
                Arc::new(self.service.finish()),
                Arc::new(self.name.finish()),
                Arc::new(self.kind.finish()),
                Arc::new(self.status.finish()),
                Arc::new(self.attributes.finish()),
            ],
        )
    }
}

/// A map column in the making.
pub(crate) type Map = MapBuilder<StringBuilder, StringBuilder>;

pub(crate) fn map() -> Map {
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "key".into(),
        value: "value".into(),
    };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

pub(crate) fn append(map: &mut Map, pairs: &BTreeMap<String, String>) {
    for (key, value) in pairs {
        map.keys().append_value(key);
        map.values().append_value(value);
    }
    // Keys and values were appended in pairs: their lengths are equal.
    let _ = map.append(true);
}

pub(crate) fn times() -> TimestampNanosecondBuilder {
    TimestampNanosecondBuilder::new().with_timezone("+00:00")
}

pub(crate) fn batch(signal: Signal, columns: Vec<ArrayRef>) -> Result<RecordBatch, Unreadable> {
    RecordBatch::try_new(signal.schema(), columns).map_err(|err| Unreadable(err.to_string()))
}

/// An unsigned time or duration as a column holds it; the year 2262 is its end.
fn held(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// The six words of OTLP's severity numbers; where there is none, the sender's own word if it is one of the usual ones.
#[must_use]
pub fn severity(number: i32, word: &str) -> Option<&'static str> {
    match number {
        1..=4 => return Some("trace"),
        5..=8 => return Some("debug"),
        9..=12 => return Some("info"),
        13..=16 => return Some("warn"),
        17..=20 => return Some("error"),
        21..=24 => return Some("fatal"),
        _ => {}
    }
    match word.to_ascii_lowercase().as_str() {
        "trace" => Some("trace"),
        "debug" => Some("debug"),
        "info" | "notice" | "information" => Some("info"),
        "warn" | "warning" => Some("warn"),
        "error" | "err" => Some("error"),
        "fatal" | "crit" | "critical" | "alert" | "emerg" | "panic" => Some("fatal"),
        _ => None,
    }
}

/// A resource's attributes under a record's own.
fn attributes(resource: &[KeyValue], own: &[KeyValue]) -> Attributes {
    resource
        .iter()
        .chain(own)
        .map(|pair| {
            (
                pair.key.clone(),
                pair.value.as_ref().map(text).unwrap_or_default(),
            )
        })
        .collect()
}

/// A value as text; lists and maps as JSON.
#[must_use]
pub fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        None => String::new(),
        Some(_) => match json(value) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        },
    }
}

fn json(value: &AnyValue) -> serde_json::Value {
    match &value.value {
        None => serde_json::Value::Null,
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(yes)) => (*yes).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::StringValueStrindex(index)) => (*index).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(json).collect(),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter()
            .map(|pair| {
                (
                    pair.key.clone(),
                    pair.value.as_ref().map_or(serde_json::Value::Null, json),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some(Value::BytesValue(bytes)) => hex(bytes).unwrap_or_default().into(),
    }
}

/// Lower-case hexadecimal; none of nothing.
fn hex(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}
