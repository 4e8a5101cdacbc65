//! What to fetch, from where, and as whom.

use crate::{Range, SourceError};
use std::path::PathBuf;
use std::time::Duration;

/// One Git source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSpec {
    /// `https://`, `http://`, `ssh://`, `user@host:path`, `file://` or a path.
    pub url: String,
    /// What to follow.
    pub reference: GitRef,
    /// As whom.
    pub auth: GitAuth,
    /// CA certificates in PEM for `https`; where given, only these are trusted, not the system's.
    pub ca: Option<Vec<u8>>,
    /// Folders and files to read, from the root; all where empty.
    pub include: Vec<String>,
    /// Patterns of files to leave out, behind those of `.sourceignore` and in place of those that Flux leaves out.
    pub ignore: Option<String>,
}

/// What a source follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitRef {
    /// Short name (`main`) or full (`refs/heads/main`).
    Branch(String),
    /// Short name or full.
    Tag(String),
    /// The highest tag that is a version within this [`Range`].
    Semver(String),
    /// A full hexadecimal commit id. Its history is not fetched, and once held the network is not asked again.
    Commit(String),
    /// As `git fetch` reads a word: `HEAD`, a full commit id, or the name of a tag, else of a branch.
    Named(String),
}

/// As whom to fetch.
#[derive(Clone, PartialEq, Eq)]
pub enum GitAuth {
    /// Nobody.
    None,
    /// HTTP basic authentication; most hosts take any user with a token. Only over `https`.
    Token {
        /// User; `git` where empty.
        user: String,
        /// Token or password.
        token: String,
    },
    /// A deploy key, and the host keys that are accepted.
    Ssh {
        /// Private key in OpenSSH's format, without passphrase, readable by the agent's user only.
        key: PathBuf,
        /// In the format of OpenSSH's `known_hosts`.
        known_hosts: PathBuf,
    },
    /// The user who runs this, by their own ssh configuration, keys and agent, and `GIT_SSH` or `GIT_SSH_COMMAND`;
    /// for commands of people, never on a device.
    User,
}

impl std::fmt::Debug for GitAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::User => f.write_str("User"),
            Self::Token { user, .. } => f
                .debug_struct("Token")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Ssh { key, known_hosts } => f
                .debug_struct("Ssh")
                .field("key", key)
                .field("known_hosts", known_hosts)
                .finish(),
        }
    }
}

/// Bounds on time and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// To establish a connection.
    pub connect: Duration,
    /// Without a byte from the server.
    pub idle: Duration,
    /// For one fetch as a whole.
    pub total: Duration,
    /// Bytes that one fetch may receive.
    pub received: u64,
    /// Bytes of one object of the repository, whether its file is read or not: unpacking takes that much memory.
    pub object: u64,
    /// Bytes of one file of a tree.
    pub file: u64,
    /// Bytes of all files of a tree.
    pub tree: u64,
    /// How many commits back the relation of two commits is looked for.
    pub ancestry: u32,
    /// Packs on disk beyond which the store is written anew without what is no longer kept.
    pub packs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(2 * 60 * 60),
            received: 1 << 30,
            object: 256 << 20,
            file: 32 << 20,
            tree: 256 << 20,
            ancestry: 2048,
            packs: 40,
        }
    }
}

/// Where a repository is, by the way to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Http(reqwest::Url),
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        path: String,
    },
    File(PathBuf),
}

impl GitSpec {
    /// The address for people, without credentials.
    pub fn display_url(&self) -> String {
        // A valid address holds no secret; see `address`.
        self.address()
            .map_or_else(|_| redact(&self.url), |_| self.url.clone())
    }

    /// Parses everything that can be wrong without a network.
    pub(crate) fn check(&self) -> Result<Address, SourceError> {
        let address = self.address()?;
        self.reference.check()?;
        let bad = |why: &str| SourceError::BadUrl {
            url: self.display_url(),
            why: why.to_owned(),
        };
        match (&address, &self.auth) {
            (Address::Http(url), GitAuth::Token { .. }) if url.scheme() != "https" => {
                Err(bad("a token would travel in clear text; use https://"))
            }
            (Address::Http(_), GitAuth::Ssh { .. }) => Err(bad(
                "a deploy key goes with an ssh address; give a token for https",
            )),
            (Address::Ssh { .. }, GitAuth::Token { .. }) => Err(bad(
                "a token goes with an https address; give a deploy key and known_hosts for ssh",
            )),
            (Address::Ssh { .. }, GitAuth::None) => {
                Err(bad("ssh needs a deploy key and the server's known_hosts"))
            }
            _ => Ok(address),
        }
    }

