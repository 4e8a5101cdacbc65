//! Client of the OCI distribution-spec v1.1: pulls and pushes, resumed and verified.

mod auth;
mod config;
mod docker_config;
mod error;
mod fetch;
mod manifest;
mod push;
mod retry;
mod send;
mod tags;

pub use auth::Credentials;
pub use config::{Endpoint, Patience, RegistryConfig, Tls};
pub use docker_config::{BadDockerConfig, DockerConfig};
pub use error::RegistryError;
pub use fetch::Progress;
pub use manifest::Resolved;

pub(crate) use fetch::{Tally, blocking};
pub(crate) use retry::Persist;

use config::Host;
use model::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use tokio::sync::{Semaphore, SemaphorePermit};

/// All registries that images may come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    patience: Patience,
    hosts: RwLock<BTreeMap<String, Arc<Host>>>,
    tokens: auth::Tokens,
    /// One download of a blob at a time, whoever asks.
    turns: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    /// Large downloads at once: more would only slow each other down on a thin link, and none would end.
    large: Semaphore,
}

/// How many large downloads run at once, whoever asks.
const LARGE_AT_ONCE: usize = 3;
/// What is smaller does not wait in their line.
const LARGE_BYTES: u64 = 1024 * 1024;

impl Registries {
    /// No registry is configured: each host is asked by `https` at its own name, anonymously.
    pub fn new(patience: Patience) -> Self {
        Self(Arc::new(Shared {
            patience,
            hosts: RwLock::default(),
            tokens: auth::Tokens::default(),
            turns: Mutex::default(),
            large: Semaphore::new(LARGE_AT_ONCE),
        }))
    }

    /// Says how `host`, as image references name it, is reached; replaces what was said before.
    ///
    /// This is also how an alias is made: `registry.leeward.internal` with the hub's URL as its endpoint.
    pub fn configure(&self, host: &str, config: RegistryConfig) -> Result<(), RegistryError> {
        let host_config = Arc::new(Host::new(host, config, &self.0.patience)?);
        let mut hosts = self.0.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.insert(host.to_owned(), host_config);
        Ok(())
    }

    fn host(&self, name: &str) -> Result<Arc<Host>, RegistryError> {
        let known = self
            .0
            .hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        if let Some(host) = known {
            return Ok(host);
        }
        let host = Arc::new(Host::new(
            name,
            RegistryConfig::default_for(name),
            &self.0.patience,
        )?);
        let mut hosts = self.0.hosts.write().unwrap_or_else(PoisonError::into_inner);
        Ok(hosts.entry(name.to_owned()).or_insert(host).clone())
    }

    /// Waits for the right to download this blob.
    async fn turn(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                turns.insert(*digest, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Waits until a download of so many bytes may begin.
    async fn line(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        if bytes < LARGE_BYTES {
            return None;
        }
        Some(
            self.0
                .large
                .acquire()
                .await
                .expect("the semaphore is never closed"),
        )
    }
}
