//! Where images come from.

use super::LocalImage;
use blobs::{DockerConfig, Progress};
use model::{ImageRef, Platform, PullPolicy, PullSecret};
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// What a source answers with, boxed: the source is chosen at run time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// What is asked of a source of images.
#[derive(Debug, Clone)]
pub struct Pull<'a> {
    /// Which.
    pub image: &'a ImageRef,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Credentials beside those of the device's configuration; the first to name a place wins.
    pub secrets: &'a [PullSecret],
    /// Told of bytes as they come.
    pub progress: Progress,
}

/// Images as unpacked layers, kept for as long as somebody needs them.
pub trait ImageSource: fmt::Debug + Send + Sync + 'static {
    /// The image for this machine's platform, where all of it is here.
    fn local<'a>(&'a self, image: &'a ImageRef) -> Answer<'a, Option<LocalImage>>;

    /// Makes sure that the image is here. An error says what to do about it.
    fn pull<'a>(&'a self, pull: Pull<'a>) -> Answer<'a, LocalImage>;

    /// Keeps exactly these from being collected until `owner` says otherwise. Blocks for a moment.
    fn keep(&self, owner: &str, images: &[LocalImage]) -> Result<(), String>;

    /// All who keep something.
    fn owners(&self) -> Vec<String>;
}

impl ImageSource for blobs::Images {
    fn local<'a>(&'a self, image: &'a ImageRef) -> Answer<'a, Option<LocalImage>> {
        Box::pin(async move {
            let found = self.local(image, &Platform::host()).await;
            found
                .map(|image| image.as_ref().map(local))
                .map_err(|err| kit::chain(&err))
        })
    }

    fn pull<'a>(&'a self, pull: Pull<'a>) -> Answer<'a, LocalImage> {
        Box::pin(async move {
            let mut secrets = DockerConfig::default();
            for PullSecret(text) in pull.secrets {
                secrets.merge(
                    DockerConfig::parse(text.as_bytes())
                        .map_err(|err| format!("an imagePullSecret: {}", kit::chain(&err)))?,
                );
            }
            let pulled = self
                .ensure_as(
                    pull.image,
                    &Platform::host(),
                    pull.policy,
                    &secrets,
                    pull.progress,
                )
                .await;
            pulled.map(|image| local(&image)).map_err(|err| kit::chain(&err))
        })
    }

    fn keep(&self, owner: &str, images: &[LocalImage]) -> Result<(), String> {
        let manifests: Vec<_> = images.iter().map(|image| image.digest).collect();
        self.pin_only(owner, &manifests).map_err(|err| kit::chain(&err))
    }

    fn owners(&self) -> Vec<String> {
        Self::owners(self)
    }
}

fn local(image: &blobs::LocalImage) -> LocalImage {
    let config = &image.config;
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    LocalImage {
        digest: image.manifest,
        layers: image.layers.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: some(&config.working_dir),
        user: some(&config.user),
        stop_signal: some(&config.stop_signal),
    }
}
