//! How containers, and with them the pod, come to their end.

use super::{JobKind, Pod, Stop};
use crate::shim::complain;
use crate::shim::container::{Kill, State};
use crate::shim::control::Client;
use crate::shim::protocol::{Report, container_cgroup, shim_cgroup};
use jiff::Timestamp;
use model::Severity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as ProcessNumber;
use std::io;
use std::time::{Duration, Instant};

/// A killed process that is still there is killed once more after so long.
const AGAIN: Duration = Duration::from_secs(1);

impl Pod {
    /// Ends all containers; none is started any more. Asked again, the shorter patience counts.
    pub(super) fn begin_stop(&mut self, why: Stop) {
        if self.stop.is_none() {
            self.stop = Some(why);
            self.state.pod.terminating = why != Stop::Deadline;
            let because = match why {
                Stop::Asked => "it is not wanted any more",
                Stop::Deadline => "its activeDeadlineSeconds are over",
                Stop::Shutdown => "the device goes down",
            };
            self.tell(
                Severity::Normal,
                "Killing",
                format!("the pod is stopped: {because}"),
            );
        }
        let now = Timestamp::now();
        let grace = self.grace;
        for at in 0..self.containers.len() {
            self.containers[at].give_up(now);
            self.ask_to_end(at, grace);
        }
    }

    /// Sends a running container its stop signal and sets the time after which it is killed.
    pub(super) fn ask_to_end(&mut self, at: usize, grace: Duration) {
        let container = &mut self.containers[at];
        let signal = container.stop_signal;
        let State::Running {
            process,
            kill: pending,
            ..
        } = &mut container.state
        else {
            return;
        };
        let deadline = Instant::now() + grace;
        match pending {
            Some(earlier) => earlier.deadline = earlier.deadline.min(deadline),
            None => {
                *pending = Some(Kill { deadline });
                send(process.pid, Signal::try_from(signal).unwrap_or(Signal::SIGTERM));
            }
        }
    }

    /// Kills what was asked to end and did not, and helpers and probes that take too long.
    pub(super) fn kill_overdue(&mut self, now: Instant) {
        for at in 0..self.containers.len() {
            let group = container_cgroup(&self.cgroup, &self.containers[at].name);
            if let State::Running {
                process,
                kill: Some(kill),
                ..
            } = &mut self.containers[at].state
                && kill.deadline <= now
            {
                kill.deadline = now + AGAIN;
                send(process.pid, Signal::SIGKILL);
                self.cgroups
                    .pids(&group)
                    .into_iter()
                    .for_each(|pid| send(pid, Signal::SIGKILL));
            }
        }
        for job in &mut self.jobs {
            if job.deadline <= now {
                job.deadline = now + AGAIN;
                send(job.pid, Signal::SIGKILL);
                if let JobKind::Probe(at, which) = job.kind {
                    let inside = super::probing::pid_file(&self.run, &self.containers[at].name, which);
                    let inside = std::fs::read_to_string(inside)
                        .ok()
                        .and_then(|text| text.trim().parse().ok());
                    inside.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
                }
            }
        }
        let late = |held: &super::NetTry| held.deadline <= now;
        while let Some(at) = self.tries.iter().position(late) {
            let held = self.tries.swap_remove(at);
            self.conclude(held.container, held.which, Err("no answer in time".to_owned()));
        }
    }

    /// Whether nothing runs or will run.
    pub(super) fn finished(&self) -> bool {
        self.containers.iter().all(super::Container::over)
    }

    /// Puts everything away and says the last words.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for job in &self.jobs {
            send(job.pid, Signal::SIGKILL);
        }
        if let Some(holder) = self.holder.take() {
            send(holder.pid, Signal::SIGKILL);
        }
        if let Err(err) = self.cgroups.remove(&self.cgroup, Duration::from_secs(5)) {
            complain(format!("control group {} is not removed: {err}", self.cgroup));
        }
        self.leave_own_cgroup();
        self.state.ended = self.stop != Some(Stop::Shutdown);
        self.tell_state();
        let last = Report::State(Box::new(self.state.clone()));
        for mut client in self.clients.drain(..) {
            client.send(&last);
            Client::finish(client);
        }
        kit::disk::remove_if_there(&self.dir.join(crate::shim::protocol::SOCKET))
    }

    /// Nobody removes the group of a shim that ends by itself but the shim, and not while it is in there.
    fn leave_own_cgroup(&self) {
        let own = shim_cgroup(&self.cgroup_parent, &self.dir);
        let left = self
            .cgroups
            .join(&format!("{}/shims", self.cgroup_parent), self.state.shim.pid)
            .and_then(|()| self.cgroups.remove(&own, Duration::from_secs(2)));
        if let Err(err) = left {
            complain(format!("control group {own} is not removed: {err}"));
        }
    }
}

/// Sends a signal; a process that has gone meanwhile needs none.
fn send(pid: i32, signal: Signal) {
    if pid > 1 {
        let _ = kill(ProcessNumber::from_raw(pid), signal);
    }
}
