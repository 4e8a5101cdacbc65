//! Values against schemas: those of Kubernetes' own kinds, and the structural ones of CRDs.
//!
//! `null` counts as absent, as it does for the API server. `status` is not looked at: nobody's manifest sets it.

#[cfg(test)]
mod tests;
mod words;

use crate::{
    Rule, Severity,
    expressions::{self, Expressions},
    formats, known,
    kubernetes::Api,
    path::{Path, meant},
};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use words::{called, forms, found, identity, last, shown, type_of, unlike};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Something wrong with an object, before its place in a file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub rule: Rule,
    pub path: Path,
    /// Whether the field's name is at fault, not its value.
    pub at_key: bool,
    pub message: String,
    pub remedy: Option<String>,
    /// How bad it is, where that is not as its rule says.
    pub severity: Option<Severity>,
}

impl Fault {
    pub fn new(rule: Rule, path: Path, message: impl Into<String>) -> Self {
        Self {
            rule,
            path,
            at_key: false,
            message: message.into(),
            remedy: None,
            severity: None,
        }
    }

    /// Kubernetes puts up with it.
    pub fn mild(mut self, mild: bool) -> Self {
        if mild {
            self.severity = Some(Severity::Warning);
        }
        self
    }

    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    pub fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Checks objects against the API of one version.
#[derive(Debug)]
pub(crate) struct Validator {
    api: Api,
    patterns: HashMap<String, Option<Regex>>,
    faults: Vec<Fault>,
    pub expressions: Expressions,
}

/// Which definition a schema is, and whether unknown fields matter in it.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    /// Name of the definition of which this is a field, and the field's name.
    field_of: Option<(&'a str, &'a str)>,
    /// Whether only values count, as in the branches of `oneOf`.
    values_only: bool,
}

const FIELD: Context<'static> = Context {
    field_of: None,
    values_only: false,
};

impl Validator {
    pub fn new(api: Api) -> Self {
        Self {
            api,
            patterns: HashMap::new(),
            faults: Vec::new(),
            expressions: Expressions::default(),
        }
    }

    /// An object of one of Kubernetes' own kinds.
    pub fn built_in(&mut self, definition: &str, object: &Value) -> Vec<Fault> {
        self.reference(definition, object, &Path::default(), FIELD);
        std::mem::take(&mut self.faults)
    }

    /// An object of a CRD, or any other whose schema leaves the metadata out.
    pub fn custom(&mut self, schema: &Value, object: &Value) -> Vec<Fault> {
        let root = Path::default();
        let mut own = schema.clone();
        if let Some(properties) = own.get_mut("properties").and_then(Value::as_object_mut) {
            // What they say of these three adds nothing to what every object must be.
            for field in ["apiVersion", "kind", "metadata"] {
                properties.insert(field.to_owned(), Value::Object(Map::new()));
            }
        }
        // Rules see what the API server would have filled in.
        let mut filled = object.clone();
        fill_in(&own, &mut filled);
        self.value(&own, &filled, &root, FIELD);
        if let Some(metadata) = object.get("metadata") {
            self.reference(META, metadata, &root.key("metadata"), FIELD);
        }
        std::mem::take(&mut self.faults)
    }

    /// Whether a value fulfils a schema, as a branch of a larger one.
    fn fulfils(&mut self, schema: &Value, value: &Value, path: &Path) -> bool {
        let before = std::mem::take(&mut self.faults);
        let context = Context {
            values_only: true,
            ..FIELD
        };
        self.value(schema, value, path, context);
        std::mem::replace(&mut self.faults, before).is_empty()
    }

    fn reference(&mut self, name: &str, value: &Value, path: &Path, context: Context<'_>) {
        match name.rsplit('.').next().unwrap_or(name) {
            "IntOrString" => return self.int_or_string(value, path, context),
            "Quantity" => return self.quantity(value, path),
            "Time" | "MicroTime" => return self.time(value, path),
            _ => {}
        }
        let Some(definition) = self.api.definition(name) else {
            return;
        };
        let schema = definition.schema.as_ref();
        if schema.get("type").is_none() && schema.get("properties").is_none() {
            return;
        }
        if schema.get("properties").is_some() {
            self.object(schema, value, path, Some(definition.name), context.values_only);
        } else {
            self.value(schema, value, path, context);
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &Path, context: Context<'_>) {
        if value.is_null() {
            return;
        }
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            return self.reference(name, value, path, context);
        }
        if is_set(schema, "x-kubernetes-int-or-string") {
            self.int_or_string(value, path, context);
            return self.bounds_of(schema, value, path, context);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some(kind) if !is_of(kind, value) => return self.wrong_type(kind, value, path),
            _ => {}
        }
        match value {
            Value::Object(_) => self.object(schema, value, path, None, context.values_only),
            Value::Array(items) => self.list(schema, items, path, context),
            _ => {}
        }
        self.bounds_of(schema, value, path, context);
    }

