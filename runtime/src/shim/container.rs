//! What happens to one container: a state machine without I/O.

use super::probe::{Prober, Verdict, Which};
use super::protocol::{Pace, ProcessId};
use jiff::Timestamp;
use model::{ContainerObserved, ContainerRun, ContainerState, Digest, Probe, RestartPolicy};
use std::time::{Duration, Instant};

/// Where a container is.
#[derive(Debug)]
pub(crate) enum State {
    /// Not running; started at `at`, where it is its turn.
    Waiting {
        reason: &'static str,
        at: Option<Instant>,
    },
    /// A helper makes it.
    Starting,
    /// Its first process runs.
    Running {
        process: ProcessId,
        since: Timestamp,
        began: Instant,
        kill: Option<Kill>,
    },
    /// Over for good.
    Exited {
        code: i32,
        reason: &'static str,
        at: Timestamp,
    },
}

/// A running container that is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    /// When asking is over.
    pub(crate) deadline: Instant,
}

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, 128 and the signal's number where a signal ended it.
    pub(crate) code: i32,
    /// The kernel killed it for want of memory.
    pub(crate) oom: bool,
}

impl Exit {
    fn reason(self) -> &'static str {
        match (self.oom, self.code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        }
    }
}

/// One container of the pod.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) init: bool,
    pub(crate) image: Digest,
    pub(crate) state: State,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<(i32, &'static str)>,
    /// Its bundle is written.
    pub(crate) prepared: bool,
    /// Why it could not be started the last time.
    pub(crate) trouble: Option<String>,
    pub(crate) stop_signal: i32,
    /// Of the present run.
    pub(crate) probers: Vec<Prober>,
    probes: Vec<(Which, Probe)>,
    policy: RestartPolicy,
    /// Ends in a row without a long run between.
    crashes: u32,
}

/// What follows from an answer to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consequence {
    Nothing,
    /// What is told of the container has changed.
    Told,
    /// It is to be killed and, by policy, started again.
    Kill,
}

impl Container {
    /// A container whose turn has not come.
    pub(crate) fn new(run: &ContainerRun, init: bool, image: Digest, policy: RestartPolicy) -> Self {
        let probes = [
            (Which::Startup, &run.startup),
            (Which::Readiness, &run.readiness),
            (Which::Liveness, &run.liveness),
        ];
        // An init container runs to its end: restarting it after success would never end, and there is
        // nothing to probe.
        let policy = if init && policy == RestartPolicy::Always {
            RestartPolicy::OnFailure
        } else {
            policy
        };
        Self {
            name: run.name.clone(),
            init,
            image,
            state: State::Waiting {
                reason: if init {
                    "ContainerCreating"
                } else {
                    "PodInitializing"
                },
                at: None,
            },
            ready: false,
            started: false,
            restarts: 0,
            last_exit: None,
            prepared: false,
            trouble: None,
            stop_signal: 15,
            probers: Vec::new(),
            probes: probes
                .into_iter()
                .filter_map(|(which, probe)| Some((which, probe.clone()?)))
                .filter(|_| !init)
                .collect(),
            policy,
            crashes: 0,
        }
    }

    /// Its turn has come.
    pub(crate) fn enqueue(&mut self, now: Instant) {
        self.state = State::Waiting {
            reason: "ContainerCreating",
            at: Some(now),
        };
    }

    /// A helper is at it.
    pub(crate) fn starting(&mut self) {
        self.state = State::Starting;
    }

    /// Its process runs.
    pub(crate) fn running(&mut self, process: ProcessId, since: Timestamp, now: Instant) {
        self.state = State::Running {
            process,
            since,
            began: now,
            kill: None,
        };
        self.trouble = None;
        self.probers = self
            .probes
            .iter()
            .map(|(which, probe)| Prober::new(*which, probe.clone(), now))
            .collect();
        self.started = !self.has(Which::Startup);
        self.ready = self.started && !self.has(Which::Readiness);
    }

    fn has(&self, which: Which) -> bool {
        self.probes.iter().any(|(held, _)| *held == which)
    }

    /// It could not be started. Says whether it is tried again.
    pub(crate) fn failed_to_start(&mut self, why: String, at: Timestamp, now: Instant, pace: &Pace) -> bool {
        self.trouble = Some(why);
        self.last_exit = Some((128, "StartError"));
        self.crashes = self.crashes.max(1);
        let again = self.policy != RestartPolicy::Never;
        if again {
            let wait = self.wait(pace);
            self.restarts += 1;
            self.state = State::Waiting {
                reason: "RunContainerError",
                at: Some(now + wait),
            };
        } else {
            self.state = State::Exited {
                code: 128,
                reason: "StartError",
                at,
            };
        }
        again
    }

