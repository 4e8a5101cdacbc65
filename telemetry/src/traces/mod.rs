//! Spans of workloads: read from OTLP, marked with whose they are, sampled, cut into records and kept once.
//!
//! A record of the stream is one `ExportTraceServiceRequest` in protobuf (OTLP 1.x).

mod json;
mod keep;
mod rate;
mod tail;
mod weigh;

pub use keep::{Keeper, NotKept};
pub use rate::Rate;
pub use tail::{Figures, Rules, Tail};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use thiserror::Error;

/// Spans by resource and scope, as OTLP carries them.
pub type Request = ExportTraceServiceRequest;

/// A record is cut at this size, where it holds more than one span.
const RECORD_BYTES: usize = 64 << 10;
/// Starts the keys that only Leeward may set.
const OURS: &str = "leeward.";
const SERVICE: &str = "service.name";
/// What SDKs say where nobody has named the service.
const UNNAMED: &str = "unknown_service";

/// A request that cannot be read.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// It is no protobuf of that message.
    #[error("this is no ExportTraceServiceRequest in protobuf: {0}")]
    Protobuf(String),
    /// It is no OTLP/JSON.
    #[error("this is no ExportTraceServiceRequest in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A small text that would be large in memory.
    #[error("its messages would take more than {most} bytes of memory: send fewer spans at once")]
    TooManyParts {
        /// The bound.
        most: usize,
    },
}

/// Reads protobuf. What it would take in memory is bounded before anything is made.
///
/// # Errors
/// Where it is malformed or would take too much.
pub fn from_protobuf(bytes: &[u8]) -> Result<Request, Unreadable> {
    weigh::protobuf(bytes)?;
    Request::decode(bytes).map_err(|err| Unreadable::Protobuf(err.to_string()))
}

/// Reads OTLP/JSON: ids in hexadecimal, 64-bit integers as numbers or text, enumerations as numbers or names, unknown
/// fields passed over (OTLP specification, "JSON Protobuf Encoding").
///
/// # Errors
/// As [`from_protobuf`].
pub fn from_json(bytes: &[u8]) -> Result<Request, Unreadable> {
    weigh::json(bytes)?;
    json::read(bytes)
}

/// Number of spans.
pub fn count(request: &Request) -> usize {
    let scopes = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

/// Takes out spans that have no ids (W3C trace context: 16 and 8 bytes, not all zero); says how many.
pub fn take_out_nameless(request: &mut Request) -> u64 {
    let valid = |id: &[u8], len: usize| id.len() == len && id.iter().any(|byte| *byte != 0);
    let before = count(request);
    for scope in request
        .resource_spans
        .iter_mut()
        .flat_map(|of| &mut of.scope_spans)
    {
        scope
            .spans
            .retain(|span| valid(&span.trace_id, 16) && valid(&span.span_id, 8));
    }
    (before - count(request)) as u64
}

/// Says on each resource whose it is. What it said of itself under these keys, and under keys that only Leeward sets,
/// goes: a pod cannot pass for another. `service` names it where its SDK was told no name.
pub fn mark(request: &mut Request, attributes: &[(String, String)], service: Option<&str>) {
    for of in &mut request.resource_spans {
        let held = &mut of.resource.get_or_insert_default().attributes;
        held.retain(|pair| {
            !pair.key.starts_with(OURS) && !attributes.iter().any(|(key, _)| *key == pair.key)
        });
        if let Some(service) = service
            && !held.iter().any(|pair| pair.key == SERVICE && named(pair))
        {
            held.retain(|pair| pair.key != SERVICE);
            held.push(text(SERVICE, service));
        }
        held.extend(attributes.iter().map(|(key, value)| text(key, value)));
    }
}

fn named(pair: &KeyValue) -> bool {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(name)) => !name.is_empty() && !name.starts_with(UNNAMED),
        _ => false,
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// Cuts a request into records of a spool that takes `most` bytes each; the same request gives the same records.
/// Spans that are too large by themselves are left out and counted.
pub fn records(request: Request, most: usize) -> (Vec<Vec<u8>>, u64) {
    let (mut out, mut too_large) = (Vec::new(), 0);
    let mut waiting = vec![request];
    while let Some(part) = waiting.pop() {
        let (spans, bytes) = (count(&part), part.encoded_len());
        if spans == 0 {
            continue;
        }
        if bytes <= RECORD_BYTES || (spans == 1 && bytes <= most) {
            out.push(part.encode_to_vec());
        } else if spans == 1 {
            too_large += 1;
        } else {
            let (first, second) = halves(part, spans / 2);
            waiting.push(second);
            waiting.push(first);
        }
    }
    (out, too_large)
}

/// The first `left` spans, and the others.
fn halves(request: Request, mut left: usize) -> (Request, Request) {
    let (mut first, mut second) = (Request::default(), Request::default());
    for of in request.resource_spans {
        let shell = ResourceSpans {
            resource: of.resource.clone(),
            schema_url: of.schema_url.clone(),
            scope_spans: Vec::new(),
        };
        let (mut before, mut after) = (shell.clone(), shell);
        for mut scope in of.scope_spans {
            let rest = scope.spans.split_off(left.min(scope.spans.len()));
            left -= scope.spans.len();
            if !rest.is_empty() {
                after.scope_spans.push(ScopeSpans {
                    scope: scope.scope.clone(),
                    schema_url: scope.schema_url.clone(),
                    spans: rest,
                });
            }
            if !scope.spans.is_empty() {
                before.scope_spans.push(scope);
            }
        }
        for (half, part) in [(&mut first, before), (&mut second, after)] {
            if !part.scope_spans.is_empty() {
                half.resource_spans.push(part);
            }
        }
    }
    (first, second)
}

/// What a span is worth keeping for.
fn failed(span: &Span) -> bool {
    // STATUS_CODE_ERROR
    span.status.as_ref().is_some_and(|status| status.code == 2)
}

#[cfg(test)]
mod tests;
