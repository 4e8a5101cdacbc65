//! Git, artifacts in OCI registries and S3 buckets to a verified [`model::Revision`] and the [`model::Tree`] of its
//! files.
//!
//! Takes: a [`GitSpec`] (address, reference, credentials) and a folder of its own.
//! Gives: [`GitSource::fetch`], which moves at most one thin pack over the link and says how history moved, and
//! [`GitSource::load`], which reads a commit's files from the object store, with no work tree and no network.
//! A connection that breaks, or a power cut at any moment, leaves the held revision readable; the next fetch
//! starts from there. Everything is blocking: call it from a thread that may block.
//! Never: reads what the files mean, runs a hook or a shell, follows a link out of the tree, uses the
//! user's Git configuration, credential helpers or ssh agent, or shows a secret in an address.

mod ancestry;
mod any;
mod archive;
mod artifacts;
mod bucket;
mod compact;
mod connection;
mod error;
mod fetch;
mod files;
mod ignore;
mod local;
mod oci;
mod range;
mod remotes;
mod repository;
mod resolve;
mod s3;
mod snapshot;
mod spec;
mod transport;
mod web;

pub use any::{Source, SourceSpec, same_repository};
pub use artifacts::{Artifacts, Held};
pub use bucket::{BucketSource, BucketSpec};
pub use error::SourceError;
pub use fetch::{Fetched, GitSource};
pub use local::LocalRepository;
pub use oci::{OciRef, OciSource, OciSpec};
pub use range::{BadRange, Range};
pub use remotes::{Ask, Pin, Pins, RemoteRepository, Remotes, RemotesSpec};
pub use s3::S3Keys;
pub use snapshot::{Lies, Snapshot};
pub use spec::{GitAuth, GitRef, GitSpec, Limits};
