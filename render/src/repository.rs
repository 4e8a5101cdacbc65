//! Addresses of Git repositories as kustomize reads them: `https://host/org/repo//path?ref=v1`.

use std::time::Duration;

/// Time that kustomize gives a clone where the address names none.
const TIMEOUT: Duration = Duration::from_secs(27);

/// A folder of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The address as written.
    pub raw: String,
    /// What Git is asked: `https://`, `http://`, `ssh://`, `file://`, or `user@host:path`.
    pub url: String,
    /// The folder within the repository, from its root; empty for the root.
    pub path: String,
    /// Branch, tag or commit (`ref`, or else `version`); the default branch where absent.
    pub reference: Option<String>,
    /// How long fetching may take (`timeout`, seconds or a duration such as `1m30s`).
    pub timeout: Duration,
    /// Whether submodules belong to it (`submodules`; on where absent).
    pub submodules: bool,
    /// Whether `//`, `.git` or `_git/` says where the repository's address ends; else it is guessed as two segments.
    pub marked: bool,
}

impl Repository {
    /// Reads an address; `None` for what is none of a repository, such as a path.
    pub fn parse(raw: &str) -> Option<Self> {
        if raw.starts_with('/') {
            return None;
        }
        let (address, query) = raw.split_once('?').unwrap_or((raw, ""));
        let (host, rest) = split_host(address)?;
        let (repository, path, marked) = split_path(rest, host.starts_with("file://"))?;
        if repository.is_empty() || leaves(path) {
            return None;
        }
        let query = Query::parse(query);
        Some(Self {
            raw: raw.to_owned(),
            url: format!("{host}{repository}"),
            path: path.trim_start_matches('/').to_owned(),
            reference: query.get("ref").or_else(|| query.get("version")),
            timeout: query
                .get("timeout")
                .and_then(|text| timeout(&text))
                .unwrap_or(TIMEOUT),
            submodules: query.get("submodules").is_none_or(|text| !is_false(&text)),
            marked,
        })
    }
}

/// Whether the text is an address that gives one file.
pub(crate) fn is_http(text: &str) -> bool {
    let is = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    is("http://") || is("https://")
}

/// `https://user@host/`, and what follows.
fn split_host(address: &str) -> Option<(String, &str)> {
    let address = strip(address, "git::").unwrap_or(address);
    let scheme = ["ssh://", "https://", "http://", "file://"]
        .into_iter()
        .find(|scheme| strip(address, scheme).is_some());
    let rest = scheme
        .and_then(|scheme| strip(address, scheme))
        .unwrap_or(address);
    if scheme == Some("file://") {
        return Some(("file://".to_owned(), rest));
    }
    let (user, rest) = split_user(rest);
    let lower = rest.to_ascii_lowercase();
    let github = lower.starts_with("github.com/") || lower.starts_with("github.com:");
    let scp = scheme.is_none() && (!user.is_empty() || github);
    if scheme.is_none() && !scp {
        return None;
    }
    let slash = rest.find('/');
    let colon = rest.find(':').filter(|at| scp && *at > 0);
    let end = match (slash, colon) {
        (Some(slash), Some(colon)) => slash.min(colon),
        (Some(slash), None) => slash,
        (None, Some(colon)) => colon,
        (None, None) => return None,
    };
    let (host, path) = rest.split_at(end + 1);
    // kustomize writes GitHub's addresses in one of two ways, whatever was given.
    let host = match (github, scheme) {
        (true, scheme) if scheme == Some("ssh://") || !user.is_empty() => {
            format!("{}github.com:", if user.is_empty() { "git@" } else { user })
        }
        (true, _) => "https://github.com/".to_owned(),
        (false, scheme) => format!("{}{user}{host}", scheme.unwrap_or_default()),
    };
    Some((host, path))
}

/// `name@` at the start, and what follows.
fn split_user(text: &str) -> (&str, &str) {
    let Some(at) = text.find('@') else {
        return ("", text);
    };
    let name = &text[..at];
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { text.split_at(at + 1) } else { ("", text) }
}

