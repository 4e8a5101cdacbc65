//! One walk over a file's values in their order: opens what is sealed, and takes the MAC.

use crate::{
    Keys, SopsError,
    cipher::{DataKey, Plain, is_sealed},
    metadata::Metadata,
    rules::Rule,
};
use sha2::{Digest, Sha512};

/// SHA-256 of `sops`: what a MAC over the encrypted values alone starts from.
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b,
    0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// The walk.
pub(crate) struct Walk {
    key: DataKey,
    rule: Rule,
    only_encrypted: bool,
    mac: Sha512,
    expected: String,
}

impl Walk {
    pub fn start(metadata: &Metadata, keys: &Keys) -> Result<Self, SopsError> {
        let rule = Rule::of(metadata)?;
        let key = metadata.data_key(keys)?;
        let mut mac = Sha512::new();
        if metadata.mac_only_encrypted {
            mac.update(ONLY_ENCRYPTED);
        }
        let expected = match key.open(&metadata.mac, &metadata.lastmodified) {
            Some(Plain::Text(expected)) => expected,
            _ => return Err(SopsError::Mac),
        };
        Ok(Self {
            key,
            rule,
            only_encrypted: metadata.mac_only_encrypted,
            mac,
            expected,
        })
    }

    /// The next value: a text as it stands in the file. Gives what it is in plain, `None` where it stays as it is.
    pub fn text(&mut self, path: &[String], text: &str) -> Result<Option<Plain>, SopsError> {
        let sealed = is_sealed(text);
        match self.rule.encrypts(path).unwrap_or(sealed) {
            // SOPS leaves an empty text empty.
            true if text.is_empty() => Ok(None),
            true if !sealed => Err(SopsError::PlainText { path: path.join(".") }),
            true => {
                let plain = self
                    .key
                    .open(text, &context(path))
                    .ok_or_else(|| SopsError::Value { path: path.join(".") })?;
                self.mac.update(plain.mac_bytes());
                Ok(Some(plain))
            }
            false => {
                self.plain(text.as_bytes());
                Ok(None)
            }
        }
    }

    /// The next value, which is no text: it cannot be sealed.
    pub fn other(&mut self, path: &[String], value: &Plain) -> Result<(), SopsError> {
        if self.rule.encrypts(path) == Some(true) {
            return Err(SopsError::PlainText { path: path.join(".") });
        }
        self.plain(&value.mac_bytes());
        Ok(())
    }

    fn plain(&mut self, bytes: &[u8]) {
        if !self.only_encrypted {
            self.mac.update(bytes);
        }
    }

    /// A comment, which has no part in the MAC.
    pub fn comment(&self, path: &[String], text: &str) -> Option<String> {
        match self.key.open(text, &context(path)) {
            Some(Plain::Comment(text)) => Some(text),
            _ => None,
        }
    }

    /// The end: whether all that was walked is what was encrypted.
    pub fn finish(self) -> Result<(), SopsError> {
        let found = hex::encode_upper(self.mac.finalize());
        if found == self.expected {
            Ok(())
        } else {
            Err(SopsError::Mac)
        }
    }
}

fn context(path: &[String]) -> String {
    // A comment at the root has a colon too.
    path.join(":") + ":"
}
