//! OTLP over HTTP, in protobuf; and log records as lines for receivers of other forms.

use super::{Item, Outcome, Reply, Request, Unfit};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use std::collections::BTreeMap;

/// All items are of one stream.
pub(super) fn encode(items: &[Item], traces: bool) -> Result<Option<Request>, Unfit> {
    let (path, body) = if traces {
        let mut all = ExportTraceServiceRequest::default();
        for item in items {
            let request = ExportTraceServiceRequest::decode(item.record.payload.clone())
                .map_err(|err| Unfit(err.to_string()))?;
            for mut of_resource in request.resource_spans {
                place(&mut of_resource.resource, item);
                all.resource_spans.push(of_resource);
            }
        }
        ("/v1/traces", all.encode_to_vec())
    } else {
        let mut all = ExportLogsServiceRequest::default();
        for item in items {
            for mut of_resource in decode(item)?.resource_logs {
                place(&mut of_resource.resource, item);
                let logs = of_resource
                    .scope_logs
                    .iter_mut()
                    .flat_map(|scope| &mut scope.log_records);
                for (number, log) in logs.enumerate() {
                    // OTLP knows no duplicate: by this a receiver's owner can tell one.
                    let sequence = format!("{}.{}.{number}", item.record.ordinal, item.record.sequence);
                    log.attributes.push(pair("leeward.sequence", &sequence));
                }
                all.resource_logs.push(of_resource);
            }
        }
        ("/v1/logs", all.encode_to_vec())
    };
    Ok((!body.is_empty()).then_some(Request {
        path,
        headers: &[("content-type", "application/x-protobuf")],
        body,
    }))
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// Says on the resource where it is from.
fn place(resource: &mut Option<Resource>, item: &Item) {
    let attributes = &mut resource.get_or_insert_default().attributes;
    for (name, value) in item.place.iter() {
        attributes.push(pair(&format!("leeward.{name}"), value));
    }
}

fn decode(item: &Item) -> Result<ExportLogsServiceRequest, Unfit> {
    ExportLogsServiceRequest::decode(item.record.payload.clone()).map_err(|err| Unfit(err.to_string()))
}

/// A log record for receivers of lines.
pub(super) struct Line {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// In lower case; empty where it does not say.
    pub severity: String,
    pub body: String,
    /// Those of its resource under its own.
    pub attributes: BTreeMap<String, String>,
    /// Hexadecimal, or empty.
    pub trace_id: String,
    pub span_id: String,
}

pub(super) fn lines(item: &Item) -> Result<Vec<Line>, Unfit> {
    let received = u64::try_from(item.record.received_at.as_nanosecond()).unwrap_or(0);
    let mut lines = Vec::new();
    for of_resource in decode(item)?.resource_logs {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        for log in of_resource
            .scope_logs
            .into_iter()
            .flat_map(|scope| scope.log_records)
        {
            let attributes = resource.iter().chain(&log.attributes);
            lines.push(Line {
                time: [log.time_unix_nano, log.observed_time_unix_nano, received]
                    .into_iter()
                    .find(|time| *time > 0)
                    .unwrap_or(0),
                severity: history::severity(log.severity_number, &log.severity_text)
                    .unwrap_or_default()
                    .to_owned(),
                body: log.body.as_ref().map(history::text).unwrap_or_default(),
                attributes: attributes
                    .map(|pair| {
                        (
                            pair.key.clone(),
                            pair.value.as_ref().map(history::text).unwrap_or_default(),
                        )
                    })
                    .collect(),
                trace_id: hex(&log.trace_id),
                span_id: hex(&log.span_id),
            });
        }
    }
    Ok(lines)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 200 may say that some were refused.
pub(super) fn judge(reply: &Reply, traces: bool) -> Outcome {
    if reply.status != 200 {
        return reply.usual();
    }
    let partial = if traces {
        ExportTraceServiceResponse::decode(reply.body.as_slice())
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_spans, partial.error_message))
    } else {
        ExportLogsServiceResponse::decode(reply.body.as_slice())
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| (partial.rejected_log_records, partial.error_message))
    };
    match partial {
        Some((refused, why)) if refused > 0 => Outcome::Partial(refused.unsigned_abs(), why),
        _ => Outcome::Done,
    }
}
