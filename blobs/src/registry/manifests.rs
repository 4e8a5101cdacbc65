//! Manifests, tags, the catalog and referrers.

use super::body::{self, Incoming, RegistryBody};
use super::error::Fault;
use super::paths::RepositoryName;
use super::route::{Query, Reference};
use super::{Registry, pin_owner};
use crate::oci::{self, Descriptor};
use crate::registries::blocking;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LINK, LOCATION};
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use model::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// As many names as one page has.
const PAGE: usize = 1000;
/// As many manifests as may be about one other.
const MOST_REFERRERS: usize = 1000;

/// What is kept of a manifest beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub media_type: String,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The fields of manifests and indexes that a registry looks at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Layer>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(flatten)]
    blob: Descriptor,
    /// Where else it is to be had: such a layer may be absent here.
    #[serde(default)]
    urls: Vec<String>,
}

impl Record {
    /// The record of a manifest that is known to be one.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Document>(bytes) {
            Ok(document) => document.record(media_type, bytes.len() as u64),
            Err(_) => Self {
                media_type: media_type.to_owned(),
                size: bytes.len() as u64,
                artifact_type: None,
                subject: None,
                annotations: BTreeMap::new(),
            },
        }
    }

    fn descriptor(self, digest: Digest) -> Descriptor {
        Descriptor {
            artifact_type: self.artifact_type,
            annotations: self.annotations,
            ..Descriptor::new(&self.media_type, digest, self.size)
        }
    }
}

impl Document {
    fn named(&self) -> Vec<Digest> {
        let layers = self.layers.iter().flatten().map(|layer| layer.blob.digest);
        let others = self.config.iter().chain(self.manifests.iter().flatten());
        layers.chain(others.map(|held| held.digest)).collect()
    }

    fn record(self, media_type: &str, size: u64) -> Record {
        // The spec: without an artifact type of its own, a manifest's is that of its configuration.
        let of_config = self.config.map(|config| config.media_type);
        Record {
            media_type: media_type.to_owned(),
            size,
            artifact_type: self.artifact_type.or(of_config),
            subject: self.subject.map(|subject| subject.digest),
            annotations: self.annotations,
        }
    }

    fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<(Self, String), Fault> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|err| Fault::manifest_invalid(format!("the manifest does not parse: {err}")))?;
        if document.schema_version != 2 {
            return Err(Fault::manifest_invalid("only schema version 2 is supported"));
        }
        if document.manifests.is_some() == document.config.is_some() {
            return Err(Fault::manifest_invalid("it must have either config or manifests"));
        }
        let held = document.media_type.as_deref().filter(|kind| !kind.is_empty());
        let kind = match (held, content_type) {
            (Some(held), Some(said)) if held != said => {
                return Err(Fault::manifest_invalid(format!(
                    "its mediaType is {held}, but Content-Type is {said}"
                )));
            }
            (Some(kind), _) | (None, Some(kind)) => kind.to_owned(),
            (None, None) => {
                return Err(Fault::manifest_invalid(
                    "it has neither mediaType nor Content-Type",
                ));
            }
        };
        let is_index = matches!(kind.as_str(), oci::INDEX | oci::DOCKER_LIST);
        if !is_index && !matches!(kind.as_str(), oci::MANIFEST | oci::DOCKER_MANIFEST) {
            return Err(Fault::manifest_invalid(format!(
                "media type {kind} is not supported"
            )));
        }
        if is_index != document.manifests.is_some() {
            return Err(Fault::manifest_invalid(format!(
                "its content is not that of {kind}"
            )));
        }
        Ok((document, kind))
    }
}

impl Registry {
    pub(super) async fn get_manifest(
        &self,
        name: RepositoryName,
        reference: Reference,
    ) -> Result<Response<RegistryBody>, Fault> {
        let registry = self.clone();
        blocking(move || {
            let (digest, record) = registry.look_up(&name, &reference)?;
            let bytes = registry.0.store.read(&digest, oci::MAX_MANIFEST_BYTES)?;
            let bytes = bytes.ok_or_else(|| Fault::manifest_unknown(&reference.to_string()))?;
            let response = Response::builder()
                .header(CONTENT_TYPE, record.media_type)
                .header(CONTENT_LENGTH, bytes.len())
                .header(CONTENT_DIGEST, digest.to_string())
                .header(ETAG, format!("\"{digest}\""));
            built(response, body::full(bytes))
        })
        .await
    }

