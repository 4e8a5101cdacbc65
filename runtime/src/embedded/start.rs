//! How a pod is made.

use super::link::Link;
use super::network::PodAddress;
use super::{Inner, LocalImage, Pod};
use crate::EngineError;
use crate::shim::nursery;
use crate::shim::protocol::{Handover, Request, SHIM_LOG, ShimState};
use jiff::Timestamp;
use model::{ImageRef, PodId, PodPhase, PodRun, ServiceRun, Volume};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A shim that has said nothing for so long never will.
const PATIENCE: Duration = Duration::from_secs(150);

impl Inner {
    /// Makes and starts a pod; the caller has its turn.
    pub(super) async fn start_pod(self: &Arc<Self>, run: &PodRun) -> Result<(), EngineError> {
        let held = self.table().pods.get(&run.id).cloned();
        if let Some(pod) = held {
            let seen = &pod.state.pod;
            // Unplaced it is what a step left that was given up half-way; its turn is ours, so nobody is at it.
            let over = pod.state.ended
                || !pod.state.placed
                || seen.terminating
                || matches!(seen.phase, PodPhase::Succeeded | PodPhase::Failed);
            if !over && seen.template == run.template {
                return Ok(());
            }
            if !over {
                return Err(EngineError::Refused {
                    pod: run.id.clone(),
                    container: None,
                    what: "it runs already, made from another template".to_owned(),
                    remedy: "stop it first".to_owned(),
                });
            }
            if let Some(link) = pod.link.as_ref().filter(|_| pod.state.placed) {
                // It is over or ending, perhaps for an earlier agent, and its shim is putting things away.
                in_time(link.until(|told| told.over)).await;
            }
            self.remove(&run.id, &pod).await?;
        }
        let images = self.images_of(run).await?;
        let uid = format!("{:010x}", rand::random::<u64>() >> 24);
        let dir = self.pods_dir().join(&uid);
        let done = self.launch(run, images, &dir).await;
        if done.is_err() {
            self.table().pods.remove(&run.id);
            self.clean(&dir, &run.id).await;
            self.moved();
        }
        done
    }

    async fn images_of(self: &Arc<Self>, run: &PodRun) -> Result<BTreeMap<String, LocalImage>, EngineError> {
        let mut images: BTreeMap<String, LocalImage> = BTreeMap::new();
        let mut pulled: BTreeMap<&ImageRef, LocalImage> = BTreeMap::new();
        for container in run.init_containers.iter().chain(&run.containers) {
            let image = match pulled.get(&container.image) {
                Some(image) => image.clone(),
                None => {
                    let about = format!("Pod/{}", run.id);
                    self.pull(&container.image, container.pull, &run.pull_secrets, about)
                        .await?
                }
            };
            pulled.insert(&container.image, image.clone());
            images.insert(container.name.clone(), image);
        }
        Ok(images)
    }

    async fn launch(
        self: &Arc<Self>,
        run: &PodRun,
        images: BTreeMap<String, LocalImage>,
        dir: &Path,
    ) -> Result<(), EngineError> {
        let failed = |doing: &'static str| move |why: String| pod_error(run, doing, why);
        fs::create_dir_all(dir).map_err(|source| EngineError::Disk {
            doing: "making",
            path: dir.to_owned(),
            source,
        })?;
        let (source, kept): (_, Vec<LocalImage>) =
            (Arc::clone(&self.images), images.values().cloned().collect());
        let owner = super::uid_of(dir);
        // Waits for the disk, which the shim's start does not have to.
        let keeping = tokio::task::spawn_blocking(move || source.keep(&owner, &kept));
        let mut run_here = run.clone();
        // It has its images.
        run_here.pull_secrets = Vec::new();
        let handover = Handover {
            run: run_here,
            images,
            cgroup_parent: self.config.cgroup_parent.clone(),
            claims: self.config.root.join("claims"),
            oci: self.config.oci.clone(),
            pace: self.config.pace,
            created_at: Timestamp::now(),
        };
        let lost = || pod_error(run, "starting its shim", last_words(dir));
        let begin = Request::Begin(Box::new(handover));
        let mut link = self.begin(dir, &begin).await;
        if link.is_err() && !dir.join(SHIM_LOG).exists() {
            // The nursery died with the request in its hands: no shim has been there.
            link = self.begin(dir, &begin).await;
        }
        let link = link.map_err(|_| lost())?;
        let pid = link.state().map(|state| state.shim.pid).ok_or_else(lost)?;
        let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let place = self.places.attach(run, &netns).await?;
        keeping
            .await
            .map_err(|err| err.to_string())
            .flatten()
            .map_err(failed("keeping its images"))?;
        link.send(&Request::Go(place)).await.map_err(|_| lost())?;
        let begun = |state: &ShimState| state.begun || state.ended;
        if !in_time(link.until(|told| told.state.as_ref().is_some_and(begun))).await {
            return Err(lost());
        }
        Ok(())
    }

