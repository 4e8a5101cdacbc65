//! The shim's one loop: it waits for signals, requests, output, probe answers and deadlines, and acts on them.

mod ending;
mod probing;
mod starting;
mod telling;

use super::cgroup::Cgroups;
use super::container::{Container, State};
use super::control::Client;
use super::journal::Journal;
use super::log::LogFile;
use super::oci::{self, OciRuntime};
use super::output::Output;
use super::probe::Which;
use super::probe::net::Try;
use super::protocol::{
    HANDOVER, Handover, JOURNAL, LOGS, Pace, Place, ProcessId, Report, Request, ShimState, pod_cgroup,
};
use super::spec::Host;
use model::{PodObserved, PodPhase};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the shim was given at its start.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) dir: PathBuf,
    pub(super) run: PathBuf,
    pub(super) listener: UnixListener,
    pub(super) signals: SignalFd,
    pub(super) client: Client,
    pub(super) boot: String,
    pub(super) own: ProcessId,
    pub(super) cgroups: Cgroups,
}

/// A helper process under way.
#[derive(Debug)]
struct Job {
    pid: i32,
    kind: JobKind,
    /// When it is killed.
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    /// Makes a container.
    Start(usize),
    /// Asks a container something.
    Probe(usize, Which),
    /// Makes the pod's process namespace.
    Hold,
}

/// A network probe under way.
#[derive(Debug)]
struct NetTry {
    container: usize,
    which: Which,
    attempt: Try,
    deadline: Instant,
}

/// Why the pod is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The agent asked for it.
    Asked,
    /// `activeDeadlineSeconds` is over.
    Deadline,
    /// The device goes down: the pod is to run again afterwards, so its end is not written down.
    Shutdown,
}

/// A pod and all that the shim knows of it.
#[derive(Debug)]
pub(super) struct Pod {
    dir: PathBuf,
    run: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    clients: Vec<Client>,
    cgroups: Cgroups,
    cgroup: String,
    cgroup_parent: String,
    oci: Box<dyn OciRuntime>,
    host: Host,
    pace: Pace,
    journal: Journal,
    containers: Vec<Container>,
    logs: Vec<LogFile>,
    outputs: Vec<Output>,
    jobs: Vec<Job>,
    tries: Vec<NetTry>,
    /// Ends of processes that no job is known for yet: pid and status.
    strays: Vec<(i32, i32)>,
    place: Option<Place>,
    /// Volumes and shared files are there.
    furnished: bool,
    shares_processes: bool,
    /// First process of the shared process namespace.
    holder: Option<ProcessId>,
    fs_group: Option<u32>,
    grace: Duration,
    active: Option<Duration>,
    began: Option<Instant>,
    stop: Option<Stop>,
    /// What keeps the pod as a whole from running.
    trouble: Option<String>,
    state: ShimState,
    /// What was last written and told.
    told: Option<ShimState>,
    /// The pod's name for people.
    name: String,
}

