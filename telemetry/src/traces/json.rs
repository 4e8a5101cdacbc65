//! OTLP/JSON as the messages of protobuf.

use super::{Request, Unreadable};
use base64::Engine as _;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, de};
use std::fmt;

pub(super) fn read(bytes: &[u8]) -> Result<Request, Unreadable> {
    let all: All = serde_json::from_slice(bytes)?;
    Ok(Request {
        resource_spans: all.resource_spans.into_iter().map(Into::into).collect(),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct All {
    resource_spans: Vec<OfResource>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OfResource {
    resource: Option<JsonResource>,
    scope_spans: Vec<OfScope>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonResource {
    attributes: Vec<Pair>,
    dropped_attributes_count: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OfScope {
    scope: Option<Scope>,
    spans: Vec<JsonSpan>,
    schema_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Scope {
    name: String,
    version: String,
    attributes: Vec<Pair>,
    dropped_attributes_count: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonSpan {
    trace_id: Hex,
    span_id: Hex,
    trace_state: String,
    parent_span_id: Hex,
    flags: u32,
    name: String,
    kind: Kind,
    start_time_unix_nano: Number,
    end_time_unix_nano: Number,
    attributes: Vec<Pair>,
    dropped_attributes_count: u32,
    events: Vec<JsonEvent>,
    dropped_events_count: u32,
    links: Vec<JsonLink>,
    dropped_links_count: u32,
    status: Option<JsonStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonEvent {
    time_unix_nano: Number,
    name: String,
    attributes: Vec<Pair>,
    dropped_attributes_count: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonLink {
    trace_id: Hex,
    span_id: Hex,
    trace_state: String,
    attributes: Vec<Pair>,
    dropped_attributes_count: u32,
    flags: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonStatus {
    message: String,
    code: Code,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pair {
    key: String,
    value: Option<Any>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Any {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Whole>,
    double_value: Option<Double>,
    array_value: Option<Values>,
    kvlist_value: Option<Pairs>,
    bytes_value: Option<Base64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Values {
    values: Vec<Any>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pairs {
    values: Vec<Pair>,
}

/// Bytes in hexadecimal, in either case.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text)
            .map(Self)
            .map_err(|err| D::Error::custom(format!("id {text:?} is not hexadecimal: {err}")))
    }
}

struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
            .map_err(|err| D::Error::custom(format!("bytesValue is not base64: {err}")))
    }
}

/// A number, or its text; for enumerations also a name.
struct NumberOr<T>(T);

trait Held: Sized {
    const WHAT: &'static str;
    fn number(number: i128) -> Option<Self>;
    fn text(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::number)
    }
    fn float(_: f64) -> Option<Self> {
        None
    }
}

impl Held for u64 {
    const WHAT: &'static str = "a whole number without sign, or its text";
    fn number(number: i128) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Held for i64 {
    const WHAT: &'static str = "a whole number, or its text";
    fn number(number: i128) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Held for f64 {
    const WHAT: &'static str = "a number, NaN, Infinity or -Infinity";
    fn number(number: i128) -> Option<Self> {
        // As every reader of JSON takes whole numbers for a double.
        Some(number as f64)
    }
    fn text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn float(number: f64) -> Option<Self> {
        Some(number)
    }
}

impl Held for SpanKind {
    const WHAT: &'static str = "a kind of span, 0 to 5";
    fn number(number: i128) -> Option<Self> {
        i32::try_from(number)
            .ok()
            .and_then(|number| number.try_into().ok())
    }
    fn text(text: &str) -> Option<Self> {
        Self::from_str_name(text)
    }
}

impl Held for StatusCode {
    const WHAT: &'static str = "a status code, 0 to 2";
    fn number(number: i128) -> Option<Self> {
        i32::try_from(number)
            .ok()
            .and_then(|number| number.try_into().ok())
    }
    fn text(text: &str) -> Option<Self> {
        Self::from_str_name(text)
    }
}

type Number = NumberOr<u64>;
type Whole = NumberOr<i64>;
type Double = NumberOr<f64>;
type Kind = NumberOr<SpanKind>;
type Code = NumberOr<StatusCode>;

impl<T: Default> Default for NumberOr<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

impl<'de, T: Held> Deserialize<'de> for NumberOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<T: Held> Visitor<'_> for Reader<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
                T::number(number.into())
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
                T::number(number.into())
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
                T::float(number).ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                T::text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer
            .deserialize_any(Reader(std::marker::PhantomData))
            .map(Self)
    }
}

fn pairs(held: Vec<Pair>) -> Vec<KeyValue> {
    let pair = |pair: Pair| KeyValue {
        key: pair.key,
        value: pair.value.map(Into::into),
        ..KeyValue::default()
    };
    held.into_iter().map(pair).collect()
}

impl From<Any> for AnyValue {
    fn from(any: Any) -> Self {
        let value = None
            .or(any.string_value.map(Value::StringValue))
            .or(any.bool_value.map(Value::BoolValue))
            .or(any.int_value.map(|held| Value::IntValue(held.0)))
            .or(any.double_value.map(|held| Value::DoubleValue(held.0)))
            .or(any.array_value.map(|held| {
                Value::ArrayValue(ArrayValue {
                    values: held.values.into_iter().map(Into::into).collect(),
                })
            }))
            .or(any.kvlist_value.map(|held| {
                Value::KvlistValue(KeyValueList {
                    values: pairs(held.values),
                })
            }))
            .or(any.bytes_value.map(|held| Value::BytesValue(held.0)));
        Self { value }
    }
}

impl From<OfResource> for ResourceSpans {
    fn from(of: OfResource) -> Self {
        Self {
            resource: of.resource.map(|resource| Resource {
                attributes: pairs(resource.attributes),
                dropped_attributes_count: resource.dropped_attributes_count,
                ..Resource::default()
            }),
            scope_spans: of.scope_spans.into_iter().map(Into::into).collect(),
            schema_url: of.schema_url,
        }
    }
}

impl From<OfScope> for ScopeSpans {
    fn from(of: OfScope) -> Self {
        Self {
            scope: of.scope.map(|scope| InstrumentationScope {
                name: scope.name,
                version: scope.version,
                attributes: pairs(scope.attributes),
                dropped_attributes_count: scope.dropped_attributes_count,
            }),
            spans: of.spans.into_iter().map(Into::into).collect(),
            schema_url: of.schema_url,
        }
    }
}

impl From<JsonSpan> for Span {
    fn from(span: JsonSpan) -> Self {
        Self {
            trace_id: span.trace_id.0,
            span_id: span.span_id.0,
            trace_state: span.trace_state,
            parent_span_id: span.parent_span_id.0,
            flags: span.flags,
            name: span.name,
            kind: span.kind.0.into(),
            start_time_unix_nano: span.start_time_unix_nano.0,
            end_time_unix_nano: span.end_time_unix_nano.0,
            attributes: pairs(span.attributes),
            dropped_attributes_count: span.dropped_attributes_count,
            events: span.events.into_iter().map(Into::into).collect(),
            dropped_events_count: span.dropped_events_count,
            links: span.links.into_iter().map(Into::into).collect(),
            dropped_links_count: span.dropped_links_count,
            status: span.status.map(|status| Status {
                message: status.message,
                code: status.code.0.into(),
            }),
        }
    }
}

impl From<JsonEvent> for Event {
    fn from(event: JsonEvent) -> Self {
        Self {
            time_unix_nano: event.time_unix_nano.0,
            name: event.name,
            attributes: pairs(event.attributes),
            dropped_attributes_count: event.dropped_attributes_count,
        }
    }
}

impl From<JsonLink> for Link {
    fn from(link: JsonLink) -> Self {
        Self {
            trace_id: link.trace_id.0,
            span_id: link.span_id.0,
            trace_state: link.trace_state,
            attributes: pairs(link.attributes),
            dropped_attributes_count: link.dropped_attributes_count,
            flags: link.flags,
        }
    }
}
