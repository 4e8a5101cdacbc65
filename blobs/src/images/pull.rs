//! Pulling: documents first, then the layers that are missing, unpacked while the next ones come.

use super::index::Image;
use super::layers::{self, LayerId, Task};
use super::{ImageError, Images, LocalImage};
use crate::oci::{self, ConfigFile, Descriptor};
use crate::platform::suits;
use crate::registries::{
    Credentials, DockerConfig, Persist, Progress, RegistryError, Resolved, Tally, blocking,
};
use crate::unpack::UnpackError;
use futures_util::StreamExt as _;
use model::{ImageRef, Platform};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a device that has the image waits for the registry to say whether there is a newer one.
const QUICK: Duration = Duration::from_secs(3);
/// For how long a registry that was away is not asked again about images that are here.
const AWAY: Duration = Duration::from_secs(30);
/// How many layers come at once.
const AT_ONCE: usize = 2;
/// Images that nobody pins but that were asked for so lately are left when room is made for another.
const LATELY: Duration = Duration::from_secs(600);
/// The most layers that overlayfs stacks.
const MOST_LAYERS: usize = 500;

/// What a pull is about.
struct Pull<'a> {
    image: &'a ImageRef,
    credentials: Option<&'a Credentials>,
}

impl Images {
    /// Asks whether there is a newer image than `held`. A device whose link is down must not wait for the answer: it
    /// starts what it has.
    pub(super) async fn refresh(
        &self,
        image: &ImageRef,
        platform: &Platform,
        secrets: &DockerConfig,
        progress: Progress,
        held: LocalImage,
    ) -> Result<LocalImage, ImageError> {
        if self.was_away_lately(&image.registry) {
            return Ok(held);
        }
        match self.pull(image, platform, secrets, progress, Persist::Once).await {
            Err(ImageError::Registry { source, .. }) if source.is_transient() => {
                tracing::warn!(%image, error = kit::chain(&source), "registry is away; using what is here");
                let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
                away.insert(image.registry.clone(), Instant::now());
                Ok(held)
            }
            // A certificate that ran out while the device was alone stops nothing that it has already.
            Err(ImageError::Registry { source, .. }) if matches!(*source, RegistryError::Denied { .. }) => {
                tracing::warn!(%image, error = kit::chain(&source), "registry refuses; using what is here");
                Ok(held)
            }
            result => result,
        }
    }

    fn was_away_lately(&self, registry: &str) -> bool {
        let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.retain(|_, found| found.elapsed() < AWAY);
        away.contains_key(registry)
    }

    async fn resolve(
        &self,
        pull: &Pull<'_>,
        platform: &Platform,
        persist: Persist,
    ) -> Result<Resolved, RegistryError> {
        let asked = self
            .0
            .registries
            .resolve_persisting(pull.image, platform, pull.credentials, persist);
        if persist == Persist::AsConfigured {
            return asked.await;
        }
        let silent = |_| RegistryError::Silent {
            registry: pull.image.registry.clone(),
            waited: QUICK,
        };
        tokio::time::timeout(QUICK, asked).await.map_err(silent)?
    }

    pub(super) async fn pull(
        &self,
        image: &ImageRef,
        platform: &Platform,
        secrets: &DockerConfig,
        progress: Progress,
        persist: Persist,
    ) -> Result<LocalImage, ImageError> {
        let pull = Pull {
            image,
            credentials: secrets.find(image),
        };
        let resolved = self
            .resolve(&pull, platform, persist)
            .await
            .map_err(|err| registry(image, err))?;
        let manifest = resolved.manifest;
        let all = manifest
            .layers
            .iter()
            .chain([&manifest.config])
            .map(|blob| blob.digest);
        let _lease = self.0.store.lease(all.chain([resolved.digest]));
        let (store, bytes) = (self.0.store.clone(), resolved.bytes);
        blocking(move || store.put(&bytes)).await?;
        let config = self.config(&pull, platform, &manifest.config).await?;
        let tasks = tasks(image, &manifest.layers, &config)?;
        let parts = Image {
            config: manifest.config.digest,
            layers: tasks.iter().map(|task| task.id.clone()).collect(),
        };
        let _busy = self.busy_with(&parts.layers);
        self.bring(&pull, &manifest.layers, tasks, progress).await?;
        let (images, image, platform) = (self.clone(), image.clone(), platform.clone());
        blocking(move || {
            let mut index = images.index();
            index.record(&image, &platform, resolved.top, resolved.digest, parts)?;
            drop(index);
            images
                .load(&resolved.digest)?
                .ok_or_else(|| ImageError::NotAnImage {
                    image: image.to_string(),
                    why: "it was damaged on disk while it was pulled; try again".to_owned(),
                })
        })
        .await
    }

    /// Brings the configuration, and checks that it is for this machine before any layer is asked for.
    async fn config(
        &self,
        pull: &Pull<'_>,
        wanted: &Platform,
        descriptor: &Descriptor,
    ) -> Result<ConfigFile, ImageError> {
        let not_an_image = |why: String| ImageError::NotAnImage {
            image: pull.image.to_string(),
            why,
        };
        if descriptor.size > oci::MAX_MANIFEST_BYTES {
            return Err(not_an_image(format!(
                "its configuration has {} bytes",
                descriptor.size
            )));
        }
        self.fetch(pull, descriptor, &Tally::default()).await?;
        let (store, digest) = (self.0.store.clone(), descriptor.digest);
        let bytes = blocking(move || store.read(&digest, oci::MAX_MANIFEST_BYTES)).await?;
        let bytes =
            bytes.ok_or_else(|| not_an_image("its configuration was damaged on disk; try again".into()))?;
        let config: ConfigFile = serde_json::from_slice(&bytes)
            .map_err(|err| not_an_image(format!("its configuration does not parse: {err}")))?;
        let offered = config.platform();
        if suits(&offered, wanted).is_none() {
            return Err(ImageError::WrongPlatform {
                image: pull.image.to_string(),
                wanted: Box::new(wanted.clone()),
                offered: Box::new(offered),
            });
        }
        Ok(config)
    }

