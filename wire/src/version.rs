//! Which versions of the session protocol the two sides share.

use serde::{Deserialize, Serialize};

/// The versions that this build speaks.
pub const OURS: Versions = Versions { oldest: 1, newest: 1 };

/// A closed window of protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest one spoken.
    pub oldest: u32,
    /// Newest one spoken.
    pub newest: u32,
}

/// The two windows do not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common protocol version: this side speaks {} to {}, the peer {} to {}; upgrade the older one",
    ours.oldest, ours.newest, theirs.oldest, theirs.newest
)]
pub struct NoCommonVersion {
    ours: Versions,
    theirs: Versions,
}

impl Versions {
    /// The newest version in both windows.
    pub fn common(self, theirs: Versions) -> Result<u32, NoCommonVersion> {
        let newest = self.newest.min(theirs.newest);
        if newest >= self.oldest.max(theirs.oldest) {
            Ok(newest)
        } else {
            Err(NoCommonVersion { ours: self, theirs })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_both_windows_is_taken() {
        let window = |oldest, newest| Versions { oldest, newest };
        assert_eq!(window(1, 3).common(window(2, 5)), Ok(3));
        assert_eq!(window(4, 9).common(window(2, 4)), Ok(4));
        assert!(window(1, 2).common(window(3, 4)).is_err());
    }
}
