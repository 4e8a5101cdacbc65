//! Which operation a request is.

use super::access::Action;
use super::error::Fault;
use super::paths::{RepositoryName, is_tag};
use http::{Method, StatusCode, Uri};
use model::Digest;

/// How a manifest is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// One operation of the spec. `HEAD` is routed as `GET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Catalog,
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
    GetManifest(RepositoryName, Reference),
    PutManifest(RepositoryName, Reference),
    DeleteManifest(RepositoryName, Reference),
    GetBlob(RepositoryName, Digest),
    DeleteBlob(RepositoryName, Digest),
    StartUpload(RepositoryName),
    UploadStatus(RepositoryName, String),
    Append(RepositoryName, String),
    Finish(RepositoryName, String),
    Cancel(RepositoryName, String),
}

impl Route {
    pub fn parse(method: &Method, path: &str) -> Result<Self, Fault> {
        let unknown = || {
            Fault::new(
                StatusCode::NOT_FOUND,
                "UNSUPPORTED",
                format!("{path} is no part of this API"),
            )
        };
        let rest = path
            .strip_prefix("/v2")
            .ok_or_else(unknown)?
            .trim_start_matches('/');
        let get = matches!(*method, Method::GET | Method::HEAD);
        let wrong = || Fault::unsupported(format!("{method} is not supported for {path}"));
        if rest.is_empty() {
            return if get { Ok(Self::Ping) } else { Err(wrong()) };
        }
        if rest == "_catalog" {
            return if get { Ok(Self::Catalog) } else { Err(wrong()) };
        }
        // From the right, since a repository's name may have parts called like the API's.
        let (front, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if last == "list"
            && let Some(name) = front.strip_suffix("/tags")
        {
            return if get {
                Ok(Self::Tags(name_of(name)?))
            } else {
                Err(wrong())
            };
        }
        if let Some(name) = front.strip_suffix("/manifests") {
            let (name, reference) = (name_of(name)?, reference_of(last)?);
            return match *method {
                Method::GET | Method::HEAD => Ok(Self::GetManifest(name, reference)),
                Method::PUT => Ok(Self::PutManifest(name, reference)),
                Method::DELETE => Ok(Self::DeleteManifest(name, reference)),
                _ => Err(wrong()),
            };
        }
        if let Some(name) = front.strip_suffix("/referrers") {
            return if get {
                Ok(Self::Referrers(name_of(name)?, digest_of(last)?))
            } else {
                Err(wrong())
            };
        }
        if let Some(name) = front.strip_suffix("/blobs/uploads") {
            let name = name_of(name)?;
            return match (method, last) {
                (&Method::POST, "") => Ok(Self::StartUpload(name)),
                (_, "") => Err(wrong()),
                (&Method::GET, id) => Ok(Self::UploadStatus(name, id_of(id)?)),
                (&Method::PATCH, id) => Ok(Self::Append(name, id_of(id)?)),
                (&Method::PUT, id) => Ok(Self::Finish(name, id_of(id)?)),
                (&Method::DELETE, id) => Ok(Self::Cancel(name, id_of(id)?)),
                _ => Err(wrong()),
            };
        }
        if let Some(name) = front.strip_suffix("/blobs") {
            let name = name_of(name)?;
            if last == "uploads" && *method == Method::POST {
                return Ok(Self::StartUpload(name));
            }
            let digest = digest_of(last)?;
            return match *method {
                Method::GET | Method::HEAD => Ok(Self::GetBlob(name, digest)),
                Method::DELETE => Ok(Self::DeleteBlob(name, digest)),
                _ => Err(wrong()),
            };
        }
        Err(unknown())
    }

    pub fn action(&self) -> Action {
        match self {
            Self::Ping => Action::Ping,
            Self::Catalog => Action::Catalog,
            Self::Tags(_) | Self::Referrers(..) | Self::GetManifest(..) | Self::GetBlob(..) => Action::Pull,
            Self::DeleteManifest(..) | Self::DeleteBlob(..) => Action::Delete,
            Self::PutManifest(..)
            | Self::StartUpload(_)
            | Self::UploadStatus(..)
            | Self::Append(..)
            | Self::Finish(..)
            | Self::Cancel(..) => Action::Push,
        }
    }

    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping | Self::Catalog => None,
            Self::Tags(name)
            | Self::Referrers(name, _)
            | Self::GetManifest(name, _)
            | Self::PutManifest(name, _)
            | Self::DeleteManifest(name, _)
            | Self::GetBlob(name, _)
            | Self::DeleteBlob(name, _)
            | Self::StartUpload(name)
            | Self::UploadStatus(name, _)
            | Self::Append(name, _)
            | Self::Finish(name, _)
            | Self::Cancel(name, _) => Some(name),
        }
    }
}

fn name_of(text: &str) -> Result<RepositoryName, Fault> {
    RepositoryName::parse(text).ok_or_else(|| Fault::name_invalid(text))
}

pub(super) fn digest_of(text: &str) -> Result<Digest, Fault> {
    text.parse()
        .map_err(|err: model::BadDigest| Fault::digest_invalid(err.to_string()))
}

fn reference_of(text: &str) -> Result<Reference, Fault> {
    if text.contains(':') {
        return digest_of(text).map(Reference::Digest);
    }
    if is_tag(text) {
        return Ok(Reference::Tag(text.to_owned()));
    }
    Err(Fault::manifest_invalid(format!("{text:?} is no tag")))
}

/// Ours are 32 hexadecimal digits; whatever else is asked for is not known.
fn id_of(text: &str) -> Result<String, Fault> {
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_owned());
    }
    Err(Fault::upload_unknown())
}

/// The query's parameters, decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(uri: &Uri) -> Self {
        let base = reqwest::Url::parse("http://registry.invalid/").expect("a constant URL parses");
        let mut url = base;
        url.set_query(uri.query());
        Self(
            url.query_pairs()
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(held, _)| held == key)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_look_like_the_api() {
        let digest = Digest::of(b"x");
        let name = |text| RepositoryName::parse(text).unwrap();
        let parse = |method, path: &str| Route::parse(&method, path).unwrap();
        assert_eq!(parse(Method::GET, "/v2/"), Route::Ping);
        assert_eq!(parse(Method::GET, "/v2"), Route::Ping);
        assert_eq!(
            parse(Method::GET, "/v2/a/manifests/blobs/manifests/v1"),
            Route::GetManifest(name("a/manifests/blobs"), Reference::Tag("v1".to_owned()))
        );
        assert_eq!(
            parse(Method::GET, "/v2/tags/tags/list"),
            Route::Tags(name("tags"))
        );
        assert_eq!(
            parse(Method::HEAD, &format!("/v2/a/blobs/{digest}")),
            Route::GetBlob(name("a"), digest)
        );
        assert_eq!(
            parse(Method::POST, "/v2/a/blobs/uploads/"),
            Route::StartUpload(name("a"))
        );
        for (method, path) in [
            (Method::GET, "/v1/"),
            (Method::POST, "/v2/"),
            (Method::GET, "/v2/a"),
            (Method::GET, "/v2/../manifests/x"),
            (Method::GET, "/v2/a/manifests/.."),
            (Method::GET, "/v2/a/blobs/sha256:12"),
            (Method::PATCH, "/v2/a/blobs/uploads/../../etc"),
            (Method::PATCH, "/v2/a/blobs/uploads/x"),
        ] {
            assert!(Route::parse(&method, path).is_err(), "{method} {path}");
        }
    }
}
