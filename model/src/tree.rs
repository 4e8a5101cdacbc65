//! The files of one revision, in memory.

use bytes::Bytes;
use std::collections::BTreeMap;

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntry {
    /// A regular file.
    File {
        /// The file's bytes; cheap to clone.
        data: Bytes,
        /// Whether git holds it as executable (mode 100755).
        executable: bool,
    },
    /// A symbolic link, with its target as written. Never followed out of the tree.
    Link(String),
}

/// Files by their path from the root: `/`-separated, no leading slash, no `.` or `..`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<String, TreeEntry>,
}

impl Tree {
    /// Adds or replaces a file. `path` is cleaned: `./a//b` is `a/b`.
    pub fn insert(&mut self, path: &str, entry: TreeEntry) {
        self.files.insert(clean(path), entry);
    }

    /// Adds or replaces a plain file.
    pub fn write(&mut self, path: &str, data: impl Into<Bytes>) {
        self.insert(
            path,
            TreeEntry::File {
                data: data.into(),
                executable: false,
            },
        );
    }

    /// The bytes of the file at `path`, if it is a file.
    pub fn read(&self, path: &str) -> Option<&Bytes> {
        match self.files.get(path) {
            Some(TreeEntry::File { data, .. }) => Some(data),
            _ => None,
        }
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.files.get(path)
    }

    /// Whether any file lies below `path`; the root always counts as a folder.
    pub fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.below(path).next().is_some()
    }

    /// Files below a folder with their full paths, in byte order.
    pub fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a TreeEntry)> + use<'a> {
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        self.files
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// All files, in byte order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TreeEntry)> {
        self.files.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn clean(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

impl<P: AsRef<str>, D: Into<Bytes>> FromIterator<(P, D)> for Tree {
    fn from_iter<I: IntoIterator<Item = (P, D)>>(files: I) -> Self {
        let mut tree = Self::default();
        for (path, data) in files {
            tree.write(path.as_ref(), data);
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_only_what_lies_below_it() {
        let tree: Tree = [("a/x", "1"), ("a-b/y", "2"), ("./a//z", "3")]
            .into_iter()
            .collect();
        assert_eq!(
            tree.below("a").map(|(p, _)| p).collect::<Vec<_>>(),
            ["a/x", "a/z"]
        );
        assert!(tree.is_dir("a") && tree.is_dir("") && !tree.is_dir("a/x"));
    }
}
