//! Blobs in: at once, in pieces, or from another repository.

use super::body::{self, Incoming, RegistryBody};
use super::error::{Fault, received};
use super::manifests::built;
use super::paths::RepositoryName;
use super::route::{Query, digest_of};
use super::{Action, Registry};
use crate::StoreError;
use crate::registries::blocking;
use crate::store::At as _;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use model::Digest;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

/// Uploads that nobody went on with for so long are removed at the start.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

pub(super) fn prepare(dir: &Path) -> Result<(), StoreError> {
    kit::disk::create_dir_all(dir).at("make folder", dir)?;
    collect(dir, FORGOTTEN)
}

/// Removes uploads that nobody wrote to for `age`.
pub(super) fn collect(dir: &Path, age: Duration) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).at("read folder", dir)? {
        let path = entry.at("read folder", dir)?.path();
        let modified = fs::metadata(&path).and_then(|meta| meta.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|since| since >= age)) {
            kit::disk::remove_if_there(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

/// The right to write to an upload: one request at a time.
struct Turn {
    registry: Registry,
    path: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.registry
            .0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.path);
    }
}

struct Writing {
    turn: Turn,
    file: File,
    at: u64,
}

impl Registry {
    pub(super) async fn start_upload(
        &self,
        request: &Parts,
        name: RepositoryName,
        query: &Query,
        incoming: &mut Incoming,
    ) -> Result<Response<RegistryBody>, Fault> {
        if let Some(mounted) = self.mount(request, &name, query).await? {
            return Ok(mounted);
        }
        let id = hex::encode(rand::random::<[u8; 16]>());
        let path = self.upload_path(&name, &id);
        let made = path.clone();
        blocking(move || File::create_new(&made).map(drop).at("create", &made)).await?;
        if query.get("digest").is_some() {
            let finished = self.finish(request, name, id, query, incoming).await;
            if finished.is_err() {
                // Nobody knows its name.
                blocking(move || kit::disk::remove_if_there(&path).at("remove", &path)).await?;
            }
            return finished;
        }
        upload_answer(StatusCode::ACCEPTED, &name, &id, 0)
    }

