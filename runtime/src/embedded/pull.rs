//! How images come here, and which of them stay.

use super::images::Pull;
use super::{Inner, LocalImage};
use crate::shim::journal;
use crate::{EngineError, PullProgress};
use blobs::Progress;
use jiff::Timestamp;
use model::{ImageRef, PullPolicy, PullSecret, Severity};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Keeps the images of the generations that the device may have to run again; no pod's uid looks like this.
pub(super) const GENERATIONS: &str = "generations";

impl Inner {
    /// Brings an image here and tells so, in Kubernetes' words; `about` is who needs it. One that is here already is no
    /// news.
    pub(super) async fn pull(
        self: &Arc<Self>,
        image: &ImageRef,
        policy: PullPolicy,
        secrets: &[PullSecret],
        about: String,
    ) -> Result<LocalImage, EngineError> {
        let failed = |why| EngineError::Pull {
            image: Box::new(image.clone()),
            why,
        };
        if policy != PullPolicy::Always
            && let Some(here) = self.images.local(image).await.map_err(failed)?
        {
            return Ok(here);
        }
        let under_way = Arc::new(UnderWay {
            inner: Arc::clone(self),
            image: image.clone(),
            about,
            told: AtomicBool::new(false),
        });
        if policy == PullPolicy::IfNotPresent {
            under_way.moved(PullProgress::default());
        }
        let telling = Arc::clone(&under_way);
        let began = Instant::now();
        let done = self
            .images
            .pull(Pull {
                image,
                policy,
                secrets,
                progress: Progress::new(move |done, total| {
                    // Nothing to bring: the registry has no newer one.
                    if total > 0 {
                        telling.moved(PullProgress { done, total });
                    }
                }),
            })
            .await;
        match &done {
            Ok(_) if under_way.told.load(Ordering::Relaxed) => {
                let took = began.elapsed().as_secs_f32();
                let message = format!("Successfully pulled image \"{image}\" in {took:.1} s");
                under_way.tell(Severity::Normal, "Pulled", message);
            }
            Ok(_) => {}
            Err(why) => {
                let message = format!("Failed to pull image \"{image}\": {why}");
                under_way.tell(Severity::Warning, "Failed", message);
            }
        }
        done.map_err(failed)
    }

    /// Makes these all the images that generations keep.
    pub(super) async fn keep(&self, images: &BTreeSet<ImageRef>) -> Result<(), EngineError> {
        let mut here = Vec::new();
        for image in images {
            let found = self.images.local(image).await;
            here.extend(found.map_err(|why| EngineError::Pull {
                image: Box::new(image.clone()),
                why,
            })?);
        }
        let source = Arc::clone(&self.images);
        let kept = tokio::task::spawn_blocking(move || source.keep(GENERATIONS, &here)).await;
        kept.map_err(|err| err.to_string())
            .flatten()
            .map_err(EngineError::Images)
    }
}

/// A pull that is told of while it lasts.
struct UnderWay {
    inner: Arc<Inner>,
    image: ImageRef,
    about: String,
    /// Something is on its way, and was told of.
    told: AtomicBool,
}

impl UnderWay {
    fn moved(&self, progress: PullProgress) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let message = format!("Pulling image \"{}\"", self.image);
            self.tell(Severity::Normal, "Pulling", message);
        }
        self.inner.pulls.send_if_modified(|pulls| {
            let before = pulls.insert(self.image.clone(), progress);
            before != Some(progress)
        });
    }

    fn tell(&self, severity: Severity, reason: &str, message: String) {
        let mut event = journal::about("", Timestamp::now(), severity, reason, message);
        event.about.clone_from(&self.about);
        self.inner.events().tell(event);
        // There is something in a journal.
        self.inner.moved();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner
            .pulls
            .send_if_modified(|pulls| pulls.remove(&self.image).is_some());
    }
}
