//! Sealing of what a device keeps on its disk and nobody else is to read.
//!
//! The key lies in the folder of the device's keys (`seal.key`, 0600) and never leaves it. It guards what is copied
//! from the disk without that folder: a backup of the state, a log of a shop that mends it, a card that is thrown
//! away after `identity/` was wiped. Who holds the whole disk holds the key.

use crate::keys::{KeyError, make_private};
use kit::disk;
use ring::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::path::Path;

const FILE: &str = "seal.key";
/// What every sealed file starts with; another form would start differently.
const MAGIC: &[u8] = b"leeward sealed 1\n";
const KEY_LEN: usize = 32;

/// Seals with ChaCha20-Poly1305 under a key of its own.
#[derive(Clone)]
pub struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Opens the key in a device's folder of keys; makes it where there is none.
    ///
    /// # Errors
    /// A key that cannot be read, made or written; [`KeyError::Damaged`] for one of another length.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        make_private(dir)?;
        let path = dir.join(FILE);
        let fault = |what| {
            let path = path.clone();
            move |source| KeyError::Disk { what, path, source }
        };
        let held = disk::read_if_there(&path).map_err(fault("read"))?;
        let bytes = match held {
            Some(bytes) => bytes,
            None => {
                let bytes = random::<KEY_LEN>()?.to_vec();
                disk::replace_mode(&path, &bytes, 0o600).map_err(fault("write"))?;
                bytes
            }
        };
        let key =
            UnboundKey::new(&aead::CHACHA20_POLY1305, &bytes).map_err(|_| KeyError::Damaged { path })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals; `context` says what it is, so that one sealed file cannot stand in for another.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        // Random nonces of 96 bits are safe for some four billion files under one key; a device writes thousands.
        let nonce = random::<NONCE_LEN>()?;
        let mut out = [MAGIC, &nonce].concat();
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut sealed,
            )
            .expect("what fits in memory is below the cipher's limit");
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens what was sealed under the same context; `None` for anything else.
    pub fn open_sealed(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = sealed.to_vec();
        let plain = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                &mut buffer,
            )
            .ok()?
            .len();
        buffer.truncate(plain);
        Some(buffer)
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_sealed_opens_under_its_context_and_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let sealed = seal.seal(b"one", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(sealed, seal.seal(b"one", b"hunter2").unwrap());
        let seal = Seal::open(dir.path()).unwrap();
        assert_eq!(
            seal.open_sealed(b"one", &sealed).as_deref(),
            Some(&b"hunter2"[..])
        );
        assert_eq!(seal.open_sealed(b"two", &sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(seal.open_sealed(b"one", &sealed[..cut]), None);
        }
        let other = tempfile::tempdir().unwrap();
        assert_eq!(
            Seal::open(other.path()).unwrap().open_sealed(b"one", &sealed),
            None
        );
        let mode = std::fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(FILE), b"short").unwrap();
        assert!(matches!(Seal::open(dir.path()), Err(KeyError::Damaged { .. })));
    }
}
