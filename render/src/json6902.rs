//! JSON patches (RFC 6902) as kustomize applies them: indices may count from the end.

use crate::{
    error::{Problem, RenderError, Result},
    yaml::{self, Node},
};
use serde::Deserialize;
use serde_json::Value;

/// One operation of a patch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Operation {
    op: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    value: Value,
}

/// Reads a patch in YAML or JSON.
pub(crate) fn parse(text: &str) -> Result<Vec<Operation>> {
    let unreadable = |message: String| RenderError::new(Problem::Patch, message);
    let documents =
        yaml::parse_lenient(text).map_err(|error| unreadable(error.message).at_line(error.line))?;
    // Further documents are ignored, as kustomize does.
    let Some(document) = documents.first() else {
        return Err(unreadable("the patch is empty".to_owned()));
    };
    if document.root.as_seq().is_none() {
        return Err(unreadable("a JSON patch is a list of operations".to_owned()));
    }
    let value = yaml::to_json_yaml11(&document.root)
        .map_err(|number| unreadable(format!("{number} is no number that JSON has")))?;
    serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))
}

/// Applies all operations; nothing is changed where one fails.
pub(crate) fn apply(object: &Node, operations: &[Operation]) -> Result<Node> {
    let mut value = yaml::to_json(object)
        .map_err(|number| RenderError::new(Problem::Patch, format!("{number} is no number that JSON has")))?;
    for operation in operations {
        apply_one(&mut value, operation).map_err(|message| {
            RenderError::new(
                Problem::Patch,
                format!("cannot {} {}: {message}", operation.op, operation.path),
            )
            .field(operation.path.clone())
        })?;
    }
    Ok(yaml::from_json(&value))
}

type Outcome<T> = std::result::Result<T, String>;

fn apply_one(root: &mut Value, operation: &Operation) -> Outcome<()> {
    match operation.op.as_str() {
        "add" => add(root, &operation.path, operation.value.clone()),
        "remove" => remove(root, &operation.path).map(drop),
        "replace" => replace(root, &operation.path, &operation.value),
        "move" => {
            let value = remove(root, &operation.from)?;
            add(root, &operation.path, value)
        }
        "copy" => {
            let value = find(root, &operation.from)?.clone();
            add(root, &operation.path, value)
        }
        "test" => match find(root, &operation.path) {
            Ok(found) if same(found, &operation.value) => Ok(()),
            Ok(found) => Err(format!("the value is {found}, not {}", operation.value)),
            Err(_) if operation.value.is_null() => Ok(()),
            Err(message) => Err(message),
        },
        other => Err(format!(
            "{other:?} is no operation; use add, remove, replace, move, copy or test"
        )),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// A pointer's parts with `~1` and `~0` decoded.
fn parts(pointer: &str) -> Outcome<Vec<String>> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer
        .strip_prefix('/')
        .ok_or_else(|| "a path starts with '/'".to_owned())?;
    Ok(rest
        .split('/')
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect())
}

/// An index, also one that counts from the end.
fn index(part: &str, length: usize) -> Outcome<usize> {
    let number: i64 = part
        .parse()
        .map_err(|_| format!("{part:?} is no index of a list"))?;
    let length_signed = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if number < 0 {
        number + length_signed
    } else {
        number
    };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < length)
        .ok_or_else(|| format!("the list has {length} elements, there is none at {number}"))
}

fn step<'a>(value: &'a Value, part: &str) -> Outcome<&'a Value> {
    match value {
        Value::Object(map) => map.get(part).ok_or_else(|| format!("there is no field {part:?}")),
        Value::Array(items) => Ok(&items[index(part, items.len())?]),
        _ => Err(format!("{part:?} is below a value that has no fields")),
    }
}

fn step_mut<'a>(value: &'a mut Value, part: &str) -> Outcome<&'a mut Value> {
    match value {
        Value::Object(map) => map
            .get_mut(part)
            .ok_or_else(|| format!("there is no field {part:?}")),
        Value::Array(items) => {
            let at = index(part, items.len())?;
            Ok(&mut items[at])
        }
        _ => Err(format!("{part:?} is below a value that has no fields")),
    }
}

fn find<'a>(root: &'a Value, pointer: &str) -> Outcome<&'a Value> {
    parts(pointer)?
        .iter()
        .try_fold(root, |value, part| step(value, part))
}

/// The container of the last part, and that part.
fn container<'a>(root: &'a mut Value, pointer: &str) -> Outcome<(&'a mut Value, String)> {
    let mut parts = parts(pointer)?;
    let last = parts.pop().ok_or_else(|| "the path is empty".to_owned())?;
    let container = parts.iter().try_fold(root, |value, part| step_mut(value, part))?;
    Ok((container, last))
}

fn add(root: &mut Value, pointer: &str, value: Value) -> Outcome<()> {
    if pointer.is_empty() {
        *root = value;
        return Ok(());
    }
    let (container, last) = container(root, pointer)?;
    match container {
        Value::Object(map) => {
            map.insert(last, value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => {
            let at = match last.parse::<usize>() {
                Ok(at) if at == items.len() => at,
                // Counted from the end, -1 is behind the last element.
                Err(_) if last.starts_with('-') => index(&last, items.len() + 1)?,
                _ => index(&last, items.len())?,
            };
            items.insert(at, value);
            Ok(())
        }
        _ => Err("the parent has no fields".to_owned()),
    }
}

/// A field that is not there is added, as kustomize's library does; an element must be there.
fn replace(root: &mut Value, pointer: &str, value: &Value) -> Outcome<()> {
    if pointer.is_empty() {
        root.clone_from(value);
        return Ok(());
    }
    let (container, last) = container(root, pointer)?;
    match container {
        Value::Object(map) => {
            map.insert(last, value.clone());
        }
        Value::Array(items) => {
            let at = index(&last, items.len())?;
            items[at].clone_from(value);
        }
        _ => return Err("the parent has no fields".to_owned()),
    }
    Ok(())
}

fn remove(root: &mut Value, pointer: &str) -> Outcome<Value> {
    let (container, last) = container(root, pointer)?;
    match container {
        Value::Object(map) => map
            .remove(&last)
            .ok_or_else(|| format!("there is no field {last:?}")),
        Value::Array(items) => {
            let at = index(&last, items.len())?;
            Ok(items.remove(at))
        }
        _ => Err("the parent has no fields".to_owned()),
    }
}
