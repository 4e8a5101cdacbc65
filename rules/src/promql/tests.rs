use super::*;

#[track_caller]
fn refused(text: &str, want: &str) {
    let shown = parse(text).map(|expr| expr.gives()).unwrap_err().shown(text);
    assert_eq!(shown, want, "{text}");
}

#[test]
fn what_is_beyond_the_subset_is_named_with_its_place() {
    for (text, want) in [
        (
            "sum(\n  holt_winters(x[1h], 0.5, 0.5))",
            "2:3: the function holt_winters is not evaluated on devices; avg_over_time or predict_linear may do",
        ),
        (
            "max_over_time(rate(x[5m])[1h:1m])",
            "1:26: a subquery is not evaluated on devices; record the inner expression by a rule of its own, and select \
             what it records",
        ),
        (
            "x @ 1609746000",
            "1:3: the modifier @ is not evaluated on devices; a rule looks at the time of its evaluation; use offset",
        ),
        (
            "histogram_count(x)",
            "1:1: the function histogram_count is not evaluated on devices; devices hold classic histograms: use \
             _bucket, _count and _sum",
        ),
        (
            "{\"a.b\"}",
            "1:2: a quoted name in braces is not evaluated on devices; names of letters, digits and underscores need \
             no quotes",
        ),
    ] {
        refused(text, want);
    }
}

#[test]
fn what_is_no_promql_is_told_with_its_place() {
    for (text, want) in [
        ("", "1:1: the text ends where an expression belongs"),
        ("x +", "1:4: the text ends where an expression belongs"),
        (
            "rate(x)",
            "1:6: rate takes a range vector here, not an instant vector",
        ),
        (
            "abs(x[5m])",
            "1:5: abs takes an instant vector here, not a range vector",
        ),
        (
            "x[5m] + 1",
            "1:1: an operator takes scalars and instant vectors, not a range vector",
        ),
        ("1 > 2", "1:3: a comparison between two scalars needs bool"),
        ("1 and x", "1:3: a set operator takes two instant vectors"),
        (
            "x and on(a) group_left() y",
            "1:13: a set operator takes no group_left or group_right",
        ),
        ("x + bool y", "1:5: bool belongs behind a comparison"),
        ("(x) offset 5m", "1:5: offset belongs behind a selector, once"),
        ("(x)[5m]", "1:4: a range belongs behind a selector"),
        ("x[0s]", "1:2: a range must be longer than 0"),
        (
            "{}",
            "1:1: a selector needs a metric's name, or a condition that not every series meets",
        ),
        (
            "{a=~\".*\"}",
            "1:1: a selector needs a metric's name, or a condition that not every series meets",
        ),
        ("fuzz(x)", "1:1: there is no function \"fuzz\""),
        ("clamp(x, 1)", "1:1: clamp takes 3 arguments, not 2"),
        ("topk(x)", "1:1: topk takes 2 arguments, not 1"),
        ("x{a=b}", "1:5: unexpected \"b\" where a text in quotes belongs"),
        (
            "x 5m",
            "1:3: unexpected duration where an operator or the end belongs",
        ),
        ("x == \"a", "1:6: the text that begins with \" has no end"),
        ("x == 1ff", "1:6: \"1ff\" is neither a number nor a duration"),
        ("x[5m1h]", "1:3: \"5m1h\" is neither a number nor a duration"),
        (
            "x{a=\"\\d\"}",
            "1:6: no escape that PromQL knows; write \\\\ for a backslash",
        ),
        ("x # nothing\n+ ;", "2:3: unexpected character ';'"),
        (
            "label_replace(x, \"1\", \"\", \"a\", \"\")",
            "1:18: \"1\" is no label's name",
        ),
    ] {
        refused(text, want);
    }
    let deep = format!("{}x{}", "(".repeat(5000), ")".repeat(5000));
    refused(&deep, "1:101: nested more than 100 deep");
    let bad = parse("x{a=~\"(\"}").unwrap_err().shown("");
    assert!(bad.contains("the regular expression \"(\" is none"), "{bad}");
}

#[test]
fn keywords_are_names_where_names_belong() {
    for text in [
        "sum",
        "on",
        "x{by=\"1\",offset=\"2\"}",
        "sum by (on) (avg)",
        "count(count) without (bool)",
        "SUM(x) BY (a)",
    ] {
        assert_eq!(parse(text).map(|expr| expr.gives()), Ok(Type::Vector), "{text}");
    }
}

proptest::proptest! {
    /// Whatever comes from a repository, an answer comes back.
    #[test]
    fn any_text_has_an_answer(text in "[a-z0-9(){}\\[\\]\"'=~!<>+\\-*/^%,:@.# \n]{0,60}") {
        let _ = parse(&text).map_err(|err| err.shown(&text));
    }
}
