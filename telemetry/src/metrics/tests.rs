use super::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1_000_000_i64..1_000_000).prop_map(|n| n as f64),
        4 => (-1_000_000_i64..1_000_000, 0..12_i32).prop_map(|(n, p)| n as f64 / 10f64.powi(p)),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(stale()),
        1 => prop_oneof![Just(-0.0), Just(9_007_199_254_740_993.0), Just(f64::MAX), Just(f64::NEG_INFINITY)],
    ]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-c_]{1,3}|\\PC{1,3}", "[x-z]{1,2}|\\PC{1,9}", 0..6)
        .prop_map(|pairs| Labels::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap())
}

fn any_buckets() -> impl Strategy<Value = Buckets> {
    let span = (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length });
    (vec(span, 0..3), vec(any_value(), 0..5)).prop_map(|(spans, counts)| Buckets { spans, counts })
}

fn any_histogram() -> impl Strategy<Value = HistogramSample> {
    let numbers = [any_value(), any_value(), any_value(), any_value()];
    let reset = prop_oneof![
        Just(Reset::Unknown),
        Just(Reset::Yes),
        Just(Reset::No),
        Just(Reset::Gauge)
    ];
    let few = (any::<i64>(), any::<i32>(), any::<bool>(), reset, numbers);
    let lists = (any_buckets(), any_buckets(), vec(any_value(), 0..3));
    (few, lists).prop_map(
        |((time, schema, integral, reset, numbers), (positive, negative, bounds))| {
            let [count, sum, zero_threshold, zero_count] = numbers;
            let histogram = Histogram {
                schema,
                integral,
                reset,
                count,
                sum,
                zero_threshold,
                zero_count,
                positive,
                negative,
                bounds,
            };
            HistogramSample { time, histogram }
        },
    )
}

fn any_metadata() -> impl Strategy<Value = Arc<Metadata>> {
    let kind = (0..8_u8).prop_map(|number| Kind::from_number(number).unwrap());
    ("[a-z]{0,3}", kind, "[a-z]{0,2}", "\\PC{0,9}").prop_map(|(family, kind, unit, help)| {
        Arc::new(Metadata {
            family,
            kind,
            unit,
            help,
        })
    })
}

fn any_series() -> impl Strategy<Value = Series> {
    let sample = (0..5_i64, any_value()).prop_map(|(time, value)| Sample {
        time: 1_800_000_000_000 + 15_000 * time,
        value,
    });
    let exemplar = (any_labels(), any_value(), option::of(any::<i64>()))
        .prop_map(|(labels, value, time)| Exemplar { labels, value, time });
    let told = (any_labels(), option::of(any_metadata()), option::of(any::<i64>()));
    (
        told,
        vec(sample, 0..6),
        vec(any_histogram(), 0..2),
        vec(exemplar, 0..2),
    )
        .prop_map(
            |((labels, metadata, created), samples, histograms, exemplars)| Series {
                labels,
                metadata,
                created,
                samples,
                histograms,
                exemplars,
            },
        )
}

proptest! {
    #[test]
    fn a_batch_comes_back_whole(series in vec(any_series(), 0..12)) {
        let batch = Batch { series };
        prop_assert_eq!(Batch::decode(&batch.encode().unwrap()).unwrap(), batch);
    }

    #[test]
    fn damage_is_an_error_or_another_batch_but_no_crash(
        series in vec(any_series(), 1..4),
        at: prop::sample::Index,
        bit in 0..8_u32,
        cut: bool,
    ) {
        let mut record = Batch { series }.encode().unwrap();
        let at = at.index(record.len());
        if cut {
            record.truncate(at);
            prop_assert!(Batch::decode(&record).is_err());
        } else {
            record[at] ^= 1 << bit;
            let _either = Batch::decode(&record);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        let mut record = vec![1, 0];
        kit::varint::put(&mut record, bytes.len() as u64);
        record.extend_from_slice(&bytes);
        let _either = Batch::decode(&record);
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).unwrap()
}

#[test]
fn labels_are_sorted_and_without_empties() {
    let held = labels(&[("job", "node"), ("__name__", "up"), ("zone", "")]);
    assert_eq!(held.to_string(), r#"up{job="node"}"#);
    assert_eq!(held.get("job"), Some("node"));
    assert_eq!(held, labels(&[("__name__", "up"), ("job", "node")]));
    let twice = Labels::new([("a", "1"), ("a", "2")]).unwrap_err();
    assert_eq!(twice.to_string(), "label a is given twice");
    assert!(Labels::new([("", "1")]).is_err());
}

/// What devices have in their spools must be readable by every later version.
#[test]
fn the_first_layout_stays_readable() {
    let metadata = Arc::new(Metadata {
        family: "temp".to_owned(),
        kind: Kind::Gauge,
        unit: "celsius".to_owned(),
        help: "Warmth.".to_owned(),
    });
    let mut one = Series::new(labels(&[("__name__", "temp"), ("zone", "cpu")]));
    one.metadata = Some(metadata);
    one.samples = vec![
        Sample {
            time: 1_800_000_000_000,
            value: 41.5,
        },
        Sample {
            time: 1_800_000_015_000,
            value: 41.25,
        },
        Sample {
            time: 1_800_000_030_000,
            value: stale(),
        },
    ];
    let batch = Batch { series: vec![one] };
    let record = batch.encode().unwrap();
    let shown: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        shown,
        "01004e04080404035f5f6e616d655f5f74656d707a6f6e656370750200000000010474656d70020763656c73697573075761726d7468\
         2e010380c0e285e368b0ea01b0ea01010002000002010082ec4031"
    );
    assert_eq!(Batch::decode(&record).unwrap(), batch);
}

#[test]
fn what_claims_too_much_is_refused_before_memory_is_taken() {
    let mut series = Series::new(labels(&[("__name__", "flood")]));
    series.samples = vec![Sample { time: 0, value: 0.0 }; MOST_SAMPLES / 2];
    let batch = Batch {
        series: vec![series.clone(), series.clone(), series],
    };
    assert!(batch.encode().unwrap_err().to_string().contains("split it"));

    let mut claims = vec![1, 1];
    kit::varint::put(&mut claims, u64::MAX);
    assert!(matches!(
        Batch::decode(&claims),
        Err(DecodeError::TooLarge { .. })
    ));
    assert_eq!(
        Batch::decode(&[9]).unwrap_err().to_string(),
        "the record has layout 9, and this program knows up to 1: update it"
    );
}
