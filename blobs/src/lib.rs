//! Content-addressed blobs on disk, and the ways they come and go.
//!
//! Takes: digests, image references, files; HTTP requests at the registry's door.
//! Gives: [`Store`] (verified files by digest, with pins, quota and resumable downloads), [`Registries`] (OCI
//! distribution client), [`Images`] (local images, unpacked for overlayfs), [`registry`] (the server side of the
//! same protocol) and [`build`] (images from files).
//! Never: trusts a byte that it did not hash; leaves half of anything behind; knows what a blob is for.

pub mod build;
pub mod images;
pub mod oci;
mod platform;
pub mod registries;
pub mod registry;
pub mod store;
pub mod unpack;

pub use images::{ImageError, Images, LocalImage};
pub use registries::{
    Credentials, DockerConfig, Endpoint, Patience, Progress, Registries, RegistryConfig, RegistryError, Tls,
};
pub use registry::Registry;
pub use store::{Keep, Quota, Store, StoreError};
pub use unpack::UnpackOptions;
