//! Data keys that are wrapped for an OpenPGP key.

use pgp::{
    composed::{Deserializable, Message, SignedSecretKey},
    types::{KeyDetails, Password},
};
use std::sync::Arc;

/// A secret key without a passphrase.
#[derive(Clone)]
pub(crate) struct PgpKey(Arc<SignedSecretKey>);

impl PgpKey {
    /// All keys of an armoured text.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let (keys, _) =
            SignedSecretKey::from_armor_many(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        for key in keys {
            let key = key.map_err(|error| error.to_string())?;
            let locked = key.primary_key.secret_params().is_encrypted()
                || key
                    .secret_subkeys
                    .iter()
                    .any(|subkey| subkey.secret_params().is_encrypted());
            if locked {
                return Err(format!(
                    "{} is locked by a passphrase, which a device has nobody to ask for; export a copy without one",
                    key.fingerprint()
                ));
            }
            found.push(Self(Arc::new(key)));
        }
        if found.is_empty() {
            return Err("the text holds no secret key".to_owned());
        }
        Ok(found)
    }

    /// Of the primary key, in capitals, as `gpg` shows it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string().to_uppercase()
    }

    /// Whether a fingerprint, or its end, is that of the key or of one of its parts.
    pub fn has(&self, fingerprint: &str) -> bool {
        let wanted = fingerprint.to_uppercase();
        let is = |own: String| !wanted.is_empty() && own.to_uppercase().ends_with(&wanted);
        is(self.0.fingerprint().to_string())
            || self
                .0
                .secret_subkeys
                .iter()
                .any(|subkey| is(subkey.fingerprint().to_string()))
    }

    /// Opens an armoured message.
    pub fn open(&self, armoured: &str) -> Result<Vec<u8>, String> {
        let (message, _) = Message::from_string(armoured).map_err(|error| error.to_string())?;
        let mut message = message
            .decrypt(&Password::empty(), &self.0)
            .map_err(|error| error.to_string())?;
        if message.is_compressed() {
            message = message.decompress().map_err(|error| error.to_string())?;
        }
        message.as_data_vec().map_err(|error| error.to_string())
    }
}
