//! Images from files, without a container engine: the same bytes from the same input, each time and everywhere.

mod elf;
mod error;
mod layout;

pub use elf::{BadElf, Elf};
pub use error::BuildError;
pub use layout::{export_layout, import_layout};

use crate::Store;
use crate::oci::{self, ConfigFile, Descriptor, ImageConfig, Index, Manifest, RootFs};
use error::At as _;
use flate2::{Compression, GzBuilder};
use model::{Digest, Platform};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// An image to be built for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBuild {
    /// For what machine; programs are checked against it.
    pub platform: Platform,
    /// What the image holds. Folders on the way come by themselves, with mode 755.
    pub files: Vec<ImageFile>,
    /// How it is run.
    pub config: ImageConfig,
    /// Whether programs may need a loader that the image does not hold.
    pub allow_dynamic: bool,
}

/// One file, folder or link of an image. Everything belongs to root and carries the time 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it goes, from the image's root.
    pub path: String,
    /// What it is.
    pub source: Source,
    /// Permission bits; without them 755 for what is executable and 644 for the rest.
    pub mode: Option<u32>,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, or a folder with all that is in it.
    Path(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to there.
    Symlink(String),
}

/// An image that was built into a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its manifest, with the platform.
    pub manifest: Descriptor,
    /// Bytes of its compressed layer.
    pub layer_bytes: u64,
    /// What may be wrong with it, for a person to read.
    pub warnings: Vec<String>,
}

/// What goes into the archive under one name.
enum Item {
    Folder,
    File { content: Content, mode: u32 },
    Symlink(String),
}

enum Content {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

impl ImageBuild {
    /// Builds the image into `store`. It is not pinned there.
    pub fn build(&self, store: &Store) -> Result<Built, BuildError> {
        let items = self.items()?;
        let warnings = self.check(&items)?;
        let (layer, diff_id) = write_layer(store, &items)?;
        let config = ConfigFile {
            created: Some("1970-01-01T00:00:00Z".to_owned()),
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            config: self.config.clone(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![diff_id],
            },
        };
        let config = put_json(store, oci::CONFIG, &config)?;
        let layer_bytes = layer.size;
        let manifest = Manifest {
            schema_version: 2,
            media_type: oci::MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers: vec![layer],
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut manifest = put_json(store, oci::MANIFEST, &manifest)?;
        manifest.platform = Some(self.platform.clone());
        Ok(Built {
            manifest,
            layer_bytes,
            warnings,
        })
    }

    /// Everything by its name in the archive, in the order in which it is written.
    fn items(&self) -> Result<BTreeMap<PathBuf, Item>, BuildError> {
        let mut items = BTreeMap::new();
        for file in &self.files {
            let path = inside(&file.path)?;
            match &file.source {
                Source::Bytes(bytes) => {
                    let mode = file.mode.unwrap_or(if bytes.starts_with(elf::MAGIC) {
                        0o755
                    } else {
                        0o644
                    });
                    let content = Content::Bytes(bytes.clone());
                    add(&mut items, path, Item::File { content, mode })?;
                }
                Source::Symlink(to) => add(&mut items, path, Item::Symlink(to.clone()))?,
                Source::Path(source) => add_path(&mut items, path, source, file.mode)?,
            }
        }
        Ok(items)
    }

    /// Programs must run on the platform, and what is started must be there.
    fn check(&self, items: &BTreeMap<PathBuf, Item>) -> Result<Vec<String>, BuildError> {
        let mut warnings = Vec::new();
        for (path, item) in items {
            let Item::File { content, .. } = item else {
                continue;
            };
            let Some(elf) = content.elf(path)? else { continue };
            let shown = format!("/{}", path.display());
            if elf.architecture() != Some(self.platform.architecture.as_str()) {
                return Err(BuildError::WrongArchitecture {
                    path: shown,
                    found: elf.architecture_text(),
                    wanted: self.platform.to_string(),
                });
            }
            let Some(loader) = elf.loader else { continue };
            if items.contains_key(&inside(&loader)?) {
                warnings.push(format!(
                    "{shown} is linked dynamically: see that its libraries are in the image too"
                ));
            } else if self.allow_dynamic {
                warnings.push(format!("{shown} needs {loader}, which is not in the image"));
            } else {
                return Err(BuildError::Dynamic { path: shown, loader });
            }
        }
        match self.config.entrypoint.iter().chain(&self.config.cmd).next() {
            None => warnings.push("the image has neither entrypoint nor command".to_owned()),
            Some(program) if program.starts_with('/') => match items.get(&inside(program)?) {
                Some(Item::File { mode, .. }) if mode & 0o111 != 0 => {}
                Some(Item::Symlink(_)) => {}
                Some(Item::File { .. }) => {
                    return Err(BuildError::NotExecutable {
                        path: program.clone(),
                    });
                }
                Some(Item::Folder) | None => {
                    return Err(BuildError::NoProgram {
                        path: program.clone(),
                    });
                }
            },
            Some(_) => {}
        }
        Ok(warnings)
    }
}

/// An index of images for several platforms, in the store.
pub fn index(store: &Store, images: &[Built]) -> Result<Descriptor, BuildError> {
    let mut manifests: Vec<_> = images.iter().map(|built| built.manifest.clone()).collect();
    manifests.sort_by(|a, b| a.platform.cmp(&b.platform));
    if let Some(pair) = manifests
        .windows(2)
        .find(|pair| pair[0].platform == pair[1].platform)
    {
        let platform = pair[0]
            .platform
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        return Err(BuildError::SamePlatform { platform });
    }
    let index = Index {
        schema_version: 2,
        media_type: oci::INDEX.to_owned(),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    put_json(store, oci::INDEX, &index)
}

fn put_json(store: &Store, kind: &str, document: &impl serde::Serialize) -> Result<Descriptor, BuildError> {
    let bytes = serde_json::to_vec(document).map_err(|err| BuildError::Io {
        what: "encode",
        path: PathBuf::from(kind),
        source: err.into(),
    })?;
    Ok(Descriptor::new(kind, store.put(&bytes)?, bytes.len() as u64))
}

/// The name in the archive: relative, without `.` and `..`.
fn inside(path: &str) -> Result<PathBuf, BuildError> {
    let mut names = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(BuildError::BadPath {
                    path: path.to_owned(),
                });
            }
        }
    }
    if names.as_os_str().is_empty() {
        return Err(BuildError::BadPath {
            path: path.to_owned(),
        });
    }
    Ok(names)
}

