//! What agent and shim tell each other: one JSON value a line, over a Unix stream socket.

use model::{Digest, PodObserved, PodRun, Volume};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Names inside a pod's folder.
pub(crate) const STATE: &str = "state.json";
pub(crate) const JOURNAL: &str = "journal.jsonl";
pub(crate) const SOCKET: &str = "ctl";
pub(crate) const LOGS: &str = "logs";
/// In the shim's private memory, as it holds Secrets.
pub(crate) const HANDOVER: &str = "handover.json";
pub(crate) const SHIM_LOG: &str = "shim.log";

/// An image as it lies on the device, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalImage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Unpacked layers, the lowest first; each an overlayfs lower folder.
    pub layers: Vec<PathBuf>,
    /// `Entrypoint` of the image's configuration.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, as `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `User`: a name or number, and after a colon a group.
    pub user: Option<String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
}

/// Which OCI runtime makes containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OciChoice {
    /// libcontainer, in a helper process of this program.
    Embedded,
    /// A program with the OCI runtimes' command line: `runc`, `crun`, `nvidia-container-runtime`.
    CommandLine(PathBuf),
}

/// Times and sizes that the shim goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Milliseconds before the first restart; doubles with each further one.
    pub restart_first_ms: u64,
    /// Upper bound of that, milliseconds.
    pub restart_most_ms: u64,
    /// A run of at least so many milliseconds starts the doubling over.
    pub restart_reset_ms: u64,
    /// Size at which a log file is rotated, bytes.
    pub log_bytes: u64,
    /// Rotated files kept beside the current one.
    pub log_files: u32,
}

impl Default for Pace {
    /// Kubelet's: 10 s doubling to 5 min, over after 10 min; logs of 10 MiB and four older files.
    fn default() -> Self {
        Self {
            restart_first_ms: 10_000,
            restart_most_ms: 300_000,
            restart_reset_ms: 600_000,
            log_bytes: 10 << 20,
            log_files: 4,
        }
    }
}

/// All that a shim needs, handed over once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) run: PodRun,
    /// By container name; those of init containers too.
    pub(crate) images: BTreeMap<String, LocalImage>,
    /// Absolute path below each cgroup hierarchy; the pods' cgroups lie below it.
    pub(crate) cgroup_parent: String,
    /// Folder of the persistent claims.
    pub(crate) claims: PathBuf,
    pub(crate) oci: OciChoice,
    pub(crate) pace: Pace,
    pub(crate) created_at: jiff::Timestamp,
}

/// What is known once the pod has its place on the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) ip: Option<std::net::IpAddr>,
    pub(crate) host_ip: Option<std::net::IpAddr>,
    pub(crate) resolv_conf: String,
    /// Where it may send OTLP.
    #[serde(default)]
    pub(crate) otlp: Option<String>,
}

/// Agent to shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First of all: what the pod is. The containers wait for [`Request::Go`].
    Begin(Box<Handover>),
    /// Start.
    Go(Place),
    /// Stop all and end.
    Stop { grace_seconds: u32 },
    /// Replace the files of these volumes.
    Refresh { volumes: Vec<Volume> },
}

/// Shim to agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The namespaces are there; the pod may be attached.
    Ready,
    /// The state, whenever it has changed, and first on each connection.
    State(Box<ShimState>),
    /// The last request with an answer ([`Request::Refresh`]) is done.
    Done,
    /// It could not be done.
    Failed(String),
}

/// A process that cannot be mistaken for a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Clock ticks after boot (proc_pid_stat(5), field 22).
    pub(crate) start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start = start_of(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start })
    }

    /// Whether it still runs (or is a zombie).
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

fn start_of(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; fields are counted after its end.
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// What a shim writes down and tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimState {
    /// Boot that all of this belongs to.
    pub(crate) boot: String,
    pub(crate) shim: ProcessId,
    /// Cgroup of the pod, below each hierarchy.
    pub(crate) cgroup: String,
    /// No process is left and none will be started.
    pub(crate) ended: bool,
    /// The first containers have been started or have failed to.
    pub(crate) begun: bool,
    /// The pod has its place on the network; without it nothing is started.
    pub(crate) placed: bool,
    pub(crate) host_network: bool,
    /// How many of the containers are init containers.
    pub(crate) init_containers: usize,
    /// Containers' ports by name, for Services.
    pub(crate) ports: BTreeMap<String, u16>,
    /// What each container was asked to run; a shim of an earlier version does not say.
    #[serde(default)]
    pub(crate) images: BTreeMap<String, String>,
    /// `spec.hostname`, the pod's name where absent.
    pub(crate) hostname: String,
    pub(crate) pod: PodObserved,
}

impl ShimState {
    /// Reads what lies in a pod's folder; `None` where nothing readable does.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(STATE)).ok()?).ok()
    }
}

/// Control group of a pod's shim and its helpers: beside the pod's own, so that they count against no limit of it,
/// and one for each pod, so that a helper that outlives its shim is found.
pub(crate) fn shim_cgroup(parent: &str, dir: &Path) -> String {
    format!("{parent}/shims/{}", uid(dir))
}

/// Control group of the pod in this folder.
pub(crate) fn pod_cgroup(parent: &str, dir: &Path) -> String {
    format!("{parent}/pod{}", uid(dir))
}

/// Control group of a container of the pod with this group.
pub(crate) fn container_cgroup(pod: &str, container: &str) -> String {
    format!("{pod}/{container}")
}

/// A pod's folder is named by its uid.
pub(crate) fn uid(dir: &Path) -> String {
    dir.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// This boot's id.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_shift_the_start_time() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(start_of(stat), Some(4242));
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(own.lives());
        assert!(
            !ProcessId {
                start: own.start + 1,
                ..own
            }
            .lives()
        );
    }
}
