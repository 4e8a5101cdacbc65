//! What pods and containers use, from their control groups (kernel: cgroup-v1, cgroup-v2), under the names and labels
//! that cAdvisor gives them inside kubelet.

use super::page::Page;
use super::{file_name, number};
use crate::cgroup::mount_of;
use crate::root::text;
use model::{ContainerGroup, PodGroup};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Ticks per second of `cpuacct.stat` (USER_HZ, 100 on every Linux that we run on).
const TICKS: f64 = 100.0;
/// A v1 limit above this is none: the kernel says the largest multiple of a page.
const UNLIMITED: f64 = (1_u64 << 62) as f64;

/// Names, kinds and helps of all that is told, in the order of the page.
const FAMILIES: [(&str, &str, &str); 36] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time consumed in seconds.",
    ),
    (
        "container_cpu_user_seconds_total",
        "counter",
        "Processor time consumed in user mode in seconds.",
    ),
    (
        "container_cpu_system_seconds_total",
        "counter",
        "Processor time consumed in the kernel in seconds.",
    ),
    (
        "container_cpu_cfs_periods_total",
        "counter",
        "Enforcement periods that have passed.",
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "Periods in which it was held back.",
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Seconds for which it was held back.",
    ),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Memory in use, caches included, in bytes.",
    ),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Memory in use without caches that can be dropped, in bytes.",
    ),
    ("container_memory_rss", "gauge", "Anonymous memory in bytes."),
    ("container_memory_cache", "gauge", "Page cache in bytes."),
    (
        "container_memory_mapped_file",
        "gauge",
        "Memory mapped files in bytes.",
    ),
    ("container_memory_swap", "gauge", "Swap in use in bytes."),
    (
        "container_memory_max_usage_bytes",
        "gauge",
        "Most memory that was ever in use in bytes.",
    ),
    (
        "container_memory_failcnt",
        "counter",
        "How often memory was at its limit.",
    ),
    ("container_memory_failures_total", "counter", "Page faults."),
    (
        "container_oom_events_total",
        "counter",
        "Processes killed for want of memory.",
    ),
    ("container_processes", "gauge", "Processes."),
    ("container_threads", "gauge", "Threads."),
    (
        "container_threads_max",
        "gauge",
        "Threads that there may be; 0 is no bound.",
    ),
    (
        "container_fs_reads_bytes_total",
        "counter",
        "Bytes read from a block device.",
    ),
    (
        "container_fs_writes_bytes_total",
        "counter",
        "Bytes written to a block device.",
    ),
    (
        "container_fs_reads_total",
        "counter",
        "Reads from a block device.",
    ),
    (
        "container_fs_writes_total",
        "counter",
        "Writes to a block device.",
    ),
    (
        "container_network_receive_bytes_total",
        "counter",
        "Bytes received.",
    ),
    (
        "container_network_receive_packets_total",
        "counter",
        "Packets received.",
    ),
    (
        "container_network_receive_errors_total",
        "counter",
        "Errors while receiving.",
    ),
    (
        "container_network_receive_packets_dropped_total",
        "counter",
        "Packets dropped while receiving.",
    ),
    ("container_network_transmit_bytes_total", "counter", "Bytes sent."),
    (
        "container_network_transmit_packets_total",
        "counter",
        "Packets sent.",
    ),
    (
        "container_network_transmit_errors_total",
        "counter",
        "Errors while sending.",
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "counter",
        "Packets dropped while sending.",
    ),
    (
        "container_start_time_seconds",
        "gauge",
        "When it was started, in seconds since 1970.",
    ),
    (
        "container_spec_cpu_period",
        "gauge",
        "Length of an enforcement period in microseconds.",
    ),
    (
        "container_spec_cpu_quota",
        "gauge",
        "Processor time of a period in microseconds; absent where it is not bounded.",
    ),
    (
        "container_spec_cpu_shares",
        "gauge",
        "Share of the processors beside others.",
    ),
    (
        "container_spec_memory_limit_bytes",
        "gauge",
        "Bound on memory in bytes; 0 is none.",
    ),
];