/// Where the repository's own path ends and the folder within begins, and whether a mark said so.
fn split_path(path: &str, whole: bool) -> Option<(&str, &str, bool)> {
    if let Some(at) = path.find("_git/") {
        let start = at + "_git/".len();
        let end = path[start..].find('/').map_or(path.len(), |slash| start + slash);
        return Some((&path[..end], path[end..].trim_start_matches('/'), true));
    }
    if let Some((repository, folder)) = path.split_once("//") {
        return Some((repository, folder, true));
    }
    if let Some(at) = path.find(".git") {
        let (repository, folder) = path.split_at(at + ".git".len());
        return Some((repository, folder.strip_prefix('/').unwrap_or(folder), true));
    }
    if whole {
        return Some((path, "", true));
    }
    // An organisation and a repository, as on GitHub.
    let first = path.find('/')?;
    let end = path[first + 1..]
        .find('/')
        .map_or(path.len(), |at| first + 1 + at);
    Some((&path[..end], path[end..].trim_start_matches('/'), false))
}

fn leaves(path: &str) -> bool {
    let mut depth = 0_i32;
    path.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

fn strip<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn is_false(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescape(key)?, unescape(value)?))
        };
        // One that cannot be read counts as none.
        let pairs = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(pair)
            .collect::<Option<Vec<_>>>();
        Self(pairs.unwrap_or_default())
    }

    /// The first value of this name that is not empty.
    fn get(&self, name: &str) -> Option<String> {
        let first = self.0.iter().find(|(key, _)| key == name)?;
        (!first.1.is_empty()).then(|| first.1.clone())
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Whole seconds, or Go's durations: `1m30s`, `1.5h`.
fn timeout(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return (seconds > 0).then(|| Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let seconds = match &after[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * seconds;
        rest = &after[unit..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_as_kustomize_does() {
        for (raw, url, path, reference) in [
            ("https://h.io/a/b//p/q?ref=v1", "https://h.io/a/b", "p/q", "v1"),
            ("https://h.io/a/b/p/q?version=v2", "https://h.io/a/b", "p/q", "v2"),
            (
                "https://h.io/x/y/z.git/p?ref=v1&version=v2",
                "https://h.io/x/y/z.git",
                "p",
                "v1",
            ),
            ("http://127.0.0.1:80/r.git", "http://127.0.0.1:80/r.git", "", ""),
            ("git::https://h.io/a/b//", "https://h.io/a/b", "", ""),
            (
                "ssh://git@h.io:22/a/b.git//p",
                "ssh://git@h.io:22/a/b.git",
                "p",
                "",
            ),
            ("git@h.io:a/b//p", "git@h.io:a/b", "p", ""),
            ("git@h.io:a/b.git", "git@h.io:a/b.git", "", ""),
            (
                "github.com/a/b//p?ref=main",
                "https://github.com/a/b",
                "p",
                "main",
            ),
            ("GitHub.com:a/b/p", "https://github.com/a/b", "p", ""),
            ("git@github.com/a/b", "git@github.com:a/b", "", ""),
            ("ssh://git@github.com/a/b.git", "git@github.com:a/b.git", "", ""),
            (
                "https://u@dev.azure.com/o/p/_git/r/x/y",
                "https://u@dev.azure.com/o/p/_git/r",
                "x/y",
                "",
            ),
            ("file:///srv/r.git//p?ref=a%2Fb", "file:///srv/r.git", "p", "a/b"),
            ("file:///srv/r", "file:///srv/r", "", ""),
        ] {
            let parsed = Repository::parse(raw).unwrap_or_else(|| panic!("{raw} is an address"));
            assert_eq!(
                (
                    parsed.url.as_str(),
                    parsed.path.as_str(),
                    parsed.reference.unwrap_or_default().as_str()
                ),
                (url, path, reference),
                "{raw}"
            );
        }
    }

    #[test]
    fn paths_are_no_addresses() {
        for path in [
            "../base",
            "base.git/x",
            "/abs/x",
            "a@b",
            "https://host",
            "https://h.io/only",
            "x/github.com/a/b",
            "https://h.io/a/b//../c",
            "file.yaml",
        ] {
            assert_eq!(Repository::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_query_says_how_long_and_with_what() {
        let of = |query: &str| Repository::parse(&format!("https://h.io/a/b?{query}")).expect("an address");
        assert_eq!(of("timeout=61").timeout, Duration::from_secs(61));
        assert_eq!(of("timeout=1m30s").timeout, Duration::from_secs(90));
        for nonsense in [
            "timeout=0",
            "timeout=-1s",
            "timeout=x",
            "timeout=",
            "timeout=5",
            "",
        ] {
            let expected = if nonsense == "timeout=5" {
                Duration::from_secs(5)
            } else {
                TIMEOUT
            };
            assert_eq!(of(nonsense).timeout, expected, "{nonsense}");
        }
        assert!(of("").submodules && of("submodules=x").submodules && !of("submodules=false").submodules);
    }
}
