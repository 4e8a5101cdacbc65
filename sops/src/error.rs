//! Why a file cannot be decrypted.

use crate::Format;

/// Why a file cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SopsError {
    /// The text is not of its format.
    #[error("the file is no {format}: {why}")]
    Unreadable {
        /// What it should be.
        format: Format,
        /// Why it is not.
        why: String,
    },
    /// Over [`crate::MAX_FILE`].
    #[error(
        "an encrypted file of {size} bytes is over the limit of {} bytes",
        crate::MAX_FILE
    )]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The file is not encrypted.
    #[error("the file has no SOPS metadata: it is not encrypted")]
    NoMetadata,
    /// The metadata are not what SOPS writes.
    #[error("the SOPS metadata are damaged: {0}")]
    Metadata(String),
    /// No key is held for any recipient.
    #[error("encrypted for {}; the keys held are {}", list(recipients), list(held))]
    NoKey {
        /// Whom the file is encrypted for: age recipients, PGP fingerprints, names of other key services.
        recipients: Vec<String>,
        /// Whose keys are held.
        held: Vec<String>,
    },
    /// The key is held, and does not open what is wrapped for it.
    #[error("the data key that is wrapped for {recipient} is damaged: {why}")]
    DataKey {
        /// For whom.
        recipient: String,
        /// What is wrong with it.
        why: String,
    },
    /// Fewer key groups could be opened than the file asks for.
    #[error(
        "{needed} key groups are needed to recover the data key and {opened} could be opened; encrypted for {}",
        list(recipients)
    )]
    TooFewGroups {
        /// How many are needed.
        needed: usize,
        /// How many could be opened.
        opened: usize,
        /// All recipients.
        recipients: Vec<String>,
    },
    /// A value does not open under the data key and its own path.
    #[error("the value of {path} was changed or moved since it was encrypted")]
    Value {
        /// Keys from the root, with dots.
        path: String,
    },
    /// A value that is to be encrypted is plain text.
    #[error(
        "the value of {path} is plain text, and the file's rules say that it is encrypted; run 'sops edit' or 'sops encrypt' on the file"
    )]
    PlainText {
        /// Keys from the root, with dots.
        path: String,
    },
    /// The MAC is not that of the values.
    #[error(
        "the MAC does not fit the values: something was added, removed or changed since the file was encrypted"
    )]
    Mac,
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