type Labels = Vec<(&'static str, String)>;

/// Reads control groups below a root.
#[derive(Debug)]
pub struct ContainerMetrics {
    root: PathBuf,
}

impl ContainerMetrics {
    /// Reads below `root`, which holds `proc` and the mounts that it speaks of.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The page of these pods. What is not there, or not counted on this machine, is left out.
    pub fn text(&self, pods: &[PodGroup]) -> String {
        let mounts = text(&self.root.join("proc/self/mountinfo")).unwrap_or_default();
        let hierarchies = Group::mounted(&self.root, &mounts);
        let mut sheet = Sheet {
            root: &self.root,
            families: BTreeMap::new(),
        };
        for pod in pods {
            let labels = of_pod(pod);
            let group = hierarchies.at(&pod.path);
            // Not the shares and limits: they are the containers', and adding up must not count them twice.
            sheet.usage(&group, quota(&group.cpu).0, &labels);
            sheet.add(
                "container_start_time_seconds",
                &labels,
                &[],
                seconds(pod.created_at),
            );
            if let Some(pid) = pod.network {
                sheet.network(pid, &labels);
            }
            for container in &pod.containers {
                let labels = of_container(pod, container);
                let group = hierarchies.at(&container.path);
                let (quota, period) = quota(&group.cpu);
                sheet.usage(&group, quota, &labels);
                sheet.add("container_spec_cpu_period", &labels, &[], period);
                sheet.add("container_spec_cpu_quota", &labels, &[], quota);
                sheet.bounds(&group, &labels);
                sheet.add(
                    "container_start_time_seconds",
                    &labels,
                    &[],
                    seconds(container.since),
                );
            }
        }
        sheet.page().text()
    }
}

fn seconds(time: jiff::Timestamp) -> Option<f64> {
    Some(time.as_second() as f64)
}

fn of_pod(pod: &PodGroup) -> Labels {
    vec![
        ("id", pod.path.clone()),
        ("namespace", pod.id.namespace.clone()),
        ("pod", pod.id.name.clone()),
    ]
}

fn of_container(pod: &PodGroup, container: &ContainerGroup) -> Labels {
    vec![
        ("container", container.name.clone()),
        ("id", container.path.clone()),
        ("image", container.image.clone()),
        ("name", format!("{}/{}", pod.uid, container.name)),
        ("namespace", pod.id.namespace.clone()),
        ("pod", pod.id.name.clone()),
    ]
}

/// The folders of one group. On v1 each controller has its own; on v2 all are the same.
#[derive(Debug, Default)]
struct Group {
    cpu: Side,
    cpuacct: Side,
    memory: Side,
    io: Side,
    pids: Side,
}

/// A group in one hierarchy.
#[derive(Debug, Default)]
struct Side {
    dir: PathBuf,
    unified: bool,
}

impl Group {
    /// The outermost group: where the machine has its hierarchies.
    fn mounted(root: &Path, mounts: &str) -> Self {
        let side = |controller: &str| {
            let v1 = mount_of(mounts, Some(controller));
            let unified = v1.is_none();
            let Some((mount, _)) = v1.or_else(|| mount_of(mounts, None)) else {
                return Side::default();
            };
            let dir = root.join(relative(&mount));
            Side { dir, unified }
        };
        Self {
            cpu: side("cpu"),
            cpuacct: side("cpuacct"),
            memory: side("memory"),
            io: side("blkio"),
            pids: side("pids"),
        }
    }

    /// The group of this absolute path below it.
    fn at(&self, path: &str) -> Self {
        Self {
            cpu: self.cpu.at(path),
            cpuacct: self.cpuacct.at(path),
            memory: self.memory.at(path),
            io: self.io.at(path),
            pids: self.pids.at(path),
        }
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

impl Side {
    fn at(&self, path: &str) -> Self {
        if self.dir.as_os_str().is_empty() {
            return Self::default();
        }
        Self {
            dir: self.dir.join(relative(Path::new(path))),
            unified: self.unified,
        }
    }

    fn text(&self, file: &str) -> Option<String> {
        if self.dir.as_os_str().is_empty() {
            None
        } else {
            text(&self.dir.join(file))
        }
    }

    fn number(&self, file: &str) -> Option<f64> {
        number(&self.text(file)?)
    }

    /// Lines of `name number`.
    fn table(&self, file: &str) -> Table {
        let text = self.text(file).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), number(value)?))
        });
        Table(pairs.collect())
    }

    /// The one name on v1, the other on v2.
    fn either<'a>(&self, v1: &'a str, v2: &'a str) -> &'a str {
        if self.unified { v2 } else { v1 }
    }
}

#[derive(Debug)]
struct Table(BTreeMap<String, f64>);

impl Table {
    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// Samples by family, as the page wants them.
#[derive(Debug)]
struct Sheet<'a> {
    root: &'a Path,
    families: BTreeMap<&'static str, Vec<(Labels, f64)>>,
}

