//! Server side of the OCI distribution-spec v1.1.
//!
//! Blobs lie in a [`Store`]; what belongs to which repository lies in small files beside it:
//! ```text
//! repositories/<name>/_blobs/<hex>               the blob was pushed to this repository
//! repositories/<name>/_manifests/<hex>           a manifest, with its media type
//! repositories/<name>/_referrers/<hex>/<hex>     the second is about the first
//! repositories/<name>/_tags/<tag>                the digest of a manifest
//! uploads/<repository's hash>-<id>               a push in progress; it outlives a restart
//! ```
//! No part of a repository's name may begin with `_`, so that files and names never meet.

mod access;
mod blobs;
mod body;
mod error;
mod manifests;
mod paths;
mod repository;
mod route;
mod upload;

pub use access::{Access, Action, Answer, Asked};
pub use body::RegistryBody;

use crate::store::{Collected, Keep, Lease};
use crate::{Store, StoreError};
use body::Incoming;
use bytes::Bytes;
use error::Fault;
use http::{Method, Request, Response, StatusCode};
use model::Digest;
use paths::RepositoryName;
use repository::Repositories;
use route::Route;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a pushed blob is kept though no manifest names it yet.
const PUSH_GRACE: Duration = Duration::from_secs(3600);

/// A registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    repositories: Repositories,
    uploads: PathBuf,
    access: Access,
    /// Uploads that a request is writing to.
    writing: Mutex<BTreeSet<PathBuf>>,
    /// Blobs that wait for their manifest.
    fresh: Mutex<VecDeque<(Instant, Lease)>>,
}

impl Registry {
    /// Opens or creates a registry in `dir`, on the same file system as `store`. Blocks.
    pub fn open(dir: &Path, store: Store, access: Access) -> Result<Self, StoreError> {
        let uploads = dir.join("uploads");
        let repositories = Repositories::open(&dir.join("repositories"))?;
        upload::prepare(&uploads)?;
        repin(&store, &repositories)?;
        Ok(Self(Arc::new(Inner {
            store,
            repositories,
            uploads,
            access,
            writing: Mutex::default(),
            fresh: Mutex::default(),
        })))
    }

