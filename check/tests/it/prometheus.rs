//! Rules of Prometheus.

use crate::support::checked;
use expect_test::{Expect, expect};

#[track_caller]
fn rule(cluster: &str, rule: &str, want: Expect) {
    let repository = format!(
        "//- clusters/{cluster}/kustomization.yaml\nresources: [rules.yaml]\n//- clusters/{cluster}/rules.yaml\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {{name: r}}\nspec:\n  groups:\n  \
         - name: g\n    rules:\n    {rule}\n"
    );
    want.assert_eq(&checked(&repository));
}

#[test]
fn a_rule_that_can_be_evaluated_has_no_finding() {
    let good = "- {alert: Hot, expr: \"avg_over_time(node_hwmon_temp_celsius[5m]) > 80\", for: 2m, keep_firing_for: 1m, \
                labels: {severity: warning}, annotations: {summary: '{{ $labels.chip }} at {{ $value | humanize }}'}}";
    rule("pi", good, expect![""]);
}

#[test]
fn an_expression_that_is_none_is_told_with_its_place() {
    rule(
        "pi",
        "- {alert: Hot, expr: 'rate(x) > 1'}",
        expect![[r#"
            clusters/pi/rules.yaml:8:26: error: 1:6: rate takes a range vector here, not an instant vector [bad-value]
              in clusters/pi
        "#]],
    );
    rule(
        "pi",
        "- {alert: Hot, expr: x, for: 5 minutes, labls: {}}",
        expect![[r#"
            clusters/pi/rules.yaml:8:34: error: "5 minutes" is no duration such as 30s or 5m [bad-value]
              in clusters/pi
            clusters/pi/rules.yaml:8:45: error: there is no such field; there are alert, record, expr, for, keep_firing_for, labels, annotations [bad-value]
              in clusters/pi
        "#]],
    );
}

#[test]
fn what_is_beyond_a_device_is_told_where_devices_are() {
    let subquery =
        "- {alert: Hot, expr: 'max_over_time(x[1h:1m]) > 1', annotations: {a: '{{ query \"x\" }}'}}";
    rule(
        "pi",
        subquery,
        expect![[r#"
            clusters/pi/rules.yaml:8:26: warning: 1:16: a subquery is not evaluated on devices; record the inner expression by a rule of its own, and select what it records [engine]
              in clusters/pi
            clusters/pi/rules.yaml:8:74: warning: {{ query "x" }} is not filled in on devices; there is $labels.NAME, $value, humanize, humanize1024, humanizeDuration, humanizePercentage, humanizeTimestamp, toUpper, toLower and printf with %s, %v, %f, %.2f, %g or %e [engine]
              in clusters/pi
        "#]],
    );
    rule("cloud", subquery, expect![""]);
}
