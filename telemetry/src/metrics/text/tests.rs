use super::*;
use proptest::prelude::*;

/// Every entry as one line of text, or the error.
fn read(body: &str, format: Format) -> String {
    let mut parser = Parser::new(body.as_bytes(), format).unwrap();
    let mut out = String::new();
    loop {
        match parser.next() {
            Ok(None) => return out,
            Err(err) => return format!("{out}! {err}"),
            Ok(Some(Entry::Type(name, kind))) => out += &format!("{name} is a {}\n", kind.name()),
            Ok(Some(Entry::Help(name, help))) => out += &format!("{name}: {help}\n"),
            Ok(Some(Entry::Unit(name, unit))) => out += &format!("{name} in {unit}\n"),
            Ok(Some(Entry::Sample(line))) => {
                let shown: Vec<_> = labels(line.series)
                    .iter()
                    .map(|(n, v)| format!("{n}={v}"))
                    .collect();
                out += &format!("{} {} {:?}", shown.join(","), line.value, line.time);
                if let Some(exemplar) = line.exemplar {
                    out += &format!(" e.g. {:?} {exemplar:?}", labels(exemplar.labels));
                }
                out.push('\n');
            }
        }
    }
}

#[track_caller]
fn check(body: &str, format: Format, want: &str) {
    assert_eq!(read(body, format).trim_end(), want, "{body}");
}

#[test]
fn the_older_format_with_all_its_freedom() {
    let body = "\n# HELP http_total All\\n of \"them\" \\\\.\n# TYPE http_total counter\n# a comment\n#\n\
        http_total{ method=\"post\" , code = \"200\", } 1027 1395066363000\n\
        \thttp_total {code=\"a\\\\b\\\"c\\nd\\x\"}\t3e2 -5\nup NaN\nlow -Inf\n{\"a.b\",\"c d\"=\"e\"} +1\nlast .5";
    check(
        body,
        Format::Text,
        "http_total: All\n of \"them\" \\.\nhttp_total is a counter\n\
         __name__=http_total,method=post,code=200 1027 Some(1395066363000)\n\
         __name__=http_total,code=a\\b\"c\nd\\x 300 Some(-5)\n__name__=up NaN None\n__name__=low -inf None\n\
         __name__=a.b,c d=e 1 None\n__name__=last 0.5 None",
    );
}

#[test]
fn open_metrics_with_exemplars_and_its_end() {
    let body = "# TYPE foo_seconds histogram\n# UNIT foo_seconds seconds\n# HELP foo_seconds How \\\"long\\\".\n\
        foo_seconds_bucket{le=\"+Inf\"} 17 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67 1520879608.5\n\
        foo_seconds_count 17 # {} 1\nfoo_seconds_created 1520430000.123\n# EOF\n";
    check(
        body,
        Format::OpenMetrics,
        "foo_seconds is a histogram\nfoo_seconds in seconds\nfoo_seconds: How \"long\".\n\
         __name__=foo_seconds_bucket,le=+Inf 17 Some(1520879607789) e.g. [(\"trace_id\", \"KOO5S4vxi0o\")] \
         ExemplarText { labels: \"{trace_id=\\\"KOO5S4vxi0o\\\"}\", value: 0.67, time: Some(1520879608500) }\n\
         __name__=foo_seconds_count 17 None e.g. [] ExemplarText { labels: \"{}\", value: 1.0, time: None }\n\
         __name__=foo_seconds_created 1520430000.123 None",
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (body, format, want) in [
        (
            "a 1\nb{c=\"d\" 1\n",
            Format::Text,
            "line 2: `,` or `}` is expected after a label: \"1\"",
        ),
        ("a{b=\"c\" d=\"e\"} 1", Format::Text, "line 1: `,` or `}`"),
        (
            "a{b=c} 1",
            Format::Text,
            "line 1: a label's value in double quotes is expected: \"c} 1\"",
        ),
        ("a{b=\"c} 1\n", Format::Text, "line 1: the quotes are not closed"),
        (
            "a{1=\"c\"} 1\n",
            Format::Text,
            "line 1: a label's name is expected",
        ),
        ("{a=\"c\"} 1\n", Format::Text, "line 1: a metric's name"),
        ("9a 1\n", Format::Text, "line 1: a metric's name"),
        ("a\n", Format::Text, "line 1: a space and a value are expected"),
        ("a x\n", Format::Text, "line 1: the value is no number"),
        ("a 1e999\n", Format::Text, "line 1: the value is no number"),
        ("a 0x10\n", Format::Text, "line 1: the value is no number"),
        ("a 1 1.5\n", Format::Text, "line 1: the time is no number"),
        ("a 1 1 1\n", Format::Text, "line 1: the line should end here"),
        ("# TYPE a thing\n", Format::Text, "line 1: there is no such type"),
        ("a 1\n", Format::OpenMetrics, "line 2: `# EOF` is missing"),
        (
            "a 1\n# EOF\n\n",
            Format::OpenMetrics,
            "line 3: there is text after `# EOF`",
        ),
        (
            "a  1\n# EOF\n",
            Format::OpenMetrics,
            "line 1: a space and a value",
        ),
        ("\n# EOF", Format::OpenMetrics, "line 1: empty lines"),
        (
            "# UNIT a_seconds meters\n# EOF",
            Format::OpenMetrics,
            "line 1: the metric's name does not end",
        ),
        (
            "a{b=\"c\",} 1\n# EOF",
            Format::OpenMetrics,
            "line 1: a label's name is expected",
        ),
        ("a 1 # 1\n# EOF", Format::OpenMetrics, "line 1: an exemplar needs"),
    ] {
        let got = read(body, format);
        assert!(
            got.contains(&format!("! {want}")),
            "{body:?} gave {got:?}, not {want:?}"
        );
    }
    let err = Parser::new(b"a 1\n\xff", Format::Text).unwrap_err();
    assert_eq!((err.line, err.fault), (2, Fault::NotUtf8));
}

proptest! {
    #[test]
    fn any_text_is_survived(body in "[a-c{}=,\"\\\\# \n\t0-9.TYPEHLUNIOF\\PC]{0,80}") {
        read(&body, Format::Text);
        read(&body, Format::OpenMetrics);
        read(&format!("{body}\n# EOF"), Format::OpenMetrics);
    }

    #[test]
    fn what_is_written_is_read(
        labels in proptest::collection::btree_map("[a-z_][a-z0-9_]{0,5}", "\\PC{0,8}|[\\\\\"\n]{0,3}", 0..5),
        value: f64,
        time in proptest::option::of(any::<i64>()),
    ) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let inside: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
        let body = format!("m{{{}}} {value} {}", inside.join(","), time.map(|t| t.to_string()).unwrap_or_default());
        let mut parser = Parser::new(body.as_bytes(), Format::Text).unwrap();
        let Ok(Some(Entry::Sample(line))) = parser.next() else { panic!("{body}") };
        prop_assert_eq!(line.value.to_bits(), if value.is_nan() { 0x7ff8_0000_0000_0001 } else { value.to_bits() });
        prop_assert_eq!(line.time, time);
        let found = super::labels(line.series);
        let found: Vec<_> = found.iter().skip(1).map(|(n, v)| (n.to_string(), v.to_string())).collect();
        prop_assert_eq!(found, labels.into_iter().collect::<Vec<_>>());
    }
}
