//! Sources that are named while a repository is rendered, each held in a folder of its own.

use crate::error::disk;
use crate::transport::chain;
use crate::{Ask, Source, SourceError, SourceSpec};
use kit::disk as durable;
use model::{Digest, Revision, Tree};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Where they are kept, and whether the network is asked.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// A folder for all of them.
    pub dir: PathBuf,
    /// Whether the network is asked.
    pub ask: Ask,
}

/// What a source is now.
#[derive(Debug, Clone)]
pub struct Held {
    /// The revision; held from here on.
    pub revision: Revision,
    /// Its files.
    pub tree: Tree,
    /// Why this is what it was the last time: the source cannot be reached now.
    pub stale: Option<String>,
}

/// A source that was asked, or that answers from what it holds.
struct Reached {
    source: Source,
    revision: Revision,
    /// Where it had to be read anyway.
    tree: Option<Tree>,
    stale: Option<String>,
}

impl Artifacts {
    /// Fetches a source; one that cannot be reached now is what it was the last time. `patience` bounds the fetch.
    ///
    /// # Errors
    /// [`SourceError::NotCached`] where the network is not to be asked and the source was never here; whatever fetching
    /// meets.
    pub fn get(&self, spec: &SourceSpec, patience: Duration, stop: &AtomicBool) -> Result<Held, SourceError> {
        let reached = self.reach(spec, patience, stop)?;
        let tree = match reached.tree {
            Some(tree) => tree,
            None => reached.source.load(&reached.revision.commit)?,
        };
        Ok(Held {
            revision: reached.revision,
            tree,
            stale: reached.stale,
        })
    }

    /// As [`Artifacts::get`], for who wants to know whether it has moved: no file is read that did not have to be.
    ///
    /// # Errors
    /// As [`Artifacts::get`].
    pub fn revision(
        &self,
        spec: &SourceSpec,
        patience: Duration,
        stop: &AtomicBool,
    ) -> Result<Revision, SourceError> {
        Ok(self.reach(spec, patience, stop)?.revision)
    }

    fn reach(
        &self,
        spec: &SourceSpec,
        patience: Duration,
        stop: &AtomicBool,
    ) -> Result<Reached, SourceError> {
        let mut source = self.open(spec, patience)?;
        let held = source.held().cloned();
        let (revision, tree, stale) = if self.ask == Ask::Never {
            let revision = held.ok_or_else(|| SourceError::NotCached {
                url: spec.display_url(),
            })?;
            (revision, None, None)
        } else {
            match (source.fetch(stop), held) {
                (Ok(fetched), _) => (fetched.revision, fetched.tree, None),
                (Err(err), Some(revision)) if err.is_passing() && !matches!(err, SourceError::Stopped) => {
                    (revision, None, Some(chain(&err)))
                }
                (Err(err), _) => return Err(err),
            }
        };
        Ok(Reached {
            source,
            revision,
            tree,
            stale,
        })
    }

    /// Opens a source's folder; another build may have it for a while.
    fn open(&self, spec: &SourceSpec, patience: Duration) -> Result<Source, SourceError> {
        let name = Digest::of(spec.identity().as_bytes()).hex();
        let dir = self.dir.join(&name[..24]);
        durable::create_dir_all(&dir).map_err(disk("create", &dir))?;
        let end = Instant::now() + patience;
        loop {
            match Source::open(&dir, spec.clone()) {
                Err(SourceError::InUse { .. }) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                opened => return Ok(opened?.with_patience(patience)),
            }
        }
    }
}
