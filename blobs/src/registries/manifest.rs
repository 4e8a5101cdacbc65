//! Manifests: by tag or digest, and the one for this machine.

use super::retry::Persist;
use super::send::{Asker, bounded, plain};
use super::{Credentials, Registries, RegistryError};
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::platform::choose;
use model::{Digest, ImageRef, Platform};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;

/// An image's manifest as the registry gave it, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of `bytes`.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes, to be kept as they came.
    pub bytes: Vec<u8>,
    /// What the reference itself names: the index where there is one, else the same as `digest`.
    pub top: Digest,
}

struct Document {
    digest: Digest,
    bytes: Vec<u8>,
    url: String,
}

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

impl Registries {
    /// Asks what `image` is for `platform`.
    ///
    /// # Errors
    /// [`RegistryError::WrongPlatform`] naming what is offered; an image without index is checked when its
    /// configuration is there.
    pub async fn resolve(
        &self,
        image: &ImageRef,
        platform: &Platform,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved, RegistryError> {
        self.resolve_persisting(image, platform, credentials, Persist::AsConfigured)
            .await
    }

    pub(crate) async fn resolve_persisting(
        &self,
        image: &ImageRef,
        platform: &Platform,
        credentials: Option<&Credentials>,
        persist: Persist,
    ) -> Result<Resolved, RegistryError> {
        let mut document = self
            .document(image, &image.reference(), credentials, persist)
            .await?;
        let top = document.digest;
        // An index may name another; more than a few deep is a trap.
        for _ in 0..3 {
            match parse(&document)? {
                Either::Manifest(manifest) => {
                    return Ok(Resolved {
                        digest: document.digest,
                        manifest,
                        bytes: document.bytes,
                        top,
                    });
                }
                Either::Index(index) => {
                    let chosen = for_platform(&index, image, platform)?;
                    let reference = chosen.digest.to_string();
                    document = self.document(image, &reference, credentials, persist).await?;
                }
            }
        }
        Err(RegistryError::Wrong {
            url: document.url,
            what: "an index in an index in an index".to_owned(),
        })
    }

    async fn document(
        &self,
        image: &ImageRef,
        reference: &str,
        credentials: Option<&Credentials>,
        persist: Persist,
    ) -> Result<Document, RegistryError> {
        let host = self.host(&image.registry)?;
        let scope = format!("repository:{}:pull", image.repository);
        let asker = Asker {
            credentials,
            scope: &scope,
        };
        let what = format!("image {image}");
        let what = what.as_str();
        self.anywhere(&host, persist, |place| async move {
            let url = place.url(&format!("{}/manifests/{reference}", image.repository))?;
            let response = self
                .send(&place, asker, what, &url, |url| {
                    place.client.get(url).header(ACCEPT, ACCEPTED)
                })
                .await?;
            let url = plain(response.url());
            let said = response.headers().get("docker-content-digest").cloned();
            let kind = response.headers().get(CONTENT_TYPE).cloned();
            tracing::debug!(url, ?kind, "manifest");
            let bytes = bounded(response, oci::MAX_MANIFEST_BYTES).await?;
            let digest = Digest::of(&bytes);
            let wanted = reference
                .parse()
                .ok()
                .or_else(|| said?.to_str().ok()?.parse().ok());
            if wanted.is_some_and(|wanted: Digest| wanted != digest) {
                return Err(RegistryError::Wrong {
                    url,
                    what: format!("content of {reference} has digest {digest}"),
                });
            }
            Ok(Document { digest, bytes, url })
        })
        .await
    }
}

pub(crate) enum Either {
    Manifest(Manifest),
    Index(Index),
}

fn parse(document: &Document) -> Result<Either, RegistryError> {
    either(&document.bytes).map_err(|what| RegistryError::Wrong {
        url: document.url.clone(),
        what,
    })
}

/// Manifest or index, told apart by what they hold; their media types lie too often.
pub(crate) fn either(bytes: &[u8]) -> Result<Either, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: u32,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|err| format!("no manifest: {err}"))?;
    if shape.schema_version != 2 {
        return Err(format!(
            "manifest schema {} is not supported; push the image anew with a current tool",
            shape.schema_version
        ));
    }
    // A document that is both is read differently by different tools (CVE-2021-41190).
    match (shape.manifests.is_some(), shape.config.is_some()) {
        (true, true) => Err("a manifest that is an index too".to_owned()),
        (true, false) => serde_json::from_slice(bytes)
            .map(Either::Index)
            .map_err(|err| format!("index: {err}")),
        (false, true) => serde_json::from_slice(bytes)
            .map(Either::Manifest)
            .map_err(|err| format!("manifest: {err}")),
        (false, false) => Err("neither a manifest nor an index".to_owned()),
    }
}

fn for_platform<'a>(
    index: &'a Index,
    image: &ImageRef,
    wanted: &Platform,
) -> Result<&'a Descriptor, RegistryError> {
    choose(&index.manifests, wanted).ok_or_else(|| {
        let offered = index.manifests.iter().filter_map(|held| held.platform.clone());
        RegistryError::WrongPlatform {
            image: image.to_string(),
            wanted: wanted.clone(),
            // Attestations have the platform unknown/unknown; nobody is offered those.
            offered: offered.filter(|platform| platform.os != "unknown").collect(),
        }
    })
}
