//! Blobs out, whole or in part.

use super::Registry;
use super::body::{self, RegistryBody};
use super::error::Fault;
use super::manifests::built;
use super::paths::RepositoryName;
use crate::registries::blocking;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use model::Digest;
use std::io::{Read as _, Seek as _, SeekFrom};

impl Registry {
    pub(super) async fn get_blob(
        &self,
        request: &Parts,
        name: RepositoryName,
        digest: Digest,
    ) -> Result<Response<RegistryBody>, Fault> {
        let range = request
            .headers
            .get(RANGE)
            .and_then(|range| range.to_str().ok())
            .map(str::to_owned);
        let head = request.method == Method::HEAD;
        let registry = self.clone();
        blocking(move || registry.read_blob(&name, &digest, range.as_deref(), head)).await
    }

    fn read_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        range: Option<&str>,
        head: bool,
    ) -> Result<Response<RegistryBody>, Fault> {
        let unknown = || Fault::blob_unknown(digest);
        if !self.0.repositories.has_link(name, digest) {
            return Err(unknown());
        }
        let size = self.0.store.size(digest).ok_or_else(unknown)?;
        let response = Response::builder()
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(ACCEPT_RANGES, "bytes")
            .header(ETAG, format!("\"{digest}\""))
            .header("docker-content-digest", digest.to_string());
        if head {
            return built(response.header(CONTENT_LENGTH, size), body::empty());
        }
        match range.map_or(Part::Whole, |range| part(range, size)) {
            // Verified on the way: a blob that is damaged here never arrives whole anywhere.
            Part::Whole => {
                let blob = self.0.store.open_blob(digest)?.ok_or_else(unknown)?;
                built(response.header(CONTENT_LENGTH, size), body::reading(blob))
            }
            Part::Bytes { first, last } => {
                let (mut file, _) = self.0.store.open_raw(digest)?.ok_or_else(unknown)?;
                let bytes = last - first + 1;
                file.seek(SeekFrom::Start(first)).map_err(|err| {
                    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", err.to_string())
                })?;
                let response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(CONTENT_LENGTH, bytes)
                    .header(CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
                built(response, body::reading(file.take(bytes)))
            }
            Part::Outside => Err(Fault::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "SIZE_INVALID",
                format!("the blob has {size} bytes"),
            )
            .with(CONTENT_RANGE, format!("bytes */{size}"))),
        }
    }

    pub(super) async fn delete_blob(
        &self,
        name: RepositoryName,
        digest: Digest,
    ) -> Result<Response<RegistryBody>, Fault> {
        let registry = self.clone();
        blocking(move || {
            if !registry.0.repositories.has_link(&name, &digest) {
                return Err(Fault::blob_unknown(&digest));
            }
            // The bytes go when nobody else's manifest names them.
            registry.0.repositories.unlink(&name, &digest)?;
            built(
                Response::builder()
                    .status(StatusCode::ACCEPTED)
                    .header(CONTENT_LENGTH, 0),
                body::empty(),
            )
        })
        .await
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// Both included.
    Bytes {
        first: u64,
        last: u64,
    },
    Outside,
}

/// Reads a `Range` header (RFC 9110, 14.2). One that is not understood, or names several parts, is ignored.
fn part(range: &str, size: u64) -> Part {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), _) if first >= size => Part::Outside,
        (Ok(first), Ok(last)) if last >= first => Part::Bytes {
            first,
            last: last.min(size - 1),
        },
        (Ok(first), Err(_)) if last.trim().is_empty() => Part::Bytes {
            first,
            last: size - 1,
        },
        (Err(_), Ok(0)) if first.trim().is_empty() => Part::Outside,
        (Err(_), Ok(end)) if first.trim().is_empty() && size > 0 => Part::Bytes {
            first: size.saturating_sub(end),
            last: size - 1,
        },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let bytes = |first, last| Part::Bytes { first, last };
        for (range, want) in [
            ("bytes=0-", bytes(0, 9)),
            ("bytes=3-5", bytes(3, 5)),
            ("bytes=3-99", bytes(3, 9)),
            ("bytes=-4", bytes(6, 9)),
            ("bytes=-40", bytes(0, 9)),
            ("bytes=9-", bytes(9, 9)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=x-y", Part::Whole),
        ] {
            assert_eq!(part(range, 10), want, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
        assert_eq!(part("bytes=-5", 0), Part::Whole);
    }
}
