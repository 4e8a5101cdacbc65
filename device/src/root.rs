//! Reading the kernel's small files below a root.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder that holds `proc` and `sys`.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The real path of a path below the root; `path` does not start with `/`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text without surrounding white space and NULs; `None` where it is absent or does not answer.
    pub fn text(&self, path: &str) -> Option<String> {
        text(&self.path(path))
    }

    /// Entries of a folder whose names start with `prefix`, in order of their numbers and names.
    pub fn entries(&self, dir: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else {
            return Vec::new();
        };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path())
            .collect();
        // thermal_zone10 comes after thermal_zone9.
        found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        found
    }

    /// The strings of a device-tree property (Devicetree Specification 2.2.4: NUL-terminated).
    pub fn strings(&self, path: &str) -> Vec<String> {
        let data = fs::read(self.path(path)).unwrap_or_default();
        data.split(|byte| *byte == 0)
            .filter(|text| !text.is_empty())
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect()
    }
}

/// A file's text without surrounding white space and NULs.
pub fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(
        text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
            .to_owned(),
    )
}
