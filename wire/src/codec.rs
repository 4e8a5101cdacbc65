//! Frames to bytes and back: `u32 header length, u32 body length, header (JSON), body`, big-endian.

use crate::frame::{BodyMismatch, Framed};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::error::Error;
use std::marker::PhantomData;

/// Longest header, in bytes: a hello with the status of a device with hundreds of pods fits.
pub const MAX_HEADER: usize = 1 << 20;
/// Longest body, in bytes.
pub const MAX_BODY: usize = 4 << 20;

/// Why bytes are no frame. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length beyond its bound.
    #[error("a frame of {header} + {body} bytes is over the bound of {MAX_HEADER} + {MAX_BODY}")]
    TooLong {
        /// Announced bytes of the header.
        header: usize,
        /// Announced bytes of the body.
        body: usize,
    },
    /// The header is no JSON of a known frame.
    #[error("a frame's header does not parse")]
    Header(#[source] serde_json::Error),
    /// Header and body disagree.
    #[error("a frame's body does not fit its header")]
    Body(#[from] BodyMismatch),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Torn,
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
}

/// Lays out a frame.
///
/// # Errors
/// [`FrameError::TooLong`] where the peer would refuse it.
pub fn encode<F: Framed>(frame: &F) -> Result<Bytes, FrameError> {
    let mut out = BytesMut::with_capacity(256);
    out.put_u64(0);
    serde_json::to_writer((&mut out).writer(), frame).map_err(FrameError::Header)?;
    let header = out.len() - 8;
    let body = frame.body().iter().map(Bytes::len).sum();
    check_lengths(header, body)?;
    out.reserve(body);
    for part in frame.body() {
        out.extend_from_slice(part);
    }
    // Both fit: they are below their bounds.
    out[..8].copy_from_slice(&(((header as u64) << 32) | body as u64).to_be_bytes());
    Ok(out.freeze())
}

/// Takes the next whole frame from the front of `buffer`; `None` where more bytes are needed.
///
/// # Errors
/// See [`FrameError`]; lengths are judged before anything is kept for them.
pub fn decode<F: Framed>(buffer: &mut BytesMut) -> Result<Option<F>, FrameError> {
    let Some(mut lengths) = buffer.get(..8) else {
        return Ok(None);
    };
    let header = lengths.get_u32() as usize;
    let body = lengths.get_u32() as usize;
    check_lengths(header, body)?;
    if buffer.len() < 8 + header + body {
        return Ok(None);
    }
    buffer.advance(8);
    let header = buffer.split_to(header);
    let body = buffer.split_to(body).freeze();
    let mut frame: F = serde_json::from_slice(&header).map_err(FrameError::Header)?;
    frame.attach(body)?;
    Ok(Some(frame))
}

fn check_lengths(header: usize, body: usize) -> Result<(), FrameError> {
    if header > MAX_HEADER || body > MAX_BODY {
        Err(FrameError::TooLong { header, body })
    } else {
        Ok(())
    }
}

/// Reads frames from an HTTP body.
#[derive(Debug)]
pub struct FrameReader<B, F> {
    body: B,
    buffer: BytesMut,
    frames: PhantomData<fn() -> F>,
}

impl<B, F> FrameReader<B, F>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    F: Framed,
{
    /// Reads from `body`.
    pub fn new(body: B) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            frames: PhantomData,
        }
    }

    /// The next frame; `None` at an orderly end. May be dropped at any await and called again.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<F>, FrameError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer)? {
                // A large frame must not leave its memory behind in an idle session.
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Torn),
                Some(Err(err)) => return Err(FrameError::Connection(err.into())),
                Some(Ok(part)) => {
                    if let Ok(data) = part.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Chunk, Records, ToDevice, ToHub};

    fn batch() -> ToHub {
        ToHub::Records(Records::new(
            "events",
            7,
            3,
            vec![
                Bytes::from_static(b"one"),
                Bytes::new(),
                Bytes::from_static(b"\xff\0"),
            ],
        ))
    }

    #[test]
    fn a_frame_comes_out_as_it_went_in_whatever_the_cut() {
        let frames = [
            batch(),
            ToHub::Chunk(Chunk {
                id: 1,
                data: Bytes::from_static(b"log\n"),
            }),
            ToHub::Pong { nonce: u64::MAX },
        ];
        let mut all = BytesMut::new();
        for frame in &frames {
            all.extend_from_slice(&encode(frame).unwrap());
        }
        for step in 1..all.len() {
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for part in all.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decode::<ToHub>(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames);
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_its_bytes_come() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0][..]);
        assert!(matches!(
            decode::<ToHub>(&mut buffer),
            Err(FrameError::TooLong { .. })
        ));
        let big = ToHub::Chunk(Chunk {
            id: 1,
            data: Bytes::from(vec![0; MAX_BODY + 1]),
        });
        assert!(matches!(encode(&big), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_header_that_lies_about_its_body_is_refused() {
        let mut whole = BytesMut::from(&encode(&batch()).unwrap()[..]);
        let longer = whole.len();
        whole[7] += 1;
        whole.extend_from_slice(b"x");
        assert_eq!(whole.len(), longer + 1);
        assert!(matches!(decode::<ToHub>(&mut whole), Err(FrameError::Body(_))));
        let mut unknown = BytesMut::new();
        unknown.extend_from_slice(&[0, 0, 0, 15, 0, 0, 0, 0]);
        unknown.extend_from_slice(br#"{"frame":"own"}"#);
        assert!(matches!(
            decode::<ToDevice>(&mut unknown),
            Err(FrameError::Header(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<ToHub>(&mut buffer) {}
        }
    }
}
