use super::*;
use crate::metrics::relabel::Rule;
use crate::metrics::{Job, Source};

fn target(change: impl FnOnce(&mut Job)) -> Ingest {
    let mut job = Job::new("j", Duration::from_secs(15));
    change(&mut job);
    Ingest::new(Arc::new(Target {
        source: Source::Url("http://x/metrics".to_owned()),
        labels: Labels::new([("job", "j")]).unwrap(),
        job: Arc::new(job),
    }))
}

fn scrape(ingest: &mut Ingest, time: i64, body: &str) -> Result<Counts, String> {
    let answer = Ok((body.as_bytes(), Format::Text));
    ingest
        .take(answer, time, Duration::from_millis(5))
        .map_err(|err| err.to_string())
}

/// All that was gathered, sorted, without the reports but `up`.
fn drained(ingest: &mut Ingest) -> String {
    let mut batch = Batch::default();
    ingest.drain(&mut batch);
    let of = |series: &Series| format!("{} {:?}", series.labels, series.samples);
    let mut lines: Vec<String> = batch.series.iter().map(of).collect();
    lines.retain(|line| !line.starts_with("scrape_"));
    lines.sort();
    lines.join("\n")
}

#[test]
fn series_end_with_a_marker_and_come_back() {
    let mut ingest = target(|_| {});
    let counts = scrape(&mut ingest, 1, "a 1\nb{x=\"y\"} 2\n").unwrap();
    assert_eq!((counts.scraped, counts.kept, counts.added), (2, 2, 2));
    assert_eq!(scrape(&mut ingest, 2, "a 3\n").unwrap().added, 0);
    assert_eq!(
        drained(&mut ingest),
        "a{job=\"j\"} [1 @1, 3 @2]\nb{job=\"j\",x=\"y\"} [2 @1, stale @2]\nup{job=\"j\"} [1 @1, 1 @2]"
    );
    // It is marked once.
    scrape(&mut ingest, 3, "a 4\n").unwrap();
    assert_eq!(drained(&mut ingest), "a{job=\"j\"} [4 @3]\nup{job=\"j\"} [1 @3]");
    assert_eq!(scrape(&mut ingest, 4, "a 5\nb{x=\"y\"} 6\n").unwrap().added, 1);
    ingest.end(5);
    assert_eq!(
        drained(&mut ingest),
        "a{job=\"j\"} [5 @4, stale @5]\nb{job=\"j\",x=\"y\"} [6 @4, stale @5]\nup{job=\"j\"} [1 @4, stale @5]"
    );
    assert_eq!(drained(&mut ingest), "");
}

#[test]
fn a_scrape_that_fails_in_its_middle_leaves_nothing_but_ends() {
    let mut ingest = target(|_| {});
    scrape(&mut ingest, 1, "a 1\n").unwrap();
    let err = scrape(&mut ingest, 2, "a 2\nnew 1\nbroken\n").unwrap_err();
    assert!(err.contains("line 3"), "{err}");
    assert_eq!(
        drained(&mut ingest),
        "a{job=\"j\"} [1 @1, stale @2]\nup{job=\"j\"} [1 @1, 0 @2]"
    );
    let gone = ScrapeError::Fetch("connection refused".to_owned());
    assert!(ingest.take(Err(gone), 3, Duration::ZERO).is_err());
    assert_eq!(drained(&mut ingest), "up{job=\"j\"} [0 @3]");
    assert!(scrape(&mut ingest, 4, "a 4\n").is_ok());
    assert_eq!(drained(&mut ingest), "a{job=\"j\"} [4 @4]\nup{job=\"j\"} [1 @4]");
}

#[test]
fn labels_of_target_and_text_meet() {
    let text = "a{job=\"said\",exported_job=\"x\"} 1\n";
    let mut ingest = target(|_| {});
    scrape(&mut ingest, 1, text).unwrap();
    assert!(
        drained(&mut ingest)
            .contains("a{exported_exported_job=\"said\",exported_job=\"x\",job=\"j\"} [1 @1]")
    );
    let mut ingest = target(|job| job.honor_labels = true);
    scrape(&mut ingest, 1, text).unwrap();
    assert!(drained(&mut ingest).contains("a{exported_job=\"x\",job=\"said\"} [1 @1]"));
}

