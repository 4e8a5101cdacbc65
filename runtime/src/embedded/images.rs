//! Where images come from.

use super::LocalImage;
use model::{ImageRef, Platform, PullPolicy};
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// What `pull` gives, boxed: the source is chosen at run time.
pub type Pulling<'a> = Pin<Box<dyn Future<Output = Result<LocalImage, String>> + Send + 'a>>;

/// Images as unpacked layers, kept for as long as a pod needs them.
pub trait ImageSource: fmt::Debug + Send + Sync + 'static {
    /// Makes sure that the image is here, for this machine's platform. An error says what to do about it.
    fn pull<'a>(&'a self, image: &'a ImageRef, policy: PullPolicy) -> Pulling<'a>;

    /// Keeps an image from being collected until `owner` lets go.
    fn keep(&self, owner: &str, image: &LocalImage) -> Result<(), String>;

    /// Lets go of all that `owner` kept.
    fn let_go(&self, owner: &str) -> Result<(), String>;

    /// All who keep something.
    fn owners(&self) -> Vec<String>;
}

impl ImageSource for blobs::Images {
    fn pull<'a>(&'a self, image: &'a ImageRef, policy: PullPolicy) -> Pulling<'a> {
        let (images, image) = (self.clone(), image.clone());
        Box::pin(async move {
            let pulled = images
                .ensure(&image, &Platform::host(), policy, blobs::Progress::none())
                .await;
            pulled.map(|image| local(&image)).map_err(|err| kit::chain(&err))
        })
    }

    fn keep(&self, owner: &str, image: &LocalImage) -> Result<(), String> {
        let image = blobs::LocalImage {
            manifest: image.digest,
            config: blobs::oci::ImageConfig::default(),
            layers: image.layers.clone(),
        };
        self.pin(owner, &image).map_err(|err| kit::chain(&err))
    }

    fn let_go(&self, owner: &str) -> Result<(), String> {
        self.unpin(owner).map_err(|err| kit::chain(&err))
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
