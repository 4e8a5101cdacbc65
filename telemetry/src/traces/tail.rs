//! Tail sampling: a trace is decided as a whole, some time after its first span, in bounded memory.
//!
//! Kept are traces with an error, slow ones, and a share of the rest. The share is taken by the trace's own id, so that
//! all devices of one trace decide alike (W3C trace context level 2: the last seven bytes are random).

use super::{Request, failed};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Decisions remembered for spans that come late.
const REMEMBERED: usize = 4096;
/// What a span takes beside its bytes on the wire, about.
const OVERHEAD: usize = 512;

type TraceId = [u8; 16];

/// What is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// From a trace's first span to its decision.
    pub wait: Duration,
    /// Of traces that are neither failed nor slow, 0 to 1.
    pub share: f64,
    /// From this on a trace is slow, first start to last end; none where absent.
    pub slow: Option<Duration>,
    /// Most bytes of spans that wait for their decision.
    pub memory: usize,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Spans of traces that were kept.
    pub kept_spans: u64,
    /// Spans that the rules left out.
    pub left_out_spans: u64,
    /// Traces kept.
    pub kept_traces: u64,
    /// Traces left out.
    pub left_out_traces: u64,
    /// Traces decided before their time, because memory was full.
    pub early_traces: u64,
    /// Spans that came after their trace's decision, and followed it.
    pub late_spans: u64,
    /// Spans that wait now.
    pub waiting_spans: u64,
    /// What they take, about.
    pub waiting_bytes: u64,
}

