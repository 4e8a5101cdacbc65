//! Bodies: in, piece by piece to the disk; out, piece by piece from it.

use super::error::Fault;
use crate::StoreError;
use crate::registries::blocking;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use std::io::{self, Read};
use std::time::Duration;

/// A body of the registry's answers.
pub type RegistryBody = UnsyncBoxBody<Bytes, io::Error>;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// How much of a refused body is read, and for how long.
const MOST_DRAINED: usize = 16 * 1024 * 1024;
const DRAINED_FOR: Duration = Duration::from_secs(5);
/// Bytes read from or written to the disk at once.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) fn empty() -> RegistryBody {
    full(Bytes::new())
}

pub(super) fn full(bytes: impl Into<Bytes>) -> RegistryBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(super) fn json(status: StatusCode, document: &serde_json::Value) -> Response<RegistryBody> {
    let mut response = Response::new(full(document.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Streams what `source` gives. A client that reads slowly holds one piece and no thread.
pub(super) fn reading(source: impl Read + Send + 'static) -> RegistryBody {
    let pieces = futures_util::stream::try_unfold(source, |source| async {
        let (source, piece) = blocking(move || next_piece(source)).await?;
        Ok(piece.map(|piece| (Frame::data(piece), source)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn next_piece<R: Read>(mut source: R) -> io::Result<(R, Option<Bytes>)> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    (&mut source).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    let piece = (!piece.is_empty()).then(|| Bytes::from(piece));
    Ok((source, piece))
}

/// A request's body.
pub(super) struct Incoming(UnsyncBoxBody<Bytes, AnyError>);

impl Incoming {
    pub fn new<B>(body: B) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<AnyError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|err| Fault::upload_invalid(format!("the body broke off: {err}")))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads on after a refusal, within bounds: a client that still sends would see a broken connection, and not why.
    pub async fn drain(&mut self) {
        let reading = async {
            let mut left = MOST_DRAINED;
            while let Ok(Some(piece)) = self.next().await
                && piece.len() < left
            {
                left -= piece.len();
            }
        };
        // In vain where the client is slow: then it sees the connection break.
        let _ = tokio::time::timeout(DRAINED_FOR, reading).await;
    }

    /// The whole of a small body.
    pub async fn small(&mut self, most: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(Fault::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "SIZE_INVALID",
                    format!("a manifest has {most} bytes at most"),
                ));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Hands the body to `write` in large pieces, on blocking threads. What came before it broke off is written too.
    pub async fn pour<W: Send + 'static>(
        &mut self,
        mut to: W,
        write: impl Fn(&mut W, &[u8]) -> Result<(), StoreError> + Copy + Send + 'static,
    ) -> Result<W, Fault> {
        loop {
            let mut pieces = Vec::new();
            let mut bytes = 0;
            let mut ended = Ok(false);
            while bytes < PIECE_BYTES {
                match self.next().await {
                    Ok(Some(piece)) => {
                        bytes += piece.len();
                        pieces.push(piece);
                    }
                    Ok(None) => {
                        ended = Ok(true);
                        break;
                    }
                    Err(fault) => {
                        ended = Err(fault);
                        break;
                    }
                }
            }
            to = blocking(move || {
                pieces.iter().try_for_each(|piece| write(&mut to, piece))?;
                Ok::<_, StoreError>(to)
            })
            .await?;
            if ended? {
                return Ok(to);
            }
        }
    }
}
