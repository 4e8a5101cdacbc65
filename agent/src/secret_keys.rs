//! The keys that a device decrypts its repository's secrets with.
//!
//! One file each in `identity/sops/` (0600), put there by people at the device, read at every rendering. They are
//! never sent anywhere; only their public halves are shown.

use kit::disk;
use sops::Keys;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Longest name of a key.
const MAX_NAME: usize = 64;

/// Why keys cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// A file or the folder.
    #[error("cannot {doing} {path}", path = .path.display())]
    Disk {
        /// `read`, `write`, `remove`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key.
    #[error("{what}: {source}")]
    Bad {
        /// Which file or input.
        what: String,
        /// Why not.
        #[source]
        source: sops::BadKey,
    },
    /// Not a name.
    #[error("{0:?} is no name for a key: take letters, digits, '-' and '_', at most {MAX_NAME}")]
    Name(String),
    /// It would replace another key.
    #[error("there is a key {0} already; remove it first, or take another name")]
    Taken(String),
    /// There is none of this name.
    #[error("there is no key {0}; 'leeward secret key list' shows those that there are")]
    Absent(String),
}

/// A key without its secret half.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SecretKey {
    /// Its name on this device.
    pub name: String,
    /// What files are encrypted for: an age recipient, PGP fingerprints.
    pub recipients: Vec<String>,
}

/// The folder of keys.
#[derive(Debug, Clone)]
pub struct SecretKeys {
    dir: PathBuf,
}

impl SecretKeys {
    /// Of a device with this state folder. Touches nothing.
    pub fn of(state: &Path) -> Self {
        Self {
            dir: state.join("identity/sops"),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, SecretKeyError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return Err(SecretKeyError::Name(name.to_owned()));
        }
        Ok(self.dir.join(format!("{name}.key")))
    }

    /// Keeps a text with keys under a name.
    ///
    /// # Errors
    /// A bad name or one that is taken, a text without keys, a disk that refuses.
    pub fn add(&self, name: &str, text: &str) -> Result<SecretKey, SecretKeyError> {
        let path = self.path(name)?;
        let mut keys = Keys::default();
        keys.add(text).map_err(|source| SecretKeyError::Bad {
            what: name.to_owned(),
            source,
        })?;
        if path.exists() {
            return Err(SecretKeyError::Taken(name.to_owned()));
        }
        let write = |source| fault("write", &path, source);
        disk::create_dir_all(&self.dir).map_err(write)?;
        for private in [Some(self.dir.as_path()), self.dir.parent()]
            .into_iter()
            .flatten()
        {
            std::fs::set_permissions(private, std::fs::Permissions::from_mode(0o700)).map_err(write)?;
        }
        disk::replace_mode(&path, text.as_bytes(), 0o600).map_err(write)?;
        Ok(SecretKey {
            name: name.to_owned(),
            recipients: keys.public(),
        })
    }

    /// The keys by name.
    ///
    /// # Errors
    /// A folder or file that cannot be read, a file without keys.
    pub fn list(&self) -> Result<Vec<SecretKey>, SecretKeyError> {
        let mut list = Vec::new();
        for (name, keys) in self.read()? {
            list.push(SecretKey {
                name,
                recipients: keys.public(),
            });
        }
        Ok(list)
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// One that is not there, a disk that refuses.
    pub fn remove(&self, name: &str) -> Result<(), SecretKeyError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(SecretKeyError::Absent(name.to_owned()));
        }
        disk::remove_if_there(&path).map_err(|source| fault("remove", &path, source))
    }

    /// All keys, to decrypt with.
    ///
    /// # Errors
    /// As [`SecretKeys::list`].
    pub fn load(&self) -> Result<Keys, SecretKeyError> {
        let mut all = Keys::default();
        for (_, keys) in self.read()? {
            all.extend(&keys);
        }
        Ok(all)
    }

    fn read(&self) -> Result<Vec<(String, Keys)>, SecretKeyError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(fault("read", &self.dir, source)),
        };
        let mut list = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| fault("read", &self.dir, source))?.path();
            let (Some(name), Some("key")) = (
                path.file_stem().and_then(|name| name.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let text = std::fs::read_to_string(&path).map_err(|source| fault("read", &path, source))?;
            let mut keys = Keys::default();
            keys.add(&text).map_err(|source| SecretKeyError::Bad {
                what: path.display().to_string(),
                source,
            })?;
            list.push((name.to_owned(), keys));
        }
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(list)
    }
}

fn fault(doing: &'static str, path: &Path, source: io::Error) -> SecretKeyError {
    SecretKeyError::Disk {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_privately_listed_by_their_public_half_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = SecretKeys::of(dir.path());
        assert_eq!(store.list().unwrap(), []);
        assert!(store.load().unwrap().is_empty());
        let (secret, recipient) = sops::generate_age_key();
        let added = store.add("field", &format!("# made here\n{secret}\n")).unwrap();
        assert_eq!(added.recipients.concat(), recipient);
        assert_eq!(store.list().unwrap(), [added]);
        assert_eq!(store.load().unwrap().public(), [recipient]);
        let path = dir.path().join("identity/sops/field.key");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("identity/sops")), 0o700);

        assert!(matches!(
            store.add("field", &secret),
            Err(SecretKeyError::Taken(_))
        ));
        assert!(matches!(store.add("../x", &secret), Err(SecretKeyError::Name(_))));
        assert!(matches!(
            store.add("other", "rubbish"),
            Err(SecretKeyError::Bad { .. })
        ));
        assert!(matches!(store.remove("other"), Err(SecretKeyError::Absent(_))));
        store.remove("field").unwrap();
        assert!(store.load().unwrap().is_empty());
        std::fs::write(dir.path().join("identity/sops/bad.key"), "x").unwrap();
        let told = store.load().unwrap_err().to_string();
        assert!(told.contains("bad.key"), "{told}");
    }
}
