//! Values and schemas in words.

use crate::path::{Path, Step};
use serde_json::Value;

pub(super) fn called(kind: &str) -> &str {
    match kind {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "number" => "a number",
        "integer" => "a whole number",
        "int-or-string" => "a whole number or a text",
        "quantity" => "a quantity",
        other => other,
    }
}

pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > 40 => "a text".to_owned(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// What most likely helps.
pub(super) fn unlike(wanted: &str, value: &Value) -> Option<String> {
    match (wanted, value) {
        ("string", Value::Bool(_) | Value::Number(_)) => Some(format!("put it in quotes: \"{value}\"")),
        ("integer" | "number", Value::String(text)) if text.parse::<f64>().is_ok() => {
            Some(format!("take the quotes away: {text}"))
        }
        ("boolean", Value::String(text)) if matches!(text.as_str(), "true" | "false") => {
            Some(format!("take the quotes away: {text}"))
        }
        ("boolean", Value::String(text)) if matches!(text.as_str(), "yes" | "on" | "no" | "off") => {
            Some("write true or false".to_owned())
        }
        ("array", _) => Some("put a dash in front: a list of one item".to_owned()),
        ("object", Value::Array(_)) => Some("take the dash away".to_owned()),
        _ => None,
    }
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn last(path: &Path) -> String {
    match path.0.last() {
        None => "the object".to_owned(),
        Some(Step::Key(key)) => key.clone(),
        Some(_) => path.to_string(),
    }
}

pub(super) fn type_of(schema: &Value) -> &'static str {
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => "NUMBER",
        Some("boolean") => "true or false",
        Some("string") => "TEXT",
        _ => "",
    }
}

/// What the items of a list are told apart by. A port without protocol is one of TCP.
pub(super) fn identity(item: &Value, keys: &[&str]) -> String {
    let part = |key: &&str| match item.get(*key) {
        Some(value) => format!("{key} {}", shown(value)),
        None if *key == "protocol" => "protocol TCP".to_owned(),
        None => format!("no {key}"),
    };
    keys.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// What the branches ask for, where that is a set of fields.
pub(super) fn forms(branches: &[Value]) -> String {
    let fields = |branch: &Value| {
        let required = branch.get("required").and_then(Value::as_array)?;
        let names: Vec<&str> = required.iter().filter_map(Value::as_str).collect();
        Some(names.join(" and "))
    };
    let asked: Vec<String> = branches.iter().filter_map(fields).collect();
    if asked.len() == branches.len() && !asked.is_empty() {
        format!("it is about {}", asked.join("; or "))
    } else {
        "see the schema in the CRD".to_owned()
    }
}
