//! What every engine promises.

use crate::logs::Grep;
use bytes::Bytes;
use jiff::Timestamp;
use model::{Event, ImageRef, ObjectKey, Observed, PodGroup, PodId, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};

/// One contract for all engines; `tests/contract` holds it as a test suite that runs over each of them.
pub trait Engine: Send + Sync + 'static {
    /// What is on the machine now, pods sorted by name.
    fn observe(&self) -> impl Future<Output = Result<Observed, EngineError>> + Send;

    /// Takes one step and returns when it is done.
    ///
    /// A pod is started when each of its containers has been started or has failed to; where it has init
    /// containers, when the first of them has. A container that fails is no error of the step but a state of
    /// the pod: only what keeps the pod from being made at all is. Steps may run side by side; two steps on
    /// one pod run one after the other. A step that is done already is no error.
    fn apply(&self, step: &Step) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Returns once something has moved since the last [`Engine::observe`]: look again.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// A container's output, whole lines, until its end or (following) until the pod is gone or the receiver
    /// is dropped.
    fn logs(
        &self,
        query: &LogQuery,
    ) -> impl Future<Output = Result<mpsc::Receiver<Bytes>, EngineError>> + Send;

    /// Where the output of running and ended containers lies, until their pod is removed: what collects logs follows
    /// these files. Empty for an engine that keeps no files.
    fn log_files(&self) -> impl Future<Output = Result<Vec<LogFile>, EngineError>> + Send;

    /// Where the kernel counts what running pods use. Empty for an engine that runs no processes.
    fn groups(&self) -> Vec<PodGroup>;

    /// The pod that has this address on the pod network: who calls.
    fn pod_at(&self, address: IpAddr) -> Option<(PodId, ObjectKey)>;

    /// Events after the given position of each source (0 or absent: from the start), each source's in order.
    ///
    /// The journal of a removed pod is dropped once `after` covers all of it, so pass on only positions that
    /// are durable elsewhere.
    fn events(
        &self,
        after: &BTreeMap<String, u64>,
    ) -> impl Future<Output = Result<Vec<EngineEvent>, EngineError>> + Send;

    /// Names of all journals that there are. One that was there and is no more never comes back: its position may be
    /// forgotten.
    fn sources(&self) -> impl Future<Output = Result<BTreeSet<String>, EngineError>> + Send;

    /// Makes these all the images that are kept on the device beside those of its pods, so that what it may have to
    /// run again needs no registry. One that is not here is left out.
    fn keep(&self, images: &BTreeSet<ImageRef>) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Images on their way to the device, as they come.
    fn pulls(&self) -> watch::Receiver<Pulls>;
}

/// How far each image is that is on its way.
pub type Pulls = BTreeMap<ImageRef, PullProgress>;

/// Bytes of a pull. Both are 0 until the registry has said how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Here, those from before included.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// Which output of which container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Which pod.
    pub pod: PodId,
    /// Which container; may be absent where the pod has one.
    pub container: Option<String>,
    /// Go on as lines are written.
    pub follow: bool,
    /// Only the last so many of the lines that are wanted, of what is there.
    pub tail: Option<usize>,
    /// The run before the present one.
    pub previous: bool,
    /// Lines written at or after this moment.
    pub since: Option<Timestamp>,
    /// Lines written at or before this moment.
    pub until: Option<Timestamp>,
    /// Lines in which this is found.
    pub grep: Option<Grep>,
    /// Put the time in front of each line (RFC 3339).
    pub timestamps: bool,
    /// Each line as a JSON object with `time`, `stream`, `namespace`, `pod`, `container`, `run` and `message`.
    pub json: bool,
}

impl LogQuery {
    /// All that a pod's only container has written.
    pub fn of(pod: PodId) -> Self {
        Self {
            pod,
            container: None,
            follow: false,
            tail: None,
            previous: false,
            since: None,
            until: None,
            grep: None,
            timestamps: false,
            json: false,
        }
    }
}

/// The log of one run of a container, in the form of [`model::cri`]; rotation leaves `path.1`, `path.2`,
/// ... beside it, and [`crate::logs::keep`] `path-TIME.zst`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// Of which pod.
    pub pod: PodId,
    /// The workload it belongs to.
    pub owner: ObjectKey,
    /// Which container.
    pub container: String,
    /// How many runs there were before.
    pub run: u32,
    /// Where it is being written, or was.
    pub path: PathBuf,
}

/// An event with its place in the journal that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// The journal: one per pod as made (a pod made again under its name has another), one for the engine.
    pub source: String,
    /// Index in the journal, from 1; a gap is what a journal that nobody read for long had to drop.
    pub position: u64,
    /// What happened.
    pub event: Event,
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The image cannot be had.
    #[error("{why}")]
    Pull {
        /// Which.
        image: Box<ImageRef>,
        /// What went wrong with it, by its name, and what to do about it.
        why: String,
    },
    /// The pod asks for something that this device or engine cannot give.
    #[error("pod {pod}{}: {what}; {remedy}", in_container(.container))]
    Refused {
        /// Which.
        pod: PodId,
        /// In which container, where one is to blame.
        container: Option<String>,
        /// What cannot be had.
        what: String,
        /// What to change.
        remedy: String,
    },
    /// No such pod or container here.
    #[error("{0} is not on this device; list the pods with `leeward get workloads`")]
    NotFound(String),
    /// The pod could not be made or stopped.
    #[error("pod {pod}: {doing} failed: {why}")]
    Pod {
        /// Which.
        pod: PodId,
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        why: String,
    },
    /// A file of the engine's state cannot be read or written.
    #[error("{doing} {path} failed", path = .path.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It could not be noted which images are to stay.
    #[error("images: {0}")]
    Images(String),
    /// The pod network could not be set up or changed.
    #[error("network: {0}")]
    Network(String),
}

fn in_container(container: &Option<String>) -> String {
    container
        .as_ref()
        .map_or_else(String::new, |name| format!(", container {name}"))
}
