//! What is given up when room, age or a stream's own limit asks for it: whole segments' parts, oldest first.

use crate::core::{Core, Inner, Log, settled};
use crate::ledger::{DropReason, Gap};
use crate::record::{Class, Durability};
use std::time::Duration;

/// What happens to a stream when its class has no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Appending is refused until a receiver has acknowledged: nothing is given up.
    PushBack,
    /// The oldest records are given up, counted, and told in [`crate::NOTICES`].
    DropOldest,
}

/// How long a stream keeps records that no receiver has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// When there is no room.
    pub when_full: WhenFull,
    /// Older ones are given up.
    pub max_age: Option<Duration>,
    /// More than so many bytes on disk are not kept.
    pub max_bytes: Option<u64>,
    /// Whether of a sampled stream every second, fourth, eighth record goes to disk as the class's room runs short, so
    /// that an outage is covered for longer, more coarsely; nothing else is thinned.
    pub thin: bool,
}

impl Retention {
    /// A strict stream pushes back, the others drop their oldest, and so do the spool's own; no other limit.
    pub fn usual(name: &str, durability: Durability) -> Self {
        Self {
            when_full: match durability {
                Durability::Strict if !name.starts_with("spool.") => WhenFull::PushBack,
                _ => WhenFull::DropOldest,
            },
            max_age: None,
            max_bytes: None,
            thin: false,
        }
    }
}

/// One record of how many is kept of a stream that is thinned, by the share of the class's room that is taken.
pub(crate) fn one_of(log: &Log) -> u64 {
    let taken: u64 = log.segments.values().map(|segment| segment.size).sum();
    match taken.saturating_mul(100) / log.budget.max(1) {
        0..60 => 1,
        60..75 => 2,
        75..90 => 4,
        _ => 8,
    }
}

/// Gives up the oldest segment that holds nothing that must be kept; false if there is none.
pub(crate) fn drop_oldest(core: &Core, class: Class) -> bool {
    let mut inner = core.lock();
    let chosen = inner.logs[class.index()]
        .segments
        .iter()
        .find_map(|(id, segment)| {
            let may_go = segment.spans.iter().all(|(stream, span)| {
                inner
                    .streams
                    .get(stream)
                    .is_some_and(|live| live.retention.when_full == WhenFull::DropOldest)
                    || settled(&inner.ledgers, *stream, span)
            });
            (!segment.tail && may_go).then(|| (*id, segment.spans.clone()))
        });
    let Some((id, spans)) = chosen else { return false };
    for (stream, span) in spans {
        inner.give_up(stream, span.first, span.last, Gap::Dropped(DropReason::Space));
    }
    inner.logs[class.index()].drop_segment(id);
    inner.mark_unsaved();
    true
}

/// Applies ages and byte limits; called where segments end, so that an idle spool stays asleep.
pub(crate) fn enforce(core: &Core, inner: &mut Inner, class: Class) {
    let now = core.options.clock.now().as_microsecond();
    let mut going = Vec::new();
    for (stream, live) in &inner.streams {
        let Retention {
            max_age, max_bytes, ..
        } = live.retention;
        if max_age.is_none() && max_bytes.is_none() {
            continue;
        }
        let mut bytes = 0;
        for segment in inner.logs[class.index()].segments.values().rev() {
            let Some(span) = segment.spans.get(stream) else {
                continue;
            };
            bytes += span.bytes;
            let old = max_age.is_some_and(|age| {
                let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
                segment.newest != 0 && segment.newest < now.saturating_sub(age)
            });
            let reason = match max_bytes {
                _ if segment.tail => continue,
                Some(most) if bytes > most => DropReason::Bytes,
                _ if old => DropReason::Age,
                _ => continue,
            };
            going.push((*stream, span.first, span.last, reason));
        }
    }
    for (stream, first, last, reason) in going {
        inner.give_up(stream, first, last, Gap::Dropped(reason));
    }
    inner.release(class);
}
