//! Facts about Kubernetes and the defaults of kustomize, as data.

mod cluster_scoped;
pub(crate) mod field_specs;
mod merge_keys;

/// Whether the kind is known to be outside any namespace.
pub(crate) fn is_cluster_scoped(api_version: &str, kind: &str) -> bool {
    cluster_scoped::CLUSTER_SCOPED
        .binary_search(&(api_version, kind))
        .is_ok()
}

/// What is known about merging at one place of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    fields: &'static [merge_keys::Field],
}

/// How a list merges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListSchema {
    /// The keys that identify an element; none for a list of plain values.
    pub keys: &'static [&'static str],
    pub element: Option<Schema>,
}

impl Schema {
    /// Of a kind, where kustomize knows it.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let at = merge_keys::KINDS
            .binary_search_by(|(v, k, _)| (*v, *k).cmp(&(api_version, kind)))
            .ok()?;
        Some(Self::type_at(merge_keys::KINDS[at].2))
    }

    fn type_at(index: u8) -> Self {
        Self {
            fields: merge_keys::TYPES[usize::from(index)],
        }
    }

    fn entry(self, field: &str) -> Option<&'static merge_keys::Field> {
        self.fields.iter().find(|entry| entry.name == field)
    }

    /// Of a field's value.
    pub fn field(self, field: &str) -> Option<Self> {
        self.entry(field)?.below.map(Self::type_at)
    }

    /// How the list in a field merges; `None` for a list that a patch replaces.
    pub fn list(self, field: &str) -> Option<ListSchema> {
        let entry = self.entry(field)?;
        Some(ListSchema {
            keys: entry.keys?,
            element: entry.below.map(Self::type_at),
        })
    }
}
