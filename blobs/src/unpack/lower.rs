//! What the layers below hold at a path, as overlayfs would merge them.

use rustix::fs::lgetxattr;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What is at a path in the layers below.
pub(super) enum Below {
    /// A folder, with what it is.
    Folder(Metadata),
    /// A symbolic link to there.
    Symlink(PathBuf),
    /// Something else, or nothing.
    Nothing,
}

/// Looks `path` up in `lower`, topmost first. No part of `path` is followed where it is a link.
pub(super) fn look(lower: &[PathBuf], path: &Path) -> Below {
    for layer in lower {
        let mut at = layer.clone();
        let mut hides_below = false;
        let mut found = None;
        for (part, last) in parts(path) {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(meta) if last => found = Some(meta),
                Ok(meta) if meta.is_dir() => hides_below |= is_opaque(&at),
                // A whiteout or a file where the path needs a folder: nothing below shows through.
                Ok(_) => return Below::Nothing,
                Err(_) => break,
            }
        }
        match found {
            Some(meta) if meta.is_dir() => return Below::Folder(meta),
            Some(meta) if meta.is_symlink() => {
                return fs::read_link(&at).map_or(Below::Nothing, Below::Symlink);
            }
            Some(_) => return Below::Nothing,
            None if hides_below => return Below::Nothing,
            None => {}
        }
    }
    Below::Nothing
}

fn parts(path: &Path) -> impl Iterator<Item = (&std::ffi::OsStr, bool)> {
    let mut parts = path.iter().peekable();
    std::iter::from_fn(move || {
        let part = parts.next()?;
        Some((part, parts.peek().is_none()))
    })
}

/// Whether a file is overlayfs's mark of removal.
pub(super) fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(folder: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0_u8; 1];
            lgetxattr(folder, *name, &mut value).is_ok_and(|got| got == 1 && value == *b"y")
        })
}