    fn look_up(&self, name: &RepositoryName, reference: &Reference) -> Result<(Digest, Record), Fault> {
        let repositories = &self.0.repositories;
        let unknown = || Fault::manifest_unknown(&reference.to_string());
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => repositories.tag(name, tag)?.ok_or_else(unknown)?,
        };
        let record = repositories.manifest(name, &digest)?.ok_or_else(unknown)?;
        Ok((digest, record))
    }

    pub(super) async fn put_manifest(
        &self,
        request: &Parts,
        name: RepositoryName,
        reference: Reference,
        incoming: &mut Incoming,
    ) -> Result<Response<RegistryBody>, Fault> {
        let said = request
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let said = said.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
        let bytes = incoming.small(oci::MAX_MANIFEST_BYTES).await?;
        let registry = self.clone();
        blocking(move || {
            let (document, kind) = Document::parse(&bytes, said.as_deref())?;
            let digest = Digest::of(&bytes);
            if let Reference::Digest(wanted) = &reference
                && *wanted != digest
            {
                return Err(Fault::digest_invalid(format!(
                    "the content is {digest}, not {wanted}"
                )));
            }
            // From the check to the pin, nothing of it may be collected.
            let _lease = registry.0.store.lease(document.named());
            registry.check_named(&name, &document)?;
            // In this order, so that after a power cut nothing names what is not there.
            registry.0.store.put(&bytes)?;
            let record = document.record(&kind, bytes.len() as u64);
            registry.admit_manifest(&name, &digest, &record)?;
            if let Reference::Tag(tag) = &reference {
                registry.0.repositories.set_tag(&name, tag, &digest)?;
            }
            let mut response = Response::builder()
                .status(StatusCode::CREATED)
                .header(LOCATION, format!("/v2/{}/manifests/{digest}", name.as_str()))
                .header(CONTENT_LENGTH, 0)
                .header(CONTENT_DIGEST, digest.to_string());
            if let Some(subject) = record.subject {
                response = response.header("oci-subject", subject.to_string());
            }
            built(response, body::empty())
        })
        .await
    }

    /// A manifest may name only what is here, with its true size.
    fn check_named(&self, name: &RepositoryName, document: &Document) -> Result<(), Fault> {
        let unknown = |digest: &Digest| {
            Fault::new(
                StatusCode::NOT_FOUND,
                "MANIFEST_BLOB_UNKNOWN",
                format!("{digest} is named but was not pushed to this repository"),
            )
        };
        let layers = document.layers.iter().flatten();
        let here = layers
            .filter(|layer| layer.urls.is_empty())
            .map(|layer| &layer.blob);
        for blob in here.chain(&document.config) {
            let size = self.0.store.size(&blob.digest);
            if !self.0.repositories.has_link(name, &blob.digest) || size.is_none() {
                return Err(unknown(&blob.digest));
            }
            if size != Some(blob.size) {
                return Err(Fault::manifest_invalid(format!(
                    "the size of {} is not {}",
                    blob.digest, blob.size
                )));
            }
        }
        for child in document.manifests.iter().flatten() {
            if self.0.repositories.manifest(name, &child.digest)?.is_none() {
                return Err(unknown(&child.digest));
            }
        }
        Ok(())
    }

    pub(super) async fn delete_manifest(
        &self,
        name: RepositoryName,
        reference: Reference,
    ) -> Result<Response<RegistryBody>, Fault> {
        let registry = self.clone();
        blocking(move || {
            let (digest, record) = registry.look_up(&name, &reference)?;
            match &reference {
                Reference::Tag(tag) => registry.0.repositories.remove_tag(&name, tag)?,
                Reference::Digest(_) => {
                    registry.0.repositories.remove_manifest(&name, &digest, &record)?;
                    registry.0.store.unpin(&pin_owner(&name), &digest)?;
                }
            }
            built(
                Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .header(CONTENT_LENGTH, 0),
                body::empty(),
            )
        })
        .await
    }

    pub(super) async fn tags_list(
        &self,
        name: RepositoryName,
        query: &Query,
    ) -> Result<Response<RegistryBody>, Fault> {
        let registry = self.clone();
        let held = name.clone();
        let tags = blocking(move || {
            if !registry.0.repositories.exists(&held) {
                return Err(Fault::name_unknown(held.as_str()));
            }
            Ok(registry.0.repositories.tags(&held)?)
        })
        .await?;
        let (tags, more) = page(tags, query)?;
        let document = serde_json::json!({"name": name.as_str(), "tags": tags});
        let link = more.map(|last| next(&format!("/v2/{}/tags/list", name.as_str()), query, &last));
        Ok(linked(body::json(StatusCode::OK, &document), link))
    }

    pub(super) async fn catalog(&self, query: &Query) -> Result<Response<RegistryBody>, Fault> {
        let registry = self.clone();
        let names = blocking(move || registry.0.repositories.names()).await?;
        let (names, more) = page(names, query)?;
        let document = serde_json::json!({"repositories": names});
        let link = more.map(|last| next("/v2/_catalog", query, &last));
        Ok(linked(body::json(StatusCode::OK, &document), link))
    }

    pub(super) async fn referrers(
        &self,
        name: RepositoryName,
        subject: Digest,
        query: &Query,
    ) -> Result<Response<RegistryBody>, Fault> {
        let wanted = query.get("artifactType").map(str::to_owned);
        let filtered = wanted.is_some();
        let registry = self.clone();
        let manifests = blocking(move || {
            let repositories = &registry.0.repositories;
            let mut found = Vec::new();
            for digest in repositories
                .referrers(&name, &subject)?
                .into_iter()
                .take(MOST_REFERRERS)
            {
                let record = repositories.manifest(&name, &digest)?;
                found.extend(record.map(|record| record.descriptor(digest)));
            }
            found.retain(|held| wanted.is_none() || held.artifact_type == wanted);
            Ok::<_, Fault>(found)
        })
        .await?;
        let document =
            serde_json::json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests});
        let mut response = body::json(StatusCode::OK, &document);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(oci::INDEX));
        if filtered {
            headers.insert(
                "oci-filters-applied",
                http::HeaderValue::from_static("artifactType"),
            );
        }
        Ok(response)
    }
}