    /// Its process has ended. Says after how long it is started again, `None` for never.
    pub(crate) fn exited(
        &mut self,
        exit: Exit,
        at: Timestamp,
        now: Instant,
        pace: &Pace,
    ) -> Option<Duration> {
        let ran = match &self.state {
            State::Running { began, .. } => now.saturating_duration_since(*began),
            _ => Duration::ZERO,
        };
        if ran >= Duration::from_millis(pace.restart_reset_ms) {
            self.crashes = 0;
        }
        let reason = exit.reason();
        self.probers = Vec::new();
        self.ready = false;
        self.started = false;
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit.code != 0,
            RestartPolicy::Never => false,
        };
        if !again {
            // A finished init container counts as ready, as in Kubernetes.
            (self.ready, self.started) = (self.init && exit.code == 0, self.init && exit.code == 0);
            self.state = State::Exited {
                code: exit.code,
                reason,
                at,
            };
            return None;
        }
        self.last_exit = Some((exit.code, reason));
        self.restarts += 1;
        let wait = self.wait(pace);
        let reason = if wait.is_zero() {
            "Restarting"
        } else {
            "CrashLoopBackOff"
        };
        self.state = State::Waiting {
            reason,
            at: Some(now + wait),
        };
        Some(wait)
    }

    /// Kubelet's back-off: the first restart is at once, then the bound doubles.
    fn wait(&mut self, pace: &Pace) -> Duration {
        let wait = match self.crashes {
            0 => 0,
            more => pace
                .restart_first_ms
                .saturating_mul(1 << (more - 1).min(30))
                .min(pace.restart_most_ms),
        };
        self.crashes = self.crashes.saturating_add(1);
        Duration::from_millis(wait)
    }

    /// The pod is stopped: what does not run never will.
    pub(crate) fn give_up(&mut self, at: Timestamp) {
        if let State::Waiting { .. } = self.state {
            let (code, reason) = self.last_exit.unwrap_or((0, "Completed"));
            self.state = State::Exited { code, reason, at };
        }
        self.policy = RestartPolicy::Never;
    }

    /// A probe has been answered.
    pub(crate) fn answered(&mut self, which: Which, good: bool, now: Instant) -> (Verdict, Consequence) {
        let Some(prober) = self.probers.iter_mut().find(|prober| prober.which == which) else {
            return (Verdict::Open, Consequence::Nothing);
        };
        let verdict = prober.answer(good, now);
        let before = (self.started, self.ready);
        match (which, verdict) {
            (_, Verdict::Open) => return (verdict, Consequence::Nothing),
            (Which::Startup, Verdict::Good) => {
                self.started = true;
                self.ready = !self.has(Which::Readiness);
                self.probers.retain(|prober| prober.which != Which::Startup);
            }
            (Which::Readiness, _) => self.ready = verdict == Verdict::Good,
            (Which::Liveness | Which::Startup, Verdict::Bad) => return (verdict, Consequence::Kill),
            (Which::Liveness, Verdict::Good) => {}
        }
        let told = (self.started, self.ready) != before;
        (
            verdict,
            if told {
                Consequence::Told
            } else {
                Consequence::Nothing
            },
        )
    }

    /// Whether a probe may run now: the others wait for the startup probe.
    pub(crate) fn may_probe(&self, which: Which) -> bool {
        matches!(self.state, State::Running { kill: None, .. }) && (self.started || which == Which::Startup)
    }

    /// Whether nothing of it runs or will run.
    pub(crate) fn over(&self) -> bool {
        matches!(self.state, State::Exited { .. })
    }

    /// Its exit code, once it is over.
    pub(crate) fn code(&self) -> Option<i32> {
        match self.state {
            State::Exited { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What the agent is told.
    pub(crate) fn observed(&self) -> ContainerObserved {
        ContainerObserved {
            name: self.name.clone(),
            state: match &self.state {
                State::Waiting { reason, .. } => ContainerState::Waiting {
                    reason: (*reason).to_owned(),
                },
                State::Starting => ContainerState::Waiting {
                    reason: "ContainerCreating".to_owned(),
                },
                State::Running { since, .. } => ContainerState::Running { since: *since },
                State::Exited { code, reason, at } => ContainerState::Exited {
                    code: *code,
                    reason: (*reason).to_owned(),
                    at: *at,
                },
            },
            ready: self.ready,
            started: self.started,
            restarts: self.restarts,
            last_exit: self.last_exit.map(|(code, reason)| (code, reason.to_owned())),
            image: Some(self.image),
        }
    }
}
