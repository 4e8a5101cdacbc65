//! Blobs, resumed at the byte where they broke.

use super::config::Place;
use super::retry::Tries;
use super::send::{Asker, plain, unreachable};
use super::{Credentials, Registries, RegistryError};
use crate::oci::Descriptor;
use crate::store::{Partial, Reservation};
use crate::{Store, StoreError};
use bytes::Bytes;
use model::ImageRef;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task;

/// Told of bytes done and bytes in all, as they come. Bytes that were there already count as done.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(u64, u64) + Send + Sync>>);

impl Progress {
    /// Calls `tell(done, total)`; it must be quick.
    pub fn new(tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Tells nobody.
    pub fn none() -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}

/// Adds up the progress of several blobs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    done: AtomicU64,
    total: u64,
    progress: Progress,
}

impl Tally {
    pub fn new(total: u64, progress: Progress) -> Self {
        Self {
            done: AtomicU64::new(0),
            total,
            progress,
        }
    }

    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(tell) = &self.progress.0 {
            tell(done.min(self.total), self.total);
        }
    }
}

/// How many pieces of a body may wait for the disk.
const PIECES: usize = 4;

impl Registries {
    /// Brings a blob of `image` into the store, whole and verified, going on where an earlier try broke.
    ///
    /// The caller holds a lease or pin on it. A transfer that makes progress is never given up; dropped, it leaves
    /// what came for the next try.
    pub async fn fetch_blob(
        &self,
        store: &Store,
        image: &ImageRef,
        blob: &Descriptor,
        credentials: Option<&Credentials>,
        progress: Progress,
    ) -> Result<(), RegistryError> {
        let tally = Tally::new(blob.size, progress);
        self.fetch_counted(store, image, blob, credentials, &tally).await
    }

    pub(crate) async fn fetch_counted(
        &self,
        store: &Store,
        image: &ImageRef,
        blob: &Descriptor,
        credentials: Option<&Credentials>,
        tally: &Tally,
    ) -> Result<(), RegistryError> {
        let _turn = self.turn(&blob.digest).await;
        if store.has(&blob.digest) {
            tally.add(blob.size);
            return Ok(());
        }
        let _line = self.line(blob.size).await;
        let mut download = Download::open(store, blob).await?;
        tally.add(download.at);
        let host = self.host(&image.registry)?;
        let mut tries = Tries::new(&self.0.patience);
        let mut damaged = 0;
        let mut places = host.places.iter().cycle();
        let mut not_found = 0;
        loop {
            let place = places.next().expect("a host has at least one place");
            let before = download.at;
            let result = self
                .fetch_from(place, image, credentials, &mut download, tally)
                .await;
            if download.at > before {
                tries.progressed();
            }
            match result {
                Ok(()) => match download.finish().await {
                    Ok(()) => return Ok(()),
                    // Once may be chance on the way or on our disk; twice is the registry's content.
                    Err(StoreError::Corrupt { .. }) if damaged == 0 => {
                        damaged += 1;
                        tracing::warn!(digest = %blob.digest, "download is damaged; starting over");
                        download = Download::open(store, blob).await?;
                    }
                    Err(err) => return Err(err.into()),
                },
                Err(RegistryError::NotFound { .. }) if not_found + 1 < host.places.len() => not_found += 1,
                Err(err) => tries.failed(err).await?,
            }
        }
    }

    async fn fetch_from(
        &self,
        place: &Place,
        image: &ImageRef,
        credentials: Option<&Credentials>,
        download: &mut Download,
        tally: &Tally,
    ) -> Result<(), RegistryError> {
        if download.at == download.size {
            return Ok(());
        }
        let scope = format!("repository:{}:pull", image.repository);
        let asker = Asker {
            credentials,
            scope: &scope,
        };
        let what = format!("blob {} of {image}", download.digest);
        let at = download.at;
        let url = place.url(&format!("{}/blobs/{}", image.repository, download.digest))?;
        let response = self
            .send(place, asker, &what, &url, |url| {
                let request = place.client.get(url);
                if at > 0 {
                    request.header(RANGE, format!("bytes={at}-"))
                } else {
                    request
                }
            })
            .await?;
        let skip = bytes_to_skip(&response, at)?;
        if skip > 0 {
            tracing::warn!(
                url = plain(response.url()),
                skip,
                "the registry cannot resume; fetching again"
            );
        }
        download.take(response, skip, tally).await
    }
}

