//! What a device would have to fetch: the layers of new images that no image it runs has.

use super::super::image;
use crate::people::AccessArgs;
use blobs::{Patience, Registries};
use model::{Digest, ImageRef, Platform};
use plan::Wanted;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is to be fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Download {
    /// Images that do not run there yet.
    pub images: Vec<String>,
    /// Bytes of their layers that are not there yet; absent where a registry did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why bytes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Asks registries, each image once.
pub struct Sizes<'a> {
    access: &'a AccessArgs,
    plain: &'a [String],
    registries: Registries,
    known: BTreeMap<(ImageRef, String), Result<BTreeMap<Digest, u64>, String>>,
}

impl std::fmt::Debug for Sizes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sizes").finish_non_exhaustive()
    }
}

impl<'a> Sizes<'a> {
    /// `plain` are registries that are asked in plain HTTP.
    pub fn new(access: &'a AccessArgs, plain: &'a [String]) -> Self {
        // A preview is looked at by somebody who waits.
        let patience = Patience {
            failures: 1,
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            ..Patience::default()
        };
        Self {
            access,
            plain,
            registries: Registries::new(patience),
            known: BTreeMap::new(),
        }
    }

    /// What a device that runs `old` fetches for `new`.
    pub async fn download(&mut self, old: &Wanted, new: &Wanted, platform: &Platform) -> Download {
        let names = |wanted: &Wanted| -> BTreeSet<ImageRef> {
            wanted.images().into_iter().map(|wanted| wanted.image).collect()
        };
        let (have, want) = (names(old), names(new));
        let missing: Vec<&ImageRef> = want.difference(&have).collect();
        let mut download = Download {
            images: missing.iter().map(ToString::to_string).collect(),
            bytes: Some(0),
            unknown: None,
        };
        if missing.is_empty() {
            return download;
        }
        let mut there = BTreeSet::new();
        for image in &have {
            // One that the registry has no more may share layers; then a little too much is told.
            if let Ok(blobs) = self.blobs(image, platform).await {
                there.extend(blobs.into_keys());
            }
        }
        let mut bytes = 0;
        for image in missing {
            match self.blobs(image, platform).await {
                Ok(blobs) => {
                    bytes += blobs
                        .into_iter()
                        .filter(|(digest, _)| there.insert(*digest))
                        .map(|(_, size)| size)
                        .sum::<u64>();
                }
                Err(why) => {
                    download.bytes = None;
                    download.unknown = Some(why);
                    return download;
                }
            }
        }
        download.bytes = Some(bytes);
        download
    }

    /// Manifest, configuration and layers of an image, with their sizes.
    async fn blobs(
        &mut self,
        image: &ImageRef,
        platform: &Platform,
    ) -> Result<BTreeMap<Digest, u64>, String> {
        let key = (image.clone(), platform.architecture.clone());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let found = self.ask(image, platform).await;
        self.known.insert(key, found.clone());
        found
    }

    async fn ask(&self, image: &ImageRef, platform: &Platform) -> Result<BTreeMap<Digest, u64>, String> {
        let plain = self.plain.contains(&image.registry);
        let credentials = image::reach(&self.registries, image, self.access, plain)
            .map_err(|err| format!("{image}: {err:#}"))?;
        let resolved = self
            .registries
            .resolve(image, platform, credentials.as_ref())
            .await;
        let resolved = resolved.map_err(|err| format!("{image}: {}", kit::chain(&err)))?;
        let mut blobs = BTreeMap::from([(resolved.digest, resolved.bytes.len() as u64)]);
        let parts = std::iter::once(&resolved.manifest.config).chain(&resolved.manifest.layers);
        blobs.extend(parts.map(|part| (part.digest, part.size)));
        Ok(blobs)
    }
}
