//! Limits of the control group that the agent runs in: cgroup v1, v2, and both at once.

use std::fs;
use std::path::{Path, PathBuf};

/// A bound on memory, and what is used below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// Bytes.
    pub limit: u64,
    /// Bytes, caches that can be dropped apart.
    pub used: u64,
}

/// A bound on processor time, and what was used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuBound {
    /// Cores.
    pub cores: f64,
    /// Microseconds of processor time since the group was made, where it is counted.
    pub used_micros: Option<u64>,
}

/// The folders of a process's own group, from the group itself up to the top.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// What they were found from: `/proc/self/cgroup`.
    groups: String,
    memory: Lineage,
    cpu: Lineage,
    /// cgroup v1 counts processor time apart from bounding it.
    cpuacct: Lineage,
}

/// A group and its ancestors in one hierarchy.
#[derive(Debug, Default)]
struct Lineage {
    mount: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the groups of the process behind `proc_self` (`/proc/self`) again, as it may have been moved.
    pub fn follow(&mut self, proc_self: &Path) {
        let groups = fs::read_to_string(proc_self.join("cgroup")).unwrap_or_default();
        if groups == self.groups {
            return;
        }
        let mounts = fs::read_to_string(proc_self.join("mountinfo")).unwrap_or_default();
        let lineage = |controller: &str| lineage(&groups, &mounts, controller).unwrap_or_default();
        *self = Self {
            memory: lineage("memory"),
            cpu: lineage("cpu"),
            cpuacct: lineage("cpuacct"),
            groups,
        };
    }

    /// The tightest bound on memory, with the use of the group that it bounds.
    pub fn memory(&self) -> Option<MemoryBound> {
        self.memory
            .dirs
            .iter()
            .filter_map(|dir| memory_bound(dir))
            .min_by_key(|bound| bound.limit)
    }

    /// The tightest bound on processor time, with the use of the group that it bounds.
    pub fn cpu(&self) -> Option<CpuBound> {
        let bounds = self.cpu.dirs.iter().filter_map(|dir| {
            Some(CpuBound {
                cores: cpu_cores(dir)?,
                used_micros: cpu_used(dir).or_else(|| cpu_used(&self.same_in_cpuacct(dir)?)),
            })
        });
        bounds.min_by(|a, b| a.cores.total_cmp(&b.cores))
    }
}

impl Cgroups {
    /// The group of the same name in the hierarchy that counts.
    fn same_in_cpuacct(&self, dir: &Path) -> Option<PathBuf> {
        let name = dir.strip_prefix(&self.cpu.mount).ok()?;
        let same = self.cpuacct.mount.join(name);
        self.cpuacct.dirs.contains(&same).then_some(same)
    }
}

/// Folders of the group that holds `controller`: v1's own hierarchy where there is one, else v2's.
fn lineage(groups: &str, mounts: &str, controller: &str) -> Option<Lineage> {
    // `hierarchy:controllers:path` (cgroups(7)); v2's line has hierarchy 0 and no controllers.
    let lines = || {
        groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
    };
    let v1 = lines().find(|(_, controllers, _)| controllers.split(',').any(|c| c == controller));
    let (path, kind) = match v1 {
        Some((_, _, path)) => (path, Some(controller)),
        None => (
            lines()
                .find(|(id, controllers, _)| *id == "0" && controllers.is_empty())?
                .2,
            None,
        ),
    };
    let (mount, root) = mount_of(mounts, kind)?;
    // Inside a cgroup namespace or a container the mount shows only a part of the tree.
    let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
    let mut dirs = vec![mount.join(below)];
    while let Some(up) = dirs.last()?.parent().filter(|up| up.starts_with(&mount)) {
        dirs.push(up.to_owned());
    }
    Some(Lineage { mount, dirs })
}

