//! The ways to a server, each watched: bytes are counted, silence ends in time, and the caller may stop at any moment.
//!
//! gix speaks the protocol over these. Its errors are texts, so each transport leaves the cause it saw first in
//! [`Wire`], where [`Wire::explain`] finds it.

mod http;
mod process;

use crate::spec::Address;
use crate::{GitAuth, GitSpec, Limits, SourceError};
use gix::protocol::transport::client::blocking_io::Transport;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) use http::{Session, tls, tls_with};

/// How often a wait looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

/// What one fetch has in common over all its connections.
pub(crate) struct Wire<'a> {
    pub url: String,
    pub limits: &'a Limits,
    /// The source's folder, for messages.
    folder: &'a Path,
    stop: &'a AtomicBool,
    started: Instant,
    received: Cell<u64>,
    cause: RefCell<Option<SourceError>>,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(url: String, limits: &'a Limits, folder: &'a Path, stop: &'a AtomicBool) -> Self {
        let (received, cause) = (Cell::new(0), RefCell::new(None));
        Self {
            url,
            limits,
            folder,
            stop,
            started: Instant::now(),
            received,
            cause,
        }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Fails where the fetch should not go on; `quiet_since` is when the last byte came.
    fn check(&self, quiet_since: Instant) -> io::Result<()> {
        let timeout = |what: &str, limit: Duration| SourceError::Timeout {
            url: self.url.clone(),
            why: format!("{what} {} s", limit.as_secs()),
        };
        if self.stop.load(Ordering::Relaxed) {
            return Err(self.fail(SourceError::Stopped));
        }
        if quiet_since.elapsed() > self.limits.idle {
            return Err(self.fail(timeout("nothing came for", self.limits.idle)));
        }
        if self.started.elapsed() > self.limits.total {
            return Err(self.fail(timeout("the whole took more than", self.limits.total)));
        }
        Ok(())
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        self.received.set(self.received.get() + bytes as u64);
        if self.received.get() > self.limits.received {
            let what = format!("what {} sends", self.url);
            return Err(self.fail(SourceError::TooLarge {
                what,
                limit: self.limits.received,
            }));
        }
        Ok(())
    }

    /// Remembers the cause, and gives the error that gix passes on. The first cause stands.
    fn fail(&self, cause: SourceError) -> io::Error {
        let text = cause.to_string();
        self.cause.borrow_mut().get_or_insert(cause);
        io::Error::other(text)
    }

    /// The cause behind an error that one of these ways gave.
    pub(crate) fn cause(&self, err: &io::Error) -> SourceError {
        self.cause
            .borrow_mut()
            .take()
            .unwrap_or_else(|| SourceError::Cut {
                url: self.url.clone(),
                received: self.received(),
                why: chain(err),
            })
    }

    /// Whether a transport has failed; gix may have made the best of it.
    pub(crate) fn broken(&self) -> Option<gix::Error> {
        let cause = self.cause.borrow();
        let text = cause.as_ref()?.to_string();
        Some(gix::Error::from_error(io::Error::other(text)))
    }

    /// The error behind what gix reports.
    pub(crate) fn explain(&self, err: &gix::Error) -> SourceError {
        if let Some(cause) = self.cause.borrow_mut().take() {
            return cause;
        }
        let why = chain(err);
        if why.contains("hash sized 64") {
            return SourceError::ObjectFormat {
                url: self.url.clone(),
            };
        }
        if matches!(
            gix::error::classify(err).dominant_class(),
            Some(gix::error::Class::ResourceExhaustion(_))
        ) {
            let what = format!("an object that {} sends", self.url);
            return SourceError::TooLarge {
                what,
                limit: self.limits.object,
            };
        }
        if let Some(full) = causes(err)
            .filter_map(|cause| cause.downcast_ref())
            .find(|err| is_of_the_disk(err))
        {
            let source = io::Error::from(full.kind());
            return SourceError::Disk {
                doing: "write",
                path: self.folder.to_owned(),
                source,
            };
        }
        let broken = causes(err)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|err| {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                matches!(
                    err.kind(),
                    UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
                )
            });
        let (url, received) = (self.url.clone(), self.received());
        if broken {
            SourceError::Cut { url, received, why }
        } else {
            SourceError::Server { url, why }
        }
    }
}

/// Kinds that no connection gives: the disk is full, worn out or read-only.
fn is_of_the_disk(err: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(err.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

fn causes<'e>(err: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(err), |err: &&'e (dyn Error + 'static)| (*err).source())
}

/// An error and its causes in one line.
pub(crate) fn chain(err: &(dyn Error + 'static)) -> String {
    kit::chain(err).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What leads to a server.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub spec: &'a GitSpec,
    pub address: &'a Address,
    /// For an HTTP address.
    pub session: Option<&'a Session<'a>>,
}

/// Connects. For HTTP nothing is sent yet.
pub(crate) fn connect<'a>(way: Way<'a>, wire: &'a Wire<'a>) -> Result<Box<dyn Transport + 'a>, SourceError> {
    match (way.address, way.session) {
        (Address::Http(url), Some(session)) => Ok(Box::new(http::transport(session, url)?)),
        (Address::Http(_), None) => unreachable!("an HTTP address comes with its session"),
        (
            Address::Ssh {
                user,
                host,
                port,
                path,
            },
            _,
        ) => {
            let server = process::Server {
                user: user.as_deref(),
                host,
                port: *port,
                path,
            };
            match &way.spec.auth {
                GitAuth::Ssh { key, known_hosts } => {
                    Ok(Box::new(process::ssh(wire, &server, key, known_hosts)?))
                }
                GitAuth::User => Ok(Box::new(process::user_ssh(wire, &server)?)),
                GitAuth::None | GitAuth::Token { .. } => {
                    unreachable!("GitSpec::check lets no other credentials pass for ssh")
                }
            }
        }
        (Address::File(path), _) => Ok(Box::new(process::file(wire, path)?)),
    }
}