    /// Answers one request, whose path begins with `/v2/`. Every outcome is an answer.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<RegistryBody>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, incoming) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let mut incoming = Incoming::new(incoming);
        let mut response = match self.answer(&parts, &mut incoming).await {
            Ok(response) => response,
            Err(fault) => {
                tracing::debug!(method = %parts.method, path = parts.uri.path(), ?fault, "refused");
                incoming.drain().await;
                fault.into_response()
            }
        };
        if head {
            *response.body_mut() = body::empty();
        }
        let version = http::HeaderValue::from_static("registry/2.0");
        response
            .headers_mut()
            .insert("docker-distribution-api-version", version);
        response
    }

    async fn answer(
        &self,
        request: &http::request::Parts,
        incoming: &mut Incoming,
    ) -> Result<Response<RegistryBody>, Fault> {
        let route = Route::parse(&request.method, request.uri.path())?;
        let query = route::Query::of(&request.uri);
        self.may(request, route.action(), route.repository())?;
        match route {
            Route::Ping => Ok(body::json(StatusCode::OK, &serde_json::json!({}))),
            Route::Catalog => self.catalog(&query).await,
            Route::Tags(name) => self.tags_list(name, &query).await,
            Route::Referrers(name, subject) => self.referrers(name, subject, &query).await,
            Route::GetManifest(name, reference) => self.get_manifest(name, reference).await,
            Route::PutManifest(name, reference) => {
                self.put_manifest(request, name, reference, incoming).await
            }
            Route::DeleteManifest(name, reference) => self.delete_manifest(name, reference).await,
            Route::GetBlob(name, digest) => self.get_blob(request, name, digest).await,
            Route::DeleteBlob(name, digest) => self.delete_blob(name, digest).await,
            Route::StartUpload(name) => self.start_upload(request, name, &query, incoming).await,
            Route::UploadStatus(name, id) => self.upload_status(name, id).await,
            Route::Append(name, id) => self.append(request, name, id, incoming).await,
            Route::Finish(name, id) => self.finish(request, name, id, &query, incoming).await,
            Route::Cancel(name, id) => self.cancel(name, id).await,
        }
    }

    fn may(
        &self,
        request: &http::request::Parts,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<(), Fault> {
        let asked = Asked {
            action,
            repository: repository.map(RepositoryName::as_str),
            request,
        };
        match self.0.access.ask(&asked) {
            Answer::Allow => Ok(()),
            Answer::Unauthenticated { challenge } => Err(Fault::unauthorized(challenge)),
            Answer::Forbid { why } => Err(Fault::denied(why)),
        }
    }

    /// Gives an image in the store a name, as a push would: for images that are built where the registry is.
    ///
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::Absent`] where the image or anything that it names is not in the store.
    pub fn publish(&self, repository: &str, tag: &str, top: &Digest) -> Result<(), RegistryPublishError> {
        let name = RepositoryName::parse(repository).ok_or_else(|| RegistryPublishError::Name {
            name: format!("{repository}:{tag}"),
        })?;
        if !paths::is_tag(tag) {
            return Err(RegistryPublishError::Name {
                name: format!("{repository}:{tag}"),
            });
        }
        self.publish_tree(&name, top)?;
        self.0.repositories.set_tag(&name, tag, top)?;
        Ok(())
    }

    fn publish_tree(&self, name: &RepositoryName, digest: &Digest) -> Result<(), RegistryPublishError> {
        let bytes = self.0.store.read(digest, crate::oci::MAX_MANIFEST_BYTES)?;
        let bytes = bytes.ok_or(StoreError::Absent { digest: *digest })?;
        let named = crate::oci::named_by(&bytes);
        for leaf in &named.leaves {
            if !self.0.store.has(leaf) {
                return Err(StoreError::Absent { digest: *leaf }.into());
            }
            self.0.repositories.link(name, leaf)?;
        }
        for child in &named.manifests {
            self.publish_tree(name, child)?;
        }
        let kind = if named.manifests.is_empty() {
            crate::oci::MANIFEST
        } else {
            crate::oci::INDEX
        };
        self.admit_manifest(name, digest, &manifests::Record::of(kind, &bytes))?;
        Ok(())
    }

    /// Pins a manifest and lists it in its repository; from then on it can be pulled.
    fn admit_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        record: &manifests::Record,
    ) -> Result<(), StoreError> {
        self.0.store.pin(&pin_owner(name), digest, Keep::Whole)?;
        self.0.repositories.add_manifest(name, digest, record)
    }

    /// All repositories that hold something. Blocks.
    pub fn repositories(&self) -> Result<Vec<String>, StoreError> {
        self.0.repositories.names()
    }

    /// A repository's tags with their digests. Blocks.
    pub fn tags(&self, repository: &str) -> Result<Vec<(String, Digest)>, StoreError> {
        let Some(name) = RepositoryName::parse(repository) else {
            return Ok(Vec::new());
        };
        let mut tags = Vec::new();
        for tag in self.0.repositories.tags(&name)? {
            if let Some(digest) = self.0.repositories.tag(&name, &tag)? {
                tags.push((tag, digest));
            }
        }
        Ok(tags)
    }

    /// Removes blobs that no manifest names and uploads that nobody goes on with, both older than `grace`. Blocks.
    pub fn collect(&self, grace: Duration) -> Result<Collected, StoreError> {
        upload::collect(&self.0.uploads, grace)?;
        self.0.store.collect(grace)
    }

    /// Keeps a blob that was just pushed until its manifest may come.
    fn keep_for_a_while(&self, digest: Digest) {
        let lease = self.0.store.lease([digest]);
        let mut fresh = self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        while fresh
            .front()
            .is_some_and(|(since, _)| since.elapsed() > PUSH_GRACE)
        {
            fresh.pop_front();
        }
        fresh.push_back((Instant::now(), lease));
    }
}

/// Why [`Registry::publish`] failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryPublishError {
    /// Not a name that a registry takes.
    #[error("{name:?} is not a valid image name: use lower-case letters, digits, '.', '_', '-' and '/'")]
    Name {
        /// Repository and tag.
        name: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The repositories say what is kept; pins that a power cut or damage made differ are made anew.
fn repin(store: &Store, repositories: &Repositories) -> Result<(), StoreError> {
    for name in repositories
        .names()?
        .iter()
        .filter_map(|name| RepositoryName::parse(name))
    {
        let manifests = repositories.manifests(&name)?;
        store.set_pins(
            &pin_owner(&name),
            manifests.into_iter().map(|digest| (digest, Keep::Whole)),
        )?;
    }
    Ok(())
}

fn pin_owner(name: &RepositoryName) -> String {
    format!("registry:{}", name.as_str())
}
