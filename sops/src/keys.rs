//! The private keys that are held.

use crate::age::AgeKey;
#[cfg(feature = "pgp")]
use crate::openpgp::PgpKey;
use std::fmt;

/// Why a text is no private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not an age key.
    #[error("line {line}: {why}; an age key starts with AGE-SECRET-KEY-1")]
    Age {
        /// Which line, from 1.
        line: usize,
        /// Why not. Holds nothing of the line.
        why: &'static str,
    },
    /// Not a PGP key.
    #[error("no PGP secret key without a passphrase, in ASCII armour: {0}")]
    Pgp(String),
    /// Neither.
    #[error("this is neither an age key (AGE-SECRET-KEY-1...) nor an armoured PGP secret key")]
    Unknown,
    /// Built without.
    #[error("this build of leeward knows no PGP keys: it was made without the feature 'pgp'")]
    NoPgp,
}

/// Private keys. They are never shown: `Debug` gives the public halves.
#[derive(Clone, Default)]
pub struct Keys {
    pub(crate) age: Vec<AgeKey>,
    #[cfg(feature = "pgp")]
    pub(crate) pgp: Vec<PgpKey>,
}

impl Keys {
    /// Adds whatever keys a text holds, as `age-keygen` and `gpg --export-secret-keys --armor` write them.
    ///
    /// # Errors
    /// [`BadKey`]; nothing is added then.
    pub fn add(&mut self, text: &str) -> Result<(), BadKey> {
        if text.contains("-----BEGIN PGP") {
            return self.add_pgp(text);
        }
        let mut found = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") && found.is_empty() {
                return Err(BadKey::Unknown);
            }
            found.push(AgeKey::parse(line).map_err(|why| BadKey::Age { line: at + 1, why })?);
        }
        if found.is_empty() {
            return Err(BadKey::Unknown);
        }
        self.age.extend(found);
        Ok(())
    }

    #[cfg(feature = "pgp")]
    fn add_pgp(&mut self, text: &str) -> Result<(), BadKey> {
        self.pgp.extend(PgpKey::parse(text).map_err(BadKey::Pgp)?);
        Ok(())
    }

    #[cfg(not(feature = "pgp"))]
    fn add_pgp(&mut self, _text: &str) -> Result<(), BadKey> {
        Err(BadKey::NoPgp)
    }

    /// Adds all keys of another set.
    pub fn extend(&mut self, other: &Self) {
        self.age.extend(other.age.iter().cloned());
        #[cfg(feature = "pgp")]
        self.pgp.extend(other.pgp.iter().cloned());
    }

    /// The public halves: age recipients and PGP fingerprints.
    pub fn public(&self) -> Vec<String> {
        let age = self.age.iter().map(AgeKey::recipient);
        #[cfg(feature = "pgp")]
        let age = age.chain(self.pgp.iter().map(PgpKey::fingerprint));
        age.collect()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.public().is_empty()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.public()).finish()
    }
}
