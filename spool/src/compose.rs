//! Which records make a block, and what its header says besides them.

use crate::block::{Draft, Entry, Item, PAGE};
use crate::core::{Inner, Queued, Span, add_span};
use crate::record::Durability;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Room for the table of a header, with a margin.
const TABLE: usize = PAGE - 88 - 64;

/// What a filled buffer stands for.
#[derive(Debug, Default)]
pub(crate) struct Drafted {
    pub items: usize,
    pub order: u64,
    pub acks: Vec<(u32, String, u64)>,
    pub spans: BTreeMap<u32, Span>,
}

impl Drafted {
    pub(crate) fn note(&mut self, items: &[&Item]) {
        for item in items {
            let span = Span {
                first: item.seq,
                last: item.seq,
                count: 1,
                bytes: item.payload.len() as u64,
            };
            add_span(&mut self.spans, item.stream, span);
        }
    }
}

/// A segment's footer: where its blocks end and what streams have in it.
pub(crate) fn footer(spans: &BTreeMap<u32, Span>, end: u64, incarnation: u32, newest: i64) -> Draft {
    let mut entries = vec![Entry::End {
        end,
        incarnation,
        newest,
    }];
    entries.extend(spans.iter().map(|(stream, span)| Entry::Span {
        stream: *stream,
        first: span.first,
        last: span.last,
        count: span.count,
        bytes: span.bytes,
    }));
    Draft::footer(entries)
}

/// How many of the records from `from` on make the next block, and the lines of its table besides them.
pub(crate) fn chunk(
    names: &Names,
    items: &VecDeque<Queued>,
    from: usize,
    block_bytes: usize,
    first: &mut Vec<Entry>,
) -> (usize, Vec<Entry>) {
    let mut entries = std::mem::take(first);
    let mut table: usize = entries.iter().map(Entry::size).sum();
    let mut bytes = 0;
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut positions: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut count = 0;
    for queued in items.range(from..) {
        let item = &queued.item;
        // Room for a run of records; another one where numbers were left out.
        let mut more = match next.get(&item.stream) {
            Some(expected) if *expected == item.seq => 0,
            _ => 22,
        };
        let define = (!next.contains_key(&item.stream)).then(|| names.define(item.stream));
        more += define.as_ref().map_or(0, Entry::size);
        if let Some((source, _)) = &queued.position
            && !positions.contains_key(source)
        {
            more += source.len() + 24;
        }
        let over = bytes + item.payload.len() > block_bytes || table + more > TABLE;
        if count > 0 && over {
            break;
        }
        entries.extend(define);
        table += more;
        bytes += item.payload.len();
        next.insert(item.stream, item.seq + 1);
        if let Some((source, value)) = &queued.position {
            positions.insert(source.clone(), *value);
        }
        count += 1;
    }
    entries.extend(positions.into_iter().map(|(source, value)| Entry::Position {
        source: source.to_string(),
        value,
        order: names.order,
    }));
    (count, entries)
}

/// What a write's blocks say about the streams in them.
pub(crate) struct Names {
    order: u64,
    streams: BTreeMap<u32, (String, Durability)>,
}

impl Names {
    pub(crate) fn of(inner: &Inner, items: &VecDeque<Queued>) -> Self {
        let mut streams = BTreeMap::new();
        for queued in items {
            let id = queued.item.stream;
            if let Some(ledger) = inner.ledgers.get(&id)
                && !streams.contains_key(&id)
            {
                streams.insert(id, (ledger.name.clone(), ledger.durability));
            }
        }
        Self {
            order: inner.order,
            streams,
        }
    }

    pub(crate) fn define(&self, stream: u32) -> Entry {
        let (name, durability) = self
            .streams
            .get(&stream)
            .cloned()
            .unwrap_or((String::new(), Durability::Strict));
        Entry::Define {
            stream,
            durability,
            name,
        }
    }
}
