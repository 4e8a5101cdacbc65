//! Pushing what the store holds, going on where a broken upload stopped.

use super::config::Place;
use super::fetch::{Tally, blocking};
use super::manifest::{Either, either};
use super::retry::Tries;
use super::send::{Asker, plain};
use super::{Credentials, Progress, Registries, RegistryError};
use crate::oci::{self, Descriptor};
use crate::{Store, StoreError};
use bytes::Bytes;
use model::{Digest, ImageRef};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Response, Url};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Larger blobs go up in pieces of this size, so that a broken link costs one piece at most.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;

/// One blob on its way up.
struct Upload<'a> {
    place: Arc<Place>,
    asker: Asker<'a>,
    what: String,
    repository: &'a str,
    blob: &'a Descriptor,
    store: &'a Store,
}

impl Registries {
    /// Pushes a manifest or index with all that it names from the store, and lastly gives it its tag.
    ///
    /// What the registry has already is not sent again.
    pub async fn push(
        &self,
        store: &Store,
        top: &Digest,
        image: &ImageRef,
        credentials: Option<&Credentials>,
        progress: Progress,
    ) -> Result<(), RegistryError> {
        let mut manifests = Vec::new();
        let bytes = document(store, top).await?;
        match parse(image, &bytes)? {
            Either::Manifest(manifest) => manifests.push((None, manifest)),
            Either::Index(index) => {
                for held in &index.manifests {
                    let bytes = document(store, &held.digest).await?;
                    if let Either::Manifest(manifest) = parse(image, &bytes)? {
                        manifests.push((Some((held.digest, bytes)), manifest));
                    }
                }
            }
        }
        let blobs: Vec<_> = manifests
            .iter()
            .flat_map(|(_, manifest)| manifest.layers.iter().chain([&manifest.config]))
            .collect();
        let tally = Tally::new(blobs.iter().map(|blob| blob.size).sum(), progress);
        for blob in blobs {
            self.push_blob(store, image, blob, credentials, &tally).await?;
        }
        for (document, _) in manifests {
            if let Some((digest, bytes)) = document {
                self.push_manifest(image, &digest.to_string(), bytes, credentials)
                    .await?;
            }
        }
        let reference = image.tag.clone().unwrap_or_else(|| top.to_string());
        self.push_manifest(image, &reference, bytes, credentials).await
    }

    async fn push_manifest(
        &self,
        image: &ImageRef,
        reference: &str,
        bytes: Vec<u8>,
        credentials: Option<&Credentials>,
    ) -> Result<(), RegistryError> {
        let (scope, place) = self.up(image)?;
        let asker = Asker {
            credentials,
            scope: &scope,
        };
        let kind = match parse(image, &bytes)? {
            Either::Manifest(manifest) if manifest.media_type.is_empty() => oci::MANIFEST.to_owned(),
            Either::Manifest(manifest) => manifest.media_type,
            Either::Index(index) if index.media_type.is_empty() => oci::INDEX.to_owned(),
            Either::Index(index) => index.media_type,
        };
        let bytes = Bytes::from(bytes);
        let url = place.url(&format!("{}/manifests/{reference}", image.repository))?;
        let what = format!("repository {}", image.repository);
        let mut tries = Tries::new(&self.0.patience);
        loop {
            let make = |url| {
                place
                    .client
                    .put(url)
                    .header(CONTENT_TYPE, &kind)
                    .body(bytes.clone())
            };
            match self.send(&place, asker, &what, &url, make).await {
                Ok(_) => return Ok(()),
                Err(err) => tries.failed(err).await?,
            }
        }
    }

    async fn push_blob(
        &self,
        store: &Store,
        image: &ImageRef,
        blob: &Descriptor,
        credentials: Option<&Credentials>,
        tally: &Tally,
    ) -> Result<(), RegistryError> {
        let (scope, place) = self.up(image)?;
        let upload = Upload {
            place,
            asker: Asker {
                credentials,
                scope: &scope,
            },
            what: format!("repository {}", image.repository),
            repository: &image.repository,
            blob,
            store,
        };
        let mut tries = Tries::new(&self.0.patience);
        let mut session: Option<Url> = None;
        let mut told = 0;
        loop {
            let sent = self.go_on(&upload, &mut session, &mut tries, |at| {
                // A piece that is sent again is not counted again.
                tally.add(at.saturating_sub(told));
                told = told.max(at);
            });
            match sent.await {
                Ok(()) => {
                    tally.add(blob.size - told);
                    return Ok(());
                }
                // The registry forgot the upload: a new one.
                Err(RegistryError::NotFound { .. }) if session.take().is_some() => {}
                // What was on its way when the link broke came after the registry had said how far it is: it is asked again
                // (OCI distribution spec, "Pushing a blob in chunks").
                Err(err @ RegistryError::Refused { status: 416, .. }) => tries.again(err).await?,
                Err(err) => tries.failed(err).await?,
            }
        }
    }

