//! Opening: what an earlier process left is found again, taken over or put away.

use super::events::Events;
use super::link::Link;
use super::network::Network;
use super::place::Places;
use super::{Embedded, EmbeddedConfig, ImageSource, Inner, Pod, Table, uid_of};
use crate::EngineError;
use crate::shim::protocol::{ShimState, boot_id};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A live shim answers at once; on a busy device at once may take a while.
const PATIENCE: Duration = Duration::from_secs(20);

impl Embedded {
    /// Opens the engine: running pods are taken over, ended ones remembered, remains of another boot or of a dead
    /// shim removed. Needs no route and no resolver.
    ///
    /// Without a pod network pods have no address and Services cannot be published.
    pub async fn open(
        config: EmbeddedConfig,
        images: Arc<dyn ImageSource>,
        network: Option<Network>,
    ) -> Result<Self, EngineError> {
        let disk = |doing: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| EngineError::Disk { doing, path, source }
        };
        for below in ["pods", "journals", "claims"] {
            let dir = config.root.join(below);
            kit::disk::create_dir_all(&dir).map_err(disk("making", &dir))?;
        }
        let boot = boot_id().map_err(disk("reading", Path::new("/proc/sys/kernel/random/boot_id")))?;
        let events = Events::open(&config.root)?;
        let places = Places::new(network, config.otlp);
        let inner = Arc::new(Inner {
            config,
            boot,
            images,
            places,
            table: Mutex::new(Table::default()),
            nursery: Mutex::new(None),
            turns: Mutex::new(HashMap::new()),
            events: Mutex::new(events),
            pulls: watch::Sender::default(),
            version: watch::Sender::new(1),
            seen: Mutex::new(0),
        });
        inner.find_pods().await?;
        Ok(Self { inner })
    }
}

impl Inner {
    async fn find_pods(self: &Arc<Self>) -> Result<(), EngineError> {
        let dir = self.pods_dir();
        let entries = fs::read_dir(&dir).map_err(|source| EngineError::Disk {
            doing: "reading",
            path: dir,
            source,
        })?;
        let dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        for dir in &dirs {
            self.find(dir).await;
        }
        let mut kept: BTreeSet<String> = self.table().pods.values().map(|pod| uid_of(&pod.dir)).collect();
        kept.insert(super::pull::GENERATIONS.to_owned());
        for owner in self
            .images
            .owners()
            .into_iter()
            .filter(|owner| !kept.contains(owner))
        {
            if let Err(error) = self.images.keep(&owner, &[]) {
                tracing::warn!(owner, %error, "images of a pod that is gone are not let go");
            }
        }
        let live = self
            .table()
            .pods
            .iter()
            .filter(|(_, pod)| pod.link.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        self.places.retain(&live).await
    }

    /// Takes over or puts away the pod in one folder.
    async fn find(self: &Arc<Self>, dir: &Path) {
        let Some(state) = ShimState::read(dir) else {
            return self.clean_machine(dir).await;
        };
        if state.ended {
            if state.pod.terminating {
                return self.clean_machine(dir).await;
            }
            let id = state.pod.id.clone();
            self.table().pods.insert(
                id,
                Pod {
                    dir: dir.to_owned(),
                    state,
                    link: None,
                },
            );
            return;
        }
        if state.boot != self.boot || !state.placed || !state.shim.lives() {
            return self.clean_machine(dir).await;
        }
        if let Err(why) = self.take_over(dir, &state).await {
            tracing::warn!(pod = %state.pod.id, why, "its shim does not answer; removing the pod");
            self.clean_machine(dir).await;
        }
    }

    async fn take_over(self: &Arc<Self>, dir: &Path, state: &ShimState) -> Result<(), String> {
        let connected = tokio::time::timeout(PATIENCE, Link::connect(dir)).await;
        let stream = connected
            .map_err(|_| "no answer in time")?
            .map_err(|err| err.to_string())?;
        let link = Link::new(self, dir, stream);
        let told = tokio::time::timeout(PATIENCE, link.until(|told| told.state.is_some())).await;
        if !told.unwrap_or(false) {
            return Err("no answer in time".to_owned());
        }
        tracing::info!(pod = %state.pod.id, "taken over");
        Ok(())
    }
}
