//! What a request would take in memory, before it is read: two bytes of protobuf, or of JSON, can say "one more span".

use super::Unreadable;
use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use std::mem::size_of;

/// Most bytes that the messages of one request may take, beside their texts.
const MOST: usize = 32 << 20;
/// Depth at which protobuf's own reader gives up.
const DEEPEST: usize = 100;

/// A message of OTLP that is walked through.
#[derive(Clone, Copy)]
enum Message {
    Request,
    ResourceSpans,
    Resource,
    Entity,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    Pair,
    Any,
    Values,
    Pairs,
}

impl Message {
    /// The message in a field, where the field has one (`opentelemetry/proto/{trace,common,resource}/v1`).
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Request, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::Resource, 3) => Self::Entity,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::Resource, 1)
            | (Self::Scope | Self::Event, 3)
            | (Self::Span, 9)
            | (Self::Link, 4)
            | (Self::Pairs, 1) => Self::Pair,
            (Self::Pair, 2) | (Self::Values, 1) => Self::Any,
            (Self::Any, 5) => Self::Values,
            (Self::Any, 6) => Self::Pairs,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::ResourceSpans => size_of::<ResourceSpans>(),
            Self::ScopeSpans => size_of::<ScopeSpans>(),
            Self::Entity => size_of::<EntityRef>(),
            Self::Span => size_of::<Span>(),
            Self::Event => size_of::<Event>(),
            Self::Link => size_of::<Link>(),
            Self::Pair => size_of::<KeyValue>(),
            Self::Any => size_of::<AnyValue>(),
            // Held within others, once.
            Self::Request | Self::Resource | Self::Scope | Self::Values | Self::Pairs => 0,
        }
    }
}

pub(super) fn protobuf(bytes: &[u8]) -> Result<(), Unreadable> {
    let mut weight = 0;
    walk(bytes, Message::Request, 0, &mut weight)
}

fn walk(mut rest: &[u8], message: Message, depth: usize, weight: &mut usize) -> Result<(), Unreadable> {
    let bad = |why: &str| Unreadable::Protobuf(why.to_owned());
    if depth > DEEPEST {
        return Err(bad("nested too deeply"));
    }
    while !rest.is_empty() {
        let key = varint(&mut rest).ok_or_else(|| bad("a field's key is cut off"))?;
        let skipped = match key & 7 {
            0 => {
                varint(&mut rest).ok_or_else(|| bad("a number is cut off"))?;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let len = varint(&mut rest).ok_or_else(|| bad("a length is cut off"))?;
                usize::try_from(len).unwrap_or(usize::MAX)
            }
            _ => return Err(bad("a field has a type that OTLP does not use")),
        };
        let (held, after) = rest
            .split_at_checked(skipped)
            .ok_or_else(|| bad("a field is longer than the message"))?;
        rest = after;
        if key & 7 != 2 {
            continue;
        }
        if let Some(inner) = message.field(key >> 3) {
            *weight += inner.size();
            walk(held, inner, depth + 1, weight)?;
        } else if matches!(message, Message::Entity) {
            *weight += size_of::<String>();
        }
        if *weight > MOST {
            return Err(Unreadable::TooManyParts { most: MOST });
        }
    }
    Ok(())
}

/// Base 128 (Protocol Buffers encoding).
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Each object or text is taken for a span, which is the largest; a brace within a text counts as well.
pub(super) fn json(bytes: &[u8]) -> Result<(), Unreadable> {
    let objects = memchr::memchr_iter(b'{', bytes).count();
    if objects.saturating_mul(size_of::<Span>()) > MOST {
        return Err(Unreadable::TooManyParts { most: MOST });
    }
    Ok(())
}
