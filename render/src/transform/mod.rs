//! The built-in transformers, in the order in which a kustomization runs them.

pub(crate) mod images;
pub(crate) mod metadata;
pub(crate) mod namespace;
pub(crate) mod patches;
pub(crate) mod sort;
