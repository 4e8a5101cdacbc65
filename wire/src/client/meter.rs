//! Counts the bytes of a connection where they meet the socket: TLS and HTTP/2 included.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One connection's bytes; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    peer: OnceLock<SocketAddr>,
}

impl Meter {
    /// Bytes written to the socket.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Bytes read from the socket.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// The other end, once connected.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer.get().copied()
    }

    pub(crate) fn connected_to(&self, peer: SocketAddr) {
        // A meter belongs to one connection; a second one would be a mistake that changes no count.
        let _ = self.0.peer.set(peer);
    }

    pub(crate) fn on<S>(&self, stream: S) -> Metered<S> {
        Metered {
            stream,
            meter: self.clone(),
        }
    }
}

/// A stream under a meter.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.meter.0.received.fetch_add(read as u64, Ordering::Relaxed);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn count(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &outcome {
            self.meter.0.sent.fetch_add(*written as u64, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn what_passes_is_counted_both_ways() {
        let (near, mut far) = tokio::io::duplex(64);
        let meter = Meter::default();
        let mut near = meter.on(near);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            near.write_all(b"hello").await.unwrap();
            let mut buffer = [0; 5];
            far.read_exact(&mut buffer).await.unwrap();
            far.write_all(b"you").await.unwrap();
            near.read_exact(&mut buffer[..3]).await.unwrap();
        });
        assert_eq!((meter.sent(), meter.received(), meter.peer()), (5, 3, None));
    }
}
