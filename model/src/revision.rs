//! What a source was at: a commit or an artifact digest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One state of a source, in Flux's words: `main@sha1:<commit>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Branch, tag or semver match that led here; empty for a commit named by hash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Full hexadecimal commit id; of an artifact or a bucket the SHA-256 that stands for its content.
    pub commit: String,
    /// First line of the commit message.
    #[serde(default)]
    pub summary: String,
    /// Author, `Name <mail>`.
    #[serde(default)]
    pub author: String,
    /// Committer's time.
    pub committed_at: Timestamp,
}

impl Revision {
    /// The first 12 digits of the commit, for people.
    pub fn short(&self) -> &str {
        self.commit.get(..12).unwrap_or(&self.commit)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.reference.is_empty() {
            write!(f, "{}@", self.reference)?;
        }
        let kind = if self.commit.len() == 64 { "sha256" } else { "sha1" };
        write!(f, "{kind}:{}", self.commit)
    }
}

/// How a source moved between two fetches; policy decides what to do with the last two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "moved", rename_all = "camelCase")]
pub enum Moved {
    /// Nothing held before.
    First,
    /// The same commit.
    Unchanged,
    /// The held commit is an ancestor of the new one.
    Forward,
    /// The new commit is an ancestor of the held one: history was rolled back.
    Backward {
        /// The commit held before.
        from: String,
    },
    /// Neither is an ancestor of the other: a force-push rewrote history.
    Rewritten {
        /// The commit held before.
        from: String,
    },
}
