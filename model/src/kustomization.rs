//! Flux's `Kustomization` objects, as far as they live on beside what they render to.

use crate::{Condition, ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of an inventory, equal to Flux's `status.inventory.entries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// `<namespace>_<name>_<group>_<kind>`.
    pub id: String,
    /// Version of its API.
    pub v: String,
}

/// A `Kustomization` that was resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kustomization {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The object as it stands in the repository: expressions are evaluated over it.
    pub object: Value,
    /// What it rendered to, in the order of its application.
    pub inventory: Vec<InventoryEntry>,
    /// The keys of the same objects, in the same order.
    pub objects: Vec<ObjectKey>,
    /// Why it rendered to nothing, where it was left out: one of Flux's reasons, and a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<(String, String)>,
    /// The artifact that it was read from, where that is not the revision of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// What a device says of a `Kustomization`, in Flux's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KustomizationStatus {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Revision that runs, as `main@sha1:<commit>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// How many objects are in its inventory.
    pub objects: u32,
    /// `Ready`, `Healthy`, `Reconciling`, `Stalled`.
    pub conditions: Vec<Condition>,
}
