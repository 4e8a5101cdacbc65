//! Answers in the words that OTLP's clients act on: what to send again, when, and what never.

use super::{Refused, Taken, grpc};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use std::convert::Infallible;
use std::time::Duration;

pub(super) type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// In which form the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    Protobuf,
    Json,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_TAKES: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// `google.rpc.Status` (googleapis, google/rpc/status.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`; a duration is a message of its own.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Refused {
    fn after(&self) -> Option<Duration> {
        match self {
            Self::Later { after, .. } | Self::TooFast { after, .. } => Some(*after),
            _ => None,
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Later { why, .. }
            | Self::TooFast { why, .. }
            | Self::Bad(why)
            | Self::TooLarge(why)
            | Self::Unsupported(why)
            | Self::Unknown(why) => why,
        }
    }

    /// Only 429, 502, 503 and 504 are sent again by OTLP's clients.
    fn http(&self) -> StatusCode {
        match self {
            Self::Later { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooFast { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
        }
    }

    /// grpc/doc/statuscodes.md. `UNAVAILABLE` is the one that every client sends again; `RESOURCE_EXHAUSTED` without
    /// `RetryInfo` none.
    fn grpc(&self) -> i32 {
        match self {
            Self::Later { .. } | Self::TooFast { .. } => 14,
            Self::Bad(_) => 3,
            Self::TooLarge(_) => 8,
            Self::Unsupported(_) | Self::Unknown(_) => 12,
        }
    }
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
            Some(kind) if kind.starts_with(b"application/grpc") => Self::Grpc,
            Some(kind) if kind.starts_with(b"application/json") => Self::Json,
            _ => Self::Protobuf,
        }
    }

    fn kind(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Grpc => "application/grpc",
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    pub(super) fn taken(self, taken: &Taken) -> Response<Answer> {
        let partial = (taken.rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(taken.rejected).unwrap_or(i64::MAX),
            error_message: taken.why.clone(),
        });
        let message = ExportTraceServiceResponse {
            partial_success: partial.clone(),
        }
        .encode_to_vec();
        match self {
            Self::Grpc => {
                let body = Full::new(grpc::framed(&message));
                let ended = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
                self.response(
                    body.with_trailers(std::future::ready(Some(Ok(ended))))
                        .boxed_unsync(),
                )
            }
            Self::Protobuf => self.response(Full::new(message.into()).boxed_unsync()),
            Self::Json => {
                let json = match partial {
                    None => serde_json::json!({}),
                    Some(partial) => serde_json::json!({"partialSuccess": {
                        "rejectedSpans": partial.rejected_spans.to_string(),
                        "errorMessage": partial.error_message,
                    }}),
                };
                self.response(Full::new(json.to_string().into()).boxed_unsync())
            }
        }
    }

    pub(super) fn refused(self, refused: &Refused) -> Response<Answer> {
        let mut status = Status {
            code: refused.grpc(),
            message: refused.why().to_owned(),
            details: Vec::new(),
        };
        if self == Self::Grpc {
            let mut response = self.response(Empty::new().boxed_unsync());
            let headers = response.headers_mut();
            headers.insert(GRPC_STATUS, status.code.into());
            if let Ok(message) = HeaderValue::from_str(&grpc::percent(&status.message)) {
                headers.insert(GRPC_MESSAGE, message);
            }
            headers.insert(GRPC_TAKES, HeaderValue::from_static("identity,gzip"));
            if let Some(after) = refused.after() {
                status.details.push(retry(after));
                let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec());
                if let Ok(details) = HeaderValue::from_str(&details) {
                    headers.insert(GRPC_DETAILS, details);
                }
            }
            return response;
        }
        let body: Bytes = if self == Self::Json {
            serde_json::json!({"code": status.code, "message": status.message})
                .to_string()
                .into()
        } else {
            status.encode_to_vec().into()
        };
        let mut response = self.response(Full::new(body).boxed_unsync());
        *response.status_mut() = refused.http();
        if let Some(after) = refused.after() {
            // Whole seconds, rounded up.
            let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    fn response(self, body: Answer) -> Response<Answer> {
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, self.kind());
        response
    }
}

fn retry(after: Duration) -> Detail {
    let info = RetryInfo {
        retry_delay: Some(Delay {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(after.subsec_nanos()).unwrap_or(0),
        }),
    };
    Detail {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: info.encode_to_vec(),
    }
}
