//! Probes: begun when due, concluded when answered or late.

use super::{JobKind, NetTry, Pod};
use crate::shim::container::Consequence;
use crate::shim::oci::{self, OciContainer};
use crate::shim::prepare;
use crate::shim::probe::Which;
use crate::shim::probe::net::{self, Progress, Try};
use model::{ProbeKind, Severity};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

impl Pod {
    /// Begins the probes that are due.
    pub(super) fn probe_due(&mut self, now: Instant) {
        for at in 0..self.containers.len() {
            let container = &self.containers[at];
            let due: Vec<Which> = container
                .probers
                .iter()
                .filter(|prober| prober.due().is_some_and(|due| due <= now))
                .map(|prober| prober.which)
                .filter(|which| container.may_probe(*which))
                .collect();
            for which in due {
                self.probe(at, which, now);
            }
        }
    }

    fn probe(&mut self, at: usize, which: Which, now: Instant) {
        let Some(prober) = self.containers[at]
            .probers
            .iter_mut()
            .find(|prober| prober.which == which)
        else {
            return;
        };
        let deadline = prober.begin(now);
        let kind = prober.probe.kind.clone();
        let ip = self.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let attempt = match kind {
            ProbeKind::Exec { command } => {
                match self.exec(at, which, &command) {
                    Ok(command) => self.probe_beside(at, which, command, deadline),
                    Err(err) => self.conclude(at, which, Err(err.to_string())),
                }
                return;
            }
            ProbeKind::TcpSocket { port } => Try::tcp(ip, port),
            ProbeKind::HttpGet {
                port,
                path,
                headers,
                https: false,
            } => Try::http(ip, port, &path, &headers),
            ProbeKind::HttpGet {
                port,
                path,
                headers,
                https: true,
            } => {
                let mut command = oci::myself("https");
                let request = net::request(ip, port, &path, &headers);
                command.arg(ip.to_string()).arg(port.to_string()).arg(request);
                return self.probe_beside(at, which, command, deadline);
            }
        };
        match attempt {
            Ok(attempt) => self.tries.push(NetTry {
                container: at,
                which,
                attempt,
                deadline,
            }),
            Err(err) => self.conclude(at, which, Err(err.to_string())),
        }
    }

    /// A command inside the container.
    fn exec(&self, at: usize, which: Which, args: &[String]) -> io::Result<Command> {
        let name = &self.containers[at].name;
        let bundle = prepare::bundle(&self.run, name);
        let (root, log) = (self.run.join("oci"), bundle.join("exec.log"));
        kit::disk::remove_if_there(&log)?;
        let container = OciContainer {
            id: name,
            root: &root,
            bundle: &bundle,
            log: &log,
        };
        Ok(self.oci.exec(&container, args, &pid_file(&self.run, name, which)))
    }

    /// A probe by a process beside the shim.
    fn probe_beside(&mut self, at: usize, which: Which, mut command: Command, deadline: Instant) {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let patience = deadline.saturating_duration_since(Instant::now());
        if let Err(err) = self.spawn(&mut command, JobKind::Probe(at, which), patience) {
            self.conclude(at, which, Err(err.to_string()));
        }
    }

    /// A probe's process has ended.
    pub(super) fn probed(&mut self, at: usize, which: Which, status: i32) {
        let answer = if status == 0 {
            Ok(())
        } else {
            Err(format!("it ended with code {status}"))
        };
        self.conclude(at, which, answer);
    }

    /// A network probe's socket is ready.
    pub(super) fn go_on_with(&mut self, at: usize) {
        let answer = match self.tries[at].attempt.go_on() {
            Progress::Waiting => return,
            Progress::Good => Ok(()),
            Progress::Bad(why) => Err(why),
        };
        let held = self.tries.swap_remove(at);
        self.conclude(held.container, held.which, answer);
    }

    /// A probe has its answer.
    pub(super) fn conclude(&mut self, at: usize, which: Which, answer: Result<(), String>) {
        let container = &mut self.containers[at];
        if !container.may_probe(which) {
            // It answers for a run that is over or ending.
            return;
        }
        let (_, consequence) = container.answered(which, answer.is_ok(), Instant::now());
        let counts = container
            .probers
            .iter()
            .any(|prober| prober.which == which && prober.just_failed());
        let name = container.name.clone();
        if let Err(why) = answer
            && counts
        {
            self.tell(
                Severity::Warning,
                "Unhealthy",
                format!("{} probe of container {name} failed: {why}", which.word()),
            );
        }
        if consequence == Consequence::Kill {
            self.tell(
                Severity::Warning,
                "Killing",
                format!("container {name} is stopped for its failed probe"),
            );
            self.ask_to_end(at, self.grace);
        }
    }
}

/// Where the number of an exec probe's process is written.
pub(super) fn pid_file(run: &Path, container: &str, which: Which) -> PathBuf {
    prepare::bundle(run, container).join(format!("{}.pid", which.word()))
}
