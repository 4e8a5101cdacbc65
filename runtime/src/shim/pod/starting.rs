//! Containers on their way to running, and what becomes of the processes.

use super::{Job, JobKind, Pod, log_file};
use crate::shim::container::{Exit, State};
use crate::shim::oci::{self, OciContainer};
use crate::shim::output::Output;
use crate::shim::prepare::{self, Preparation};
use crate::shim::protocol::{HANDOVER, Handover, Place, ProcessId, container_cgroup};
use crate::shim::rootfs::Overlay;
use jiff::Timestamp;
use model::Severity;
use model::cri::Stream;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A container is made in less, or not at all: image layers may lie on a slow card.
const MOST_START: Duration = Duration::from_secs(120);

impl Pod {
    /// The pod has its place: the first containers' turn has come.
    pub(super) fn go(&mut self, place: Place) {
        if self.place.is_some() || self.stop.is_some() {
            return;
        }
        self.state.pod.ip = place.ip;
        self.place = Some(place);
        self.state.placed = true;
        let now = Instant::now();
        self.began = Some(now);
        if self.shares_processes {
            self.hold();
        } else {
            self.next_turn(now);
        }
    }

    /// Makes the shared process namespace; the containers follow.
    fn hold(&mut self) {
        let mut command = oci::myself("hold");
        command.arg(self.run.join("holder"));
        match self.spawn(&mut command, JobKind::Hold, MOST_START) {
            Ok(_) => {}
            Err(err) => self.trouble(format!("the shared process namespace cannot be made: {err}")),
        }
    }