    fn address(&self) -> Result<Address, SourceError> {
        let bad = |why: &str| SourceError::BadUrl {
            url: redact(&self.url),
            why: why.to_owned(),
        };
        let text = self.url.as_str();
        if text.is_empty() || text.contains(['\0', '\n', '\r']) {
            return Err(bad("it is empty or holds a control character"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return scp_like(text)
                .unwrap_or_else(|| Ok(Address::File(PathBuf::from(text))))
                .map_err(bad);
        };
        match scheme {
            "http" | "https" => {
                let url = reqwest::Url::parse(text).map_err(|err| bad(&err.to_string()))?;
                if url.password().is_some() || !url.username().is_empty() {
                    return Err(bad(
                        "it holds credentials; give them as the source's token instead",
                    ));
                }
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(bad("a repository's address has no '?' or '#'"));
                }
                Ok(Address::Http(url))
            }
            "ssh" | "git+ssh" | "ssh+git" => ssh(rest).map_err(bad),
            "file" if rest.starts_with('/') => Ok(Address::File(PathBuf::from(rest))),
            "file" => Err(bad("write file:///path, with three slashes")),
            _ => Err(bad("use https://, ssh://, user@host:path, file:// or a path")),
        }
    }
}

impl GitRef {
    /// `branch`, `tag`, ... for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Branch(_) => "branch",
            Self::Tag(_) => "tag",
            Self::Semver(_) => "version range",
            Self::Commit(_) => "commit",
            Self::Named(_) => "reference",
        }
    }

    /// Full reference name at the server, where the name alone tells.
    pub(crate) fn full_name(&self) -> Option<String> {
        let full = |name: &str, below: &str| {
            if name.starts_with("refs/") {
                name.to_owned()
            } else {
                format!("{below}{name}")
            }
        };
        match self {
            Self::Branch(name) => Some(full(name, "refs/heads/")),
            Self::Tag(name) => Some(full(name, "refs/tags/")),
            Self::Semver(_) | Self::Commit(_) | Self::Named(_) => None,
        }
    }

    fn check(&self) -> Result<(), SourceError> {
        let bad = |reference: &str, why: String| SourceError::BadReference {
            kind: self.kind(),
            reference: reference.to_owned(),
            why,
        };
        match self {
            Self::Branch(name) | Self::Tag(name) => {
                let full = self.full_name().unwrap_or_default();
                gix::validate::reference::name(full.as_str().into())
                    .map(drop)
                    .map_err(|_| bad(name, "Git allows no such name (git check-ref-format)".to_owned()))
            }
            Self::Named(name) => gix::validate::reference::name(format!("refs/heads/{name}").as_str().into())
                .map(drop)
                .map_err(|_| bad(name, "Git allows no such name (git check-ref-format)".to_owned())),
            Self::Semver(range) => range
                .parse::<Range>()
                .map(drop)
                .map_err(|err| bad(range, err.to_string())),
            Self::Commit(id) => match id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
                true => Ok(()),
                false => Err(bad(id, "write the full id, 40 hexadecimal digits".to_owned())),
            },
        }
    }
}

/// Drops what stands before an `@` in the authority: the address did not parse, so nothing finer is safe.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // Some parsers take a backslash for a slash.
    let end = rest.find(['/', '\\']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// `user@host:path`, as Git reads it: a colon before the first slash.
fn scp_like(text: &str) -> Option<Result<Address, &'static str>> {
    let (before, path) = text.split_once(':')?;
    if before.contains('/') {
        return None;
    }
    if path.starts_with(':') {
        return Some(Err("Git's `transport::address` form names a program to run"));
    }
    let (user, host) = match before.split_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, before),
    };
    Some(ssh_parts(user, host, None, path.to_owned()))
}

