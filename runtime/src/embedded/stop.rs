//! How a pod is stopped, and how what is left of one is put away.

use super::{Inner, Pod, uid_of};
use crate::EngineError;
use crate::shim::journal::{self, Journal};
use crate::shim::protocol::{JOURNAL, Request, ShimState, pod_cgroup, shim_cgroup};
use crate::shim::{Cgroups, protocol::ProcessId};
use jiff::Timestamp;
use model::{PodId, Severity};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Beyond the grace period: what the shim needs to put everything away on a busy device.
const PATIENCE: Duration = Duration::from_secs(30);

impl Inner {
    /// Stops and removes a pod; the caller has its turn.
    pub(super) async fn stop_pod(&self, id: &PodId, grace_seconds: u32) -> Result<(), EngineError> {
        let held = self.table().pods.get(id).cloned();
        let Some(pod) = held else {
            return Ok(());
        };
        if let Some(link) = pod.link.as_ref().filter(|_| !pod.state.ended) {
            let asked = link.send(&Request::Stop { grace_seconds }).await;
            if asked.is_ok() {
                let patience = Duration::from_secs(grace_seconds.into()) + PATIENCE;
                // Whether it ended well or not: `remove` leaves nothing alive.
                let _ = tokio::time::timeout(patience, link.until(|told| told.over)).await;
            }
        }
        self.remove(id, &pod).await
    }

    /// Removes a pod of which nothing should be left alive, and makes sure of it.
    pub(super) async fn remove(&self, id: &PodId, pod: &Pod) -> Result<(), EngineError> {
        self.clean(&pod.dir, id).await;
        if pod.dir.exists() {
            return Err(EngineError::Pod {
                pod: id.clone(),
                doing: "removing what it left",
                why: format!("{} cannot be removed; see the agent's log", pod.dir.display()),
            });
        }
        let mut table = self.table();
        if table.pods.get(id).is_some_and(|held| held.dir == pod.dir) {
            table.pods.remove(id);
        }
        drop(table);
        self.moved();
        Ok(())
    }

    /// Puts away all that a pod may have left: processes, control groups, address, folder. Its journal stays
    /// until it has been read.
    pub(super) async fn clean(&self, dir: &Path, id: &PodId) {
        if let Err(error) = self.places.detach(id).await {
            tracing::warn!(pod = %id, %error, "the pod's address is not taken back");
        }
        self.clean_machine(dir).await;
    }

    /// [`Inner::clean`] for a folder whose pod is not known.
    pub(super) async fn clean_machine(&self, dir: &Path) {
        let (owned, boot) = (dir.to_owned(), self.boot.clone());
        let parent = self.config.cgroup_parent.clone();
        let journals = self.config.root.join("journals");
        let work = move || clean_blocking(&owned, &parent, &boot, &journals);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(dir = %dir.display(), %error, "not all of a pod is put away"),
            Err(error) => tracing::error!(%error, "putting a pod away ended early"),
        }
        if let Err(error) = self.images.keep(&uid_of(dir), &[]) {
            tracing::warn!(%error, "a pod's images are not let go");
        }
    }

    /// The connection to a shim has ended: the pod is over, or the shim has died and its containers must too, as
    /// nobody holds their output or would start them again.
    pub(super) async fn lost(&self, dir: &Path) {
        let found = self
            .table()
            .pods
            .iter()
            .find(|(_, pod)| pod.dir == dir)
            .map(|(id, _)| id.clone());
        let Some(id) = found else {
            return;
        };
        // What was written last is the truth; the connection may have been too slow for it.
        let state = ShimState::read(dir);
        if let Some(state) = state.filter(|state| state.ended) {
            if let Some(pod) = self.table().pods.get_mut(&id).filter(|pod| pod.dir == dir) {
                pod.state = state;
                pod.link = None;
            }
            if let Err(error) = self.places.detach(&id).await {
                tracing::warn!(pod = %id, %error, "the pod's address is not taken back");
            }
            self.moved();
            return;
        }
        let turn = self.turn(&id);
        let _turn = turn.lock().await;
        let gone = self.table().pods.get(&id).is_none_or(|pod| pod.dir != dir);
        if gone {
            return;
        }
        tracing::warn!(pod = %id, "its shim has died; removing the pod");
        let message = "the pod's shim has died; the pod is removed and made again where it is wanted";
        let event = journal::about(
            &id.to_string(),
            Timestamp::now(),
            Severity::Warning,
            "ShimLost",
            message.to_owned(),
        );
        match Journal::open(&dir.join(JOURNAL)) {
            Ok(mut journal) => journal.tell(event),
            Err(error) => tracing::warn!(%error, "the end of a shim is not in its journal"),
        }
        self.clean(dir, &id).await;
        self.table().pods.remove(&id);
        self.moved();
    }
}

fn clean_blocking(dir: &Path, parent: &str, boot: &str, journals: &Path) -> io::Result<()> {
    let state = ShimState::read(dir);
    if let Some(state) = &state
        && state.boot == boot
    {
        end_shim(state.shim);
    }
    let cgroups = Cgroups::detect(parent)?;
    // First those who could make more.
    cgroups.remove(&shim_cgroup(parent, dir), Duration::from_secs(10))?;
    cgroups.remove(&pod_cgroup(parent, dir), Duration::from_secs(10))?;
    let journal = dir.join(JOURNAL);
    if journal.exists() {
        fs::create_dir_all(journals)?;
        kit::disk::rename(&journal, &journals.join(format!("{}.jsonl", uid_of(dir))))?;
    }
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Kills a shim that is still there; its mounts and namespaces end with it and its containers.
fn end_shim(shim: ProcessId) {
    let began = std::time::Instant::now();
    while shim.lives() && !is_zombie(shim.pid) && began.elapsed() < Duration::from_secs(5) {
        // Gone meanwhile is as good.
        let _ = kill(nix::unistd::Pid::from_raw(shim.pid), Signal::SIGKILL);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}
