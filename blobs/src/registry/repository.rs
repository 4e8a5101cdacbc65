//! What belongs to which repository, in small files that are whole or absent.

use super::manifests::Record;
use super::paths::RepositoryName;
use crate::StoreError;
use crate::store::At as _;
use model::Digest;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Repositories {
    dir: PathBuf,
}

impl Repositories {
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        kit::disk::create_dir_all(dir).at("make folder", dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, name: &RepositoryName, kind: &str) -> PathBuf {
        self.dir.join(name.path()).join(kind)
    }

    /// Whether anything was ever put there.
    pub fn exists(&self, name: &RepositoryName) -> bool {
        ["_manifests", "_blobs"]
            .iter()
            .any(|kind| self.path(name, kind).is_dir())
    }

    /// Says that a blob was pushed here.
    pub fn link(&self, name: &RepositoryName, blob: &Digest) -> Result<(), StoreError> {
        let folder = self.path(name, "_blobs");
        let path = folder.join(blob.hex());
        if path.exists() {
            return Ok(());
        }
        kit::disk::create_dir_all(&folder).at("make folder", &folder)?;
        File::create(&path).at("create", &path)?;
        kit::disk::sync_dir(&folder).at("sync", &folder)
    }

    pub fn has_link(&self, name: &RepositoryName, blob: &Digest) -> bool {
        self.path(name, "_blobs").join(blob.hex()).exists()
    }

    pub fn unlink(&self, name: &RepositoryName, blob: &Digest) -> Result<(), StoreError> {
        remove(&self.path(name, "_blobs").join(blob.hex()))
    }

    pub fn add_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        record: &Record,
    ) -> Result<(), StoreError> {
        if let Some(subject) = &record.subject {
            let path = self
                .path(name, "_referrers")
                .join(subject.hex())
                .join(digest.hex());
            write(&path, b"")?;
        }
        let path = self.path(name, "_manifests").join(digest.hex());
        let json = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .at("encode", &path)?;
        write(&path, &json)
    }

    pub fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.path(name, "_manifests").join(digest.hex());
        let bytes = kit::disk::read_if_there(&path).at("read", &path)?;
        let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        Ok(parsed.unwrap_or_else(|err| {
            tracing::error!(path = %path.display(), error = %err, "record of a manifest is damaged; push it again");
            None
        }))
    }

    /// Digests of all manifests here.
    pub fn manifests(&self, name: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        let names = list(&self.path(name, "_manifests"))?;
        Ok(names
            .iter()
            .filter_map(|hex| format!("sha256:{hex}").parse().ok())
            .collect())
    }

    /// Removes a manifest and the tags that name it.
    pub fn remove_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        record: &Record,
    ) -> Result<(), StoreError> {
        for tag in self.tags(name)? {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                self.remove_tag(name, &tag)?;
            }
        }
        if let Some(subject) = &record.subject {
            remove(
                &self
                    .path(name, "_referrers")
                    .join(subject.hex())
                    .join(digest.hex()),
            )?;
        }
        remove(&self.path(name, "_manifests").join(digest.hex()))
    }

    /// Digests of the manifests that are about `subject`.
    pub fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<Digest>, StoreError> {
        let names = list(&self.path(name, "_referrers").join(subject.hex()))?;
        Ok(names
            .iter()
            .filter_map(|hex| format!("sha256:{hex}").parse().ok())
            .collect())
    }

    pub fn set_tag(&self, name: &RepositoryName, tag: &str, digest: &Digest) -> Result<(), StoreError> {
        write(&self.path(name, "_tags").join(tag), digest.to_string().as_bytes())
    }

    pub fn tag(&self, name: &RepositoryName, tag: &str) -> Result<Option<Digest>, StoreError> {
        let path = self.path(name, "_tags").join(tag);
        let bytes = kit::disk::read_if_there(&path).at("read", &path)?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
    }

    pub fn remove_tag(&self, name: &RepositoryName, tag: &str) -> Result<(), StoreError> {
        remove(&self.path(name, "_tags").join(tag))
    }

    /// Tags in the order of their bytes, as the spec lists them.
    pub fn tags(&self, name: &RepositoryName) -> Result<Vec<String>, StoreError> {
        let mut tags = list(&self.path(name, "_tags"))?;
        tags.retain(|tag| super::paths::is_tag(tag));
        Ok(tags)
    }

    /// All repositories that hold a manifest.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut open = vec![String::new()];
        while let Some(at) = open.pop() {
            for child in list(&self.dir.join(&at))? {
                let name = if at.is_empty() {
                    child.clone()
                } else {
                    format!("{at}/{child}")
                };
                if child == "_manifests" && !list(&self.dir.join(&name))?.is_empty() {
                    names.push(at.clone());
                } else if !child.starts_with('_') {
                    open.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if let Some(folder) = path.parent() {
        kit::disk::create_dir_all(folder).at("make folder", folder)?;
    }
    kit::disk::replace(path, bytes).at("write", path)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => path
            .parent()
            .map_or(Ok(()), kit::disk::sync_dir)
            .at("sync the folder of", path),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err).at("remove", path),
    }
}

/// The names in a folder, sorted; an absent folder has none. What a power cut left half written is none either.
fn list(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.at("read folder", folder)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .at("read folder", folder)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !name.ends_with(".tmp") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
