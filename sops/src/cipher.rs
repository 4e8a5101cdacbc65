//! Single values: `ENC[AES256_GCM,data:...,iv:...,tag:...,type:...]`.

use aes_gcm::{
    AesGcm, KeyInit,
    aead::{AeadInPlace, generic_array::GenericArray, generic_array::typenum::U32},
    aes::Aes256,
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// SOPS takes nonces of 32 bytes, which ring does not have.
type Cipher = AesGcm<Aes256, U32>;

/// The key that all values of a file are sealed with.
pub(crate) struct DataKey(Cipher);

impl DataKey {
    /// `None` where it has not 32 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Cipher::new_from_slice(bytes).ok().map(Self)
    }

    /// Opens a sealed value; `context` is its path, each key with a colon behind.
    pub fn open(&self, sealed: &str, context: &str) -> Option<Plain> {
        let parts = Parts::of(sealed)?;
        let iv = STANDARD.decode(parts.iv).ok()?;
        let tag = STANDARD.decode(parts.tag).ok()?;
        if iv.len() != 32 || tag.len() != 16 {
            return None;
        }
        let mut data = STANDARD.decode(parts.data).ok()?;
        self.0
            .decrypt_in_place_detached(
                GenericArray::from_slice(&iv),
                context.as_bytes(),
                &mut data,
                GenericArray::from_slice(&tag),
            )
            .ok()?;
        match parts.kind {
            "bytes" => Some(Plain::Bytes(data)),
            // A binary file's content has the type of a text.
            "str" => Some(
                String::from_utf8(data).map_or_else(|error| Plain::Bytes(error.into_bytes()), Plain::Text),
            ),
            kind => {
                let text = String::from_utf8(data).ok()?;
                Some(match kind {
                    "int" => Plain::Int(text.parse().ok()?),
                    "float" => Plain::Float(text.parse().ok()?),
                    "bool" => Plain::Bool(["True", "true", "TRUE", "1", "t", "T"].contains(&text.as_str())),
                    "comment" => Plain::Comment(text),
                    "time" => Plain::Time(text),
                    _ => return None,
                })
            }
        }
    }
}

/// An opened value, with its type.
#[derive(Clone, PartialEq)]
pub(crate) enum Plain {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Bytes(Vec<u8>),
    Comment(String),
    Time(String),
}

impl Plain {
    /// What the MAC is taken over.
    pub fn mac_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) | Self::Comment(text) | Self::Time(text) => text.clone().into_bytes(),
            Self::Int(number) => number.to_string().into_bytes(),
            Self::Float(number) => number.to_string().into_bytes(),
            Self::Bool(true) => b"True".to_vec(),
            Self::Bool(false) => b"False".to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }

    /// As text, where a format knows no types.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Bool(flag) => flag.to_string().into_bytes(),
            other => other.mac_bytes(),
        }
    }
}

struct Parts<'a> {
    data: &'a str,
    iv: &'a str,
    tag: &'a str,
    kind: &'a str,
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a str) -> Option<Self> {
        let inside = sealed.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
        let (data, rest) = inside.split_once(",iv:")?;
        let (iv, rest) = rest.split_once(",tag:")?;
        let (tag, kind) = rest.split_once(",type:")?;
        Some(Self { data, iv, tag, kind })
    }
}

/// Whether a text has the form of a sealed value.
pub(crate) fn is_sealed(text: &str) -> bool {
    Parts::of(text).is_some()
}