/// Mount point and root of a hierarchy, from mountinfo (proc(5)).
pub fn mount_of(mounts: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let fits = match controller {
            Some(controller) => {
                right.first() == Some(&"cgroup")
                    && right.get(2)?.split(',').any(|option| option == controller)
            }
            None => right.first() == Some(&"cgroup2"),
        };
        fits.then(|| Some((PathBuf::from(left.get(4)?), PathBuf::from(left.get(3)?))))?
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn memory_bound(dir: &Path) -> Option<MemoryBound> {
    let statistics = dir.join("memory.stat");
    let (limit, current, cache) = match number(&dir.join("memory.max")) {
        Some(limit) => (
            limit,
            number(&dir.join("memory.current"))?,
            field(&statistics, "inactive_file"),
        ),
        None => (
            number(&dir.join("memory.limit_in_bytes"))?,
            number(&dir.join("memory.usage_in_bytes"))?,
            field(&statistics, "total_inactive_file"),
        ),
    };
    Some(MemoryBound {
        limit,
        used: current.saturating_sub(cache.unwrap_or(0)),
    })
}

fn cpu_cores(dir: &Path) -> Option<f64> {
    let (quota, period) = match fs::read_to_string(dir.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
        Err(_) => (
            number(&dir.join("cpu.cfs_quota_us"))?,
            number(&dir.join("cpu.cfs_period_us"))?,
        ),
    };
    // Both are microseconds, far below 2^53.
    (period > 0).then(|| quota as f64 / period as f64)
}

fn cpu_used(dir: &Path) -> Option<u64> {
    field(&dir.join("cpu.stat"), "usage_usec").or_else(|| Some(number(&dir.join("cpuacct.usage"))? / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process whose files and groups lie below a folder.
    fn group(groups: &str, mounts: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(dir.path().join("cgroup"), groups).unwrap();
        fs::write(dir.path().join("mountinfo"), mounts.replace("ROOT", &root)).unwrap();
        let mut found = Cgroups::default();
        found.follow(dir.path());
        (dir, found)
    }

    #[test]
    fn v2_takes_the_tightest_bound_of_all_ancestors() {
        let (_dir, groups) = group(
            "0::/sim/pi/agent\n",
            "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n",
            &[
                ("cg/sim/memory.max", "max\n"),
                ("cg/sim/pi/memory.max", "8589934592\n"),
                ("cg/sim/pi/memory.current", "2147483648\n"),
                ("cg/sim/pi/memory.stat", "anon 1\ninactive_file 1073741824\n"),
                ("cg/sim/pi/cpu.max", "150000 100000\n"),
                ("cg/sim/pi/cpu.stat", "usage_usec 5000\nuser_usec 1\n"),
                ("cg/sim/pi/agent/memory.max", "max\n"),
                ("cg/sim/pi/agent/cpu.max", "max 100000\n"),
            ],
        );
        let memory = groups.memory().unwrap();
        assert_eq!((memory.limit, memory.used), (8 << 30, 1 << 30));
        let cpu = groups.cpu().unwrap();
        assert_eq!((cpu.cores, cpu.used_micros), (1.5, Some(5000)));
    }

    #[test]
    fn v1_has_a_hierarchy_for_each_controller() {
        let (_dir, groups) = group(
            "4:memory:/pi\n2:cpuacct:/pi\n1:cpu:/pi\n0::/\n",
            "1 0 0:1 / ROOT/m rw - cgroup cgroup rw,memory\n2 0 0:2 / ROOT/a rw - cgroup cgroup rw,cpuacct\n\
             3 0 0:3 / ROOT/c rw - cgroup cgroup rw,cpu\n4 0 0:4 / ROOT/u rw - cgroup2 cgroup2 rw\n",
            &[
                ("m/pi/memory.limit_in_bytes", "1073741824\n"),
                ("m/pi/memory.usage_in_bytes", "1048576\n"),
                ("m/pi/memory.stat", "total_inactive_file 1024\n"),
                ("m/memory.limit_in_bytes", "9223372036854771712\n"),
                ("m/memory.usage_in_bytes", "1\n"),
                ("c/pi/cpu.cfs_quota_us", "200000\n"),
                ("c/pi/cpu.cfs_period_us", "100000\n"),
                ("c/pi/cpu.stat", "nr_periods 0\n"),
                ("c/cpu.cfs_quota_us", "-1\n"),
                ("c/cpu.cfs_period_us", "100000\n"),
                ("a/pi/cpuacct.usage", "7000000\n"),
            ],
        );
        let memory = groups.memory().unwrap();
        assert_eq!((memory.limit, memory.used), (1 << 30, (1 << 20) - 1024));
        let cpu = groups.cpu().unwrap();
        assert_eq!((cpu.cores, cpu.used_micros), (2.0, Some(7000)));
    }

    #[test]
    fn another_groups_time_is_not_taken_for_ones_own() {
        let (dir, mut groups) = group(
            "2:cpuacct:/\n1:cpu:/pi\n",
            "2 0 0:2 / ROOT/a rw - cgroup cgroup rw,cpuacct\n3 0 0:3 / ROOT/c rw - cgroup cgroup rw,cpu\n",
            &[
                ("c/pi/cpu.cfs_quota_us", "200000\n"),
                ("c/pi/cpu.cfs_period_us", "100000\n"),
                ("a/cpuacct.usage", "7000000\n"),
                ("a/pi/cpuacct.usage", "1000\n"),
            ],
        );
        let used = |groups: &Cgroups| groups.cpu().unwrap().used_micros;
        assert_eq!(used(&groups), None);
        // It is moved after its start.
        fs::write(dir.path().join("cgroup"), "2:cpuacct:/pi\n1:cpu:/pi\n").unwrap();
        groups.follow(dir.path());
        assert_eq!(used(&groups), Some(1));
    }

    #[test]
    fn a_part_of_the_tree_as_containers_see_it() {
        let (_dir, groups) = group(
            "0::/kubepods/pod1\n",
            "30 20 0:26 /kubepods/pod1 ROOT/cg ro - cgroup2 cgroup2 rw\n",
            &[("cg/memory.max", "1024\n"), ("cg/memory.current", "512\n")],
        );
        assert_eq!(groups.memory().map(|bound| bound.limit), Some(1024));
        assert_eq!(groups.cpu(), None);
    }

    #[test]
    fn no_cgroups_at_all_is_no_bound() {
        let (_dir, groups) = group("", "", &[]);
        assert_eq!((groups.memory(), groups.cpu()), (None, None));
    }
}
