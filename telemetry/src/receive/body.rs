//! A request's bytes, within the bound of one and the budget of all.

use super::{Refused, later};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::io::Read as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Plain,
    Gzip,
}

impl Coding {
    /// By its name in `Content-Encoding` and `grpc-encoding`.
    pub(super) fn named(name: &[u8]) -> Result<Self, Refused> {
        match name {
            b"" | b"identity" => Ok(Self::Plain),
            b"gzip" => Ok(Self::Gzip),
            other => Err(Refused::Unsupported(format!(
                "the encoding {} is not spoken here: use gzip, or none",
                String::from_utf8_lossy(other)
            ))),
        }
    }
}

/// A request's part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Semaphore>,
    most: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn new(budget: Arc<Semaphore>, most: usize) -> Self {
        Self {
            budget,
            most,
            permit: None,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Refused> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(count)
            .map_err(|_| later("too many requests at once"))?;
        match &mut self.permit {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    fn too_large(&self) -> Refused {
        Refused::TooLarge(format!(
            "more than {} bytes: send fewer spans at once (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)",
            self.most
        ))
    }

    /// All of a body; `extra` bytes are allowed for what frames it.
    pub(super) async fn read(&mut self, mut body: Incoming, extra: usize) -> Result<Bytes, Refused> {
        let most = self.most + extra;
        if body.size_hint().lower() > most as u64 {
            return Err(self.too_large());
        }
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|err| Refused::Bad(format!("the request broke off: {err}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len() + data.len() > most {
                return Err(self.too_large());
            }
            self.take(data.len())?;
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// Unpacked, within the same bound.
    pub(super) fn unpack(&mut self, packed: Bytes, coding: Coding) -> Result<Bytes, Refused> {
        if coding == Coding::Plain {
            return Ok(packed);
        }
        let mut source = MultiGzDecoder::new(&*packed);
        let (mut all, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            let read = source
                .read(&mut chunk)
                .map_err(|err| Refused::Bad(format!("the request is not gzip, or cut off: {err}")))?;
            if read == 0 {
                return Ok(all.into());
            }
            if all.len() + read > self.most {
                return Err(self.too_large());
            }
            self.take(read)?;
            all.extend_from_slice(&chunk[..read]);
        }
    }
}
