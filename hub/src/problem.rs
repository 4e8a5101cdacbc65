//! Refusals as HTTP answers: one word for machines, one sentence for people.

use crate::store::{StoreError, TokenRefusal};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use wire::api::Problem;

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            problem: Problem {
                reason: reason.into(),
                message: message.into(),
            },
            retry_after: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// Busy; come back in about `seconds`. Spread, so that those sent away together do not return together.
    pub(crate) fn busy(seconds: u64) -> Self {
        let mut refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Busy",
            "the hub is busy; come back later",
        );
        refusal.retry_after = Some(rand::random_range(seconds..=seconds * 3));
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.problem)).into_response();
        if let Some(seconds) = self.retry_after {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

impl From<StoreError> for Refusal {
    fn from(err: StoreError) -> Self {
        let message = err.to_string();
        let (status, reason) = match &err {
            StoreError::NoSuchDevice(_) => (StatusCode::NOT_FOUND, "NotFound"),
            StoreError::Revoked(_) => (StatusCode::FORBIDDEN, "Revoked"),
            StoreError::NameTaken(_) => (StatusCode::CONFLICT, "NameTaken"),
            StoreError::Token(TokenRefusal::Unknown) => (StatusCode::FORBIDDEN, "TokenUnknown"),
            StoreError::Token(TokenRefusal::Expired(_)) => (StatusCode::FORBIDDEN, "TokenExpired"),
            StoreError::Token(TokenRefusal::Used) => (StatusCode::FORBIDDEN, "TokenUsed"),
            StoreError::Token(TokenRefusal::Class { .. }) => (StatusCode::FORBIDDEN, "TokenForOtherClass"),
            StoreError::BadSequence { .. } | StoreError::BadStream(_) | StoreError::TooManyGaps { .. } => {
                (StatusCode::BAD_REQUEST, "BadRequest")
            }
            StoreError::Folder { .. }
            | StoreError::InUse { .. }
            | StoreError::Newer { .. }
            | StoreError::Sql(_)
            | StoreError::Commit(_)
            | StoreError::Stored { .. }
            | StoreError::Closed => {
                // What failed inside is for the hub's log, not for who asked.
                tracing::error!(%err, "the store failed");
                return Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "StoreFailed",
                    "the hub could not do this; see its log",
                );
            }
        };
        Self::new(status, reason, message)
    }
}
