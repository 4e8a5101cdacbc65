//! Who may do what: asked of whoever runs the registry.

use http::request::Parts;
use std::sync::Arc;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See whether anyone is there.
    Ping,
    /// See all repositories' names.
    Catalog,
    /// Read from a repository.
    Pull,
    /// Write to a repository.
    Push,
    /// Remove from a repository.
    Delete,
}

/// A request before it is let in.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What it wants to do.
    pub action: Action,
    /// Where; none for [`Action::Ping`] and [`Action::Catalog`].
    pub repository: Option<&'a str>,
    /// Its method, headers and extensions: who asks.
    pub request: &'a Parts,
}

/// Whether a request is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is.
    Allow,
    /// It must say who it is first; `challenge` is the `WWW-Authenticate` header.
    Unauthenticated {
        /// As in `Basic realm="leeward"`.
        challenge: String,
    },
    /// It is not.
    Forbid {
        /// Told to the client.
        why: String,
    },
}

/// The hook that decides.
#[derive(Clone)]
pub struct Access(Arc<dyn Fn(&Asked<'_>) -> Answer + Send + Sync>);

impl Access {
    /// Decides by `decide`, which must be quick.
    pub fn new(decide: impl Fn(&Asked<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// Everyone may do everything: for tests and for registries behind another gate.
    pub fn open() -> Self {
        Self::new(|_| Answer::Allow)
    }

    pub(super) fn ask(&self, asked: &Asked<'_>) -> Answer {
        (self.0)(asked)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access(..)")
    }
}
