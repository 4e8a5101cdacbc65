//! Facts of the machine as they are now.

use crate::cgroup::{Cgroups, CpuBound};
use crate::root::Root;
use crate::sensors::{self, Sensors};
use model::{Facts, Platform};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads the machine's facts again and again; remembers what shares over time need.
#[derive(Debug)]
pub struct FactsReader {
    root: Root,
    state_dir: PathBuf,
    /// The process whose bounds count: this one.
    process: PathBuf,
    cgroups: Cgroups,
    sensors: Sensors,
    last: Option<Sample>,
}

/// Processor time spent up to a moment, in any one unit for both.
#[derive(Debug, Clone, Copy)]
struct Sample {
    busy: f64,
    whole: f64,
}

impl FactsReader {
    /// Reads below `sysroot`, which holds `proc` and `sys`: `/` for this machine. The disk that counts is that of
    /// `state_dir`. Limits of the control group count always, as they bind this very process.
    pub fn new(sysroot: &Path, state_dir: &Path) -> Self {
        Self {
            root: Root::new(sysroot),
            state_dir: state_dir.to_owned(),
            process: PathBuf::from("/proc/self"),
            cgroups: Cgroups::default(),
            sensors: Sensors::default(),
            last: None,
        }
    }

    /// The facts now; blocks for a quarter of a second where a sensor does not answer. What the machine does not
    /// tell is absent. `since_boot` is [`kit::Clock::since_boot`]; shares are those since the last call.
    pub fn read(&mut self, since_boot: Duration) -> Facts {
        self.cgroups.follow(&self.process);
        let cores = cores(&self.root);
        let cpu = self.cgroups.cpu().filter(|bound| bound.cores <= cores);
        let (memory_total, memory_used) = self.memory();
        let (disk_total, disk_used) = disk(&self.state_dir).unwrap_or_default();
        let temperatures = self.sensors.temperatures(&self.root);
        Facts {
            board: board(&self.root),
            kernel: self.root.text("proc/sys/kernel/osrelease"),
            architecture: Platform::host().architecture,
            cpus: cpu.map_or(cores, |bound| bound.cores),
            cpu_percent: self.cpu_percent(cpu, since_boot),
            memory_total,
            memory_used,
            disk_total,
            disk_used,
            temperature_celsius: temperatures.values().copied().reduce(f64::max),
            temperatures,
            uptime_seconds: uptime(&self.root, since_boot),
            gpu_percent: sensors::gpu_percent(&self.root),
            power_watts: sensors::power(&self.root),
            under_voltage: sensors::under_voltage(&self.root),
        }
    }

    /// With sensors that are waited for, however busy the machine is.
    #[cfg(test)]
    pub(crate) fn patient(sysroot: &Path, state_dir: &Path) -> Self {
        Self {
            sensors: Sensors::with_deadline(Duration::from_secs(30)),
            ..Self::new(sysroot, state_dir)
        }
    }

    /// Memory of the machine, or of the control group where that is less.
    fn memory(&self) -> (u64, u64) {
        let text = self.root.text("proc/meminfo").unwrap_or_default();
        let total = meminfo(&text, "MemTotal").unwrap_or(0);
        match self.cgroups.memory() {
            Some(bound) if bound.limit <= total || total == 0 => (bound.limit, bound.used),
            // MemAvailable counts caches that can be dropped as free (proc(5)).
            _ => {
                let available = meminfo(&text, "MemAvailable").unwrap_or(0);
                (total, total.saturating_sub(available))
            }
        }
    }

    fn cpu_percent(&mut self, bound: Option<CpuBound>, since_boot: Duration) -> Option<f64> {
        let sample = match bound {
            Some(bound) => Sample {
                // Microseconds of a few cores since boot, far below 2^53.
                busy: bound.used_micros? as f64,
                whole: since_boot.as_micros() as f64 * bound.cores,
            },
            None => cpu_times(&self.root.text("proc/stat")?)?,
        };
        let last = self.last.replace(sample)?;
        let whole = sample.whole - last.whole;
        (whole > 0.0).then(|| ((sample.busy - last.busy) / whole * 100.0).clamp(0.0, 100.0))
    }
}

