//! OCI image layout folders (image-spec, `image-layout.md`): images as files.

use super::error::At as _;
use super::{BuildError, put_json};
use crate::Store;
use crate::oci::{self, Descriptor, Index};
use model::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes an image of the store, with all that it names, into a layout folder, new or existing, under `name`.
pub fn export_layout(store: &Store, image: &Descriptor, dir: &Path, name: &str) -> Result<(), BuildError> {
    let blobs = dir.join("blobs/sha256");
    kit::disk::create_dir_all(&blobs).at("make folder", &blobs)?;
    let mut open = vec![image.digest];
    while let Some(digest) = open.pop() {
        let bytes = store
            .read(&digest, oci::MAX_MANIFEST_BYTES)?
            .ok_or_else(|| BuildError::absent(digest))?;
        let named = oci::named_by(&bytes);
        for leaf in named.leaves.into_iter().chain([digest]) {
            copy_out(store, &leaf, &blobs.join(leaf.hex()))?;
        }
        open.extend(named.manifests);
    }
    let path = dir.join("oci-layout");
    kit::disk::replace(&path, br#"{"imageLayoutVersion":"1.0.0"}"#).at("write", &path)?;
    let mut index = read_index(dir)?.unwrap_or(Index {
        schema_version: 2,
        media_type: oci::INDEX.to_owned(),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: BTreeMap::new(),
    });
    index
        .manifests
        .retain(|held| held.annotations.get(REF_NAME).is_none_or(|held| held != name));
    let mut named = image.clone();
    named.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    index.manifests.push(named);
    let path = dir.join("index.json");
    let json = serde_json::to_vec(&index)
        .map_err(io::Error::from)
        .at("encode", &path)?;
    kit::disk::replace(&path, &json).at("write", &path)
}

/// Reads an image of a layout folder into the store: the one called `name`, or the only one there.
pub fn import_layout(store: &Store, dir: &Path, name: Option<&str>) -> Result<Descriptor, BuildError> {
    let missing = |what: String| BuildError::Layout {
        path: dir.to_owned(),
        what,
    };
    let index = read_index(dir)?.ok_or_else(|| missing("an index.json".to_owned()))?;
    let found = match name {
        Some(name) => index
            .manifests
            .iter()
            .find(|held| held.annotations.get(REF_NAME).is_some_and(|n| n == name)),
        None if index.manifests.len() == 1 => index.manifests.first(),
        None => {
            // Several without a name: all of them, as an index of their own.
            let all = Index {
                annotations: BTreeMap::new(),
                ..index.clone()
            };
            for held in &index.manifests {
                copy_tree(store, dir, held.digest)?;
            }
            return put_json(store, oci::INDEX, &all);
        }
    };
    let found = found.ok_or_else(|| missing(format!("an image {:?}", name.unwrap_or_default())))?;
    copy_tree(store, dir, found.digest)?;
    Ok(found.clone())
}

fn copy_tree(store: &Store, dir: &Path, top: Digest) -> Result<(), BuildError> {
    let mut open = vec![top];
    while let Some(digest) = open.pop() {
        copy_in(store, dir, &digest)?;
        let bytes = store
            .read(&digest, oci::MAX_MANIFEST_BYTES)?
            .ok_or_else(|| BuildError::absent(digest))?;
        let named = oci::named_by(&bytes);
        for leaf in &named.leaves {
            copy_in(store, dir, leaf)?;
        }
        open.extend(named.manifests);
    }
    Ok(())
}

fn copy_in(store: &Store, dir: &Path, digest: &Digest) -> Result<(), BuildError> {
    if store.has(digest) {
        return Ok(());
    }
    let path = dir.join("blobs/sha256").join(digest.hex());
    let mut file = File::open(&path).at("open", &path)?;
    let mut writer = store.writer()?;
    io::copy(&mut file, &mut writer).at("copy", &path)?;
    writer.commit(Some(digest))?;
    Ok(())
}

fn copy_out(store: &Store, digest: &Digest, to: &Path) -> Result<(), BuildError> {
    if to.exists() {
        return Ok(());
    }
    let mut blob = store
        .open_blob(digest)?
        .ok_or_else(|| BuildError::absent(*digest))?;
    let temporary = to.with_extension("tmp");
    let mut file = File::create(&temporary).at("create", &temporary)?;
    io::copy(&mut blob, &mut file).at("copy to", to)?;
    file.sync_all().at("sync", &temporary)?;
    kit::disk::rename(&temporary, to).at("rename into", to)
}

fn read_index(dir: &Path) -> Result<Option<Index>, BuildError> {
    let path = dir.join("index.json");
    match fs::read(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).at("read", &path),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(io::Error::from)
            .at("understand", &path),
    }
}
