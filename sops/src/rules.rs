//! Which values of a file are encrypted.

use crate::{SopsError, metadata::Metadata};
use regex::Regex;

/// The one rule of a file.
#[derive(Debug)]
pub(crate) enum Rule {
    /// All but what lies under a key with this end.
    UnencryptedSuffix(String),
    /// Only what lies under a key with this end.
    EncryptedSuffix(String),
    /// All but what lies under a key that matches.
    UnencryptedRegex(Regex),
    /// Only what lies under a key that matches.
    EncryptedRegex(Regex),
    /// Comments decide; a value's form tells which way they did.
    ByForm,
}

const DEFAULT_SUFFIX: &str = "_unencrypted";

impl Rule {
    pub fn of(metadata: &Metadata) -> Result<Self, SopsError> {
        let pattern = |text: &str| {
            Regex::new(text)
                .map_err(|error| SopsError::Metadata(format!("{text:?} is no regular expression: {error}")))
        };
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut rules = Vec::new();
        rules.extend(some(&metadata.unencrypted_suffix).map(Self::UnencryptedSuffix));
        rules.extend(some(&metadata.encrypted_suffix).map(Self::EncryptedSuffix));
        if let Some(text) = some(&metadata.unencrypted_regex) {
            rules.push(Self::UnencryptedRegex(pattern(&text)?));
        }
        if let Some(text) = some(&metadata.encrypted_regex) {
            rules.push(Self::EncryptedRegex(pattern(&text)?));
        }
        for _ in [
            &metadata.encrypted_comment_regex,
            &metadata.unencrypted_comment_regex,
        ]
        .into_iter()
        .filter_map(some)
        {
            rules.push(Self::ByForm);
        }
        match (rules.pop(), rules.is_empty()) {
            (None, _) => Ok(Self::UnencryptedSuffix(DEFAULT_SUFFIX.to_owned())),
            (Some(rule), true) => Ok(rule),
            (Some(_), false) => Err(SopsError::Metadata(
                "more than one rule says what is encrypted".to_owned(),
            )),
        }
    }

    /// Whether the value at a path is encrypted; `None` where its form tells.
    pub fn encrypts(&self, path: &[String]) -> Option<bool> {
        Some(match self {
            Self::UnencryptedSuffix(suffix) => !path.iter().any(|key| key.ends_with(suffix)),
            Self::EncryptedSuffix(suffix) => path.iter().any(|key| key.ends_with(suffix)),
            Self::UnencryptedRegex(regex) => !path.iter().any(|key| regex.is_match(key)),
            Self::EncryptedRegex(regex) => path.iter().any(|key| regex.is_match(key)),
            Self::ByForm => return None,
        })
    }
}
