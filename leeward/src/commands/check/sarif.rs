//! SARIF 2.1.0 (OASIS): findings for code scanning services.

use ::check::{Finding, Place, Report, Rule, Severity};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The whole log.
pub fn log(report: &Report) -> Value {
    let rules: Vec<Value> = Rule::all()
        .map(|rule| {
            json!({
                "id": rule.id(),
                "shortDescription": {"text": rule.about()},
                "defaultConfiguration": {"level": level(rule.severity())},
            })
        })
        .collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "leeward check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let mut text = finding.message.clone();
    if let Some(remedy) = &finding.remedy {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {remedy}");
    }
    let index = Rule::all().position(|rule| rule == finding.rule);
    let mut location = location(&finding.place);
    if let Some(excerpt) = &finding.excerpt {
        location["physicalLocation"]["region"]["snippet"] = json!({"text": excerpt});
    }
    if let Some(object) = &finding.object {
        let name = finding
            .field
            .as_ref()
            .map_or_else(|| object.clone(), |field| format!("{object}: {field}"));
        location["logicalLocations"] = json!([{"fullyQualifiedName": name}]);
    }
    let mut result = json!({
        "ruleId": finding.rule.id(),
        "ruleIndex": index,
        "level": level(finding.severity),
        "message": {"text": text},
        "locations": [location],
        "properties": {"clusters": finding.clusters},
    });
    if !finding.related.is_empty() {
        result["relatedLocations"] = finding
            .related
            .iter()
            .map(|related| {
                let mut location = self::location(&related.place);
                location["message"] = json!({"text": related.message});
                location
            })
            .collect();
    }
    result
}

fn location(place: &Place) -> Value {
    let mut region = json!({"startLine": place.line, "startColumn": place.column});
    if place.width > 0 {
        region["endColumn"] = json!(place.column + place.width);
    }
    json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(&place.file), "uriBaseId": "%SRCROOT%"},
        "region": region,
    }})
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// A path as a relative URI (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("apps/my app/ü.yaml"), "apps/my%20app/%C3%BC.yaml");
    }
}
