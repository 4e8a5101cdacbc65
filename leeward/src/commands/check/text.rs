//! Findings for people.

use super::Summary;
use ::check::{Finding, Rule};
use std::fmt::Write as _;

/// All findings, each with the line at fault and what to do.
pub fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        one(&mut text, finding);
    }
    text
}

fn one(text: &mut String, finding: &Finding) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {}: {} [{}]",
        finding.place, finding.severity, finding.message, finding.rule
    );
    if let Some(excerpt) = &finding.excerpt {
        let number = finding.place.line.to_string();
        let _ = writeln!(text, "  {number} | {}", excerpt.replace('\t', " "));
        if finding.place.width > 0 {
            let left = " ".repeat(number.len() + 5 + finding.place.column - 1);
            let _ = writeln!(text, "{left}{}", "^".repeat(finding.place.width));
        }
    }
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "  = {remedy}");
    }
    for related in &finding.related {
        let _ = writeln!(text, "  = {}: {}", related.place, related.message);
    }
    let clusters = finding.clusters.join(", ");
    match (&finding.object, clusters.is_empty()) {
        (Some(object), false) => _ = writeln!(text, "  in {object} of {clusters}"),
        (None, false) => _ = writeln!(text, "  in {clusters}"),
        _ => {}
    }
    text.push('\n');
}

/// One line on the whole.
pub fn summary(summary: &Summary) -> String {
    let found = [
        count(summary.errors, "error"),
        count(summary.warnings, "warning"),
        count(summary.notes, "note"),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    let found = if found.is_empty() {
        "nothing is wrong".to_owned()
    } else {
        found.join(", ")
    };
    let places = [
        count(summary.clusters.len(), "cluster"),
        count(summary.folders.len(), "other folder"),
    ];
    let places: Vec<String> = places.into_iter().flatten().collect();
    format!(
        "{found}: {} of {}, Kubernetes {}, in {:.2} s",
        count(summary.objects, "object").unwrap_or_else(|| "no objects".to_owned()),
        places.join(" and "),
        summary.kubernetes_version,
        summary.seconds
    )
}

fn count(number: usize, what: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        number => Some(format!("{number} {what}s")),
    }
}

/// All rules with what they find.
pub fn rules() -> String {
    let mut text = String::new();
    for rule in Rule::all() {
        let _ = writeln!(text, "{:<20}  {:<8}  {}", rule, rule.severity(), rule.about());
    }
    text
}
