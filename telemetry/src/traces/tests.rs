//! Requests in and records out.

use super::*;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Status;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// A span of trace `trace`, from 0 to `took` seconds.
fn span(trace: u8, id: u8, took: u64) -> Span {
    let mut trace_id = vec![0; 16];
    (trace_id[0], trace_id[9]) = (trace, trace);
    Span {
        trace_id,
        span_id: vec![id; 8],
        name: format!("span-{id}"),
        start_time_unix_nano: 1,
        end_time_unix_nano: 1 + took * SECOND,
        ..Span::default()
    }
}

fn wrong(span: Span) -> Span {
    let status = Some(Status {
        code: 2,
        message: String::new(),
    });
    Span { status, ..span }
}

fn request(spans: Vec<Span>) -> Request {
    Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text(SERVICE, "shop")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn ids(requests: &[Request]) -> Vec<(u8, u8)> {
    let spans = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|of| &of.scope_spans)
        .flat_map(|scope| &scope.spans);
    spans.map(|span| (span.trace_id[0], span.span_id[0])).collect()
}

fn attributes(request: &Request) -> Vec<(String, String)> {
    let held = request.resource_spans[0].resource.clone().unwrap_or_default();
    let value = |pair: &KeyValue| match pair.value.clone().and_then(|any| any.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    held.attributes
        .iter()
        .map(|pair| (pair.key.clone(), value(pair)))
        .collect()
}

#[test]
fn json_says_the_same_as_protobuf() {
    let json = br#"{"resourceSpans":[{"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"shop"}},
        {"key":"list","value":{"arrayValue":{"values":[{"intValue":"7"},{"boolValue":true},{"doubleValue":"NaN"}]}}},
        {"key":"map","value":{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AQI="}}]}}},
        {"key":"empty","value":{"unknownValue":{"a":[1]}}}]},
      "scopeSpans":[{"scope":{"name":"lib","version":"1"},"spans":[{
        "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"",
        "name":"GET /","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
        "futureField":{"x":1},"status":{"code":"STATUS_CODE_ERROR","message":"no"},
        "events":[{"timeUnixNano":"5","name":"e"}],
        "links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}]}]}]}]}"#;
    let read = from_json(json).unwrap();
    let again = from_protobuf(&read.encode_to_vec()).unwrap();
    assert_eq!(count(&again), 1);
    let span = &again.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.trace_id[0], span.span_id[7], span.kind), (0x5b, 0x74, 2));
    assert_eq!(
        (span.start_time_unix_nano, span.end_time_unix_nano),
        (1_544_712_660 * SECOND, 1_544_712_661 * SECOND)
    );
    assert!(failed(span) && span.parent_span_id.is_empty());
    assert_eq!((span.events[0].time_unix_nano, span.links.len()), (5, 1));
    let told = format!("{:?}", attributes(&again));
    for part in [
        "IntValue(7)",
        "BoolValue(true)",
        "NaN",
        "[1, 2]",
        "(\"empty\", \"None\")",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_place() {
    let err = |text: &str| from_json(text.as_bytes()).unwrap_err().to_string();
    for (text, part) in [
        ("{", "line 1"),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#,
            "\"xyz\" is not hexadecimal",
        ),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":9}]}]}]}"#,
            "0 to 5",
        ),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":-1}]}]}]}"#,
            "without sign",
        ),
    ] {
        let told = err(text);
        assert!(told.contains(part), "{text}: {told}");
    }
    for bytes in [&[0x0a, 5, 1][..], &[0x0f], &[0x0a], &[0xff; 11]] {
        assert!(from_protobuf(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_small_request_that_would_be_large_in_memory_is_refused_before_it_is_made() {
    // Two bytes each say: one more span, with nothing in it.
    let spans = [0x12, 0].repeat(400_000);
    let framed = |field: u8, inner: &[u8]| {
        let mut out = vec![field];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    let bomb = framed(0x0a, &framed(0x12, &spans));
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(
        from_protobuf(&bomb),
        Err(Unreadable::TooManyParts { .. })
    ));
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
        vec!["{}"; 400_000].join(",")
    );
    assert!(matches!(
        from_json(json.as_bytes()),
        Err(Unreadable::TooManyParts { .. })
    ));
    // A list within a list within a list.
    let deep = (0..5000).fold(vec![], |inner, _| framed(0x2a, &framed(0x0a, &inner)));
    let deep = framed(0x0a, &framed(0x0a, &framed(0x0a, &framed(0x12, &deep))));
    assert!(from_protobuf(&deep).is_err());
    // What a busy client really sends passes.
    let many = request((0..=255).cycle().take(5000).map(|id| span(1, id, 1)).collect());
    assert_eq!(count(&from_protobuf(&many.encode_to_vec()).unwrap()), 5000);
}

#[test]
fn a_pod_cannot_pass_for_another() {
    let whose = [
        ("k8s.namespace.name".to_owned(), "shop".to_owned()),
        ("k8s.pod.name".to_owned(), "web-0".to_owned()),
    ];
    let mut told = request(vec![span(1, 1, 1)]);
    let held = &mut told.resource_spans[0].resource.get_or_insert_default().attributes;
    held.push(text("k8s.pod.name", "bank-0"));
    held.push(text("leeward.device", "other"));
    held.push(text("region", "eu"));
    mark(&mut told, &whose, Some("web"));
    let want = [
        ("service.name", "shop"),
        ("region", "eu"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "web-0"),
    ];
    assert_eq!(
        attributes(&told),
        want.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    let mut unnamed = request(vec![span(1, 1, 1)]);
    unnamed.resource_spans[0]
        .resource
        .get_or_insert_default()
        .attributes = vec![text(SERVICE, "unknown_service:python")];
    mark(&mut unnamed, &whose, Some("web"));
    assert!(attributes(&unnamed).contains(&("service.name".to_owned(), "web".to_owned())));
}

#[test]
fn spans_without_ids_are_taken_out_and_counted() {
    let mut told = request(vec![
        span(1, 1, 1),
        Span::default(),
        Span {
            span_id: vec![0; 8],
            ..span(1, 2, 1)
        },
        Span {
            trace_id: vec![1; 8],
            ..span(1, 3, 1)
        },
    ]);
    assert_eq!(take_out_nameless(&mut told), 3);
    assert_eq!(ids(&[told]), [(1, 1)]);
}

proptest! {
    #[test]
    fn records_hold_every_span_once_and_are_bounded(sizes in prop::collection::vec(0usize..40_000, 0..60)) {
        let most = 100_000;
        let spans = sizes.iter().enumerate().map(|(index, size)| Span {
            name: "n".repeat(*size),
            ..span(1, index as u8, 1)
        });
        let whole = request(spans.collect());
        let (cut, too_large) = records(whole.clone(), most);
        let same = records(whole.clone(), most);
        prop_assert_eq!(&cut, &same.0);
        prop_assert_eq!(too_large, 0);
        let read: Vec<Request> = cut.iter().map(|record| Request::decode(&record[..]).unwrap()).collect();
        prop_assert_eq!(ids(&read), ids(std::slice::from_ref(&whole)));
        for (record, part) in cut.iter().zip(&read) {
            prop_assert!(record.len() <= RECORD_BYTES || count(part) == 1);
            prop_assert_eq!(attributes(part), attributes(&whole));
        }
    }
}

#[test]
fn a_span_that_no_record_can_hold_is_counted() {
    let large = Span {
        name: "n".repeat(200_000),
        ..span(1, 2, 1)
    };
    let (cut, too_large) = records(request(vec![span(1, 1, 1), large, span(1, 3, 1)]), 100_000);
    assert_eq!((cut.len(), too_large), (2, 1));
}

fn rules(share: f64, memory: usize) -> Rules {
    Rules {
        wait: Duration::from_secs(10),
        share,
        slow: Some(Duration::from_secs(3)),
        memory,
    }
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn errors_and_slow_traces_are_kept_whole_and_the_rest_is_left_out() {
    let mut tail = Tail::new(rules(0.0, 1 << 20));
    // Trace 1 fails late, 2 is slow by its ends, 3 is neither.
    let first = tail.add(request(vec![span(1, 1, 1), span(2, 1, 1), span(3, 1, 1)]), at(0));
    assert_eq!(count(&first), 0);
    let late_end = Span {
        start_time_unix_nano: 3 * SECOND,
        end_time_unix_nano: 4 * SECOND,
        ..span(2, 2, 0)
    };
    tail.add(
        request(vec![wrong(span(1, 2, 1)), late_end, span(3, 2, 1)]),
        at(5),
    );
    assert_eq!(tail.next(), Some(at(10)));
    assert_eq!(count(&tail.due(at(9))), 0);
    let kept: BTreeSet<_> = ids(&[tail.due(at(10))]).into_iter().collect();
    assert_eq!(kept, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    let figures = tail.figures();
    assert_eq!((figures.kept_spans, figures.left_out_spans), (4, 2));
    assert_eq!((figures.kept_traces, figures.left_out_traces), (2, 1));
    assert_eq!((figures.waiting_spans, figures.waiting_bytes), (0, 0));
}

#[test]
fn late_spans_follow_the_decision_unless_they_fail() {
    let mut tail = Tail::new(rules(0.0, 1 << 20));
    tail.add(request(vec![wrong(span(1, 1, 1)), span(2, 1, 1)]), at(0));
    tail.due(at(10));
    assert_eq!(
        ids(&[tail.add(request(vec![span(1, 2, 1), span(2, 2, 1)]), at(11))]),
        [(1, 2)]
    );
    assert_eq!(
        ids(&[tail.add(request(vec![wrong(span(2, 3, 1))]), at(12))]),
        [(2, 3)]
    );
    let figures = tail.figures();
    assert_eq!((figures.late_spans, figures.left_out_spans), (3, 2));
    assert_eq!(tail.next(), None);
}

#[test]
fn memory_is_bounded_and_the_oldest_are_decided_early() {
    let mut tail = Tail::new(rules(0.0, 20_000));
    let mut kept = Vec::new();
    for trace in 0..200 {
        let failing = trace % 2 == 0;
        let one = span(trace, 1, 1);
        kept.push(tail.add(request(vec![if failing { wrong(one) } else { one }]), at(1)));
        assert!(tail.figures().waiting_bytes <= 20_000);
    }
    kept.push(tail.end());
    let figures = tail.figures();
    assert!(figures.early_traces > 100, "{figures:?}");
    assert_eq!((figures.kept_traces, figures.left_out_traces), (100, 100));
    assert_eq!(ids(&kept).len(), 100);
}

#[test]
fn the_share_is_of_traces_by_their_id_alone() {
    let decide = |share| {
        let mut tail = Tail::new(rules(share, 8 << 20));
        tail.add(request((0..=255).map(|trace| span(trace, 1, 1)).collect()), at(0));
        ids(&[tail.due(at(10))]).into_iter().collect::<BTreeSet<_>>()
    };
    let (some, more) = (decide(0.25), decide(0.5));
    // The first random byte of the id is the trace's number here.
    assert_eq!((some.len(), more.len()), (64, 128));
    assert!(some.is_subset(&more));
    assert_eq!((decide(0.0).len(), decide(1.0).len()), (0, 256));
    assert_eq!(decide(0.25), some);
}

fn stream(dir: &tempfile::TempDir) -> (spool::Spool, spool::Stream) {
    let (spool, _) = spool::Spool::open(dir.path(), spool::Options::default()).unwrap();
    let stream = spool
        .stream("traces", spool::Durability::Strict, spool::Class::Bulk)
        .unwrap();
    (spool, stream)
}

#[tokio::test]
async fn what_comes_again_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_spool, stream) = stream(&dir);
    let keeper = Keeper::new(stream.clone());
    let records: Vec<Vec<u8>> = (0..300u32)
        .map(|number| vec![number as u8; 30_000 + number as usize])
        .collect();
    keeper.keep(&records[..200]).await.unwrap();
    // The client had no answer, and its next request has more.
    keeper.keep(&records).await.unwrap();
    assert_eq!(stream.last(), 300);
}
