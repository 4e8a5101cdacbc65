//! How lists merge: from the built-in table, or from the OpenAPI file that a kustomization names.

use super::merge_keys::{self, Field};
use serde_json::Value;

/// What is known about all kinds.
#[derive(Debug, Default)]
pub(crate) enum Schemas {
    #[default]
    BuiltIn,
    /// The `definitions` of an OpenAPI file; they take the place of the built-in ones.
    Custom(Value),
}

/// What is known about merging at one place of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema<'a> {
    BuiltIn(&'static [Field]),
    Custom { definitions: &'a Value, here: &'a Value },
}

/// How a list merges.
#[derive(Debug, Clone)]
pub(crate) struct ListSchema<'a> {
    /// The keys that identify an element; none for a list of plain values.
    pub keys: Vec<&'a str>,
    pub element: Option<Schema<'a>>,
}

impl Schemas {
    /// Of a kind, where it is known.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<Schema<'_>> {
        match self {
            Self::BuiltIn => {
                let at = merge_keys::KINDS
                    .binary_search_by(|(v, k, _)| (*v, *k).cmp(&(api_version, kind)))
                    .ok()?;
                Some(built_in(merge_keys::KINDS[at].2))
            }
            Self::Custom(definitions) => {
                let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
                let is_it = |named: &Value| {
                    let part = |key: &str| named.get(key).and_then(Value::as_str).unwrap_or_default();
                    part("group") == group && part("version") == version && part("kind") == kind
                };
                let here = definitions.as_object()?.values().find(|definition| {
                    let named = definition.get("x-kubernetes-group-version-kind");
                    named
                        .and_then(Value::as_array)
                        .is_some_and(|all| all.iter().any(is_it))
                })?;
                Some(Schema::Custom { definitions, here })
            }
        }
    }
}

fn built_in(index: u8) -> Schema<'static> {
    Schema::BuiltIn(merge_keys::TYPES[usize::from(index)])
}

impl<'a> Schema<'a> {
    /// Of a field's value.
    pub fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::BuiltIn(fields) => entry(fields, name)?.below.map(built_in),
            Self::Custom { definitions, here } => resolve(definitions, property(here, name)?),
        }
    }

    /// How the list in a field merges; `None` for a list that a patch replaces.
    pub fn list(self, name: &str) -> Option<ListSchema<'a>> {
        match self {
            Self::BuiltIn(fields) => {
                let entry = entry(fields, name)?;
                Some(ListSchema {
                    keys: entry.keys?.to_vec(),
                    element: entry.below.map(built_in),
                })
            }
            Self::Custom { definitions, here } => {
                let Some(Self::Custom { here: list, .. }) = resolve(definitions, property(here, name)?)
                else {
                    return None;
                };
                let strategy = list.get("x-kubernetes-patch-strategy")?.as_str()?;
                if !strategy.split(',').any(|part| part == "merge") {
                    return None;
                }
                let map_keys = list.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys = match (map_keys, list.get("x-kubernetes-patch-merge-key")) {
                    (Some(keys), _) => keys.iter().filter_map(Value::as_str).collect(),
                    (None, Some(key)) => key.as_str().into_iter().collect(),
                    (None, None) => Vec::new(),
                };
                let element = list.get("items").and_then(|items| resolve(definitions, items));
                Some(ListSchema { keys, element })
            }
        }
    }
}

fn entry(fields: &'static [Field], name: &str) -> Option<&'static Field> {
    fields.iter().find(|entry| entry.name == name)
}

fn property<'a>(here: &'a Value, name: &str) -> Option<&'a Value> {
    let field = here.get("properties").and_then(|properties| properties.get(name));
    field.or_else(|| here.get("additionalProperties").filter(|any| any.is_object()))
}

/// Follows `$ref`, not endlessly; to the built-in definition where the file has none of that name.
fn resolve<'a>(definitions: &'a Value, mut here: &'a Value) -> Option<Schema<'a>> {
    const MAX_STEPS: usize = 16;
    for _ in 0..MAX_STEPS {
        let Some(reference) = here.get("$ref").and_then(Value::as_str) else {
            return Some(Schema::Custom { definitions, here });
        };
        let name = reference.rsplit('/').next()?;
        let Some(next) = definitions.get(name) else {
            let at = merge_keys::DEFINITIONS
                .binary_search_by(|(known, _)| known.cmp(&name))
                .ok()?;
            return Some(built_in(merge_keys::DEFINITIONS[at].1));
        };
        here = next;
    }
    None
}
