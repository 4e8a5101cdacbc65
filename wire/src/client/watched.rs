//! A TLS stream that remembers what TLS said when it failed: HTTP/2 keeps only the text of an I/O error, and whether
//! the peer found our certificate expired must not be read out of a text.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first failure of TLS on a connection.
pub(crate) type TlsFailure = Arc<OnceLock<rustls::Error>>;

#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    failure: TlsFailure,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> (Self, TlsFailure) {
        let failure = TlsFailure::default();
        (
            Self {
                stream,
                failure: failure.clone(),
            },
            failure,
        )
    }

    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(err)) = &outcome
            && let Some(tls) = err
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let _ = self.failure.set(tls.clone());
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note(outcome)
    }
}