/// Traces that wait for their decision. Times are any that only rise.
#[derive(Debug)]
pub struct Tail {
    rules: Rules,
    open: HashMap<TraceId, Open>,
    /// By their first span.
    order: VecDeque<(Duration, TraceId)>,
    bytes: usize,
    decided: HashMap<TraceId, bool>,
    decisions: VecDeque<TraceId>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Open {
    spans: Vec<Held>,
    bytes: usize,
    failed: bool,
    /// Nanoseconds since 1970.
    first: u64,
    last: u64,
}

#[derive(Debug)]
struct Held {
    of: Arc<Of>,
    span: Span,
}

/// What spans have in common.
#[derive(Debug)]
struct Of {
    resource: Option<Resource>,
    resource_schema: String,
    scope: Option<InstrumentationScope>,
    scope_schema: String,
}

impl Tail {
    /// Nothing waits yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            open: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            decided: HashMap::new(),
            decisions: VecDeque::new(),
            figures: Figures::default(),
        }
    }

    /// Takes spans with valid ids in; gives those that are to be kept at once: late ones, and what had to be decided
    /// early.
    pub fn add(&mut self, request: Request, now: Duration) -> Request {
        let mut out = Vec::new();
        for of_resource in request.resource_spans {
            for scope in of_resource.scope_spans {
                let of = Arc::new(Of {
                    resource: of_resource.resource.clone(),
                    resource_schema: of_resource.schema_url.clone(),
                    scope: scope.scope,
                    scope_schema: scope.schema_url,
                });
                // The common part is counted once per request, with the first of its spans.
                let mut shared = of.resource.as_ref().map_or(0, Resource::encoded_len);
                for span in scope.spans {
                    let of = Arc::clone(&of);
                    self.add_span(Held { of, span }, std::mem::take(&mut shared), now, &mut out);
                }
            }
        }
        while self.bytes > self.rules.memory
            && let Some((_, id)) = self.order.pop_front()
        {
            self.figures.early_traces += 1;
            self.decide(id, &mut out);
        }
        together(out)
    }

    fn add_span(&mut self, held: Held, shared: usize, now: Duration, out: &mut Vec<Held>) {
        let Ok(id) = TraceId::try_from(held.span.trace_id.as_slice()) else {
            return;
        };
        if let Some(kept) = self.decided.get_mut(&id) {
            self.figures.late_spans += 1;
            // An error is worth keeping even where what led to it has gone.
            *kept |= failed(&held.span);
            if *kept {
                self.figures.kept_spans += 1;
                out.push(held);
            } else {
                self.figures.left_out_spans += 1;
            }
            return;
        }
        let open = self.open.entry(id).or_insert_with(|| {
            self.order.push_back((now, id));
            Open {
                first: u64::MAX,
                ..Open::default()
            }
        });
        let bytes = held.span.encoded_len() + OVERHEAD + shared;
        open.bytes += bytes;
        self.bytes += bytes;
        open.failed |= failed(&held.span);
        open.first = open.first.min(held.span.start_time_unix_nano);
        open.last = open.last.max(held.span.end_time_unix_nano);
        open.spans.push(held);
        self.figures.waiting_spans += 1;
    }

    /// Decides what has waited long enough by `now`; gives what is to be kept.
    pub fn due(&mut self, now: Duration) -> Request {
        let mut out = Vec::new();
        while let Some((since, id)) = self.order.front().copied()
            && now.saturating_sub(since) >= self.rules.wait
        {
            self.order.pop_front();
            self.decide(id, &mut out);
        }
        together(out)
    }

    /// Decides everything: the process ends.
    pub fn end(&mut self) -> Request {
        let mut out = Vec::new();
        while let Some((_, id)) = self.order.pop_front() {
            self.decide(id, &mut out);
        }
        together(out)
    }

    /// When [`Tail::due`] has something to do, if nothing comes until then.
    pub fn next(&self) -> Option<Duration> {
        self.order.front().map(|(since, _)| *since + self.rules.wait)
    }

    /// See [`Figures`].
    pub fn figures(&self) -> Figures {
        Figures {
            waiting_bytes: self.bytes as u64,
            ..self.figures
        }
    }

    fn decide(&mut self, id: TraceId, out: &mut Vec<Held>) {
        let Some(open) = self.open.remove(&id) else { return };
        self.bytes -= open.bytes;
        let spans = open.spans.len() as u64;
        self.figures.waiting_spans -= spans;
        let took = Duration::from_nanos(open.last.saturating_sub(open.first));
        let slow = self.rules.slow.is_some_and(|slow| took >= slow);
        let kept = open.failed || slow || within(&id, self.rules.share);
        if kept {
            self.figures.kept_traces += 1;
            self.figures.kept_spans += spans;
            out.extend(open.spans);
        } else {
            self.figures.left_out_traces += 1;
            self.figures.left_out_spans += spans;
        }
        self.decided.insert(id, kept);
        self.decisions.push_back(id);
        if self.decisions.len() > REMEMBERED
            && let Some(oldest) = self.decisions.pop_front()
        {
            self.decided.remove(&oldest);
        }
    }
}

/// Whether the id falls into the share.
fn within(id: &TraceId, share: f64) -> bool {
    let mut bytes = [0; 8];
    bytes[1..].copy_from_slice(&id[9..]);
    let random = u64::from_be_bytes(bytes);
    // 56 bits; a share is not finer than a double.
    let threshold = ((1.0 - share.clamp(0.0, 1.0)) * (1u64 << 56) as f64) as u64;
    random >= threshold
}

/// Spans under what they have in common again.
fn together(spans: Vec<Held>) -> Request {
    let mut places: HashMap<*const Of, usize> = HashMap::new();
    let mut request = Request::default();
    for held in spans {
        let place = *places.entry(Arc::as_ptr(&held.of)).or_insert_with(|| {
            request.resource_spans.push(ResourceSpans {
                resource: held.of.resource.clone(),
                schema_url: held.of.resource_schema.clone(),
                scope_spans: vec![ScopeSpans {
                    scope: held.of.scope.clone(),
                    schema_url: held.of.scope_schema.clone(),
                    spans: Vec::new(),
                }],
            });
            request.resource_spans.len() - 1
        });
        request.resource_spans[place].scope_spans[0].spans.push(held.span);
    }
    request
}
