//! Objects that SOPS encrypted and that nobody here can read.

use model::Object;
use serde_json::Value;

const SEALED: &str = "ENC[";

/// Whether an object is encrypted.
pub(crate) fn is_sealed(object: &Object) -> bool {
    object.value()["sops"].is_object() || object.kind().starts_with(SEALED)
}

/// Whether not even its kind can be read.
pub(crate) fn is_whole(object: &Object) -> bool {
    object.kind().starts_with(SEALED) || object.api_version().starts_with(SEALED)
}

/// The object with nothing in place of what is encrypted: its form can be judged, its values cannot.
pub(crate) fn opened(object: &Object) -> Object {
    if !is_sealed(object) {
        return object.clone();
    }
    let mut value = object.value().clone();
    if let Some(map) = value.as_object_mut() {
        map.remove("sops");
    }
    empty(&mut value);
    // Name and kind are as they were, so that it stays an object.
    Object::new(value).unwrap_or_else(|_| object.clone())
}

fn empty(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(SEALED) => text.clear(),
        Value::Array(items) => items.iter_mut().for_each(empty),
        Value::Object(map) => map.values_mut().for_each(empty),
        _ => {}
    }
}
