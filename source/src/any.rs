//! A source of any kind, behind one face.

use crate::{
    BucketSource, BucketSpec, Fetched, GitRef, GitSource, GitSpec, Limits, OciRef, OciSource, OciSpec,
    SourceError,
};
use model::{Moved, Revision, Tree};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSpec {
    /// A Git repository.
    Git(GitSpec),
    /// An artifact in a registry.
    Oci(OciSpec),
    /// A bucket of objects.
    Bucket(BucketSpec),
}

/// One source followed by this device, in a folder of its own. See [`GitSource`] for what each method promises.
#[derive(Debug)]
pub enum Source {
    /// See [`GitSource`].
    Git(Box<GitSource>),
    /// See [`OciSource`].
    Oci(Box<OciSource>),
    /// See [`BucketSource`].
    Bucket(Box<BucketSource>),
}

impl SourceSpec {
    /// The address for people, without credentials.
    pub fn display_url(&self) -> String {
        match self {
            Self::Git(spec) => spec.display_url(),
            Self::Oci(spec) => spec.url.clone(),
            Self::Bucket(spec) => format!("s3://{}/{}/{}", spec.endpoint, spec.bucket, spec.prefix),
        }
    }

    /// What makes it another source: address, reference and what is read of it, but not who asks.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Git(spec) => format!(
                "git {} {:?} {:?} {:?}",
                spec.url, spec.reference, spec.include, spec.ignore
            ),
            Self::Oci(spec) => format!(
                "oci {} {:?} {:?} {:?}",
                spec.url, spec.reference, spec.media_type, spec.ignore
            ),
            Self::Bucket(spec) => format!(
                "s3 {} {} {} {:?}",
                spec.endpoint, spec.bucket, spec.prefix, spec.ignore
            ),
        }
    }

    /// Whether two addresses mean one repository, however it is reached: by another scheme, as another user.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Git(one), Self::Git(other)) => same_repository(&one.url, &other.url),
            (Self::Oci(one), Self::Oci(other)) => one.url == other.url,
            (Self::Bucket(one), Self::Bucket(other)) => {
                one.endpoint == other.endpoint && one.bucket == other.bucket && one.prefix == other.prefix
            }
            _ => false,
        }
    }
}

/// Whether two addresses of Git repositories have the same host and path.
pub fn same_repository(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = match rest.split_once('@') {
            Some((user, rest)) if !user.contains('/') => rest,
            _ => rest,
        };
        let scp = !url.contains("://") && !url.starts_with('/');
        let rest = if scp {
            rest.replacen(':', "/", 1)
        } else {
            rest.to_owned()
        };
        let (host, path) = rest.split_once('/').unwrap_or((&rest, ""));
        // The usual port of a scheme says nothing; another one is another server.
        let host = [":443", ":22", ":80"]
            .iter()
            .find_map(|port| host.strip_suffix(port))
            .unwrap_or(host);
        let path = path.trim_matches('/').trim_end_matches(".git");
        format!("{}/{path}", host.to_ascii_lowercase())
    };
    place(one) == place(other)
}

impl Source {
    /// Opens or makes the source's folder. Nothing is asked of the network.
    pub fn open(dir: &Path, spec: SourceSpec) -> Result<Self, SourceError> {
        Ok(match spec {
            SourceSpec::Git(spec) => Self::Git(Box::new(GitSource::open(dir, spec)?)),
            SourceSpec::Oci(spec) => Self::Oci(Box::new(OciSource::open(&dir.join("oci"), spec)?)),
            SourceSpec::Bucket(spec) => {
                Self::Bucket(Box::new(BucketSource::open(&dir.join("bucket"), spec)?))
            }
        })
    }

    /// With this time for one fetch as a whole.
    #[must_use]
    pub(crate) fn with_patience(self, total: Duration) -> Self {
        let limits = Limits {
            total,
            ..Limits::default()
        };
        match self {
            Self::Git(source) => Self::Git(Box::new(source.with_limits(limits))),
            Self::Oci(source) => Self::Oci(Box::new(source.with_limits(limits))),
            Self::Bucket(source) => Self::Bucket(Box::new(source.with_limits(limits))),
        }
    }

    /// The last revision that was fetched whole.
    pub fn held(&self) -> Option<&Revision> {
        match self {
            Self::Git(source) => source.held(),
            Self::Oci(source) => source.held(),
            Self::Bucket(source) => source.held(),
        }
    }

    /// Fetches what is named now.
    pub fn fetch(&mut self, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        match self {
            Self::Git(source) => source.fetch(stop),
            Self::Oci(source) => source.fetch(stop),
            Self::Bucket(source) => source.fetch(stop),
        }
    }

    /// Fetches one revision, whatever is named now; what is held stays held, for the next fetch to compare with.
    ///
    /// # Errors
    /// [`SourceError::NotHeld`] for another revision of a bucket than it has now: a bucket has no history.
    pub fn fetch_commit(&mut self, commit: &str, stop: &AtomicBool) -> Result<Fetched, SourceError> {
        let not_held = || SourceError::NotHeld {
            commit: commit.to_owned(),
        };
        let before = self.held().cloned();
        let mut fetched = match self {
            Self::Git(source) => source.fetch_as(GitRef::Commit(commit.to_owned()), stop)?,
            Self::Oci(source) => {
                let digest = format!("sha256:{commit}").parse().map_err(|_| not_held())?;
                source.fetch_as(OciRef::Digest(digest), stop)?
            }
            Self::Bucket(source) => Fetched {
                revision: before
                    .clone()
                    .filter(|held| held.commit == commit)
                    .ok_or_else(not_held)?,
                tree: Some(source.load(commit)?),
                moved: Moved::Unchanged,
                bytes_received: 0,
                warnings: vec![],
            },
        };
        if let Some(before) = before {
            fetched.revision.reference.clone_from(&before.reference);
            self.hold(&before)?;
        }
        Ok(fetched)
    }

    /// The files of a revision that is here. No network.
    pub fn load(&self, commit: &str) -> Result<Tree, SourceError> {
        match self {
            Self::Git(source) => source.load(commit),
            Self::Oci(source) => source.load(commit),
            Self::Bucket(source) => source.load(commit),
        }
    }

    /// Makes an earlier revision the held one again.
    pub fn hold(&mut self, revision: &Revision) -> Result<(), SourceError> {
        match self {
            Self::Git(source) => source.hold(revision),
            Self::Oci(source) => source.hold(revision),
            Self::Bucket(source) => source.hold(revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::same_repository;

    #[test]
    fn one_repository_has_many_addresses() {
        let one = "https://git.example.com/org/fleet";
        for same in [
            "https://git.example.com/org/fleet.git",
            "ssh://git@git.example.com/org/fleet",
            "git@git.example.com:org/fleet.git",
            "https://GIT.example.com:443/org/fleet/",
        ] {
            assert!(same_repository(one, same), "{same}");
        }
        for other in [
            "https://git.example.com/org/apps",
            "https://git.example.com:8443/org/fleet",
            "file:///org/fleet",
            "https://other.example.com/org/fleet",
        ] {
            assert!(!same_repository(one, other), "{other}");
        }
    }
}
