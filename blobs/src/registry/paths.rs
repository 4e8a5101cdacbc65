//! Names as the spec allows them (distribution-spec, "Pulling manifests").

use std::path::PathBuf;

/// The longest name, so that names with a host still fit where others store them.
const MOST_NAME_BYTES: usize = 255;

/// A repository's name: safe as a relative path, since no part can be empty, `.`, `..` or begin with `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RepositoryName(String);

impl RepositoryName {
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() <= MOST_NAME_BYTES && text.split('/').all(is_part);
        fits.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_part(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(|byte| word(*byte)) || !bytes.last().is_some_and(|byte| word(*byte)) {
        return false;
    }
    let separators = bytes
        .split(|byte| word(*byte))
        .filter(|between| !between.is_empty());
    let mut separators = separators
        .map(|between| matches!(between, b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-'));
    separators.all(|allowed| allowed)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
pub(super) fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && !matches!(bytes[0], b'.' | b'-')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_those_of_the_spec() {
        for good in ["a", "a/b-c/d__e", "apps/web.v2", "a--b"] {
            assert!(RepositoryName::parse(good).is_some(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "a//b",
            "A",
            "../x",
            "a/../b",
            "_tags",
            "a/_manifests",
            "a___b",
            "a.-b",
            &long,
        ] {
            assert!(RepositoryName::parse(bad).is_none(), "{bad}");
        }
        assert!(is_tag("v1.2_x-y") && is_tag("_"));
        assert!(!is_tag("") && !is_tag(".x") && !is_tag("a/b") && !is_tag(&"a".repeat(129)));
    }
}
