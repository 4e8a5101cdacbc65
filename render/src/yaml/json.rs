//! Nodes to and from JSON values.

use super::{
    emit,
    node::{Map, Node, Scalar, Style},
    scalar::{self, Plain},
};
use serde_json::{Number, Value};
use std::borrow::Cow;

/// Up to here a float holds every integer: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The value as JSON; numbers that JSON does not have are an error that names them.
pub(crate) fn to_json(node: &Node) -> Result<Value, String> {
    convert(node, Scalar::plain)
}

/// As [`to_json`], with YAML 1.1 booleans and dates as texts, as kustomize reads its own files.
pub(crate) fn to_json_yaml11(node: &Node) -> Result<Value, String> {
    convert(node, |scalar| match scalar.style {
        Style::Plain => match scalar::resolve_yaml11(&scalar.text) {
            Plain::Time(_) => Plain::Str(Cow::Borrowed(&scalar.text)),
            plain => plain,
        },
        _ => scalar.plain(),
    })
}

fn convert(node: &Node, read: fn(&Scalar) -> Plain<'_>) -> Result<Value, String> {
    Ok(match node {
        Node::Seq(items) => Value::Array(
            items
                .iter()
                .map(|item| convert(item, read))
                .collect::<Result<_, _>>()?,
        ),
        Node::Map(map) => Value::Object(
            map.0
                .iter()
                .map(|(key, value)| Ok((key.clone(), convert(value, read)?)))
                .collect::<Result<_, String>>()?,
        ),
        Node::Scalar(scalar) => match read(scalar) {
            Plain::Null => Value::Null,
            Plain::Bool(value) => Value::Bool(value),
            Plain::Int(value) => value.into(),
            Plain::UInt(value) => value.into(),
            Plain::Float(value) => float(value).ok_or_else(|| scalar.text.clone())?,
            Plain::Time(text) => Value::String(text),
            Plain::Str(text) => Value::String(text.into_owned()),
        },
    })
}

/// A float without a fraction is an integer in JSON as Go writes it.
fn float(value: f64) -> Option<Value> {
    let negative_zero = value == 0.0 && value.is_sign_negative();
    if value.fract() == 0.0 && value.abs() < EXACT && !negative_zero {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// A JSON value as a node.
pub(crate) fn from_json(value: &Value) -> Node {
    match value {
        Value::Null => Node::null(),
        Value::Bool(value) => plain(value.to_string()),
        Value::Number(value) => plain(match value.as_f64() {
            // Go's YAML keeps the sign of a zero, which JSON has, too.
            Some(float) if value.is_f64() && float != 0.0 => {
                emit::float_text(float).unwrap_or_else(|| value.to_string())
            }
            Some(_) if value.is_f64() => "-0".to_owned(),
            // Go's JSON has nothing but floats for numbers.
            Some(float) if float.abs() > EXACT => {
                emit::float_text(float).unwrap_or_else(|| value.to_string())
            }
            _ => value.to_string(),
        }),
        Value::String(text) => {
            let style = if emit::is_plain(text) {
                Style::Text
            } else {
                Style::Quoted
            };
            Node::Scalar(Scalar::new(text.as_str(), style))
        }
        Value::Array(items) => Node::Seq(items.iter().map(from_json).collect()),
        Value::Object(map) => Node::Map(Map(map
            .iter()
            .map(|(key, value)| (key.clone(), from_json(value)))
            .collect())),
    }
}

fn plain(text: String) -> Node {
    Node::Scalar(Scalar::new(text, Style::Plain))
}
