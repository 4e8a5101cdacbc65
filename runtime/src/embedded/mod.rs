//! The engine without a daemon: OCI containers, one shim beside each pod.
//!
//! Takes: steps, images as unpacked layers, the pod network.
//! Gives: pods that outlive this process; everything about them is in their folders and asked from their shims, so
//! that a fresh process finds them again. Opening it needs no network.
//! Never: calls into libcontainer itself (it clones without telling the C library; see `shim`), keeps desired
//! state, touches a pod, mount, control group or address that is not its own.
//!
//! ```text
//! pods/<uid>/            one pod: state, journal, control socket, logs, what its containers wrote
//! journals/<uid>.jsonl   events of pods that are gone, until they are acknowledged
//! claims/<ns>/<name>/    persistent volumes
//! engine.jsonl           events of the engine itself
//! ```

mod events;
mod images;
mod link;
mod logs;
pub mod network;
mod place;
mod pull;
mod scan;
mod start;
mod stop;

pub use crate::shim::{LocalImage, OciChoice, Pace};
pub use images::{Answer, ImageSource, Pull};
pub use logs::{StoredLog, stored_pods};

use crate::{Engine, EngineError, EngineEvent, LogFile, LogQuery, Pulls};
use bytes::Bytes;
use events::Events;
use link::Link;
use model::{
    Action, ContainerGroup, ContainerState, ImageRef, ObjectKey, Observed, PodGroup, PodId, PodObserved, Step,
};
use place::Places;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

use crate::shim::protocol::{ShimState, container_cgroup, uid as uid_of};

/// How the engine is laid out.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Folder of all its state.
    pub root: PathBuf,
    /// Control group that the pods' lie below, an absolute path in each hierarchy; unique on the machine.
    pub cgroup_parent: String,
    /// Program and first arguments that lead to [`crate::shim::main`]; `leeward shim`.
    pub shim: Vec<OsString>,
    /// Which OCI runtime makes containers.
    pub oci: OciChoice,
    /// Times and sizes.
    pub pace: Pace,
    /// Port on the pod network's gateway that takes OTLP; pods are told of it.
    pub otlp: Option<u16>,
}

impl EmbeddedConfig {
    /// This program as its own shim, libcontainer, kubelet's times.
    pub fn new(root: impl Into<PathBuf>, cgroup_parent: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            cgroup_parent: cgroup_parent.into(),
            shim: vec!["/proc/self/exe".into(), "shim".into()],
            oci: OciChoice::Embedded,
            pace: Pace::default(),
            otlp: None,
        }
    }
}

/// See the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EmbeddedConfig,
    boot: String,
    images: Arc<dyn ImageSource>,
    places: Places,
    table: Mutex<Table>,
    /// The process that shims are forked from, once one has been needed.
    nursery: Mutex<Option<OwnedFd>>,
    /// One step at a time on each pod.
    turns: Mutex<HashMap<PodId, Arc<tokio::sync::Mutex<()>>>>,
    events: Mutex<Events>,
    /// Images on their way.
    pulls: watch::Sender<Pulls>,
    /// Counts what moved.
    version: watch::Sender<u64>,
    /// The version that was last looked at.
    seen: Mutex<u64>,
}

#[derive(Debug, Default)]
struct Table {
    pods: BTreeMap<PodId, Pod>,
    services: Option<model::Digest>,
}

/// A pod with its folder and, while it lives, the way to its shim.
#[derive(Debug, Clone)]
struct Pod {
    dir: PathBuf,
    state: ShimState,
    link: Option<Link>,
}

impl Pod {
    fn observed(&self) -> PodObserved {
        self.state.pod.clone()
    }

    fn group(&self) -> PodGroup {
        let state = &self.state;
        let containers = state.pod.containers.iter().filter_map(|container| {
            let ContainerState::Running { since } = container.state else {
                return None;
            };
            Some(ContainerGroup {
                name: container.name.clone(),
                image: state.images.get(&container.name).cloned().unwrap_or_default(),
                path: container_cgroup(&state.cgroup, &container.name),
                since,
            })
        });
        PodGroup {
            id: state.pod.id.clone(),
            uid: uid_of(&self.dir),
            path: state.cgroup.clone(),
            created_at: state.pod.created_at,
            // The shim itself is in there.
            network: (!state.host_network).then_some(state.shim.pid),
            containers: containers.collect(),
        }
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods_dir(&self) -> PathBuf {
        self.config.root.join("pods")
    }

    fn moved(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn turn(&self, pod: &PodId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(pod.clone()).or_default().clone()
    }
}

impl Engine for Embedded {
    async fn observe(&self) -> Result<Observed, EngineError> {
        let inner = &self.inner;
        let version = *inner.version.borrow();
        *inner.seen.lock().unwrap_or_else(PoisonError::into_inner) = version;
        let table = inner.table();
        Ok(Observed {
            pods: table.pods.values().map(Pod::observed).collect(),
            services: table.services,
        })
    }

    async fn apply(&self, step: &Step) -> Result<(), EngineError> {
        let inner = &self.inner;
        match &step.action {
            Action::Pull {
                image,
                policy,
                secrets,
            } => inner
                .pull(image, *policy, secrets, format!("Image/{image}"))
                .await
                .map(drop),
            Action::StartPod { pod } => {
                let turn = inner.turn(&pod.id);
                let _turn = turn.lock().await;
                inner.start_pod(pod).await
            }
            Action::StopPod { pod, grace_seconds } => {
                let turn = inner.turn(pod);
                let _turn = turn.lock().await;
                inner.stop_pod(pod, *grace_seconds).await
            }
            Action::RefreshFiles { pod, volumes } => {
                let turn = inner.turn(pod);
                let _turn = turn.lock().await;
                inner.refresh(pod, volumes).await
            }
            Action::Publish { services } => inner.publish(services).await,
        }
    }

    async fn changed(&self) {
        let seen = *self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self
            .inner
            .version
            .subscribe()
            .wait_for(|version| *version > seen)
            .await;
    }

    async fn logs(&self, query: &LogQuery) -> Result<mpsc::Receiver<Bytes>, EngineError> {
        logs::open(&self.inner, query)
    }

    async fn log_files(&self) -> Result<Vec<LogFile>, EngineError> {
        Ok(logs::files(&self.inner))
    }

    fn groups(&self) -> Vec<PodGroup> {
        let table = self.inner.table();
        let running = table.pods.values().filter(|pod| !pod.state.ended);
        running.map(Pod::group).collect()
    }

    fn pod_at(&self, address: IpAddr) -> Option<(PodId, ObjectKey)> {
        let table = self.inner.table();
        let living = table
            .pods
            .values()
            .filter(|pod| !pod.state.ended && !pod.state.host_network);
        let pod = living
            .map(|pod| &pod.state.pod)
            .find(|pod| pod.ip == Some(address))?;
        Some((pod.id.clone(), pod.owner.clone()))
    }

    async fn events(&self, after: &BTreeMap<String, u64>) -> Result<Vec<EngineEvent>, EngineError> {
        self.inner.events().read(&self.inner.config.root, after)
    }

    async fn sources(&self) -> Result<BTreeSet<String>, EngineError> {
        Ok(events::sources(&self.inner.config.root))
    }

    async fn keep(&self, images: &BTreeSet<ImageRef>) -> Result<(), EngineError> {
        self.inner.keep(images).await
    }

    fn pulls(&self) -> watch::Receiver<Pulls> {
        self.inner.pulls.subscribe()
    }
}