impl Pod {
    /// Takes the pod over; containers wait for [`Request::Go`].
    pub(super) fn new(seat: Seat, handover: Handover) -> io::Result<Self> {
        let run = &handover.run;
        // Kept in memory only: it holds Secrets.
        fs::write(seat.run.join(HANDOVER), serde_json::to_vec(&handover)?)?;
        fs::create_dir_all(seat.dir.join(LOGS))?;
        let cgroup = pod_cgroup(&handover.cgroup_parent, &seat.dir);
        let containers = containers(&handover)?;
        let pod = PodObserved {
            id: run.id.clone(),
            owner: run.owner.clone(),
            template: run.template,
            labels: run.labels.clone(),
            files: model::files_digest(&run.volumes),
            phase: PodPhase::Pending,
            ip: None,
            created_at: handover.created_at,
            containers: containers.iter().map(Container::observed).collect(),
            terminating: false,
            trouble: None,
        };
        let state = ShimState {
            boot: seat.boot,
            shim: seat.own,
            cgroup: cgroup.clone(),
            ended: false,
            begun: false,
            placed: false,
            host_network: run.host_network,
            init_containers: run.init_containers.len(),
            ports: run
                .containers
                .iter()
                .flat_map(|c| &c.ports)
                .filter_map(|port| Some((port.name.clone()?, port.container_port)))
                .collect(),
            images: run
                .init_containers
                .iter()
                .chain(&run.containers)
                .map(|c| (c.name.clone(), c.image.to_string()))
                .collect(),
            hostname: run.hostname.clone().unwrap_or_else(|| run.id.name.clone()),
            pod,
        };
        Ok(Self {
            journal: Journal::open(&seat.dir.join(JOURNAL))?,
            host: Host::detect(&seat.cgroups),
            logs: containers
                .iter()
                .map(|c| log_file(&seat.dir, c, &handover.pace))
                .collect(),
            oci: oci::runtime(&handover.oci),
            pace: handover.pace,
            shares_processes: run.share_process_namespace,
            fs_group: super::volumes::fs_group(&handover),
            grace: Duration::from_secs(run.grace_seconds.into()),
            active: run.active_deadline_seconds.map(Duration::from_secs),
            name: run.id.to_string(),
            dir: seat.dir,
            run: seat.run,
            listener: seat.listener,
            signals: seat.signals,
            clients: vec![seat.client],
            cgroups: seat.cgroups,
            cgroup,
            cgroup_parent: handover.cgroup_parent,
            containers,
            outputs: Vec::new(),
            jobs: Vec::new(),
            tries: Vec::new(),
            strays: Vec::new(),
            place: None,
            furnished: false,
            holder: None,
            began: None,
            stop: None,
            trouble: None,
            state,
            told: None,
        })
    }

    /// Runs until the pod has ended.
    pub(super) fn supervise(mut self) -> io::Result<()> {
        self.tell_state();
        let mut trimmed = false;
        loop {
            let ready = self.wait()?;
            for what in ready {
                self.handle(what);
            }
            self.tick(Instant::now());
            self.tell_state();
            self.clients.retain(|client| !client.gone());
            if self.place.is_none() && self.clients.is_empty() {
                // The agent died between making the pod and placing it: a new one makes it anew.
                self.begin_stop(Stop::Shutdown);
            }
            if self.finished() {
                return self.finish();
            }
            if !trimmed && self.settled() {
                // The start was the only time that took memory.
                kit::memory::settle();
                trimmed = true;
            }
        }
    }

    fn settled(&self) -> bool {
        self.jobs.is_empty()
            && self
                .containers
                .iter()
                .all(|c| !matches!(c.state, State::Starting))
            && self.state.begun
    }