    /// Lets a repository have a blob of another one, where the client may read that.
    async fn mount(
        &self,
        request: &Parts,
        name: &RepositoryName,
        query: &Query,
    ) -> Result<Option<Response<RegistryBody>>, Fault> {
        let (Some(mount), Some(from)) = (query.get("mount"), query.get("from")) else {
            return Ok(None);
        };
        let digest = digest_of(mount)?;
        let Some(from) = RepositoryName::parse(from) else {
            return Ok(None);
        };
        // What cannot be mounted is to be uploaded, and a refusal must not tell what is there.
        if self.may(request, Action::Pull, Some(&from)).is_err() {
            return Ok(None);
        }
        let (registry, to) = (self.clone(), name.clone());
        let mounted = blocking(move || {
            let there = registry.0.repositories.has_link(&from, &digest) && registry.0.store.has(&digest);
            if there {
                registry.keep_for_a_while(digest);
                registry.0.repositories.link(&to, &digest)?;
            }
            Ok::<_, StoreError>(there)
        })
        .await?;
        if mounted {
            created(name, &digest).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) async fn upload_status(
        &self,
        name: RepositoryName,
        id: String,
    ) -> Result<Response<RegistryBody>, Fault> {
        let path = self.upload_path(&name, &id);
        let size = blocking(move || fs::metadata(&path).map(|meta| meta.len())).await;
        let size = size.map_err(|_| Fault::upload_unknown())?;
        upload_answer(StatusCode::NO_CONTENT, &name, &id, size)
    }

    pub(super) async fn append(
        &self,
        request: &Parts,
        name: RepositoryName,
        id: String,
        incoming: &mut Incoming,
    ) -> Result<Response<RegistryBody>, Fault> {
        let writing = self.pour(request, &name, &id, incoming).await?;
        upload_answer(StatusCode::ACCEPTED, &name, &id, writing.at)
    }

    pub(super) async fn finish(
        &self,
        request: &Parts,
        name: RepositoryName,
        id: String,
        query: &Query,
        incoming: &mut Incoming,
    ) -> Result<Response<RegistryBody>, Fault> {
        let digest = query
            .get("digest")
            .ok_or_else(|| Fault::digest_invalid("the query has no digest"))?;
        let digest = digest_of(digest)?;
        let writing = self.pour(request, &name, &id, incoming).await?;
        let (registry, to) = (self.clone(), name.clone());
        blocking(move || {
            registry.keep_for_a_while(digest);
            let path = &writing.turn.path;
            if let Err(err) = registry.0.store.adopt(path, &digest) {
                // Bytes that are not what they should be are of no use for a second try.
                kit::disk::remove_if_there(path).at("remove", path)?;
                return Err(err);
            }
            registry.0.repositories.link(&to, &digest)
        })
        .await?;
        created(&name, &digest)
    }

    pub(super) async fn cancel(
        &self,
        name: RepositoryName,
        id: String,
    ) -> Result<Response<RegistryBody>, Fault> {
        let turn = self.turn(&name, &id)?;
        blocking(move || match fs::remove_file(&turn.path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(Fault::upload_unknown()),
            result => Ok(result.at("remove", &turn.path)?),
        })
        .await?;
        built(Response::builder().status(StatusCode::NO_CONTENT), body::empty())
    }

    /// Writes a body behind what is there.
    async fn pour(
        &self,
        request: &Parts,
        name: &RepositoryName,
        id: &str,
        incoming: &mut Incoming,
    ) -> Result<Writing, Fault> {
        let turn = self.turn(name, id)?;
        let writing = blocking(move || open(turn)).await?;
        if let Some(first) = first_byte(&request.headers)
            && first != writing.at
        {
            return Err(Fault::out_of_order(writing.at));
        }
        let declared: Option<u64> = request
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let (store, need) = (self.0.store.clone(), declared.unwrap_or(0));
        let _room = blocking(move || store.reserve(need)).await?;
        incoming
            .pour(writing, |writing, piece| {
                writing.file.write_all(piece).at("write", &writing.turn.path)?;
                writing.at += piece.len() as u64;
                Ok(())
            })
            .await
    }

    fn turn(&self, name: &RepositoryName, id: &str) -> Result<Turn, Fault> {
        let path = self.upload_path(name, id);
        let mut writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !writing.insert(path.clone()) {
            return Err(Fault::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "another request is writing to this upload",
            ));
        }
        Ok(Turn {
            registry: self.clone(),
            path,
        })
    }

    /// The repository is part of the name, so that an upload's id is of no use in another.
    fn upload_path(&self, name: &RepositoryName, id: &str) -> PathBuf {
        self.0
            .uploads
            .join(format!("{}-{id}", Digest::of(name.as_str().as_bytes()).short()))
    }
}

fn open(turn: Turn) -> Result<Writing, Fault> {
    let opened = File::options().write(true).open(&turn.path);
    let mut file = opened.map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => Fault::upload_unknown(),
        _ => Fault::from(StoreError::Io {
            what: "open",
            path: turn.path.clone(),
            source: err,
        }),
    })?;
    let at = file.seek(SeekFrom::End(0)).at("seek in", &turn.path)?;
    Ok(Writing { turn, file, at })
}

/// Where a piece says that it starts: `Content-Range: <first>-<last>`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range
        .trim_start_matches("bytes ")
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

fn upload_answer(
    status: StatusCode,
    name: &RepositoryName,
    id: &str,
    bytes: u64,
) -> Result<Response<RegistryBody>, Fault> {
    let mut response = Response::builder()
        .status(status)
        .header(LOCATION, format!("/v2/{}/blobs/uploads/{id}", name.as_str()))
        .header(RANGE, received(bytes))
        .header("docker-upload-uuid", id);
    if status != StatusCode::NO_CONTENT {
        response = response.header(CONTENT_LENGTH, 0);
    }
    built(response, body::empty())
}

fn created(name: &RepositoryName, digest: &Digest) -> Result<Response<RegistryBody>, Fault> {
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{}/blobs/{digest}", name.as_str()))
        .header(CONTENT_LENGTH, 0)
        .header("docker-content-digest", digest.to_string());
    built(response, body::empty())
}