/// Random id of this boot of the machine below `sysroot`.
pub fn boot_id(sysroot: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(Root::new(sysroot).path("proc/sys/kernel/random/boot_id"))?;
    Ok(text.trim().to_owned())
}

/// The board's name: from the device tree, or the firmware's tables on PCs.
fn board(root: &Root) -> Option<String> {
    let model = root.text("sys/firmware/devicetree/base/model");
    model.filter(|name| !name.is_empty()).or_else(|| {
        let vendor = root.text("sys/class/dmi/id/sys_vendor")?;
        let product = root.text("sys/class/dmi/id/product_name")?;
        Some(format!("{vendor} {product}").trim().to_owned()).filter(|name| !name.is_empty())
    })
}

/// Cores that are switched on.
fn cores(root: &Root) -> f64 {
    let online = root.text("sys/devices/system/cpu/online").unwrap_or_default();
    count_list(&online).map_or(1.0, f64::from)
}

/// Members of a kernel list such as `0-3,6`.
fn count_list(text: &str) -> Option<u32> {
    let mut count = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// Bytes of one line of meminfo, which counts in KiB.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Processor time of the whole machine, in ticks (proc(5), /proc/stat).
fn cpu_times(stat: &str) -> Option<Sample> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are part of user and nice already.
    let whole: f64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0.0);
    Some(Sample {
        busy: whole - idle,
        whole,
    })
}

fn uptime(root: &Root, since_boot: Duration) -> u64 {
    let text = root.text("proc/uptime");
    let seconds = text.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    // A fixture has no file that grows older by itself.
    seconds.map_or(since_boot.as_secs(), |seconds| seconds as u64)
}