impl Sheet<'_> {
    fn add(
        &mut self,
        name: &'static str,
        labels: &Labels,
        more: &[(&'static str, &str)],
        value: Option<f64>,
    ) {
        let Some(value) = value else { return };
        let mut labels = labels.clone();
        labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self.families.entry(name).or_default().push((labels, value));
    }

    /// `quota` is what bounds its processors, where anything does.
    fn usage(&mut self, group: &Group, quota: Option<f64>, labels: &Labels) {
        self.cpu(group, quota, labels);
        self.memory(&group.memory, labels);
        self.io(&group.io, labels);
        self.tasks(group, labels);
    }

    fn cpu(&mut self, group: &Group, quota: Option<f64>, labels: &Labels) {
        let counted = group.cpu.table("cpu.stat");
        let (used, user, system) = if group.cpuacct.unified {
            let micros = |name| Some(counted.get(name)? / 1e6);
            (micros("usage_usec"), micros("user_usec"), micros("system_usec"))
        } else {
            let split = group.cpuacct.table("cpuacct.stat");
            let ticks = |name| Some(split.get(name)? / TICKS);
            let nanos = group.cpuacct.number("cpuacct.usage");
            (nanos.map(|nanos| nanos / 1e9), ticks("user"), ticks("system"))
        };
        self.add(
            "container_cpu_usage_seconds_total",
            labels,
            &[("cpu", "total")],
            used,
        );
        self.add("container_cpu_user_seconds_total", labels, &[], user);
        self.add("container_cpu_system_seconds_total", labels, &[], system);
        if quota.is_none() {
            // Without a quota there is nothing to be held back by.
            return;
        }
        let held = match counted.get("throttled_usec") {
            Some(micros) => Some(micros / 1e6),
            None => counted.get("throttled_time").map(|nanos| nanos / 1e9),
        };
        self.add(
            "container_cpu_cfs_periods_total",
            labels,
            &[],
            counted.get("nr_periods"),
        );
        let throttled = counted.get("nr_throttled");
        self.add(
            "container_cpu_cfs_throttled_periods_total",
            labels,
            &[],
            throttled,
        );
        self.add("container_cpu_cfs_throttled_seconds_total", labels, &[], held);
    }

    fn memory(&mut self, side: &Side, labels: &Labels) {
        let counted = side.table("memory.stat");
        // v1 has each figure for the group alone and, as `total_`, with all below it.
        let stat = |v1: &str, v2: &str| counted.get(side.either(v1, v2));
        let usage = side.number(side.either("memory.usage_in_bytes", "memory.current"));
        let idle = stat("total_inactive_file", "inactive_file").unwrap_or(0.0);
        let swap = if side.unified {
            side.number("memory.swap.current")
        } else {
            counted.get("total_swap")
        };
        let most = side.number(side.either("memory.max_usage_in_bytes", "memory.peak"));
        let events = side.table(side.either("memory.oom_control", "memory.events"));
        let full = if side.unified {
            events.get("max")
        } else {
            side.number("memory.failcnt")
        };
        for (name, value) in [
            ("container_memory_usage_bytes", usage),
            (
                "container_memory_working_set_bytes",
                usage.map(|usage| (usage - idle).max(0.0)),
            ),
            ("container_memory_rss", stat("total_rss", "anon")),
            ("container_memory_cache", stat("total_cache", "file")),
            (
                "container_memory_mapped_file",
                stat("total_mapped_file", "file_mapped"),
            ),
            ("container_memory_swap", swap),
            ("container_memory_max_usage_bytes", most),
            ("container_memory_failcnt", full),
            ("container_oom_events_total", events.get("oom_kill")),
        ] {
            self.add(name, labels, &[], value);
        }
        for fault in ["pgfault", "pgmajfault"] {
            for (scope, key) in [
                ("container", fault.to_owned()),
                ("hierarchy", format!("total_{fault}")),
            ] {
                let more = [("failure_type", fault), ("scope", scope)];
                self.add(
                    "container_memory_failures_total",
                    labels,
                    &more,
                    stat(&key, fault),
                );
            }
        }
    }

    fn io(&mut self, side: &Side, labels: &Labels) {
        for (number, [read, written, reads, writes]) in moved(side) {
            let device = self.device(&number);
            let more = [("device", device.as_str())];
            self.add("container_fs_reads_bytes_total", labels, &more, Some(read));
            self.add("container_fs_writes_bytes_total", labels, &more, Some(written));
            self.add("container_fs_reads_total", labels, &more, Some(reads));
            self.add("container_fs_writes_total", labels, &more, Some(writes));
        }
    }

    /// `/dev/sda` for `8:0`.
    fn device(&self, number: &str) -> String {
        let link = self.root.join("sys/dev/block").join(number);
        let target = std::fs::read_link(link).unwrap_or_else(|_| PathBuf::from(number));
        format!("/dev/{}", file_name(&target))
    }

    fn tasks(&mut self, group: &Group, labels: &Labels) {
        // Of the group itself: what a pod's containers hold is theirs.
        let processes = group
            .pids
            .text("cgroup.procs")
            .map(|text| text.lines().count() as f64);
        let most = group
            .pids
            .text("pids.max")
            .map(|text| number(&text).unwrap_or(0.0));
        self.add("container_processes", labels, &[], processes);
        self.add(
            "container_threads",
            labels,
            &[],
            group.pids.number("pids.current"),
        );
        self.add("container_threads_max", labels, &[], most);
    }

    fn network(&mut self, pid: i32, labels: &Labels) {
        const WAYS: [(usize, [&str; 4]); 2] = [
            (
                0,
                [
                    "container_network_receive_bytes_total",
                    "container_network_receive_packets_total",
                    "container_network_receive_errors_total",
                    "container_network_receive_packets_dropped_total",
                ],
            ),
            (
                8,
                [
                    "container_network_transmit_bytes_total",
                    "container_network_transmit_packets_total",
                    "container_network_transmit_errors_total",
                    "container_network_transmit_packets_dropped_total",
                ],
            ),
        ];
        let text = text(&self.root.join(format!("proc/{pid}/net/dev"))).unwrap_or_default();
        for (device, counts) in super::kernel::interfaces(&text) {
            if device == "lo" {
                continue;
            }
            for (offset, names) in WAYS {
                for (index, name) in names.into_iter().enumerate() {
                    let count = counts.get(offset + index).copied();
                    self.add(name, labels, &[("interface", device)], count);
                }
            }
        }
    }

    fn bounds(&mut self, group: &Group, labels: &Labels) {
        let shares = if group.cpu.unified {
            // The range of weights laid over that of shares, as the OCI runtimes do.
            let weight = group.cpu.number("cpu.weight");
            weight.map(|weight| (2.0 + (weight - 1.0) * 262_142.0 / 9999.0).floor())
        } else {
            group.cpu.number("cpu.shares")
        };
        self.add("container_spec_cpu_shares", labels, &[], shares);
        let side = &group.memory;
        let limit = side.text(side.either("memory.limit_in_bytes", "memory.max"));
        let limit = limit.map(|text| number(&text).filter(|limit| *limit < UNLIMITED).unwrap_or(0.0));
        self.add("container_spec_memory_limit_bytes", labels, &[], limit);
    }

    fn page(mut self) -> Page {
        let mut page = Page::default();
        for (name, kind, help) in FAMILIES {
            page.many(name, kind, help, self.families.remove(name).unwrap_or_default());
        }
        page
    }
}

/// Microseconds of each period, and the period.
fn quota(side: &Side) -> (Option<f64>, Option<f64>) {
    if side.unified {
        let text = side.text("cpu.max").unwrap_or_default();
        let (quota, period) = text.split_once(' ').unwrap_or_default();
        (number(quota), number(period))
    } else {
        let quota = side.number("cpu.cfs_quota_us").filter(|quota| *quota > 0.0);
        (quota, side.number("cpu.cfs_period_us"))
    }
}

/// Bytes read and written, reads and writes, by a block device's number.
fn moved(side: &Side) -> BTreeMap<String, [f64; 4]> {
    let mut moved: BTreeMap<String, [f64; 4]> = BTreeMap::new();
    let mut put = |device: &str, index: usize, value: &str| {
        if let Some(value) = number(value) {
            moved.entry(device.to_owned()).or_default()[index] = value;
        }
    };
    if side.unified {
        // `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`
        for line in side.text("io.stat").unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let device = words.next().unwrap_or_default();
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let keys = ["rbytes", "wbytes", "rios", "wios"];
                if let Some(index) = keys.iter().position(|known| *known == key) {
                    put(device, index, value);
                }
            }
        }
        return moved;
    }
    // `8:0 Read 1`, one figure a line; the group's own, and at the end a line of all.
    for (file, first) in [("io_service_bytes", 0), ("io_serviced", 2)] {
        let recursive = side.text(&format!("blkio.throttle.{file}_recursive"));
        let own = || side.text(&format!("blkio.throttle.{file}"));
        for line in recursive.or_else(own).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                [device, "Read", value] => put(device, first, value),
                [device, "Write", value] => put(device, first + 1, value),
                _ => {}
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests;
