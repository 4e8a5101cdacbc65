//! Folders on disk for the renderer: as a whole in memory, or file by file.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use model::{Tree, TreeEntry};
use render::{Entry, Files, RenderError};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A tree larger than this is no repository of manifests.
const MOST_BYTES: u64 = 512 << 20;
/// A file larger than this is no manifest.
const MOST_FILE: u64 = 256 << 20;

/// Everything below `dir`, without `.git`.
pub fn whole(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut bytes = 0;
    walk(dir, "", &mut tree, &mut bytes)?;
    Ok(tree)
}

fn walk(dir: &Path, prefix: &str, tree: &mut Tree, bytes: &mut u64) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        if kind.is_dir() {
            if name != ".git" {
                walk(&entry.path(), &path, tree, bytes)?;
            }
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path())?;
            tree.insert(&path, TreeEntry::Link(target.to_string_lossy().into_owned()));
        } else if kind.is_file() {
            let meta = entry.metadata()?;
            *bytes += meta.len();
            ensure!(
                *bytes <= MOST_BYTES,
                "{} holds more than {} MiB",
                dir.display(),
                MOST_BYTES >> 20
            );
            let executable = meta.permissions().mode() & 0o111 != 0;
            tree.insert(
                &path,
                TreeEntry::File {
                    data: std::fs::read(entry.path())?.into(),
                    executable,
                },
            );
        }
    }
    Ok(())
}

/// The machine's files, read when the renderer asks for them, so that a small overlay of a large repository costs
/// what it is. Paths start at the file system's root, because bases may lie anywhere above.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Disk {
    /// A path of the user's as one of these.
    pub fn path_of(path: &Path) -> Result<String> {
        let full = path
            .canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let text = full
            .to_str()
            .with_context(|| format!("{} is no UTF-8", full.display()))?;
        Ok(text.trim_start_matches('/').to_owned())
    }

    fn full(path: &str) -> PathBuf {
        Path::new("/").join(path)
    }

    fn unreadable(path: &str, err: &std::io::Error) -> RenderError {
        RenderError::cannot_read(format!("cannot read /{path}: {err}"))
    }
}

impl Files for Disk {
    fn look(&self, path: &str) -> Result<Option<Entry>, RenderError> {
        let full = Self::full(path);
        let kind = match full.symlink_metadata() {
            Ok(meta) => meta.file_type(),
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            // Inline patches and the like are looked for as files first.
            Err(err) if err.kind() == ErrorKind::InvalidFilename => return Ok(None),
            Err(err) => return Err(Self::unreadable(path, &err)),
        };
        if !kind.is_symlink() {
            return Ok(match kind {
                kind if kind.is_dir() => Some(Entry::Folder),
                kind if kind.is_file() => Some(Entry::File),
                _ => None,
            });
        }
        let target = std::fs::read_link(full).map_err(|err| Self::unreadable(path, &err))?;
        Ok(Some(Entry::Link(target.to_string_lossy().into_owned())))
    }

    fn read(&self, path: &str) -> Result<Bytes, RenderError> {
        let unreadable = |err: std::io::Error| Self::unreadable(path, &err);
        let file = std::fs::File::open(Self::full(path)).map_err(unreadable)?;
        let mut data = Vec::new();
        let most = MOST_FILE + 1;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, most), &mut data).map_err(unreadable)?;
        if data.len() as u64 == most {
            let told = format!("/{path} is larger than {} MiB", MOST_FILE >> 20);
            return Err(RenderError::cannot_read(told));
        }
        Ok(data.into())
    }

    fn is_file_system(&self) -> bool {
        true
    }
}

/// The addresses that the repository around a folder was cloned from; none where it is no repository.
pub fn cloned_from(dir: &Path) -> Vec<String> {
    source::LocalRepository::discover(dir).map_or_else(|_| Vec::new(), |repository| repository.remotes())
}