    /// Waits until something is ready or due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let clients = self.clients.iter().enumerate().map(|(at, client)| {
            let wants = if client.unsent() {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            (Ready::Client(at), PollFd::new(client, wants))
        });
        let outputs = (0..)
            .zip(&self.outputs)
            .map(|(at, output)| (Ready::Output(at), PollFd::new(output, PollFlags::IN)));
        let tries = (0..).zip(&self.tries).map(|(at, held)| {
            (
                Ready::Try(at),
                PollFd::from_borrowed_fd(held.attempt.as_fd(), held.attempt.wants()),
            )
        });
        let own = [
            (Ready::Signal, PollFd::new(&self.signals, PollFlags::IN)),
            (Ready::Connection, PollFd::new(&self.listener, PollFlags::IN)),
        ];
        // The order of handling: later ones of a kind first, as handling may remove them.
        let (names, mut fds): (Vec<Ready>, Vec<PollFd<'_>>) =
            tries.chain(outputs).chain(clients).chain(own).unzip();
        let timeout = self.next_deadline().map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
        let mut ready: Vec<Ready> = names
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(name, _)| name)
            .collect();
        ready.sort_by_key(Ready::order);
        Ok(ready)
    }

    fn handle(&mut self, what: Ready) {
        match what {
            Ready::Try(at) => self.go_on_with(at),
            Ready::Output(at) => {
                let output = &mut self.outputs[at];
                if !output.pump(&mut self.logs[output.container]) {
                    self.outputs.swap_remove(at);
                }
            }
            Ready::Client(at) => {
                self.clients[at].flush();
                for request in self.clients[at].receive() {
                    self.obey(request, at);
                }
            }
            Ready::Connection => self.accept(),
            Ready::Signal => self.signalled(),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(mut client) = Client::new(stream) {
                client.send(&Report::State(Box::new(self.state.clone())));
                self.clients.push(client);
            }
        }
    }

    fn obey(&mut self, request: Request, from: usize) {
        match request {
            Request::Begin(_) => {
                self.clients[from].send(&Report::Failed("the pod has begun already".to_owned()))
            }
            Request::Go(place) => self.go(place),
            Request::Stop { grace_seconds } => {
                self.grace = Duration::from_secs(grace_seconds.into());
                self.begin_stop(Stop::Asked);
            }
            Request::Refresh { volumes } => {
                let held = super::volumes::Volumes {
                    run: &self.run,
                    disk: &self.dir,
                    claims: &self.dir,
                    fs_group: self.fs_group,
                };
                let report = match held.refresh(&volumes) {
                    Ok(()) => {
                        self.state.pod.files = model::files_digest(&volumes);
                        Report::Done
                    }
                    Err(why) => Report::Failed(why),
                };
                self.tell_state();
                self.clients[from].send(&report);
            }
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == nix::sys::signal::Signal::SIGTERM as u32 {
                self.begin_stop(Stop::Shutdown);
            }
        }
        self.reap();
    }

    /// Does what is due.
    fn tick(&mut self, now: Instant) {
        if self.stop.is_none()
            && let (Some(active), Some(began)) = (self.active, self.began)
            && now >= began + active
        {
            self.begin_stop(Stop::Deadline);
        }
        self.kill_overdue(now);
        self.probe_due(now);
        for at in 0..self.containers.len() {
            if matches!(self.containers[at].state, State::Waiting { at: Some(due), .. } if due <= now) {
                self.start(at, now);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let containers = self
            .containers
            .iter()
            .filter_map(|container| match &container.state {
                State::Waiting { at, .. } => *at,
                State::Running { kill: Some(kill), .. } => Some(kill.deadline),
                State::Running { .. } => container
                    .probers
                    .iter()
                    .filter(|prober| container.may_probe(prober.which))
                    .filter_map(super::probe::Prober::due)
                    .min(),
                _ => None,
            });
        let active = self
            .active
            .zip(self.began)
            .filter(|_| self.stop.is_none())
            .map(|(active, began)| began + active);
        containers
            .chain(self.jobs.iter().map(|job| job.deadline))
            .chain(self.tries.iter().map(|held| held.deadline))
            .chain(active)
            .min()
    }

    fn ip(&self) -> Option<IpAddr> {
        self.place.as_ref().and_then(|place| place.ip)
    }
}

/// What [`Pod::wait`] found ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Try(usize),
    Output(usize),
    Client(usize),
    Connection,
    Signal,
}

impl Ready {
    /// Output before the end of its container; later ones of a kind first, so that removal moves none to come.
    fn order(&self) -> (u8, std::cmp::Reverse<usize>) {
        let (kind, at) = match self {
            Self::Try(at) => (0, *at),
            Self::Output(at) => (1, *at),
            Self::Client(at) => (2, *at),
            Self::Connection => (3, 0),
            Self::Signal => (4, 0),
        };
        (kind, std::cmp::Reverse(at))
    }
}

fn containers(handover: &Handover) -> io::Result<Vec<Container>> {
    let run = &handover.run;
    let of = |init: bool| move |container| (container, init);
    let all = run
        .init_containers
        .iter()
        .map(of(true))
        .chain(run.containers.iter().map(of(false)));
    all.map(|(container, init)| {
        let image = handover.images.get(&container.name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no image for container {:?}", container.name),
            )
        })?;
        let mut made = Container::new(container, init, image.digest, run.restart);
        made.stop_signal = image.stop_signal.as_deref().map_or(15, signal_number);
        Ok(made)
    })
    .collect()
}

/// `SIGTERM`, `TERM` or `15`; SIGTERM where it is none of them.
fn signal_number(text: &str) -> i32 {
    use nix::sys::signal::Signal;
    let full = if text.starts_with("SIG") {
        text.to_owned()
    } else {
        format!("SIG{text}")
    };
    text.parse()
        .ok()
        .or_else(|| full.parse::<Signal>().ok().map(|signal| signal as i32))
        .unwrap_or(15)
}

fn log_file(dir: &std::path::Path, container: &Container, pace: &Pace) -> LogFile {
    let path = dir
        .join(LOGS)
        .join(&container.name)
        .join(format!("{}.log", container.restarts));
    LogFile::new(path, pace.log_bytes, pace.log_files)
}
