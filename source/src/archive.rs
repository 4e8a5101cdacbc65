//! A `tar.gz` as a tree: the layout of Flux's artifacts.

use crate::ignore::Patterns;
use crate::{Limits, SourceError};
use flate2::read::GzDecoder;
use model::{Tree, TreeEntry};
use std::io::Read;

/// Entries of one archive.
const MOST_ENTRIES: u64 = 200_000;

/// The files of a `tar.gz` that `patterns` do not leave out. `name` is for messages.
pub(crate) fn read(
    archive: impl Read,
    name: &str,
    patterns: &Patterns,
    limits: &Limits,
) -> Result<Tree, SourceError> {
    let wrong = |why: String| SourceError::BadArtifact {
        artifact: name.to_owned(),
        why,
    };
    let too_large = |what: String, limit: u64| SourceError::TooLarge { what, limit };
    // Headers and padding come on top of the files.
    let most = limits.tree.saturating_mul(2);
    let mut archive = tar::Archive::new(GzDecoder::new(archive).take(most));
    let mut tree = Tree::default();
    let (mut bytes, mut entries) = (0, 0);
    let unreadable = |err: std::io::Error| wrong(format!("it is no tar.gz: {err}"));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(too_large(format!("the number of files in {name}"), MOST_ENTRIES));
        }
        let kind = entry.header().entry_type();
        let raw = entry.path_bytes().into_owned();
        let Ok(path) = std::str::from_utf8(&raw) else {
            return Err(wrong("a file's name is no UTF-8".to_owned()));
        };
        let Some(path) = clean(path) else {
            return Err(wrong(format!("the file {path:?} lies outside of the archive")));
        };
        if path.is_empty() || kind.is_dir() || patterns.excludes(&path) {
            continue;
        }
        if kind.is_symlink() {
            let target = entry
                .link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default();
            let target =
                String::from_utf8(target).map_err(|_| wrong(format!("the link {path} leads to no UTF-8")))?;
            tree.insert(&path, TreeEntry::Link(target));
            continue;
        }
        if !kind.is_file() {
            // Extended headers are read by the archive itself; devices and hard links have no place in a repository.
            return Err(wrong(format!(
                "{path} is neither a file nor a folder nor a symbolic link"
            )));
        }
        let size = entry.size();
        if size > limits.file {
            return Err(too_large(format!("the file {path} in {name}"), limits.file));
        }
        bytes += size;
        if bytes > limits.tree {
            return Err(too_large(name.to_owned(), limits.tree));
        }
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        entry.read_to_end(&mut data).map_err(unreadable)?;
        tree.insert(
            &path,
            TreeEntry::File {
                data: data.into(),
                executable,
            },
        );
    }
    Ok(tree)
}

/// A name without `.`; `None` for one that is absolute or climbs.
fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            // `set_path` itself refuses what a hostile archive may hold.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, *data).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn unpack(archive: &[u8]) -> Result<Tree, SourceError> {
        read(archive, "artifact", &Patterns::new(None), &Limits::default())
    }

    #[test]
    fn files_are_read_and_what_is_ignored_is_left_out() {
        let tree = unpack(&packed(&[("./a/x.yaml", b"1"), ("logo.png", b"2")])).unwrap();
        assert_eq!(
            tree.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            ["a/x.yaml"]
        );
    }

    #[test]
    fn names_that_climb_and_what_is_no_archive_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x"] {
            let err = unpack(&packed(&[(path, b"1")])).unwrap_err().to_string();
            assert!(err.contains("outside of the archive"), "{err}");
        }
        assert!(unpack(b"not gzip").unwrap_err().to_string().contains("no tar.gz"));
        let whole = packed(&[("a", &[7; 5000])]);
        assert!(unpack(&whole[..whole.len() / 2]).is_err());
    }

    #[test]
    fn an_archive_that_unpacks_without_end_is_refused() {
        let limits = Limits {
            tree: 1 << 20,
            ..Limits::default()
        };
        let bomb = packed(&[("a", &vec![0; 600_000]), ("b", &vec![0; 600_000])]);
        let err = read(&bomb[..], "artifact", &Patterns::new(None), &limits).unwrap_err();
        assert!(matches!(err, SourceError::TooLarge { .. }), "{err}");
    }
}
