//! Image references and platforms (OCI distribution-spec and image-spec).

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// `registry/repository[:tag][@digest]`, with the registry always explicit.
///
/// A reference without a registry host means `docker.io`, and one without a slash `docker.io/library`,
/// as every other tool of the field reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// Host, with a port where one is given.
    pub registry: String,
    /// Path below the registry.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest is given.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {0:?} is not valid: {1}")]
pub struct BadImageRef(String, &'static str);

impl FromStr for ImageRef {
    type Err = BadImageRef;
    fn from_str(text: &str) -> Result<Self, BadImageRef> {
        let bad = |why| BadImageRef(text.to_owned(), why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse::<Digest>()
                        .map_err(|_| bad("the digest after '@' is not sha256: and 64 hexadecimal digits"))?,
                ),
            ),
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), path.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), rest.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{rest}")),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository.to_owned(), Some(tag.to_owned())),
            None => (path, None),
        };
        let name_ok = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
                && part.as_bytes()[0].is_ascii_alphanumeric()
                && part.as_bytes()[part.len() - 1].is_ascii_alphanumeric()
        };
        if !repository.split('/').all(name_ok) {
            return Err(bad(
                "each part of the name takes lower-case letters, digits, '.', '_' and '-'",
            ));
        }
        let tag_ok = |tag: &String| {
            (1..=128).contains(&tag.len())
                && tag
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
                && !tag.starts_with(['.', '-'])
        };
        if !tag.as_ref().is_none_or(tag_ok) {
            return Err(bad("a tag takes letters, digits, '.', '_' and '-', 128 at most"));
        }
        let tag = if tag.is_none() && digest.is_none() {
            Some("latest".to_owned())
        } else {
            tag
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

impl ImageRef {
    /// What the registry is asked for: the digest where given, else the tag.
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
impl TryFrom<String> for ImageRef {
    type Error = BadImageRef;
    fn try_from(text: String) -> Result<Self, BadImageRef> {
        text.parse()
    }
}
impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

/// Operating system, architecture and variant, in Go's words (`linux/arm64`, `linux/arm/v7`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// `v7`, `v8`; absent where the architecture needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7".to_owned())),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(
            text.parse::<ImageRef>().map(|i| i.to_string()),
            Ok(want.to_owned())
        );
    }

    #[test]
    fn references_are_read_as_docker_reads_them() {
        check("busybox", "docker.io/library/busybox:latest");
        check("a/b:1", "docker.io/a/b:1");
        check("localhost:5000/a/b", "localhost:5000/a/b:latest");
        let digest = Digest::of(b"x");
        check(&format!("r.example/a@{digest}"), &format!("r.example/a@{digest}"));
        for bad in ["", "A/b", "a:", "a//b", "r.example/a@sha256:12", "a:b c"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }
}
