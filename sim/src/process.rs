//! Processes of the simulated world: started apart from us, found again by number and start time.

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process that was started, told apart from a later one of the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process number.
    pub pid: i32,
    /// Field 22 of its `stat`, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// A process that runs.
    pub fn of(pid: i32) -> Option<Self> {
        start_time(pid).map(|started| Self { pid, started })
    }

    /// Starts a program in its own process group, with its output appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let pid = i32::try_from(child.id())?;
        Ok(Self {
            pid,
            started: start_time(pid).unwrap_or(0),
        })
    }

    /// Whether it still runs. A child that has ended is buried on the way.
    pub fn alive(self) -> bool {
        use nix::sys::wait::{WaitPidFlag, waitpid};
        // Not a child of this process, or not ended: both are no news.
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
        start_time(self.pid) == Some(self.started)
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10));
    }

    /// SIGTERM, then SIGKILL after `grace`.
    pub fn stop(self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if !self.wait(grace) {
            self.kill();
        }
    }

    fn signal(self, signal: Signal) {
        if self.alive() {
            // It may end between the two lines; that is what was wanted.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    fn wait(self, most: Duration) -> bool {
        let until = Instant::now() + most;
        while self.alive() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Proportional memory, in bytes: what it costs, shared pages divided among their users.
    pub fn pss(self) -> Option<u64> {
        pss(self.pid)
    }
}

/// As [`Process::pss`], of any process.
pub fn pss(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Processes that were started with this in their environment, and all that descend from them.
pub fn marked(mark: &str) -> Vec<i32> {
    let all = || {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    };
    let has_mark = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    };
    let mut found: BTreeSet<i32> = all().filter(has_mark).collect();
    let parents: Vec<(i32, i32)> = all()
        .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
        .collect();
    loop {
        let before = found.len();
        let children = parents.iter().filter(|(_, parent)| found.contains(parent));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// Whether a process is one of ours that stands beside a container.
pub fn is_shim(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"shim")
}

/// CPU time used so far, user and system.
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let fields = stat(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Bytes handed to block devices so far.
pub fn written(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?
        .trim()
        .parse()
        .ok()
}

fn start_time(pid: i32) -> Option<u64> {
    let fields = stat(pid)?;
    // A zombie has ended as far as we are concerned.
    if fields.first().is_some_and(|state| state == "Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Fields of `/proc/PID/stat` from the third on; the second may hold spaces.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}