    /// Fetches what is missing, two at a time, and unpacks in order meanwhile.
    async fn bring(
        &self,
        pull: &Pull<'_>,
        blobs: &[Descriptor],
        tasks: Vec<Task>,
        progress: Progress,
    ) -> Result<(), ImageError> {
        let missing: Vec<_> = tasks
            .into_iter()
            .filter(|task| !self.has_layer(&task.id))
            .collect();
        let total = missing.iter().map(|task| task.blob_size).sum();
        self.check_room(&missing).await?;
        let tally = Tally::new(total, progress);
        tally.add(0);
        let (come, mut came) = mpsc::unbounded_channel();
        let fetching = async {
            // Collected, as the closure would make this future one that cannot be sent to another thread.
            let each: Vec<_> = missing
                .iter()
                .map(|task| {
                    let tally = &tally;
                    async move {
                        self.fetch(pull, &blobs[task.number - 1], tally).await?;
                        Ok::<_, ImageError>(task)
                    }
                })
                .collect();
            let mut fetched = futures_util::stream::iter(each).buffered(AT_ONCE);
            while let Some(task) = fetched.next().await {
                // The other side ends early only on an error, which ends us both.
                let _ = come.send(task?);
            }
            drop(come);
            Ok(())
        };
        let unpacking = async {
            while let Some(task) = came.recv().await {
                self.unpack_or_fetch_again(pull, &blobs[task.number - 1], task)
                    .await?;
            }
            Ok(())
        };
        futures_util::future::try_join(fetching, unpacking)
            .await
            .map(|_| ())
    }

    /// A blob found damaged on disk is fetched anew, once.
    async fn unpack_or_fetch_again(
        &self,
        pull: &Pull<'_>,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), ImageError> {
        match self.unpack_layer(pull.image, task.clone()).await {
            Err(ImageError::Layer {
                source: UnpackError::Damaged(_),
                ..
            }) => {
                self.fetch(pull, blob, &Tally::default()).await?;
                self.unpack_layer(pull.image, task.clone()).await
            }
            result => result,
        }
    }

    async fn fetch(&self, pull: &Pull<'_>, blob: &Descriptor, tally: &Tally) -> Result<(), ImageError> {
        self.0
            .registries
            .fetch_counted(&self.0.store, pull.image, blob, pull.credentials, tally)
            .await
            .map_err(|err| registry(pull.image, err))
    }

    /// Refuses before the first byte what cannot fit, after giving up what nobody uses.
    async fn check_room(&self, missing: &[Task]) -> Result<(), ImageError> {
        let absent = missing.iter().filter(|task| !self.0.store.has(&task.blob));
        let need: u64 = absent.map(|task| task.blob_size).sum();
        let images = self.clone();
        blocking(move || match images.0.store.reserve(need) {
            Err(err) if err.is_full() => {
                images.collect(LATELY)?;
                images.0.store.reserve(need).map(drop).map_err(ImageError::from)
            }
            result => result.map(drop).map_err(ImageError::from),
        })
        .await
    }
}

/// Layers that a pull is making, which no image names yet: not to be collected.
struct Busy(Images, Vec<LayerId>);

impl Images {
    fn busy_with(&self, layers: &[LayerId]) -> Busy {
        self.0
            .pulling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(layers);
        Busy(self.clone(), layers.to_vec())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut pulling = self.0.0.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.1 {
            if let Some(at) = pulling.iter().position(|held| held == id) {
                pulling.swap_remove(at);
            }
        }
    }
}

fn tasks(image: &ImageRef, blobs: &[Descriptor], config: &ConfigFile) -> Result<Vec<Task>, ImageError> {
    let bad = |why: String| ImageError::NotAnImage {
        image: image.to_string(),
        why,
    };
    let diff_ids = &config.rootfs.diff_ids;
    if blobs.len() != diff_ids.len() {
        return Err(bad(format!(
            "its manifest has {} layers and its configuration {}",
            blobs.len(),
            diff_ids.len()
        )));
    }
    if blobs.len() > MOST_LAYERS {
        return Err(bad(format!(
            "it has {} layers; {MOST_LAYERS} is the most",
            blobs.len()
        )));
    }
    let ids = layers::chain(diff_ids);
    let mut tasks = Vec::with_capacity(blobs.len());
    for (number, (blob, diff_id)) in blobs.iter().zip(diff_ids).enumerate() {
        let kind = blob.media_type.as_str();
        if !kind.contains(".layer.") && !kind.contains(".rootfs.diff.") || kind.contains("encrypted") {
            return Err(bad(format!(
                "layer {} is of type {kind:?}, which is not supported",
                number + 1
            )));
        }
        tasks.push(Task {
            number: number + 1,
            blob: blob.digest,
            blob_size: blob.size,
            diff_id: *diff_id,
            id: ids[number].clone(),
            below: ids[..number].to_vec(),
        });
    }
    Ok(tasks)
}

fn registry(image: &ImageRef, source: RegistryError) -> ImageError {
    ImageError::Registry {
        image: image.to_string(),
        source: Box::new(source),
    }
}