    /// Where pushes go, and with which right.
    fn up(&self, image: &ImageRef) -> Result<(String, Arc<Place>), RegistryError> {
        let scope = format!("repository:{}:pull,push", image.repository);
        let host = self.host(&image.registry)?;
        let place = host.places.last().expect("a host has at least one place").clone();
        Ok((scope, place))
    }

    /// One try: starts the upload or asks how far it came, and sends the rest.
    async fn go_on(
        &self,
        upload: &Upload<'_>,
        session: &mut Option<Url>,
        tries: &mut Tries,
        mut sent: impl FnMut(u64),
    ) -> Result<(), RegistryError> {
        let size = upload.blob.size;
        let mut at = match session {
            Some(url) => {
                let response = self.ask(upload, url, |url| upload.place.client.get(url)).await?;
                let at = received(&response);
                *url = location(&response)?;
                at
            }
            None => {
                if self.is_there(upload).await? {
                    return Ok(());
                }
                let url = upload
                    .place
                    .url(&format!("{}/blobs/uploads/", upload.repository))?;
                let start = |url| upload.place.client.post(url).header(CONTENT_LENGTH, 0);
                *session = Some(location(&self.ask(upload, &url, start).await?)?);
                0
            }
        };
        let url = session.as_mut().expect("set above");
        while size > PIECE_BYTES && at < size {
            let end = (at + PIECE_BYTES).min(size);
            let make = |url| {
                let request = upload.place.client.patch(url);
                let request = request.header(CONTENT_RANGE, format!("{at}-{}", end - 1));
                request
                    .header(CONTENT_LENGTH, end - at)
                    .body(body(upload, at, end))
            };
            let response = self.ask(upload, url, make).await?;
            *url = location(&response)?;
            at = end;
            sent(at);
            tries.progressed();
        }
        let mut last = url.clone();
        last.query_pairs_mut()
            .append_pair("digest", &upload.blob.digest.to_string());
        let finish = |url| {
            let request = upload
                .place
                .client
                .put(url)
                .header(CONTENT_TYPE, "application/octet-stream");
            request
                .header(CONTENT_LENGTH, size - at)
                .body(body(upload, at, size))
        };
        self.ask(upload, &last, finish).await.map(drop)
    }

    async fn is_there(&self, upload: &Upload<'_>) -> Result<bool, RegistryError> {
        let url = upload
            .place
            .url(&format!("{}/blobs/{}", upload.repository, upload.blob.digest))?;
        match self.ask(upload, &url, |url| upload.place.client.head(url)).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    async fn ask(
        &self,
        upload: &Upload<'_>,
        url: &Url,
        make: impl Fn(Url) -> reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.send(&upload.place, upload.asker, &upload.what, url, make)
            .await
    }
}

/// Bytes that the registry has of an upload: `Range: 0-<last>`.
fn received(response: &Response) -> u64 {
    let range = response
        .headers()
        .get(RANGE)
        .and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
    // The spec has no way to write "nothing"; registries write 0-0.
    last.filter(|last| *last > 0).map_or(0, |last| last + 1)
}

fn location(response: &Response) -> Result<Url, RegistryError> {
    let held = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    held.and_then(|location| response.url().join(location).ok())
        .ok_or_else(|| RegistryError::Wrong {
            url: plain(response.url()),
            what: "no Location to send the blob to".to_owned(),
        })
}

/// The blob's bytes from `at` to `end`, read as they are sent.
fn body(upload: &Upload<'_>, at: u64, end: u64) -> Body {
    if at == end {
        return Body::from(Vec::new());
    }
    let (store, digest) = (upload.store.clone(), upload.blob.digest);
    let (pieces, mut to_send) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let read = || -> std::io::Result<()> {
            let opened = store.open_raw(&digest).map_err(std::io::Error::other)?;
            let (mut file, _) = opened.ok_or(std::io::ErrorKind::NotFound)?;
            file.seek(SeekFrom::Start(at))?;
            let mut file = file.take(end - at);
            loop {
                let mut piece = vec![0; 64 * 1024];
                let got = file.read(&mut piece)?;
                piece.truncate(got);
                if got == 0 || pieces.blocking_send(Ok(Bytes::from(piece))).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(err) = read() {
            let _ = pieces.blocking_send(Err(err));
        }
    });
    Body::wrap_stream(futures_util::stream::poll_fn(move |cx| to_send.poll_recv(cx)))
}

async fn document(store: &Store, digest: &Digest) -> Result<Vec<u8>, RegistryError> {
    let (store, digest) = (store.clone(), *digest);
    let bytes = blocking(move || store.read(&digest, oci::MAX_MANIFEST_BYTES)).await?;
    Ok(bytes.ok_or(StoreError::Absent { digest })?)
}

fn parse(image: &ImageRef, bytes: &[u8]) -> Result<Either, RegistryError> {
    either(bytes).map_err(|what| RegistryError::Wrong {
        url: image.to_string(),
        what,
    })
}
