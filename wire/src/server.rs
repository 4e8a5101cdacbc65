//! The hub's side of a session: frames in and out of an HTTP/2 exchange.

use crate::codec::{FrameError, FrameReader, encode};
use crate::frame::{ToDevice, ToHub};
use bytes::Bytes;
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Reads a device's frames from the body of its request.
pub type FromDevice<B> = FrameReader<B, ToHub>;

/// A body made of what a channel brings; ends when all its senders are gone.
#[derive(Debug)]
pub struct FrameBody(mpsc::Receiver<Bytes>);

impl FrameBody {
    /// A body, and the way to fill it: at most `slots` frames wait.
    pub fn channel(slots: usize) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(slots);
        (sender, Self(receiver))
    }
}

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Sends frames to a device; clones share the session.
#[derive(Debug, Clone)]
pub struct DeviceSender(mpsc::Sender<Bytes>);

impl DeviceSender {
    /// A sender, and the body of the answer that carries its frames.
    pub fn channel(slots: usize) -> (Self, FrameBody) {
        let (sender, body) = FrameBody::channel(slots);
        (Self(sender), body)
    }

    /// Sends a frame; waits while the connection is full. `false` where the session has ended.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub async fn send(&self, frame: &ToDevice) -> Result<bool, FrameError> {
        let bytes = encode(frame)?;
        Ok(self.0.send(bytes).await.is_ok())
    }

    /// Returns once the device's end has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}