    /// Hands a pod over to a new shim and waits for its word.
    async fn begin(self: &Arc<Self>, dir: &Path, begin: &Request) -> io::Result<Link> {
        let link = Link::new(self, dir, self.spawn_shim(dir)?);
        link.send(begin).await?;
        let ready = in_time(link.until(|told| told.ready && told.state.is_some())).await;
        if ready {
            Ok(link)
        } else {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    /// Has the nursery fork a shim; gives the first connection to it.
    fn spawn_shim(&self, dir: &Path) -> io::Result<tokio::net::UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut nursery = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = nursery
            .as_ref()
            .map(|nursery| nursery::ask(nursery, dir, &theirs));
        if !matches!(asked, Some(Ok(()))) {
            // The first, or the one before has been killed.
            nursery::ask(nursery.insert(self.spawn_nursery()?), dir, &theirs)?;
        }
        ours.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(ours)
    }

    fn spawn_nursery(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let program = self.config.shim.split_first();
        let (program, first) = program.ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = tokio::process::Command::new(program)
            .args(first)
            .arg("nursery")
            .stdin(theirs)
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()?;
        tokio::spawn(async move {
            // Only so that it is buried; the next request to it shows that it has gone.
            let _ = child.wait().await;
        });
        Ok(ours)
    }

    /// A shim has told its state.
    pub(super) fn told(&self, dir: &Path, state: &ShimState, link: &Link) {
        let mut table = self.table();
        let id = &state.pod.id;
        if table.pods.get(id).is_some_and(|held| held.dir != dir) {
            return;
        }
        let pod = Pod {
            dir: dir.to_owned(),
            state: state.clone(),
            link: Some(link.clone()),
        };
        table.pods.insert(id.clone(), pod);
        drop(table);
        self.moved();
    }

    /// Replaces the files of a running pod's volumes.
    pub(super) async fn refresh(&self, id: &PodId, volumes: &[Volume]) -> Result<(), EngineError> {
        let link = self.table().pods.get(id).and_then(|pod| pod.link.clone());
        let link = link.ok_or_else(|| EngineError::NotFound(format!("a running pod {id}")))?;
        let request = Request::Refresh {
            volumes: volumes.to_vec(),
        };
        link.ask(&request).await.map_err(|why| EngineError::Pod {
            pod: id.clone(),
            doing: "refreshing its files",
            why,
        })
    }

    /// Makes these the device's Services.
    pub(super) async fn publish(&self, services: &[ServiceRun]) -> Result<(), EngineError> {
        let addresses = self.table().pods.values().filter_map(address).collect();
        self.places.publish(services, &addresses).await?;
        self.table().services = Some(model::services_digest(services));
        self.moved();
        Ok(())
    }
}

/// Where Services find a pod.
fn address(pod: &Pod) -> Option<(PodId, PodAddress)> {
    let Some(IpAddr::V4(ip)) = pod.state.pod.ip else {
        return None;
    };
    let (ports, hostname) = (pod.state.ports.clone(), pod.state.hostname.clone());
    Some((pod.state.pod.id.clone(), PodAddress { ip, ports, hostname }))
}

fn pod_error(run: &PodRun, doing: &'static str, why: String) -> EngineError {
    EngineError::Pod {
        pod: run.id.clone(),
        doing,
        why,
    }
}

async fn in_time(wait: impl Future<Output = bool>) -> bool {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or(false)
}

/// The last line of a shim's log, or that there is none.
fn last_words(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join(SHIM_LOG)).unwrap_or_default();
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => line.to_owned(),
        None => "the shim ended without a word; see the agent's log".to_owned(),
    }
}
