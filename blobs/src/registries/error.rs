//! What can go wrong between us and a registry.

use crate::StoreError;
use model::Platform;
use std::time::Duration;

/// Why a registry did not give or take what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The configuration makes no sense.
    #[error("registry {registry} is configured wrongly: {why}")]
    Config {
        /// As image references name it.
        registry: String,
        /// In words.
        why: String,
    },
    /// No answer, or one that broke off.
    #[error("registry {url} cannot be reached or broke off")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in the time that there was.
    #[error("registry {registry} did not answer within {waited:?}")]
    Silent {
        /// As image references name it.
        registry: String,
        /// For how long.
        waited: Duration,
    },
    /// It says that there is no such thing.
    #[error("{what} does not exist at {url}; check its name and tag, and that it was pushed there")]
    NotFound {
        /// Image or blob.
        what: String,
        /// What was asked.
        url: String,
    },
    /// It wants to know who asks, or does not let that one in.
    #[error("{url} refused access ({status}): {why}")]
    Denied {
        /// What was asked.
        url: String,
        /// 401 or 403.
        status: u16,
        /// In words, with the remedy.
        why: String,
    },
    /// It is overloaded or broken for now.
    #[error("{url} is not available now ({status}): {message}")]
    Busy {
        /// What was asked.
        url: String,
        /// 429 or 5xx.
        status: u16,
        /// Its own words.
        message: String,
        /// When to come back, where it said so.
        retry_after: Option<Duration>,
    },
    /// Another error status.
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// An answer that no registry may give.
    #[error("{url} gave a wrong answer: {what}")]
    Wrong {
        /// What was asked.
        url: String,
        /// In words.
        what: String,
    },
    /// A transfer that ended before its end.
    #[error("{url} ended after {got} of {size} bytes")]
    Short {
        /// What was asked.
        url: String,
        /// Bytes that came.
        got: u64,
        /// Bytes declared.
        size: u64,
    },
    /// The image is not offered for this machine.
    #[error("{image} has nothing for {wanted}; it is offered for {}", list(offered))]
    WrongPlatform {
        /// The image.
        image: String,
        /// This machine.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "no platform at all".to_owned();
    }
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl RegistryError {
    /// Whether the same request may succeed later by itself.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Busy { .. } | Self::Short { .. }
        )
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// For errors that another mirror may not have.
    pub(super) fn try_next_place(&self) -> bool {
        !matches!(
            self,
            Self::Store(_) | Self::WrongPlatform { .. } | Self::Config { .. }
        )
    }
}
