//! Facts about Kubernetes and the defaults of kustomize, as data.

mod cluster_scoped;
pub(crate) mod field_specs;
mod merge_keys;
mod schema;

pub(crate) use schema::{ListSchema, Schema, Schemas};

/// Whether the kind is known to be outside any namespace.
pub(crate) fn is_cluster_scoped(api_version: &str, kind: &str) -> bool {
    cluster_scoped::CLUSTER_SCOPED
        .binary_search(&(api_version, kind))
        .is_ok()
}
