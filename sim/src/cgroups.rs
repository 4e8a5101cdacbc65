//! A device's share of this machine: one control group around its agent and its pods.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// Parent of every device's group.
const PARENT: &str = "/leeward-dev";

/// The control group of a device, as the agent's configuration names it.
pub fn name(device: &str) -> String {
    format!("{PARENT}/{device}")
}

/// Whether this machine, as we see it, has no control groups.
pub fn absent() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    !kinds.any(|kind| kind == "cgroup" || kind == "cgroup2")
}

/// What an agent is started with, so that its processes are found where there are no control groups.
pub const MARK: &str = "LEEWARD_DEV_DEVICE";

/// A hierarchy, and what is written into its files; `None` is no limit.
type Hierarchy = (&'static str, Vec<(&'static str, Option<String>)>);

/// Makes the group with the class's limits and puts a process into it. Returns what could not be limited.
pub fn hold(device: &str, pid: i32, cpu_milli: Option<u64>, memory: Option<u64>) -> Result<Vec<String>> {
    let mut gaps = Vec::new();
    if absent() {
        // Said once for all devices, by those who started them.
        return Ok(gaps);
    }
    let unified = Path::new(ROOT).join("cgroup.controllers").is_file();
    let quota = cpu_milli.map(|milli| milli * 100);
    let hierarchies: Vec<Hierarchy> = if unified {
        let cpu = quota.map(|quota| format!("{quota} 100000"));
        vec![(
            "",
            vec![
                ("cpu.max", cpu),
                ("memory.max", memory.map(|bytes| bytes.to_string())),
            ],
        )]
    } else {
        vec![
            (
                "cpu",
                vec![("cpu.cfs_quota_us", quota.map(|quota| quota.to_string()))],
            ),
            (
                "memory",
                vec![("memory.limit_in_bytes", memory.map(|bytes| bytes.to_string()))],
            ),
            // Bounds nothing; counts the time that the device's status tells.
            ("cpuacct", Vec::new()),
        ]
    };
    for (hierarchy, limits) in hierarchies {
        let dir = dir(hierarchy, device);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        for (file, value) in limits {
            if let Some(value) = value
                && let Err(err) = fs::write(dir.join(file), &value)
            {
                gaps.push(format!("{file}={value} for {device}: {err}"));
            }
        }
        // On the unified hierarchy a group with children holds no processes: the agent goes into one of its own.
        let own = if unified { dir.join("agent") } else { dir };
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), pid.to_string()).with_context(|| own.display().to_string())?;
    }
    Ok(gaps)
}

fn dir(hierarchy: &str, device: &str) -> PathBuf {
    Path::new(ROOT)
        .join(hierarchy)
        .join(name(device).trim_start_matches('/'))
}

/// All processes of a device: agent, shims and containers.
pub fn processes(device: &str) -> Vec<i32> {
    if absent() {
        return crate::process::marked(&format!("{MARK}={device}"));
    }
    processes_below(&name(device))
}

/// All processes of a group and of those below it.
pub fn processes_below(group: &str) -> Vec<i32> {
    let unified = Path::new(ROOT).join("cgroup.controllers").is_file();
    let mut pids = Vec::new();
    let root = Path::new(ROOT).join(if unified { "" } else { "memory" });
    gather(&root.join(group.trim_start_matches('/')), &mut pids);
    pids
}

fn gather(dir: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            gather(&entry.path(), pids);
        }
    }
}

/// Removes a device's groups, deepest first; those that still hold a process stay.
pub fn remove(device: &str) {
    for dir in everywhere(&name(device)) {
        remove_below(&dir);
    }
    remove_empty(PARENT);
}

/// Removes a group where it is empty: no process, and no group below it.
pub fn remove_empty(group: &str) {
    for dir in everywhere(group) {
        // Absent, or in use by others.
        let _ = fs::remove_dir(dir);
    }
}

/// A group's folders in all hierarchies.
fn everywhere(group: &str) -> Vec<PathBuf> {
    let group = group.trim_start_matches('/');
    let hierarchies = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = hierarchies.map(|entry| entry.path().join(group)).collect();
    dirs.push(Path::new(ROOT).join(group));
    dirs
}

fn remove_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_below(&entry.path());
        }
    }
    // Absent, or still in use: neither is ours to mend.
    let _ = fs::remove_dir(dir);
}