fn ssh(rest: &str) -> Result<Address, &'static str> {
    let (authority, path) = rest.split_once('/').ok_or("it has no path to a repository")?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        return Err("it holds a password; ssh uses the deploy key");
    }
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (
            host,
            Some(
                port.parse()
                    .map_err(|_| "its port is no number from 1 to 65535")?,
            ),
        ),
        _ => (host, None),
    };
    // `ssh://host/~user/x` is relative to a home folder, everything else is absolute.
    let path = if path.starts_with('~') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    ssh_parts(
        user,
        host.trim_start_matches('[').trim_end_matches(']'),
        port,
        path,
    )
}

/// Refuses what `ssh` or the far side could take for an option.
fn ssh_parts(
    user: Option<String>,
    host: &str,
    port: Option<u16>,
    path: String,
) -> Result<Address, &'static str> {
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))
    };
    if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
        return Err("its user or host holds a character that neither may have");
    }
    if path.is_empty() || path == "/" || path.starts_with('-') {
        return Err("it has no path to a repository");
    }
    Ok(Address::Ssh {
        user,
        host: host.to_owned(),
        port,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str) -> GitSpec {
        GitSpec {
            url: url.to_owned(),
            reference: GitRef::Branch("main".to_owned()),
            auth: GitAuth::None,
            ca: None,
            include: vec![],
            ignore: None,
        }
    }

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        let ssh = |user: Option<&str>, host: &str, port, path: &str| Address::Ssh {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        for (text, want) in [
            (
                "git@example.com:a/b.git",
                ssh(Some("git"), "example.com", None, "a/b.git"),
            ),
            (
                "ssh://git@example.com:2222/a/b",
                ssh(Some("git"), "example.com", Some(2222), "/a/b"),
            ),
            ("ssh://[::1]:22/a", ssh(None, "::1", Some(22), "/a")),
            ("/srv/a:b", Address::File("/srv/a:b".into())),
            ("./a", Address::File("./a".into())),
            ("file:///srv/a", Address::File("/srv/a".into())),
        ] {
            assert_eq!(spec(text).address().unwrap(), want, "{text}");
        }
        for bad in [
            "",
            "git://h/a",
            "ext::sh -c x",
            "ssh://-oProxyCommand=x/a",
            "ssh://h",
            "-x:y",
            "a\nb",
            "file://a",
        ] {
            assert!(spec(bad).address().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut given = spec("https://me:s3cret@example.com/a");
        let err = given.check().unwrap_err().to_string();
        assert!(!err.contains("s3cret") && err.contains("example.com"), "{err}");
        given.url = "https://s3cret@example.com/a".to_owned();
        assert!(given.check().is_err());
        assert_eq!(given.display_url(), "https://example.com/a");
        given.auth = GitAuth::Token {
            user: "me".to_owned(),
            token: "s3cret".to_owned(),
        };
        assert!(!format!("{given:?}").replace(&given.url, "").contains("s3cret"));
    }

    #[test]
    fn what_does_not_go_together_is_said_before_anything_is_sent() {
        let mut given = spec("http://example.com/a");
        given.auth = GitAuth::Token {
            user: String::new(),
            token: "t".to_owned(),
        };
        assert!(given.check().unwrap_err().to_string().contains("clear text"));
        let mut given = spec("ssh://example.com/a");
        assert!(given.check().unwrap_err().to_string().contains("known_hosts"));
        given.url = "/a".to_owned();
        for (reference, word) in [
            (GitRef::Branch("a..b".to_owned()), "branch"),
            (GitRef::Commit("abc".to_owned()), "40 hex"),
            (GitRef::Semver(">>1".to_owned()), "version range"),
        ] {
            given.reference = reference;
            let err = given.check().unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_address_shows_its_secret(scheme in "[a-z+]{0,8}", user in "[a-z:%@]{0,6}", rest in "[ -~]{0,20}") {
            let given = spec(&format!("{scheme}://{user}:s3cret@{rest}"));
            let shown = match given.check() {
                // Where a path is meant, it is no secret.
                Ok(Address::File(_)) => String::new(),
                Ok(_) => given.display_url(),
                Err(err) => format!("{err} {}", given.display_url()),
            };
            proptest::prop_assert!(!shown.contains("s3cret"), "{}", shown);
        }
    }
}
