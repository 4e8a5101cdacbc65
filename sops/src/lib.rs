//! SOPS files, decrypted.
//!
//! Takes: the bytes of a file, its [`Format`], and the [`Keys`] that are held.
//! Gives: the bytes that `sops decrypt` writes, once every value and the file's MAC are verified.
//! Errors name the value or the recipients; they hold neither keys nor plain text.
//! Never: touches disk or network, asks a key service (KMS and Vault recipients are passed over), encrypts.
//!
//! The file format follows SOPS 3.11: a data key is wrapped for each recipient; each value is sealed with AES-256-GCM,
//! its path as additional data; a SHA-512 over the values, sealed the same way, is the MAC.

mod age;
mod cipher;
mod dotenv;
mod error;
mod ini;
mod json;
mod keys;
mod metadata;
#[cfg(feature = "pgp")]
mod openpgp;
mod rules;
mod shamir;
mod walk;
mod yaml;
mod yaml_text;

pub use age::generate_age_key;
pub use error::SopsError;
pub use keys::{BadKey, Keys};

use std::fmt;

/// Largest file that is decrypted, in bytes; Flux's bound.
pub const MAX_FILE: usize = 5 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One or several documents.
    Yaml,
    /// One object.
    Json,
    /// `NAME=value` lines.
    Dotenv,
    /// Sections of `name = value` lines.
    Ini,
    /// Anything, in a JSON envelope.
    Binary,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
            Self::Dotenv => "dotenv",
            Self::Ini => "INI",
            Self::Binary => "binary",
        })
    }
}

impl Format {
    /// What SOPS takes a file of this name for.
    pub fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "yaml" | "yml" => Self::Yaml,
            "json" => Self::Json,
            "env" => Self::Dotenv,
            "ini" => Self::Ini,
            _ => Self::Binary,
        }
    }

    /// The format that encrypted bytes are in, by the mark that each leaves; `None` where there is none.
    pub fn of_encrypted(data: &[u8]) -> Option<Self> {
        [Self::Binary, Self::Json, Self::Yaml, Self::Dotenv, Self::Ini]
            .into_iter()
            .find(|format| format.is_encrypted(data))
    }

    /// Whether the bytes are a SOPS file of this format.
    pub fn is_encrypted(self, data: &[u8]) -> bool {
        match self {
            Self::Yaml => yaml::is_encrypted(data),
            Self::Json => json::is_encrypted(data),
            Self::Binary => json::is_envelope(data),
            Self::Dotenv => data
                .split(|byte| *byte == b'\n')
                .any(|line| line.starts_with(b"sops_mac=ENC[")),
            Self::Ini => data
                .split(|byte| *byte == b'\n')
                .any(|line| line.trim_ascii() == b"[sops]"),
        }
    }
}

/// Decrypts a file.
///
/// # Errors
/// [`SopsError`]; nothing is given out unless everything in the file is verified.
pub fn decrypt(format: Format, data: &[u8], keys: &Keys) -> Result<Vec<u8>, SopsError> {
    if data.len() > MAX_FILE {
        return Err(SopsError::TooLarge { size: data.len() });
    }
    let text = std::str::from_utf8(data).map_err(|error| SopsError::Unreadable {
        format,
        why: error.to_string(),
    })?;
    match format {
        Format::Yaml => yaml::decrypt(text, keys),
        Format::Json => json::decrypt(text, keys),
        Format::Binary => json::decrypt_envelope(text, keys),
        Format::Dotenv => dotenv::decrypt(text, keys),
        Format::Ini => ini::decrypt(text, keys),
    }
}