/// How many bytes of the answer we have already: none where the registry honours ranges.
fn bytes_to_skip(response: &Response, at: u64) -> Result<u64, RegistryError> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(at);
    }
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if start == Some(at) {
        return Ok(0);
    }
    Err(RegistryError::Wrong {
        url: plain(response.url()),
        what: format!("Content-Range {range:?} where bytes from {at} were asked for"),
    })
}

/// A partial download whose disk work is done on blocking threads.
struct Download {
    digest: model::Digest,
    size: u64,
    at: u64,
    /// Absent only while a blocking thread has it.
    held: Option<(Partial, Reservation)>,
}

impl Download {
    async fn open(store: &Store, blob: &Descriptor) -> Result<Self, RegistryError> {
        let (digest, size) = (blob.digest, blob.size);
        // A try that was dropped may still be writing its last piece.
        for _ in 0..100 {
            let store = store.clone();
            let opened = blocking(move || {
                let partial = store.partial(&digest, size)?;
                let room = store.reserve(partial.left())?;
                Ok((partial, room))
            })
            .await;
            match opened {
                Err(StoreError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(err) => return Err(err.into()),
                Ok((partial, room)) => {
                    return Ok(Self {
                        digest,
                        size,
                        at: partial.at(),
                        held: Some((partial, room)),
                    });
                }
            }
        }
        Err(StoreError::Busy { digest }.into())
    }

    /// Writes a body behind what is there, less its first `skip` bytes.
    async fn take(
        &mut self,
        mut response: Response,
        mut skip: u64,
        tally: &Tally,
    ) -> Result<(), RegistryError> {
        let url = plain(response.url());
        let Some((partial, room)) = self.held.take() else {
            return Err(StoreError::Busy { digest: self.digest }.into());
        };
        let (pieces, to_write) = mpsc::channel::<Bytes>(PIECES);
        let writer = task::spawn_blocking(move || write(partial, room, to_write));
        let mut broke = None;
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Err(err) => {
                    broke = Some(unreachable(&url, err));
                    break;
                }
                Ok(Some(mut piece)) => {
                    let known = skip.min(piece.len() as u64);
                    skip -= known;
                    let piece = piece.split_off(usize::try_from(known).unwrap_or(piece.len()));
                    let bytes = piece.len() as u64;
                    if bytes > 0 && pieces.send(piece).await.is_err() {
                        break; // the writer says why
                    }
                    tally.add(bytes);
                }
            }
        }
        drop(pieces);
        let held = joined(writer.await)?;
        self.at = held.0.at();
        self.held = Some(held);
        if let Some(err) = broke {
            return Err(err);
        }
        if self.at < self.size {
            return Err(RegistryError::Short {
                url,
                got: self.at,
                size: self.size,
            });
        }
        Ok(())
    }

    async fn finish(self) -> Result<(), StoreError> {
        match self.held {
            Some((partial, _room)) => blocking(move || partial.finish()).await,
            None => Err(StoreError::Busy { digest: self.digest }),
        }
    }
}

/// Writes until the sender is gone. On an error the partial is dropped: what is whole of it stays on disk.
fn write(
    mut partial: Partial,
    mut room: Reservation,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(Partial, Reservation), StoreError> {
    while let Some(piece) = pieces.blocking_recv() {
        partial.append(&piece)?;
        room.spent(piece.len() as u64);
    }
    Ok((partial, room))
}

/// Runs disk work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(task::spawn_blocking(work).await)
}

fn joined<T>(result: Result<T, task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}
