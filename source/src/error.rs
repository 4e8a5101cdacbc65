//! What can go wrong between a device and its repository, each with its remedy.

use std::path::PathBuf;

/// Why a fetch or a read failed. `url` never holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The address is not one of a repository.
    #[error("repository address {url:?} is not valid: {why}")]
    BadUrl {
        /// As given, without secrets.
        url: String,
        /// What is wrong, and what to write.
        why: String,
    },
    /// The reference cannot name anything.
    #[error("{kind} {reference:?} is not valid: {why}")]
    BadReference {
        /// `branch`, `tag`, `version range`, `commit`.
        kind: &'static str,
        /// As given.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// A file of the source's own folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    Disk {
        /// `read`, `write`, `create`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process; one agent runs on a device", path.display())]
    InUse {
        /// The source's folder.
        path: PathBuf,
    },
    /// A program that the address needs is not installed.
    #[error("{url} needs the program {program:?}, which is not installed; install {package}")]
    MissingProgram {
        /// Address.
        url: String,
        /// What was looked for on `PATH`.
        program: &'static str,
        /// Package that brings it.
        package: &'static str,
    },
    /// No connection.
    #[error("cannot connect to {url}: {why}; the device goes on with what it holds and tries again")]
    Connect {
        /// Address.
        url: String,
        /// The system's word.
        why: String,
    },
    /// The server's certificate is not trusted.
    #[error(
        "the certificate of {url} is not trusted: {why}; if the server has a CA of its own, give that CA's certificate (PEM) as the source's `ca`"
    )]
    Certificate {
        /// Address.
        url: String,
        /// What the verifier said.
        why: String,
    },
    /// The server does not know these credentials, or wants some.
    #[error(
        "{url} refused the credentials ({why}); check the token or deploy key, and that it may read this repository"
    )]
    Authentication {
        /// Address.
        url: String,
        /// Status or message of the server.
        why: String,
    },
    /// The server's host key is not the pinned one.
    #[error(
        "the host key of {url} is not in {}: {why}; if the server is yours, add its line (`ssh-keyscan HOST`, compared over a second channel)",
        known_hosts.display()
    )]
    HostKey {
        /// Address.
        url: String,
        /// The pinned keys.
        known_hosts: PathBuf,
        /// What ssh said.
        why: String,
    },
    /// No such repository there.
    #[error("{url} is not there, or these credentials may not see it ({why}); check the address")]
    NotFound {
        /// Address.
        url: String,
        /// Status or message of the server.
        why: String,
    },
    /// The server answered with an error.
    #[error("{url} answered with an error: {why}")]
    Server {
        /// Address.
        url: String,
        /// Status or message of the server.
        why: String,
    },
    /// Commits there have ids of another kind.
    #[error(
        "{url} uses SHA-256 object ids, which are not supported; use a repository with SHA-1 ids, Git's default"
    )]
    ObjectFormat {
        /// Address.
        url: String,
    },
    /// The branch or tag is not there.
    #[error("{url} has no {kind} {reference:?}{}", hint(there))]
    UnknownReference {
        /// Address.
        url: String,
        /// `branch` or `tag`.
        kind: &'static str,
        /// What was asked for.
        reference: String,
        /// Some that are there.
        there: Vec<String>,
    },
    /// No tag is a version in the range.
    #[error(
        "none of the {tags} tags of {url} is a version within {range:?}{}",
        hint(newest)
    )]
    NoVersion {
        /// Address.
        url: String,
        /// The range.
        range: String,
        /// Number of tags seen.
        tags: usize,
        /// Some tags that are versions, newest first.
        newest: Vec<String>,
    },
    /// The server does not give this commit.
    #[error(
        "{url} does not give commit {commit}: {why}; it is not there, or the server does not serve commits by id (Git's uploadpack.allowAnySHA1InWant)"
    )]
    NoCommit {
        /// Address.
        url: String,
        /// Full id.
        commit: String,
        /// What the server said.
        why: String,
    },
    /// What the reference names is no commit.
    #[error("{reference:?} names a {kind}, not a commit")]
    NotACommit {
        /// Reference or object id.
        reference: String,
        /// Kind of object.
        kind: String,
    },
    /// The connection broke in the middle.
    #[error(
        "the connection to {url} broke after {received} bytes: {why}; what the device holds is untouched"
    )]
    Cut {
        /// Address.
        url: String,
        /// Bytes received by this fetch.
        received: u64,
        /// What was seen.
        why: String,
    },
    /// Nothing came for too long, or the whole took too long.
    #[error("{url} did not answer in time: {why}; what the device holds is untouched")]
    Timeout {
        /// Address.
        url: String,
        /// Which limit, in seconds.
        why: String,
    },
    /// The caller asked to stop.
    #[error("fetching was stopped")]
    Stopped,
    /// More than a device should take in.
    #[error(
        "{what} is larger than {limit} bytes; leave files out with `.sourceignore`, name the needed folders in the source's `include`, or keep large files out of Git"
    )]
    TooLarge {
        /// Which file, tree or transfer.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A name in the tree that no device may take.
    #[error("commit {commit} holds the path {path:?}, which is refused: {why}")]
    BadPath {
        /// Full id.
        commit: String,
        /// The path, with what is no UTF-8 replaced.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The commit is not on this device.
    #[error("commit {commit} is not on this device; fetch it first")]
    NotHeld {
        /// Full id.
        commit: String,
    },
    /// What was fetched is not what a source is made of.
    #[error("{artifact} cannot be used: {why}")]
    BadArtifact {
        /// Address.
        artifact: String,
        /// What is wrong.
        why: String,
    },
    /// The network is not to be asked, and the address was never fetched here.
    #[error("{url} is not in the cache, and the network is not asked; build once while it can be reached")]
    NotCached {
        /// Address, and reference.
        url: String,
    },
    /// A file is not the one that was pinned.
    #[error(
        "{url} gives another file than the one that this revision was prepared with (sha256 {pinned}, now {found}); commit a change to take the new one"
    )]
    Changed {
        /// Address.
        url: String,
        /// What was found at first.
        pinned: String,
        /// What is there now.
        found: String,
    },
    /// More things than anyone means.
    #[error("more than {limit} {what}; leave some out, or copy them into the repository")]
    TooMany {
        /// Of what.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// The object store does not read back.
    #[error("commit {commit} cannot be read from this device's store: {why}; the next fetch gets it again")]
    Damaged {
        /// Full id.
        commit: String,
        /// What was seen.
        why: String,
    },
}

impl SourceError {
    /// Whether another try may succeed with nothing changed: a link that is down, a server that is not well.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Cut { .. }
                | Self::Timeout { .. }
                | Self::Server { .. }
                | Self::Stopped
        )
    }
}

fn hint(there: &[String]) -> String {
    if there.is_empty() {
        String::new()
    } else {
        format!("; there are {}", there.join(", "))
    }
}

pub(crate) fn disk(
    doing: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(std::io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Disk { doing, path, source }
}
