//! The shim's end of its connections: requests in, reports out, never waiting for a slow reader.

use super::protocol::{Report, Request};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// More than this unread, and the reader is taken for dead.
const MOST_UNREAD: usize = 1 << 20;
/// A request is at most the files of a pod's ConfigMaps and Secrets.
const MOST_REQUEST: usize = 64 << 20;

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    gone: bool,
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            gone: false,
        })
    }

    /// Reads what has come; gives the whole requests in it.
    pub(crate) fn receive(&mut self) -> Vec<Request> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.gone = true;
                    break;
                }
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            match serde_json::from_slice(&self.input[..end]) {
                Ok(request) => requests.push(request),
                Err(err) => self.send(&Report::Failed(format!("the request is not understood: {err}"))),
            }
            self.input.drain(..=end);
        }
        if self.input.len() > MOST_REQUEST {
            self.gone = true;
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        requests
    }

    /// Queues a report and sends what it can.
    pub(crate) fn send(&mut self, report: &Report) {
        // Plain data with text keys always serialises.
        self.output.extend(serde_json::to_vec(report).unwrap_or_default());
        self.output.push(b'\n');
        self.flush();
        if self.output.len() > MOST_UNREAD {
            self.gone = true;
        }
    }

    /// Sends what it can.
    pub(crate) fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(sent) => {
                    self.output.drain(..sent);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => {
                    self.gone |= err.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
        self.output = Vec::new();
    }

    /// Something waits to be sent.
    pub(crate) fn unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// The other end is gone or does not read.
    pub(crate) fn gone(&self) -> bool {
        self.gone
    }

    /// Sends the rest, waiting; for the last words of a process.
    pub(crate) fn finish(mut self) {
        let patience = Some(std::time::Duration::from_secs(2));
        if self
            .stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(patience))
            .is_ok()
        {
            self.flush();
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
