//! Records into the spool, each once, also where a client that had no answer sends the same again.

use sha2::{Digest as _, Sha256};
use spool::{AppendError, Stream};
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// Records remembered, 64 KiB each at most: the last minutes of a busy device.
const REMEMBERED: usize = 4096;
/// How long a request waits for a disk that is busy before its client is told to come again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Records are not, or not all, on disk.
#[derive(Debug, Error)]
#[error("the device's spool takes none now")]
pub struct NotKept(#[source] pub AppendError);

/// Appends records of one stream.
#[derive(Debug)]
pub struct Keeper {
    stream: Stream,
    recent: Mutex<Recent>,
}

/// Digests of the last records.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Keeper {
    /// Into `stream`.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            recent: Mutex::default(),
        }
    }

    /// Returns once all of them are kept as the stream promises. One that was kept a short while ago is kept already:
    /// spans have ids, so equal bytes are the same spans. Not to be called twice at once for the same sender.
    ///
    /// # Errors
    /// Where the spool refuses one; those before it are kept, and passed over when they come again.
    pub async fn keep(&self, records: &[Vec<u8>]) -> Result<(), NotKept> {
        let give_up = Instant::now() + PATIENCE;
        let mut under_way = Vec::new();
        for record in records {
            let digest = digest(record);
            if self.recent().known.contains(&digest) {
                continue;
            }
            let pending = loop {
                match self.stream.append(record, None) {
                    Err(AppendError::Busy { .. }) if Instant::now() < give_up => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    appended => break appended.map_err(NotKept)?,
                }
            };
            under_way.push((digest, pending));
        }
        let mut refused = None;
        for (digest, pending) in under_way {
            match pending.await {
                Ok(_) => self.remember(digest),
                Err(err) => refused = Some(err),
            }
        }
        refused.map_or(Ok(()), |err| Err(NotKept(err)))
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, digest: [u8; 16]) {
        let mut recent = self.recent();
        if recent.known.insert(digest) {
            recent.order.push_back(digest);
        }
        if recent.order.len() > REMEMBERED
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.known.remove(&oldest);
        }
    }
}

/// Half of SHA-256: nobody can make other spans pass for known ones.
fn digest(record: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(record)[..16]);
    half
}