fn add(items: &mut BTreeMap<PathBuf, Item>, path: PathBuf, item: Item) -> Result<(), BuildError> {
    let mut up = path.parent();
    while let Some(folder) = up.filter(|folder| !folder.as_os_str().is_empty()) {
        if !matches!(
            items.entry(folder.to_owned()).or_insert(Item::Folder),
            Item::Folder
        ) {
            return Err(BuildError::Twice {
                path: folder.display().to_string(),
            });
        }
        up = folder.parent();
    }
    match (items.get(&path), &item) {
        (None, _) => {}
        (Some(Item::Folder), Item::Folder) => return Ok(()),
        _ => {
            return Err(BuildError::Twice {
                path: path.display().to_string(),
            });
        }
    }
    items.insert(path, item);
    Ok(())
}

fn add_path(
    items: &mut BTreeMap<PathBuf, Item>,
    path: PathBuf,
    source: &Path,
    mode: Option<u32>,
) -> Result<(), BuildError> {
    let meta = fs::metadata(source).at("read", source)?;
    if meta.is_file() {
        let executable = meta.permissions().mode() & 0o111 != 0;
        let mode = mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        let content = Content::Path(source.to_owned());
        return add(items, path, Item::File { content, mode });
    }
    if !meta.is_dir() {
        return Err(BuildError::Io {
            what: "use as a source",
            path: source.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a folder"),
        });
    }
    add(items, path.clone(), Item::Folder)?;
    for entry in fs::read_dir(source).at("read folder", source)? {
        let entry = entry.at("read folder", source)?;
        let (path, from) = (path.join(entry.file_name()), entry.path());
        if entry.file_type().at("look at", &from)?.is_symlink() {
            let to = fs::read_link(&from).at("read the link", &from)?;
            add(items, path, Item::Symlink(to.to_string_lossy().into_owned()))?;
        } else {
            add_path(items, path, &from, mode)?;
        }
    }
    Ok(())
}

impl Content {
    fn elf(&self, path: &Path) -> Result<Option<Elf>, BuildError> {
        let bad = |source| BuildError::Elf {
            path: path.display().to_string(),
            source,
        };
        match self {
            Self::Bytes(bytes) => Elf::read(&mut io::Cursor::new(bytes)).map_err(bad),
            Self::Path(source) => Elf::read(&mut File::open(source).at("open", source)?).map_err(bad),
        }
    }
}

/// Passes on what is written and hashes it.
struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.to.write(buf)?;
        self.hash.update(&buf[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn write_layer(store: &Store, items: &BTreeMap<PathBuf, Item>) -> Result<(Descriptor, Digest), BuildError> {
    let to = GzBuilder::new()
        .mtime(0)
        .write(store.writer()?, Compression::default());
    let hash = Sha256::new();
    let mut archive = tar::Builder::new(Hashing { to, hash });
    for (path, item) in items {
        write_item(&mut archive, path, item).at("pack", path)?;
    }
    let plain = archive.into_inner().at("pack", Path::new("layer"))?;
    let diff_id = Digest::from_raw(plain.hash.finalize().into());
    let blob = plain.to.finish().at("pack", Path::new("layer"))?;
    let (digest, size) = blob.commit(None)?;
    Ok((Descriptor::new(oci::LAYER_GZIP, digest, size), diff_id))
}

fn write_item<W: Write>(archive: &mut tar::Builder<W>, path: &Path, item: &Item) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match item {
        Item::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, path.join(""), io::empty())
        }
        Item::Symlink(to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, to)
        }
        Item::File { content, mode } => {
            header.set_mode(*mode);
            match content {
                Content::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())
                }
                Content::Path(source) => {
                    let file = File::open(source)?;
                    let size = file.metadata()?.len();
                    header.set_size(size);
                    let mut exact = Exact { file, left: size };
                    archive.append_data(&mut header, path, &mut exact)?;
                    if exact.left > 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "it became shorter meanwhile",
                        ));
                    }
                    Ok(())
                }
            }
        }
    }
}

/// As many bytes as the header says, though the file may grow.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let got = self.file.read(&mut buf[..want])?;
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
