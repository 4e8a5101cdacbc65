//! Trying again: other mirrors first, then later.

use super::config::{Host, Place};
use super::{Patience, Registries, RegistryError};
use kit::Backoff;
use std::sync::Arc;
use std::time::Duration;

/// How long to go on asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persist {
    /// Each place is asked once.
    Once,
    /// As [`Patience`] says.
    AsConfigured,
}

/// Counts failures in a row and waits between them.
#[derive(Debug)]
pub(super) struct Tries {
    backoff: Backoff,
    patience: Patience,
}

impl Tries {
    pub fn new(patience: &Patience) -> Self {
        Self {
            backoff: Backoff::new(patience.first_wait, patience.longest_wait),
            patience: patience.clone(),
        }
    }

    /// Something came: the next failure is the first again.
    pub fn progressed(&mut self) {
        self.backoff.succeeded();
    }

    /// Waits before the next try, or gives the error back when it is of no use.
    pub async fn failed(&mut self, err: RegistryError) -> Result<(), RegistryError> {
        if err.is_transient() {
            self.again(err).await
        } else {
            Err(err)
        }
    }

    /// As [`Tries::failed`], for an error after which something else is asked than before.
    pub async fn again(&mut self, err: RegistryError) -> Result<(), RegistryError> {
        if self.backoff.failures() + 1 >= self.patience.failures {
            return Err(err);
        }
        let mut wait = self.backoff.failed();
        if let Some(asked) = err.retry_after() {
            // Never sooner than asked, but no registry may put us to sleep for ever.
            wait = wait.max(asked.min(self.patience.longest_wait.max(Duration::from_secs(1))));
        }
        tracing::info!(error = kit::chain(&err), ?wait, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Registries {
    /// Does a small, repeatable thing at the first place where it works; `persist` says whether to come back later.
    pub(super) async fn anywhere<T, Asking>(
        &self,
        host: &Host,
        persist: Persist,
        ask: impl Fn(Arc<Place>) -> Asking,
    ) -> Result<T, RegistryError>
    where
        Asking: Future<Output = Result<T, RegistryError>>,
    {
        let mut tries = Tries::new(&self.0.patience);
        loop {
            let mut worst: Option<RegistryError> = None;
            for place in &host.places {
                match ask(place.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(err) if !err.try_next_place() => return Err(err),
                    Err(err) => {
                        // A mirror that is only away must not hide behind another's "not found", nor the reverse:
                        // what may work later decides.
                        if worst.as_ref().is_none_or(|held| !held.is_transient()) {
                            worst = Some(err);
                        }
                    }
                }
            }
            let err = worst.expect("a host has at least one place");
            match persist {
                Persist::Once => return Err(err),
                Persist::AsConfigured => tries.failed(err).await?,
            }
        }
    }
}