    fn held(&mut self, good: bool) {
        let holder = fs::read_to_string(self.run.join("holder"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .and_then(|pid| ProcessId::of(pid).ok());
        match holder.filter(|_| good) {
            Some(holder) => {
                // Counted with the pod, and found by whoever cleans up after a dead shim.
                let group = format!("{}/holder", self.cgroup);
                if let Err(err) = self.cgroups.join(&group, holder.pid) {
                    self.trouble(format!("control group {group}: {err}"));
                }
                self.holder = Some(holder);
                self.next_turn(Instant::now());
            }
            None => self.trouble("the shared process namespace could not be made".to_owned()),
        }
    }

    /// Starts the next init container, or once there is none left, all others.
    pub(super) fn next_turn(&mut self, now: Instant) {
        if self.stop.is_some() {
            return;
        }
        if let Some(failed) = self
            .containers
            .iter()
            .position(|c| c.init && c.code().is_some_and(|code| code != 0))
        {
            let name = self.containers[failed].name.clone();
            self.trouble(format!(
                "init container {name} failed; the others are not started"
            ));
            let at = Timestamp::now();
            self.containers
                .iter_mut()
                .for_each(|container| container.give_up(at));
            return;
        }
        match self.containers.iter_mut().find(|c| c.init && !c.over()) {
            Some(next) => next.enqueue(now),
            None => self
                .containers
                .iter_mut()
                .filter(|c| !c.init)
                .for_each(|c| c.enqueue(now)),
        }
    }

    /// Makes and starts a container.
    pub(super) fn start(&mut self, at: usize, now: Instant) {
        match self.try_start(at) {
            Ok(()) => self.containers[at].starting(),
            Err(why) => self.not_started(at, why, now),
        }
    }

    fn try_start(&mut self, at: usize) -> Result<(), String> {
        let name = self.containers[at].name.clone();
        let bundle = prepare::bundle(&self.run, &name);
        if self.containers[at].prepared {
            let disk = prepare::disk(&self.dir, &name);
            Overlay {
                run: &bundle,
                disk: &disk,
            }
            .mount()
            .map_err(|err| err.to_string())?;
        } else {
            self.prepare(at)?;
            self.containers[at].prepared = true;
        }
        self.logs[at] = log_file(&self.dir, &self.containers[at], &self.pace);
        self.make_room_for_logs(at)
            .map_err(|err| format!("folder of the logs: {err}"))?;
        let log = bundle.join("oci.log");
        let _ = fs::remove_file(&log);
        let state = self.run.join("oci");
        fs::create_dir_all(&state).map_err(|err| err.to_string())?;
        let container = OciContainer {
            id: &name,
            root: &state,
            bundle: &bundle,
            log: &log,
        };
        let mut command = self.oci.run(&container, &bundle.join("pid"));
        let (out, their_out) = Output::open(at, Stream::Out).map_err(|err| err.to_string())?;
        let (err, their_err) = Output::open(at, Stream::Err).map_err(|err| err.to_string())?;
        command.stdout(their_out).stderr(their_err);
        self.spawn(&mut command, JobKind::Start(at), MOST_START)
            .map_err(|err| format!("{:?} cannot be run: {err}", command.get_program()))?;
        self.outputs.extend([out, err]);
        Ok(())
    }

    fn prepare(&mut self, at: usize) -> Result<(), String> {
        let text = fs::read(self.run.join(HANDOVER)).map_err(|err| err.to_string())?;
        let handover: Handover = serde_json::from_slice(&text).map_err(|err| err.to_string())?;
        let place = self
            .place
            .clone()
            .ok_or("the pod has no place on the network yet")?;
        let preparation = Preparation {
            handover: &handover,
            place: &place,
            run: &self.run,
            dir: &self.dir,
            cgroup: &self.cgroup,
            pid_namespace_of: self.holder.map(|holder| holder.pid),
        };
        if !self.furnished {
            preparation.pod(&self.cgroups)?;
            self.furnished = true;
        }
        let name = &self.containers[at].name;
        let all = || {
            handover
                .run
                .init_containers
                .iter()
                .chain(&handover.run.containers)
        };
        let run = all()
            .find(|run| run.name == *name)
            .ok_or("the container is not part of the pod")?;
        preparation.container(run, &self.host).map(drop)
    }

    /// Keeps the log of the run before, and none older.
    fn make_room_for_logs(&self, at: usize) -> io::Result<()> {
        let container = &self.containers[at];
        let dir = self.dir.join(crate::shim::protocol::LOGS).join(&container.name);
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)?.flatten() {
            let name = entry.file_name();
            let run = name
                .to_str()
                .and_then(|name| name.split('.').next()?.parse::<u32>().ok());
            if run.is_some_and(|run| run + 1 < container.restarts) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub(super) fn spawn(
        &mut self,
        command: &mut Command,
        kind: JobKind,
        patience: Duration,
    ) -> io::Result<i32> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let pid = child.id().cast_signed();
        self.jobs.push(Job {
            pid,
            kind,
            deadline: Instant::now() + patience,
        });
        Ok(pid)
    }

    /// Buries the dead: helpers, containers' first processes, and what these left behind.
    pub(super) fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => continue,
            };
            self.ended(pid, status);
        }
        if self.jobs.is_empty() {
            self.strays.clear();
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        if let Some(at) = self.jobs.iter().position(|job| job.pid == pid) {
            let job = self.jobs.swap_remove(at);
            match job.kind {
                JobKind::Start(container) => self.made(container, status),
                JobKind::Probe(container, which) => self.probed(container, which, status),
                JobKind::Hold => self.held(status == 0),
            }
            return;
        }
        let running = self
            .containers
            .iter()
            .position(|c| matches!(&c.state, State::Running { process, .. } if process.pid == pid));
        match running {
            Some(at) => self.exited(at, status),
            // A container may end before its helper does.
            None => self.strays.push((pid, status)),
        }
    }