/// Size and use of a folder's file system. What only root may still use counts as used.
fn disk(dir: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some((
        bytes(found.f_blocks),
        bytes(found.f_blocks.saturating_sub(found.f_bavail)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_and_lines_of_the_kernel() {
        assert_eq!(count_list("0-7"), Some(8));
        assert_eq!(count_list("0,2-3,6"), Some(4));
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(count_list(""), None);
        let text = "MemTotal:       16302048 kB\nMemAvailable:   100 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(16_302_048 * 1024));
        assert_eq!(meminfo(text, "MemFree"), None);
    }

    #[test]
    fn a_share_is_that_since_the_last_reading() {
        let dir = tempfile::tempdir().unwrap();
        let stat = dir.path().join("proc/stat");
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let mut reader = FactsReader::new(dir.path(), dir.path());
        reader.process = dir.path().to_owned();
        fs::write(&stat, "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!(reader.read(Duration::from_secs(1)).cpu_percent, None);
        fs::write(&stat, "cpu  150 0 125 1100 125 0 0 0 0 0\n").unwrap();
        assert_eq!(reader.read(Duration::from_secs(2)).cpu_percent, Some(15.0));
        assert_eq!(
            reader.read(Duration::from_secs(3)).cpu_percent,
            None,
            "no time passed"
        );
    }

    #[test]
    fn the_tighter_of_machine_and_control_group_counts() {
        let dir = tempfile::tempdir().unwrap();
        crate::fixture::write(&"raspberry-pi-5".parse().unwrap(), dir.path()).unwrap();
        let group = dir.path().join("cg/device");
        fs::create_dir_all(&group).unwrap();
        fs::write(dir.path().join("cgroup"), "0::/device\n").unwrap();
        let mount = format!("1 0 0:1 / {}/cg rw - cgroup2 x rw\n", dir.path().display());
        fs::write(dir.path().join("mountinfo"), mount).unwrap();
        let set = |name: &str, text: &str| fs::write(group.join(name), text).unwrap();
        set("memory.max", "8589934592");
        set("memory.current", "1073741824");
        set("cpu.max", "400000 100000");
        set("cpu.stat", "usage_usec 1000000\n");
        let mut reader = FactsReader::new(dir.path(), dir.path());
        reader.process = dir.path().to_owned();
        let facts = reader.read(Duration::from_secs(10));
        assert_eq!(
            (facts.cpus, facts.memory_total, facts.memory_used),
            (4.0, 8 << 30, 1 << 30)
        );
        set("cpu.stat", "usage_usec 3000000\n");
        assert_eq!(reader.read(Duration::from_secs(12)).cpu_percent, Some(25.0));

        set("memory.max", "max");
        set("cpu.max", "6400000 100000");
        let facts = reader.read(Duration::from_secs(14));
        assert_eq!((facts.cpus, facts.memory_total), (4.0, 8 << 30));
        assert_eq!(facts.memory_used, (8388608 - 6712320) * 1024);
    }

    #[test]
    fn this_very_machine_tells_its_facts() {
        let mut reader = FactsReader::new(Path::new("/"), Path::new("/"));
        let facts = reader.read(Duration::from_secs(1));
        assert!(facts.cpus > 0.0 && facts.cpus <= 4096.0, "{facts:?}");
        assert!(
            facts.memory_total > facts.memory_used && facts.memory_used > 0,
            "{facts:?}"
        );
        assert!(
            facts.disk_total >= facts.disk_used && facts.disk_used > 0,
            "{facts:?}"
        );
        assert!(facts.uptime_seconds > 0 && facts.kernel.is_some(), "{facts:?}");
        assert_eq!(boot_id(Path::new("/")).unwrap().len(), 36);
    }

    /// A process in a control group of this machine, of whichever version it has.
    struct Held {
        process: std::process::Child,
        dirs: Vec<PathBuf>,
    }

    impl Held {
        fn new(limits: &[(&str, &str, &str)], unified: &[(&str, &str)]) -> io::Result<Self> {
            let process = std::process::Command::new("sleep").arg("60").spawn()?;
            let mut held = Self {
                process,
                dirs: Vec::new(),
            };
            let name = format!("leeward-test-{}", held.process.id());
            let root = Path::new("/sys/fs/cgroup");
            if root.join("cgroup.controllers").is_file() {
                held.join(root.join(&name), unified)?;
            } else {
                for (hierarchy, file, value) in limits {
                    held.join(root.join(hierarchy).join(&name), &[(*file, *value)])?;
                }
            }
            Ok(held)
        }

        fn join(&mut self, dir: PathBuf, limits: &[(&str, &str)]) -> io::Result<()> {
            fs::create_dir(&dir)?;
            self.dirs.push(dir.clone());
            for (file, value) in limits.iter().filter(|(file, _)| !file.is_empty()) {
                fs::write(dir.join(file), value)?;
            }
            fs::write(dir.join("cgroup.procs"), self.process.id().to_string())
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
            for dir in &self.dirs {
                fs::remove_dir(dir).unwrap();
            }
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "what is skipped says so")]
    fn root_the_kernels_own_control_groups_are_understood() {
        let v1 = [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpuacct", "", ""),
        ];
        let v2 = [("memory.max", "67108864"), ("cpu.max", "50000 100000")];
        let held = match Held::new(&v1, &v2) {
            Ok(held) => held,
            Err(err) => {
                assert!(
                    std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                    "CI must have control groups"
                );
                eprintln!("SKIPPED: no control group can be made here: {err}");
                return;
            }
        };
        let mut reader = FactsReader::new(Path::new("/"), Path::new("/"));
        reader.process = PathBuf::from(format!("/proc/{}", held.process.id()));
        let facts = reader.read(Duration::from_secs(100));
        assert_eq!((facts.memory_total, facts.cpus), (64 << 20, 0.5));
        assert!(facts.memory_used < 64 << 20, "{facts:?}");
        assert!(reader.read(Duration::from_secs(101)).cpu_percent.is_some());
    }
}
