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

impl Artifacts {
    /// Fetches a source; one that cannot be reached now is what it was the last time. `patience` bounds the fetch.
    ///
    /// # Errors
    /// [`SourceError::NotCached`] where the network is not to be asked and the source was never here; whatever fetching
    /// meets.
    pub fn get(&self, spec: &SourceSpec, patience: Duration, stop: &AtomicBool) -> Result<Held, SourceError> {
        let mut source = self.open(spec, patience)?;
        let held = source.held().cloned();
        if self.ask == Ask::Never {
            let revision = held.ok_or_else(|| SourceError::NotCached {
                url: spec.display_url(),
            })?;
            let tree = source.load(&revision.commit)?;
            return Ok(Held {
                revision,
                tree,
                stale: None,
            });
        }
        match source.fetch(stop) {
            Ok(fetched) => {
                let revision = fetched.revision;
                let tree = match fetched.tree {
                    Some(tree) => tree,
                    None => source.load(&revision.commit)?,
                };
                Ok(Held {
                    revision,
                    tree,
                    stale: None,
                })
            }
            Err(err) => match held {
                Some(revision) if err.is_passing() && !matches!(err, SourceError::Stopped) => {
                    let tree = source.load(&revision.commit)?;
                    Ok(Held {
                        revision,
                        tree,
                        stale: Some(chain(&err)),
                    })
                }
                _ => Err(err),
            },
        }
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