    /// A helper has made a container, or has failed to.
    fn made(&mut self, at: usize, status: i32) {
        let now = Instant::now();
        let bundle = prepare::bundle(&self.run, &self.containers[at].name);
        if status != 0 {
            let log = fs::read_to_string(bundle.join("oci.log")).unwrap_or_default();
            let why = oci::reason(&log).unwrap_or_else(|| format!("the OCI runtime ended with {status}"));
            return self.not_started(at, why, now);
        }
        let pid = fs::read_to_string(bundle.join("pid"))
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok());
        let Some(pid) = pid else {
            return self.not_started(at, "the OCI runtime named no process".to_owned(), now);
        };
        let stray = self
            .strays
            .iter()
            .position(|(stray, _)| *stray == pid)
            .map(|at| self.strays.swap_remove(at).1);
        // One that is buried already has no start time any more, and needs none.
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start: 0 });
        let name = self.containers[at].name.clone();
        self.containers[at].running(process, Timestamp::now(), now);
        self.tell(Severity::Normal, "Created", format!("Created container {name}"));
        self.tell(Severity::Normal, "Started", format!("Started container {name}"));
        if let Some(status) = stray {
            self.exited(at, status);
        } else if self.stop.is_some() {
            self.ask_to_end(at, self.grace);
        }
    }

    fn not_started(&mut self, at: usize, why: String, now: Instant) {
        self.clear_away(at);
        let name = self.containers[at].name.clone();
        let why = format!("container {name} cannot be started: {why}");
        self.tell(Severity::Warning, "Failed", why.clone());
        let again = self.containers[at].failed_to_start(why, Timestamp::now(), now, &self.pace);
        if self.stop.is_some() {
            self.containers[at].give_up(Timestamp::now());
        } else if !again {
            self.next_turn_after(at, now);
        }
    }

    /// A container's first process has ended.
    fn exited(&mut self, at: usize, code: i32) {
        let now = Instant::now();
        let name = self.containers[at].name.clone();
        let group = container_cgroup(&self.cgroup, &name);
        let oom = code != 0 && self.cgroups.oom_kills(&group) > 0;
        self.clear_away(at);
        let exit = Exit { code, oom };
        if oom {
            let limit = format!("container {name} was killed: it used more memory than its limit");
            self.tell(Severity::Warning, "OOMKilling", limit);
        }
        let asked = self.stop.is_some();
        let severity = if code == 0 || asked {
            Severity::Normal
        } else {
            Severity::Warning
        };
        self.tell(
            severity,
            "Exited",
            format!("container {name} ended with code {code}"),
        );
        match self.containers[at].exited(exit, Timestamp::now(), now, &self.pace) {
            Some(wait) if !wait.is_zero() => {
                let wait = wait.as_secs_f32();
                self.tell(
                    Severity::Warning,
                    "BackOff",
                    format!("container {name} is restarted in {wait:.1} s"),
                );
            }
            Some(_) => {}
            None if !asked => self.next_turn_after(at, now),
            None => {}
        }
    }

    fn next_turn_after(&mut self, at: usize, now: Instant) {
        if self.containers[at].init {
            self.next_turn(now);
        }
    }

    /// Takes away what a run of a container leaves: output in pipes, processes, probes, mounts, groups.
    fn clear_away(&mut self, at: usize) {
        let name = self.containers[at].name.clone();
        let group = container_cgroup(&self.cgroup, &name);
        if let Err(err) = self.cgroups.remove(&group, Duration::from_secs(2)) {
            crate::shim::complain(format!("control group {group} is not removed: {err}"));
        }
        let (own, others) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition(|output| output.container == at);
        self.outputs = others;
        let own: Vec<Output> = own;
        for output in own {
            output.drain(&mut self.logs[at]);
        }
        self.tries.retain(|held| held.container != at);
        let (bundle, disk) = (prepare::bundle(&self.run, &name), prepare::disk(&self.dir, &name));
        let (root, log): (PathBuf, PathBuf) = (self.run.join("oci"), bundle.join("oci.log"));
        let container = OciContainer {
            id: &name,
            root: &root,
            bundle: &bundle,
            log: &log,
        };
        if let Err(err) = self.oci.delete(&container) {
            crate::shim::complain(format!(
                "container {name} is not forgotten by the OCI runtime: {err}"
            ));
        }
        Overlay {
            run: &bundle,
            disk: &disk,
        }
        .unmount();
    }

    fn trouble(&mut self, why: String) {
        self.tell(Severity::Warning, "Failed", why.clone());
        self.trouble = Some(why);
    }
}