/// The part of sorted names that `n` and `last` ask for, and its last name where more follow.
fn page(names: Vec<String>, query: &Query) -> Result<(Vec<String>, Option<String>), Fault> {
    let size = match query.get("n") {
        None => PAGE,
        Some(text) => {
            let bad = || {
                Fault::new(
                    StatusCode::BAD_REQUEST,
                    "UNSUPPORTED",
                    format!("n={text} is no number"),
                )
            };
            text.parse::<usize>().map_err(|_| bad())?.min(PAGE)
        }
    };
    let after = query.get("last").unwrap_or_default();
    let mut names: Vec<_> = names.into_iter().filter(|name| name.as_str() > after).collect();
    let more = names.len() > size;
    names.truncate(size);
    let last = names.last().filter(|_| more).cloned();
    Ok((names, last))
}

fn next(path: &str, query: &Query, last: &str) -> String {
    let size = query.get("n").map_or_else(|| PAGE.to_string(), str::to_owned);
    format!("<{path}?n={size}&last={last}>; rel=\"next\"")
}

fn linked(mut response: Response<RegistryBody>, link: Option<String>) -> Response<RegistryBody> {
    if let Some(link) = link.and_then(|link| http::HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// Finishes a response whose headers come from checked names, digests and numbers.
pub(super) fn built(
    response: http::response::Builder,
    body: RegistryBody,
) -> Result<Response<RegistryBody>, Fault> {
    response
        .body(body)
        .map_err(|err| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", err.to_string()))
}
