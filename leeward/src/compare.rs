//! Two lists of objects, field by field. What a Secret holds is never told.

use model::{Object, ObjectKey};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How an object differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// An object that is not the same in both lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectChange {
    /// As `Kind.group/namespace/name`.
    pub object: String,
    pub change: Change,
    /// Of a changed one: where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// A field that is not the same; absent where it is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// What is not the same, by the objects' names.
pub fn compare(old: &[Object], new: &[Object]) -> Vec<ObjectChange> {
    let by_key = |objects: &[Object]| -> BTreeMap<ObjectKey, Object> {
        objects
            .iter()
            .map(|object| (object.key(), object.clone()))
            .collect()
    };
    let (old, new) = (by_key(old), by_key(new));
    let keys: BTreeSet<&ObjectKey> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (change, fields) = match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) if old == new => return None,
                (Some(old), Some(new)) => (Change::Changed, fields(old, new)),
                (None, _) => (Change::Added, vec![]),
                (_, None) => (Change::Removed, vec![]),
            };
            Some(ObjectChange {
                object: key.to_string(),
                change,
                fields,
            })
        })
        .collect()
}

/// The fields in which one object differs from what it was.
pub fn fields(old: &Object, new: &Object) -> Vec<FieldChange> {
    let mut found = Vec::new();
    walk("", Some(old.value()), Some(new.value()), &mut found);
    if found.is_empty() {
        found.push(FieldChange {
            path: "(order of a list)".to_owned(),
            old: None,
            new: None,
        });
    }
    if new.kind() == "Secret" && new.group().is_empty() {
        found.iter_mut().for_each(mask);
    }
    found
}

/// A copy of a Secret's content may lie in what kubectl noted, too.
fn mask(field: &mut FieldChange) {
    let secret = ["data", "stringData", "metadata.annotations"];
    if secret.iter().any(|path| field.path.starts_with(path)) {
        for value in [&mut field.old, &mut field.new].into_iter().flatten() {
            *value = Value::String("(secret)".to_owned());
        }
    }
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<FieldChange>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                walk(&join(path, key), old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => lists(path, old, new, found),
        (old, new) if old == new => {}
        (old, new) => found.push(FieldChange {
            path: path.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
        }),
    }
}

/// Lists of named things are compared by name, others by place.
fn lists(path: &str, old: &[Value], new: &[Value], found: &mut Vec<FieldChange>) {
    if let (Some(old), Some(new)) = (named(old), named(new)) {
        let names: BTreeSet<&&str> = old.keys().chain(new.keys()).collect();
        for name in names {
            let path = format!("{path}[{name}]");
            walk(&path, old.get(*name).copied(), new.get(*name).copied(), found);
        }
        return;
    }
    let scalars = |list: &[Value]| !list.iter().any(|item| item.is_object() || item.is_array());
    if scalars(old) && scalars(new) {
        if old != new {
            found.push(FieldChange {
                path: path.to_owned(),
                old: Some(Value::Array(old.to_vec())),
                new: Some(Value::Array(new.to_vec())),
            });
        }
        return;
    }
    for at in 0..old.len().max(new.len()) {
        walk(&format!("{path}[{at}]"), old.get(at), new.get(at), found);
    }
}

fn named(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let mut by_name = BTreeMap::new();
    for item in list {
        let name = item.get("name")?.as_str()?;
        if by_name.insert(name, item).is_some() {
            return None;
        }
    }
    Some(by_name)
}

fn join(path: &str, key: &str) -> String {
    let key = if key.contains(['.', '/']) {
        format!("[{key}]")
    } else {
        key.to_owned()
    };
    match path {
        "" => key,
        path if key.starts_with('[') => format!("{path}{key}"),
        path => format!("{path}.{key}"),
    }
}

/// Changes for people, each line with `indent` before it.
pub fn told(changes: &[ObjectChange], indent: &str) -> String {
    let mut text = String::new();
    for change in changes {
        let mark = match change.change {
            Change::Added => '+',
            Change::Changed => '~',
            Change::Removed => '-',
        };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{indent}{mark} {}", change.object);
        for field in &change.fields {
            field_text(&mut text, indent, field);
        }
    }
    text
}

fn field_text(text: &mut String, indent: &str, field: &FieldChange) {
    let path = &field.path;
    if let (Some(Value::String(old)), Some(Value::String(new))) = (&field.old, &field.new)
        && (old.contains('\n') || new.contains('\n'))
    {
        let _ = writeln!(text, "{indent}    {path}:");
        lines(text, indent, old, new);
        return;
    }
    let _ = match (&field.old, &field.new) {
        (Some(old), Some(new)) => writeln!(text, "{indent}    {path}: {} -> {}", short(old), short(new)),
        (None, Some(new)) => writeln!(text, "{indent}    {path}: + {}", short(new)),
        (Some(old), None) => writeln!(text, "{indent}    {path}: - {}", short(old)),
        (None, None) => writeln!(text, "{indent}    {path}"),
    };
}

/// What is between the common beginning and end of two texts.
fn lines(text: &mut String, indent: &str, old: &str, new: &str) {
    const MOST: usize = 20;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    for (mark, lines) in [('-', &old[..old.len() - tail]), ('+', &new[..new.len() - tail])] {
        for line in lines.iter().take(MOST) {
            let _ = writeln!(text, "{indent}      {mark} {line}");
        }
        if lines.len() > MOST {
            let _ = writeln!(text, "{indent}      {mark} and {} more lines", lines.len() - MOST);
        }
    }
}

fn short(value: &Value) -> String {
    const MOST: usize = 160;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    format!("{}...", text.chars().take(MOST).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::new(value).unwrap()
    }

    #[test]
    fn named_items_are_compared_by_name_and_secrets_are_not_told() {
        let deployment = |image: &str, extra: Value| {
            object(
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
                "spec": {"containers": [extra, {"name": "app", "image": image, "args": ["x"]}]}}),
            )
        };
        let secret = |data: &str| {
            object(
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}, "data": {"k": data}}),
            )
        };
        let old = [
            deployment("i:1", json!({"name": "log", "image": "l"})),
            secret("b2xk"),
        ];
        let new = [
            deployment("i:2", json!({"name": "new", "image": "l"})),
            secret("bmV3"),
        ];
        let changes = compare(&old, &new);
        let text = told(&changes, "");
        assert!(
            text.contains("spec.containers[app].image: \"i:1\" -> \"i:2\""),
            "{text}"
        );
        assert!(
            text.contains("spec.containers[log]: - ") && text.contains("spec.containers[new]: + "),
            "{text}"
        );
        assert!(text.contains("data.k: \"(secret)\" -> \"(secret)\""), "{text}");
        assert!(!serde_json::to_string(&changes).unwrap().contains("bmV3"));
        assert_eq!(compare(&old, &old), []);
    }

    #[test]
    fn long_texts_are_compared_by_line() {
        let map = |text: &str| {
            object(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"f.conf": text}}),
            )
        };
        let text = told(&compare(&[map("a\nb\nc\n")], &[map("a\nx\nc\n")]), "");
        assert_eq!(text, "~ ConfigMap/c\n    data[f.conf]:\n      - b\n      + x\n");
    }
}