#[test]
fn own_times_are_kept_or_not_and_the_same_sample_comes_once() {
    let mut ingest = target(|_| {});
    scrape(&mut ingest, 10, "a 1 5\n").unwrap();
    scrape(&mut ingest, 20, "a 1 5\n").unwrap();
    scrape(&mut ingest, 30, "b 1\n").unwrap();
    // Its end is not known: no marker.
    assert!(drained(&mut ingest).starts_with("a{job=\"j\"} [1 @5]\n"));
    let mut ingest = target(|job| job.honor_timestamps = false);
    scrape(&mut ingest, 10, "a 1 5\na 2 6\n").unwrap();
    assert!(drained(&mut ingest).starts_with("a{job=\"j\"} [1 @10]\n"));
}

#[test]
fn relabelling_and_limits() {
    let mut ingest =
        target(|job| job.metric_relabel = vec![Rule::new("drop", &["__name__"], "go_.*", "").unwrap()]);
    let counts = scrape(&mut ingest, 1, "go_x 1\na 1\n").unwrap();
    assert_eq!((counts.scraped, counts.kept), (2, 1));
    for (change, want) in [
        (
            (|job| job.limits.samples = 1) as fn(&mut Job),
            "the number of samples is 2, more than the job's limit of 1",
        ),
        (|job| job.limits.labels = 2, "the number of labels is 3"),
        (
            |job| job.limits.value_bytes = 3,
            "the length of label x's value is 4",
        ),
        (
            |job| job.limits.name_bytes = 7,
            "the length of a label's name is 8",
        ),
    ] {
        let mut ingest = target(change);
        let err = scrape(&mut ingest, 1, "a 1\nb{x=\"long\"} 1\n").unwrap_err();
        assert!(err.contains(want), "{err}");
        assert_eq!(drained(&mut ingest), "up{job=\"j\"} [0 @1]");
    }
}

#[test]
fn metadata_and_exemplars_go_along() {
    let mut ingest = target(|_| {});
    let body = "# TYPE a counter\n# HELP a As.\na_total 1 # {trace_id=\"t\"} 0.5\n# EOF\n";
    for time in [1, 2] {
        let answer = Ok((body.as_bytes(), Format::OpenMetrics));
        ingest.take(answer, time, Duration::ZERO).unwrap();
    }
    let mut batch = Batch::default();
    ingest.drain(&mut batch);
    let series = &batch.series[0];
    let metadata = series.metadata.as_ref().unwrap();
    assert_eq!(
        (
            metadata.family.as_str(),
            metadata.kind.name(),
            metadata.help.as_str()
        ),
        ("a", "counter", "As.")
    );
    assert_eq!(series.exemplars.len(), 1);
    let record = batch.encode().unwrap();
    assert_eq!(Batch::decode(&record).unwrap(), batch);
}

#[test]
fn a_tap_has_each_sample_once_and_at_once() {
    let mut ingest = target(|_| {});
    let tapped = |ingest: &mut Ingest| {
        let mut told = Vec::new();
        ingest.tap(&mut |labels, sample| told.push(format!("{} {sample:?}", labels.name())));
        told.retain(|line| !line.starts_with("scrape_"));
        told.sort();
        told.join(", ")
    };
    scrape(&mut ingest, 1, "a 1\nb 2\n").unwrap();
    assert_eq!(tapped(&mut ingest), "a 1 @1, b 2 @1, up 1 @1");
    assert_eq!(tapped(&mut ingest), "");
    scrape(&mut ingest, 2, "a 3\n").unwrap();
    assert_eq!(tapped(&mut ingest), "a 3 @2, b stale @2, up 1 @2");
    drained(&mut ingest);
    assert_eq!(tapped(&mut ingest), "");
    scrape(&mut ingest, 3, "a 4\nbroken\n").unwrap_err();
    assert_eq!(tapped(&mut ingest), "a stale @3, up 0 @3");
    ingest.end(4);
    assert_eq!(tapped(&mut ingest), "up stale @4");
}
