//! A source of any kind, behind one face.

use crate::{BucketSource, BucketSpec, Fetched, GitSource, GitSpec, OciSource, OciSpec, SourceError};
use model::{Revision, Tree};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// A Git repository.
    Git(GitSpec),
    /// An artifact in a registry.
    Oci(OciSpec),
    /// A bucket of objects.
    Bucket(BucketSpec),
}

/// One source followed by this device, in a folder of its own. See [`GitSource`] for what each method promises.
#[derive(Debug)]
pub enum Source {
    /// See [`GitSource`].
    Git(Box<GitSource>),
    /// See [`OciSource`].
    Oci(Box<OciSource>),
    /// See [`BucketSource`].
    Bucket(Box<BucketSource>),
}

impl SourceSpec {
    /// The address for people, without credentials.
    pub fn display_url(&self) -> String {
        match self {
            Self::Git(spec) => spec.display_url(),
            Self::Oci(spec) => spec.url.clone(),
            Self::Bucket(spec) => format!("s3://{}/{}/{}", spec.endpoint, spec.bucket, spec.prefix),
        }
    }
}

impl Source {
    /// Opens or makes the source's folder. Nothing is asked of the network.
    pub fn open(dir: &Path, spec: SourceSpec) -> Result<Self, SourceError> {
        Ok(match spec {
            SourceSpec::Git(spec) => Self::Git(Box::new(GitSource::open(dir, spec)?)),
            SourceSpec::Oci(spec) => Self::Oci(Box::new(OciSource::open(&dir.join("oci"), spec)?)),
            SourceSpec::Bucket(spec) => {
                Self::Bucket(Box::new(BucketSource::open(&dir.join("bucket"), spec)?))
            }
        })
    }

    /// The last revision that was fetched whole.
    pub fn held(&self) -> Option<&Revision> {
        match self {
            Self::Git(source) => source.held(),
            Self::Oci(source) => source.held(),
            Self::Bucket(source) => source.held(),
        }
    }

    /// Fetches what is named now.
    pub fn fetch(&mut self, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        match self {
            Self::Git(source) => source.fetch(stop),
            Self::Oci(source) => source.fetch(stop),
            Self::Bucket(source) => source.fetch(stop),
        }
    }

    /// The files of a revision that is here. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        match self {
            Self::Git(source) => source.load(commit),
            Self::Oci(source) => source.load(commit),
            Self::Bucket(source) => source.load(commit),
        }
    }

    /// Makes an earlier revision the held one again.
    pub fn hold(&mut self, revision: &Revision) -> Result<(), SourceError> {
        match self {
            Self::Git(source) => source.hold(revision),
            Self::Oci(source) => source.hold(revision),
            Self::Bucket(source) => source.hold(revision),
        }
    }
}
