//! Where images come from.

use super::LocalImage;
use model::{ImageRef, PullPolicy};
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
