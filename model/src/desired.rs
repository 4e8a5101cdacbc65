//! What a revision says a device should run.

use crate::{Digest, Kustomization, Object, Revision};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The content hash of a [`Desired`]: two revisions with the same objects are one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationId(pub Digest);

impl fmt::Display for GenerationId {
    /// Twelve digits: enough for people, and for a file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.short())
    }
}

impl FromStr for GenerationId {
    type Err = crate::BadDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The rendered objects of one revision for one device, in the order of their application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Where it came from; no part of the content hash.
    pub revision: Revision,
    /// Folder that was rendered, from the tree's root.
    pub path: String,
    /// The objects; Flux's own objects are already resolved into what they point at.
    pub objects: Vec<Object>,
    /// The `Kustomization` objects that the others come from, in the order of their dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kustomizations: Vec<Kustomization>,
    /// Where each object was read, in the order of `objects`; shorter where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Option<Origin>>,
    /// What the renderer wants people to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where in the tree an object was read, before patches and overlays changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Path from the tree's root; of a generated object, the kustomization that makes it.
    pub file: String,
    /// Line that the object begins at, from 1, where it was read rather than made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.iter().try_for_each(|line| write!(f, ":{line}"))
    }
}

impl Desired {
    /// Hash over the objects alone, in their order.
    pub fn id(&self) -> GenerationId {
        // Serialising JSON values to memory cannot fail: keys are texts and no float is non-finite.
        GenerationId(Digest::of(&serde_json::to_vec(&self.objects).unwrap_or_default()))
    }
}
