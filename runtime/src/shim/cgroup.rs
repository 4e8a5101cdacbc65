//! Control groups of pods and shims, on v1, hybrid and v2 hosts (kernel: cgroup-v1, cgroup-v2).
//!
//! The OCI runtime makes the containers' own groups; the pod's group above them, the shims' group beside them,
//! their counters and their removal are here.

use model::{PodRun, Resources};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes and threads that one container may have: a fork bomb must not take the device's whole table.
pub(crate) const MOST_PIDS: i64 = 4096;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    /// Controllers of a v1 hierarchy; for v2 those that can be switched on.
    controllers: Vec<String>,
    unified: bool,
}

/// Name of the parent group where a machine has no control groups, as in a user's own namespaces without delegation.
pub const NO_CGROUPS: &str = "none";

/// All mounted hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups(Vec<Hierarchy>);

impl Cgroups {
    /// Finds what is mounted, for groups below `parent`; [`NO_CGROUPS`] is for machines that have none.
    pub(crate) fn detect(parent: &str) -> io::Result<Self> {
        Self::from_mounts(&fs::read_to_string("/proc/self/mounts")?, parent)
    }

    fn from_mounts(mounts: &str, parent: &str) -> io::Result<Self> {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, root, kind, options, ..] = fields.as_slice() else {
                continue;
            };
            let root = PathBuf::from(root);
            let hierarchy = match *kind {
                "cgroup" => Hierarchy {
                    root,
                    controllers: options.split(',').map(str::to_owned).collect(),
                    unified: false,
                },
                "cgroup2" => Hierarchy {
                    controllers: fs::read_to_string(root.join("cgroup.controllers"))
                        .unwrap_or_default()
                        .split_ascii_whitespace()
                        .map(str::to_owned)
                        .collect(),
                    root,
                    unified: true,
                },
                _ => continue,
            };
            found.push(hierarchy);
        }
        match (found.is_empty(), parent == NO_CGROUPS) {
            (true, false) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup hierarchy is mounted; `cgroup: none` runs pods without limits",
            )),
            (false, true) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cgroup hierarchies are mounted: name a group instead of `cgroup: none`",
            )),
            _ => Ok(Self(found)),
        }
    }

    /// Whether this machine has none: nothing can be limited.
    pub(crate) fn is_absent(&self) -> bool {
        self.0.is_empty()
    }

    /// Only v2 has controllers: device rules would need an eBPF program.
    pub(crate) fn is_v2(&self) -> bool {
        !self.is_absent() && self.0.iter().all(|h| h.unified)
    }

    fn dirs<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a Hierarchy, PathBuf)> + 'a {
        self.0
            .iter()
            .map(move |h| (h, h.root.join(path.trim_start_matches('/'))))
    }

    /// Moves a process into `path` of every hierarchy, making it where absent.
    ///
    /// On v1 and hybrid hosts systemd's own hierarchy is among them: else a stop of the agent's unit would take
    /// the process along. `cpuset` is left alone: it limits nothing here and an empty one takes no process.
    pub(crate) fn join(&self, path: &str, pid: i32) -> io::Result<()> {
        for (hierarchy, dir) in self.dirs(path) {
            if hierarchy.controllers.iter().any(|c| c == "cpuset") && !hierarchy.unified {
                continue;
            }
            fs::create_dir_all(&dir).and_then(|()| write(&dir, "cgroup.procs", &pid.to_string()))?;
        }
        Ok(())
    }

    /// Makes the pod's group and sets what the pod as a whole asks for.
    pub(crate) fn limit_pod(&self, path: &str, run: &PodRun) -> io::Result<()> {
        let sum = Sum::of(run);
        for (hierarchy, dir) in self.dirs(path) {
            if hierarchy.unified {
                self.limit_v2(hierarchy, path, &dir, &sum)?;
            } else {
                limit_v1(hierarchy, &dir, &sum)?;
            }
        }
        Ok(())
    }

    fn limit_v2(&self, hierarchy: &Hierarchy, path: &str, dir: &Path, sum: &Sum) -> io::Result<()> {
        let wanted: Vec<&String> = hierarchy
            .controllers
            .iter()
            .filter(|c| ["cpu", "memory", "pids"].contains(&c.as_str()))
            .collect();
        if wanted.is_empty() {
            // The v2 mount of a hybrid host: nothing to set.
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        let mut above = hierarchy.root.clone();
        for part in Path::new(path.trim_start_matches('/')) {
            for controller in &wanted {
                write(&above, "cgroup.subtree_control", &format!("+{controller}"))?;
            }
            above.push(part);
        }
        let has = |name: &str| wanted.iter().any(|c| *c == name);
        if has("cpu") {
            write(dir, "cpu.weight", &weight(sum.shares).to_string())?;
            if let Some(milli) = sum.cpu_limit_milli {
                write(dir, "cpu.max", &format!("{} 100000", quota(milli)))?;
            }
        }
        if let Some(bytes) = sum.memory_limit.filter(|_| has("memory")) {
            write(dir, "memory.max", &bytes.to_string())?;
        }
        Ok(())
    }

    /// How many processes of this group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let count = |(_, dir): (&Hierarchy, PathBuf)| {
            let text = fs::read_to_string(dir.join("memory.events"))
                .or_else(|_| fs::read_to_string(dir.join("memory.oom_control")))
                .ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        };
        self.dirs(path).filter_map(count).max().unwrap_or(0)
    }

    /// The processes in a group and below it.
    pub(crate) fn pids(&self, path: &str) -> BTreeSet<i32> {
        let mut pids = BTreeSet::new();
        for (_, dir) in self.dirs(path) {
            collect_pids(&dir, &mut pids);
        }
        pids
    }

    /// Kills all that is in a group and removes it with all below it; one that is absent is no error.
    pub(crate) fn remove(&self, path: &str, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            for pid in self.pids(path) {
                // Kill is all that is wanted; one that has gone meanwhile is as good.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
            let left = self.dirs(path).try_for_each(|(_, dir)| remove_tree(&dir));
            match left {
                Ok(()) => return Ok(()),
                Err(err) if Instant::now() >= deadline => return Err(err),
                // A killed process leaves its group only when it is through the kernel.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn collect_pids(dir: &Path, pids: &mut BTreeSet<i32>) {
    let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else {
        return;
    };
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 1),
    );
    for below in fs::read_dir(dir).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&below.path(), pids);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn limit_v1(hierarchy: &Hierarchy, dir: &Path, sum: &Sum) -> io::Result<()> {
    let has = |name: &str| hierarchy.controllers.iter().any(|c| c == name);
    if has("cpu") {
        fs::create_dir_all(dir)?;
        write(dir, "cpu.shares", &sum.shares.to_string())?;
        if let Some(milli) = sum.cpu_limit_milli {
            write(dir, "cpu.cfs_period_us", "100000")?;
            write(dir, "cpu.cfs_quota_us", &quota(milli).to_string())?;
        }
    }
    if let Some(bytes) = sum.memory_limit.filter(|_| has("memory")) {
        fs::create_dir_all(dir)?;
        write(dir, "memory.limit_in_bytes", &bytes.to_string())?;
    }
    Ok(())
}

fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let path = dir.join(file);
    fs::write(&path, text).map_err(|err| {
        io::Error::new(
            err.kind(),
            format!("writing {text:?} to {}: {err}", path.display()),
        )
    })
}

/// Kubelet's three classes of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// The class of a pod: guaranteed where each container's limits are set and its requests, where set, equal them.
pub(crate) fn qos(run: &PodRun) -> Qos {
    let all = || {
        run.init_containers
            .iter()
            .chain(&run.containers)
            .map(|c| &c.resources)
    };
    let equal = |request: Option<u64>, limit: Option<u64>| {
        limit.is_some() && request.is_none_or(|r| Some(r) == limit)
    };
    if all().all(|r| *r == Resources::default()) {
        Qos::BestEffort
    } else if all()
        .all(|r| equal(r.cpu_request_milli, r.cpu_limit_milli) && equal(r.memory_request, r.memory_limit))
    {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What the kernel weighs a container with when memory runs out, as kubelet sets it.
pub(crate) fn oom_score_adj(class: Qos, resources: &Resources, memory_of_device: u64) -> i64 {
    match class {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = resources.memory_request.or(resources.memory_limit).unwrap_or(0);
            let share = i64::try_from(request.saturating_mul(1000) / memory_of_device.max(1)).unwrap_or(1000);
            (1000 - share).clamp(3, 999)
        }
    }
}

/// A pod's requests and limits together.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    shares: u64,
    cpu_limit_milli: Option<u64>,
    memory_limit: Option<u64>,
}

impl Sum {
    /// Containers run side by side, init containers one by one before them: the larger of both counts. A limit
    /// exists only where every container has one.
    fn of(run: &PodRun) -> Self {
        let total = |of: fn(&Resources) -> Option<u64>| {
            let side_by_side: Option<u64> = run.containers.iter().map(|c| of(&c.resources)).sum();
            let one_by_one = run
                .init_containers
                .iter()
                .map(|c| of(&c.resources))
                .collect::<Option<Vec<u64>>>();
            Some(side_by_side?.max(one_by_one?.into_iter().max().unwrap_or(0)))
        };
        let requested = run
            .containers
            .iter()
            .map(|c| cpu_request(&c.resources))
            .sum::<u64>();
        Self {
            shares: shares(requested),
            cpu_limit_milli: total(|r| r.cpu_limit_milli),
            memory_limit: total(|r| r.memory_limit),
        }
    }
}

/// Thousandths of a core asked for; a limit alone is a request as well.
pub(crate) fn cpu_request(resources: &Resources) -> u64 {
    resources
        .cpu_request_milli
        .or(resources.cpu_limit_milli)
        .unwrap_or(0)
}

/// `cpu.shares` for thousandths of a core.
pub(crate) fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// `cpu.weight` for `cpu.shares`: both ranges laid over each other, as the OCI runtimes do.
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// Microseconds of each 100 ms for thousandths of a core; the kernel takes no less than 1 ms.
pub(crate) fn quota(milli: u64) -> u64 {
    (milli * 100).max(1000)
}

#[cfg(test)]
mod tests;
