//! Plain requests to web servers, under the bounds of a fetch.

use crate::transport::{Session, Wire, tls_with};
use crate::{GitAuth, Limits, SourceError};
use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What a server answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// What was asked for.
    Body { body: Bytes, etag: Option<String> },
    /// The same as the one with the given tag.
    Unchanged,
}

/// A client for one fetch.
pub(crate) struct Web<'a> {
    pub wire: Wire<'a>,
    tls: rustls::ClientConfig,
}

impl<'a> Web<'a> {
    pub(crate) fn new(
        url: &str,
        ca: Option<&[u8]>,
        limits: &'a Limits,
        stop: &'a AtomicBool,
    ) -> Result<Self, SourceError> {
        let shown = without_query(url);
        Ok(Self {
            tls: tls_with(ca, &shown)?,
            wire: Wire::new(shown, limits, Path::new(""), stop),
        })
    }

    /// GETs an address. `most` bounds the body in bytes.
    pub(crate) fn get(
        &self,
        url: &str,
        auth: &GitAuth,
        etag: Option<&str>,
        most: u64,
    ) -> Result<Answer, SourceError> {
        let headers: Vec<_> = etag
            .map(|etag| (IF_NONE_MATCH.as_str(), etag.to_owned()))
            .into_iter()
            .collect();
        self.get_with(url, auth, &headers, most)
    }

    /// As [`Web::get`], with headers of the caller's.
    pub(crate) fn get_with(
        &self,
        url: &str,
        auth: &GitAuth,
        headers: &[(&str, String)],
        most: u64,
    ) -> Result<Answer, SourceError> {
        let parsed = Url::parse(url).map_err(|err| SourceError::BadUrl {
            url: self.wire.url.clone(),
            why: err.to_string(),
        })?;
        let session = Session::plain(&parsed, auth, &self.wire, self.tls.clone())?;
        let mut request = session.request(reqwest::Method::GET, &parsed);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let failed = |err: std::io::Error| self.wire.cause(&err);
        let mut response = session.send(request).map_err(failed)?;
        if response.status() == reqwest::StatusCode::NOT_MODIFIED {
            return Ok(Answer::Unchanged);
        }
        session.succeeded(&response).map_err(failed)?;
        let etag = response.headers().get(ETAG);
        let etag = etag.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = session.chunk(&mut response).map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > most {
                return Err(SourceError::TooLarge {
                    what: format!("the file {}", self.wire.url),
                    limit: most,
                });
            }
        }
        Ok(Answer::Body {
            body: body.into(),
            etag,
        })
    }
}

/// An address for people: queries hold signatures and tokens.
fn without_query(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let at = rest[..end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[at..])
        }
        None => plain.to_owned(),
    }
}
