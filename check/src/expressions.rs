//! CEL in manifests: validation rules of CRDs, expressions of Flux objects. Whether they compile, and what they say.

use crate::{Rule, Severity, path::Path, schema::Fault};
use model::Object;
use render::cel::{CelError, Expression};
use serde_json::Value;
use std::collections::HashMap;
use std::rc::Rc;

/// Expressions, compiled once.
#[derive(Debug, Default)]
pub(crate) struct Expressions(HashMap<String, Result<Rc<Expression>, CelError>>);

/// What an expression says.
pub(crate) enum Answer {
    Yes,
    No,
    /// It cannot be evaluated from these values.
    Failed(String),
    /// It needs something that is not known here.
    Unknown(String),
}

impl Expressions {
    pub fn compiled(&mut self, text: &str) -> Result<Rc<Expression>, CelError> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let compiled = Expression::compile(text).map(Rc::new);
        self.0.insert(text.to_owned(), compiled.clone());
        compiled
    }

    /// A fault where the text at a path is no CEL.
    pub fn syntax(&mut self, rule: Rule, path: Path, text: &str) -> Option<Fault> {
        let error = self.compiled(text).err()?;
        Some(Fault::new(
            rule,
            path,
            format!("the expression is no CEL: {error}"),
        ))
    }

    pub fn ask<'a>(
        &mut self,
        text: &str,
        variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Answer {
        let Ok(expression) = self.compiled(text) else {
            // Told where it stands.
            return Answer::Unknown(String::new());
        };
        match expression.is_true(variables) {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::No,
            Err(error) => failure(&error),
        }
    }
}

/// Names of Kubernetes' CEL that are not known here.
const UNKNOWN: &[&str] = &[
    "authorizer",
    "duration",
    "timestamp",
    "url",
    "isURL",
    "ip",
    "cidr",
    "isIP",
    "isCIDR",
    "format",
    "semver",
    "isSemver",
];

pub(crate) fn failure(error: &CelError) -> Answer {
    match error {
        CelError::NoSuchName { name, .. } if UNKNOWN.contains(&name.as_str()) => {
            Answer::Unknown(error.to_string())
        }
        CelError::TooLarge { .. } => Answer::Unknown(error.to_string()),
        _ => Answer::Failed(error.to_string()),
    }
}

/// The rules of a schema node that a value does not meet.
pub(crate) fn validations(
    expressions: &mut Expressions,
    schema: &Value,
    value: &Value,
    path: &Path,
) -> Vec<Fault> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    let mut faults = Vec::new();
    for rule in rules.into_iter().flatten() {
        let Some(text) = rule.get("rule").and_then(Value::as_str) else {
            continue;
        };
        // A rule on a change says nothing of a manifest.
        if text.contains("oldSelf") {
            continue;
        }
        let variables = || [("self", value)];
        let at = match rule.get("fieldPath").and_then(Value::as_str) {
            Some(field) => Path([path.0.clone(), Path::parse(field).0].concat()),
            None => path.clone(),
        };
        match expressions.ask(text, variables()) {
            Answer::Yes => {}
            Answer::No => {
                let message = message(expressions, rule, variables())
                    .unwrap_or_else(|| format!("the rule {text} is not met"));
                let fault = Fault::new(Rule::Validation, at, message);
                faults.push(
                    fault
                        .at_key()
                        .remedy(format!("the CRD asks for: {}", one_line(text))),
                );
            }
            Answer::Failed(why) => {
                let message = format!("the CRD's rule {} cannot be evaluated: {why}", one_line(text));
                faults.push(Fault::new(Rule::Validation, at, message).at_key());
            }
            Answer::Unknown(why) if why.is_empty() => {}
            Answer::Unknown(why) => {
                let message = format!("the CRD's rule {} is not checked: {why}", one_line(text));
                faults.push(
                    Fault::new(Rule::Validation, at, message)
                        .at_key()
                        .severity(Severity::Note),
                );
            }
        }
    }
    faults
}

/// What a rule says where it is not met.
pub(crate) fn message<'a>(
    expressions: &mut Expressions,
    rule: &Value,
    variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Option<String> {
    let text = |key: &str| {
        rule.get(key)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let computed = text("messageExpression").and_then(|text| expressions.compiled(text).ok());
    computed
        .and_then(|expression| expression.to_text(variables).ok())
        .or_else(|| text("message").map(str::to_owned))
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Expressions that are no CEL, in CRDs and in Flux objects.
pub(crate) fn in_object(expressions: &mut Expressions, object: &Object) -> Vec<Fault> {
    let mut found = Vec::new();
    let value = object.value();
    match (object.group(), object.kind()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let versions = Path::fields("spec.versions");
            for at in 0..versions.of(value).and_then(Value::as_array).map_or(0, Vec::len) {
                let path = versions.index(at).keys(&["schema", "openAPIV3Schema"]);
                if let Some(schema) = path.of(value) {
                    rules(schema, &path, &mut found);
                }
            }
        }
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => {
            let fields: [(&str, &[&str]); 2] = [
                ("spec.healthCheckExprs", &["current", "inProgress", "failed"]),
                ("spec.dependsOn", &["readyExpr"]),
            ];
            for (list, fields) in fields {
                let list = Path::fields(list);
                for at in 0..list.of(value).and_then(Value::as_array).map_or(0, Vec::len) {
                    found.extend(
                        fields
                            .iter()
                            .map(|field| (list.index(at).key(field), Rule::BadValue)),
                    );
                }
            }
        }
        _ => {}
    }
    let mut faults = Vec::new();
    for (path, rule) in found {
        if let Some(text) = path.of(value).and_then(Value::as_str) {
            faults.extend(expressions.syntax(rule, path, text));
        }
    }
    faults
}

/// The ways to all rules of a schema.
fn rules(schema: &Value, path: &Path, found: &mut Vec<(Path, Rule)>) {
    match schema {
        Value::Object(map) => {
            for (key, inner) in map {
                let here = path.key(key);
                if key == "x-kubernetes-validations" && inner.is_array() {
                    let count = inner.as_array().map_or(0, Vec::len);
                    found.extend((0..count).map(|at| (here.index(at).key("rule"), Rule::Validation)));
                } else {
                    rules(inner, &here, found);
                }
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                rules(inner, &path.index(at), found);
            }
        }
        _ => {}
    }
}