    fn object(
        &mut self,
        schema: &Value,
        value: &Value,
        path: &Path,
        definition: Option<&str>,
        values_only: bool,
    ) {
        let Value::Object(map) = value else {
            return if value.is_null() {
            } else {
                self.wrong_type("object", value, path)
            };
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let anything = values_only
            || is_set(schema, "x-kubernetes-preserve-unknown-fields")
            || others == Some(&Value::Bool(true));
        for (key, inner) in map {
            let here = path.key(key);
            if path.0.is_empty() && key == "status" {
                continue;
            }
            if let Some(field) = properties.and_then(|properties| properties.get(key)) {
                let context = Context {
                    field_of: definition.map(|definition| (definition, key.as_str())),
                    values_only,
                };
                self.value(field, inner, &here, context);
            } else if let Some(others) = others.filter(|others| others.is_object()) {
                self.value(others, inner, &here, Context { values_only, ..FIELD });
            } else if let (Some(properties), false) = (properties, anything) {
                self.unknown_field(key, properties, here, path);
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str);
        let asked_for = known::asked_for(definition.unwrap_or_default());
        let all: Vec<&str> = required.chain(asked_for.map(|field: &str| field)).collect();
        for field in all {
            if map.get(field).is_none_or(Value::is_null) {
                self.missing_field(field, path, properties);
            }
        }
        if is_set(schema, "x-kubernetes-embedded-resource") {
            for field in ["apiVersion", "kind"] {
                if !map.get(field).is_some_and(Value::is_string) {
                    self.missing_field(field, path, None);
                }
            }
        }
    }

    fn unknown_field(&mut self, key: &str, properties: &Map<String, Value>, here: Path, parent: &Path) {
        let place = if parent.0.is_empty() {
            "the object".to_owned()
        } else {
            parent.to_string()
        };
        let known = || properties.keys().map(String::as_str);
        let remedy = match meant(key, known()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if properties.len() > 12 => "take it out, or move it to where it belongs".to_owned(),
            None => format!("the fields here are {}", known().collect::<Vec<_>>().join(", ")),
        };
        let fault = Fault::new(Rule::UnknownField, here, format!("{place} has no field {key:?}"));
        self.faults.push(fault.at_key().remedy(remedy));
    }

    fn missing_field(&mut self, field: &str, path: &Path, properties: Option<&Map<String, Value>>) {
        let place = if path.0.is_empty() {
            "the object".to_owned()
        } else {
            path.to_string()
        };
        let kind = properties
            .and_then(|properties| properties.get(field))
            .map_or("", type_of);
        let fault = Fault::new(
            Rule::MissingField,
            path.clone(),
            format!("{place} needs the field {field:?}"),
        );
        let remedy = if kind.is_empty() {
            format!("add {field}")
        } else {
            format!("add {field}: {kind}")
        };
        self.faults.push(fault.at_key().remedy(remedy));
    }

    fn list(&mut self, schema: &Value, items: &[Value], path: &Path, context: Context<'_>) {
        if let Some(of) = schema.get("items") {
            for (at, item) in items.iter().enumerate() {
                self.value(of, item, &path.index(at), context);
            }
        }
        let of = |key: &str| schema.get(key).and_then(Value::as_str);
        let keys: Vec<&str> = match of("x-kubernetes-list-type") {
            Some("set") => Vec::new(),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                keys.into_iter().flatten().filter_map(Value::as_str).collect()
            }
            _ if is_set(schema, "uniqueItems") => Vec::new(),
            _ => return,
        };
        let mut seen: HashSet<String> = HashSet::new();
        for (at, item) in items.iter().enumerate() {
            let identity = if keys.is_empty() {
                item.to_string()
            } else {
                identity(item, &keys)
            };
            if !seen.insert(identity.clone()) {
                let message = format!("{path} has two items with {identity}");
                let fault = Fault::new(Rule::DuplicateItem, path.index(at), message);
                self.faults.push(fault.remedy("leave one of them out"));
            }
        }
    }

    /// Everything that bounds a value of the right type.
    fn bounds_of(&mut self, schema: &Value, value: &Value, path: &Path, context: Context<'_>) {
        self.words(schema, value, path, context);
        if let (Some((definition, field)), Some(number)) = (context.field_of, value.as_i64())
            && let Some((least, most)) = known::bounds(definition, field)
            && !(least..=most).contains(&number)
        {
            let range = if most == i64::MAX {
                format!("at least {least}")
            } else {
                format!("{least} to {most}")
            };
            self.bad(path, format!("{number} is out of bounds"), format!("use {range}"));
        }
        if let Some(what) = schema
            .get("format")
            .and_then(Value::as_str)
            .and_then(|format| formats::wrong(format, value))
        {
            self.bad(path, what, "correct the value".to_owned());
        }
        match value {
            Value::String(text) => self.text_bounds(schema, text, path),
            Value::Number(number) => self.number_bounds(schema, number.as_f64().unwrap_or_default(), path),
            Value::Array(items) => self.count_bounds(schema, items.len(), "Items", "items", path),
            Value::Object(map) => self.count_bounds(schema, map.len(), "Properties", "fields", path),
            _ => {}
        }
        self.branches(schema, value, path);
        if !context.values_only {
            let found = expressions::validations(&mut self.expressions, schema, value, path);
            self.faults.extend(found);
        }
    }

    fn words(&mut self, schema: &Value, value: &Value, path: &Path, context: Context<'_>) {
        if let Some(Value::Array(words)) = schema.get("enum")
            && !words.contains(value)
        {
            let shown: Vec<String> = words.iter().map(shown).collect();
            let meant = value
                .as_str()
                .and_then(|text| meant(text, words.iter().filter_map(Value::as_str)));
            self.not_a_word(value, &shown, meant, path);
        }
        if let (Some((definition, field)), Some(text)) = (context.field_of, value.as_str())
            && let Some(words) = known::words(definition, field)
            && !words.contains(&text)
        {
            let shown: Vec<String> = words
                .iter()
                .filter(|word| !word.is_empty())
                .map(|word| (*word).to_owned())
                .collect();
            self.not_a_word(value, &shown, meant(text, words.iter().copied()), path);
        }
    }

    fn not_a_word(&mut self, value: &Value, words: &[String], meant: Option<&str>, path: &Path) {
        let remedy = match meant {
            Some(meant) => format!("did you mean {meant}? (it may be {})", words.join(", ")),
            None => format!("use one of {}", words.join(", ")),
        };
        self.bad(
            path,
            format!(
                "{} is none of the values that {} may have",
                shown(value),
                last(path)
            ),
            remedy,
        );
    }

    fn text_bounds(&mut self, schema: &Value, text: &str, path: &Path) {
        self.count_bounds(schema, text.chars().count(), "Length", "characters", path);
        let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else {
            return;
        };
        let compiled = self
            .patterns
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(pattern).ok());
        // A pattern that only another engine understands is left out.
        if compiled.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            self.bad(
                path,
                format!("{text:?} does not match the pattern {pattern}"),
                "correct the value".to_owned(),
            );
        }
    }

    fn number_bounds(&mut self, schema: &Value, number: f64, path: &Path) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(least) = bound("minimum")
            && (number < least || number <= least && is_set(schema, "exclusiveMinimum"))
        {
            self.bad(
                path,
                format!("{number} is too small"),
                format!("the least is {least}"),
            );
        }
        if let Some(most) = bound("maximum")
            && (number > most || number >= most && is_set(schema, "exclusiveMaximum"))
        {
            self.bad(
                path,
                format!("{number} is too large"),
                format!("the most is {most}"),
            );
        }
        if let Some(step) = bound("multipleOf").filter(|step| *step != 0.0)
            && ((number / step) - (number / step).round()).abs() > 1e-9
        {
            self.bad(
                path,
                format!("{number} is no multiple of {step}"),
                "correct the value".to_owned(),
            );
        }
    }

    fn count_bounds(&mut self, schema: &Value, count: usize, of: &str, what: &str, path: &Path) {
        let bound = |key: String| schema.get(key).and_then(Value::as_u64);
        let count = count as u64;
        if let Some(least) = bound(format!("min{of}")).filter(|least| count < *least) {
            self.bad(
                path,
                format!("{} has {count} {what}", last(path)),
                format!("it needs at least {least}"),
            );
        }
        if let Some(most) = bound(format!("max{of}")).filter(|most| count > *most) {
            self.bad(
                path,
                format!("{} has {count} {what}", last(path)),
                format!("it may have at most {most}"),
            );
        }
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`.
    fn branches(&mut self, schema: &Value, value: &Value, path: &Path) {
        let branches = |key: &str| schema.get(key).and_then(Value::as_array);
        for branch in branches("allOf").into_iter().flatten() {
            let context = Context {
                values_only: true,
                ..FIELD
            };
            self.value(branch, value, path, context);
        }
        if let Some(any) = branches("anyOf")
            && !any.iter().any(|branch| self.fulfils(branch, value, path))
        {
            self.bad(
                path,
                format!("{} fits none of the forms that it may have", last(path)),
                forms(any),
            );
        }
        if let Some(one) = branches("oneOf") {
            let fits = one
                .iter()
                .filter(|branch| self.fulfils(branch, value, path))
                .count();
            if fits != 1 {
                let what = if fits == 0 { "none" } else { "more than one" };
                self.bad(
                    path,
                    format!(
                        "{} fits {what} of the forms of which it must have one",
                        last(path)
                    ),
                    forms(one),
                );
            }
        }
        if let Some(not) = schema.get("not")
            && self.fulfils(not, value, path)
        {
            self.bad(
                path,
                format!("{} has a form that it may not have", last(path)),
                forms(std::slice::from_ref(not)),
            );
        }
    }

    fn int_or_string(&mut self, value: &Value, path: &Path, context: Context<'_>) {
        match value {
            Value::Null | Value::String(_) => {}
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                self.bounds_of(&Value::Null, value, path, context);
            }
            _ => self.wrong_type("int-or-string", value, path),
        }
    }

    fn quantity(&mut self, value: &Value, path: &Path) {
        match value {
            Value::Null | Value::Number(_) => {}
            Value::String(text) if formats::is_quantity(text) => {}
            Value::String(text) => self.bad(
                path,
                format!("{text:?} is no quantity"),
                "write a number with or without a suffix, such as 500m, 1.5, 128Mi, 1Gi".to_owned(),
            ),
            _ => self.wrong_type("quantity", value, path),
        }
    }

    fn time(&mut self, value: &Value, path: &Path) {
        match value {
            Value::Null => {}
            Value::String(_) => {
                if let Some(what) = formats::wrong("date-time", value) {
                    self.bad(path, what, "correct the value".to_owned());
                }
            }
            _ => self.wrong_type("string", value, path),
        }
    }

    fn bad(&mut self, path: &Path, message: String, remedy: String) {
        self.faults
            .push(Fault::new(Rule::BadValue, path.clone(), message).remedy(remedy));
    }

    fn wrong_type(&mut self, wanted: &str, value: &Value, path: &Path) {
        let message = format!(
            "{} should be {}, but is {}",
            last(path),
            called(wanted),
            found(value)
        );
        let fault = Fault::new(Rule::WrongType, path.clone(), message);
        self.faults.push(match unlike(wanted, value) {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        });
    }
}

/// Writes the defaults of absent fields.
fn fill_in(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, field) in properties.into_iter().flatten() {
                if let (None | Some(Value::Null), Some(default)) = (map.get(key), field.get("default")) {
                    map.insert(key.clone(), default.clone());
                }
                if let Some(inner) = map.get_mut(key) {
                    fill_in(field, inner);
                }
            }
            if let Some(others) = schema
                .get("additionalProperties")
                .filter(|others| others.is_object())
            {
                let known = |key: &String| properties.is_some_and(|properties| properties.contains_key(key));
                map.iter_mut()
                    .filter(|(key, _)| !known(key))
                    .for_each(|(_, inner)| fill_in(others, inner));
            }
        }
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                items.iter_mut().for_each(|item| fill_in(of, item));
            }
        }
        _ => {}
    }
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}
