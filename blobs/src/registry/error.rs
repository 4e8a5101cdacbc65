//! Errors as the spec writes them (distribution-spec, "Error Codes").

use super::body::{self, RegistryBody};
use crate::StoreError;
use http::header::{RANGE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use model::Digest;

/// An error answer.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Fault {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn unauthorized(challenge: String) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication required",
        )
        .with(WWW_AUTHENTICATE, challenge)
    }

    pub fn denied(why: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", why)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub fn blob_unknown(digest: &Digest) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            format!("blob {digest} is not in this repository"),
        )
    }

    pub fn manifest_unknown(reference: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("manifest {reference} is not in this repository"),
        )
    }

    pub fn name_unknown(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            format!("repository {name} is not known"),
        )
    }

    pub fn name_invalid(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "NAME_INVALID",
            format!("{name:?} is no repository name: use lower-case letters, digits, '.', '_', '-' and '/'"),
        )
    }

    pub fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub fn upload_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "this upload is not known; start a new one",
        )
    }

    /// The body ended before its end, or would not.
    pub fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    /// A piece that does not start where the upload is.
    pub fn out_of_order(at: u64) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            format!("the upload is at byte {at}"),
        )
        .with(RANGE, received(at))
    }

    pub fn into_response(self) -> Response<RegistryBody> {
        let document = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut response = body::json(self.status, &document);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Bytes received, as a range; the spec has no way to write none.
pub(super) fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

impl From<StoreError> for Fault {
    fn from(err: StoreError) -> Self {
        if err.is_full() {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "DENIED", kit::chain(&err));
        }
        match &err {
            StoreError::Corrupt { .. } | StoreError::WrongSize { .. } => {
                Self::digest_invalid(err.to_string())
            }
            _ => {
                tracing::error!(error = kit::chain(&err), "registry store");
                // Paths of this machine are nobody's business.
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    "the registry's store failed; see its log",
                )
            }
        }
    }
}
