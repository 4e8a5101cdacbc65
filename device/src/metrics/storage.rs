//! Disks, their wear, and what is mounted.

use super::page::Page;
use super::{HostMetrics, file_name, number};
use crate::patient::Question;
use crate::root::{Root, text};
use rustix::fs::{StatVfs, statvfs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Columns of `/proc/diskstats` after the name (kernel: admin-guide/iostats): name, help, factor.
const COLUMNS: [(&str, &str, &str, f64); 11] = [
    (
        "reads_completed_total",
        "counter",
        "The total number of reads completed successfully.",
        1.0,
    ),
    (
        "reads_merged_total",
        "counter",
        "The total number of reads merged.",
        1.0,
    ),
    (
        "read_bytes_total",
        "counter",
        "The total number of bytes read successfully.",
        512.0,
    ),
    (
        "read_time_seconds_total",
        "counter",
        "The total number of seconds spent by all reads.",
        0.001,
    ),
    (
        "writes_completed_total",
        "counter",
        "The total number of writes completed successfully.",
        1.0,
    ),
    (
        "writes_merged_total",
        "counter",
        "The number of writes merged.",
        1.0,
    ),
    (
        "written_bytes_total",
        "counter",
        "The total number of bytes written successfully.",
        512.0,
    ),
    (
        "write_time_seconds_total",
        "counter",
        "The total number of seconds spent by all writes.",
        0.001,
    ),
    (
        "io_now",
        "gauge",
        "The number of I/Os currently in progress.",
        1.0,
    ),
    (
        "io_time_seconds_total",
        "counter",
        "Total seconds spent doing I/Os.",
        0.001,
    ),
    (
        "io_time_weighted_seconds_total",
        "counter",
        "The weighted seconds spent doing I/Os.",
        0.001,
    ),
];

pub fn disks(root: &Root, page: &mut Page) {
    let stats = root.text("proc/diskstats").unwrap_or_default();
    let rows: Vec<(&str, Vec<f64>)> = stats
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(2);
            let device = words.next().filter(|device| is_whole(device))?;
            Some((device, words.filter_map(number).collect()))
        })
        .collect();
    for (index, (name, kind, help, factor)) in COLUMNS.iter().enumerate() {
        let name = format!("node_disk_{name}");
        page.family(&name, kind, help);
        for (device, counts) in &rows {
            if let Some(count) = counts.get(index) {
                page.sample(&name, &[("device", device)], count * factor);
            }
        }
    }
    wear(root, page);
}

/// Neither a partition nor a disk in memory (as node_exporter leaves them out).
fn is_whole(device: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let memory = ["ram", "loop", "fd"]
        .iter()
        .any(|kind| device.strip_prefix(kind).is_some_and(digits));
    let lettered = ["sd", "hd", "vd", "xvd"].iter().any(|kind| {
        let rest = device.strip_prefix(kind);
        rest.is_some_and(|rest| rest.ends_with(|c: char| c.is_ascii_digit()))
    });
    let numbered = device.starts_with("nvme") || device.starts_with("mmcblk");
    let part = numbered && device.rsplit_once('p').is_some_and(|(_, part)| digits(part));
    !memory && !lettered && !part
}

/// What an eMMC says of its life (JEDEC eMMC 5.0: tenths used, 0x0b for more than all). An SD card says nothing.
fn wear(root: &Root, page: &mut Page) {
    let hexadecimal = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let (mut lives, mut ends) = (Vec::new(), Vec::new());
    for device in root.entries("sys/block", "mmcblk") {
        let told = |file: &str| text(&device.join("device").join(file)).unwrap_or_default();
        let life = told("life_time");
        for (area, word) in ["a", "b"].iter().zip(life.split_ascii_whitespace()) {
            if let Some(tenths) = hexadecimal(word).filter(|tenths| (1..=11).contains(tenths)) {
                let labels = vec![("device", file_name(&device)), ("area", (*area).to_owned())];
                lives.push((labels, f64::from(tenths) / 10.0));
            }
        }
        if let Some(end) = hexadecimal(&told("pre_eol_info")).filter(|end| *end > 0) {
            ends.push((vec![("device", file_name(&device))], f64::from(end)));
        }
    }
    let help = "Upper bound of the used part of the device's life.";
    page.gauges("leeward_emmc_life_used_ratio", help, lives);
    let help = "Reserved blocks: 1 normal, 2 80 % used, 3 urgent.";
    page.gauges("leeward_emmc_pre_eol_info", help, ends);
}

/// File systems that hold nothing of interest (node_exporter's own list).
const NO_TYPES: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];
/// Places that hold nothing of interest (the same).
const NO_PLACES: [&str; 5] = ["/dev", "/proc", "/sys", "/var/lib/docker", "/run/credentials"];

/// Something mounted.
struct Mount {
    device: String,
    at: String,
    kind: String,
    read_only: bool,
}

impl Mount {
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("device", self.device.clone()),
            ("fstype", self.kind.clone()),
            ("mountpoint", self.at.clone()),
        ]
    }
}

fn mounts(root: &Root, state: &Path) -> Vec<Mount> {
    let text = root
        .text("proc/1/mounts")
        .or_else(|| root.text("proc/self/mounts"));
    let text = text.unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ').map(unescape);
        let mount = Mount {
            device: words.next()?,
            at: words.next()?,
            kind: words.next()?,
            read_only: words.next()?.split(',').any(|option| option == "ro"),
        };
        let at = Path::new(&mount.at);
        let hidden = NO_PLACES.iter().any(|place| at.starts_with(place));
        let own = at != state && at.starts_with(state);
        let kept = !NO_TYPES.contains(&mount.kind.as_str()) && !hidden && !own;
        (kept && seen.insert(mount.labels())).then_some(mount)
    });
    mounts.collect()
}

/// Blanks are written as octal numbers (proc(5)).
fn unescape(word: &str) -> String {
    word.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

/// Sizes of disks are far below 2^53, so that nothing is rounded.
type Value = fn(&StatVfs) -> f64;
const FAMILIES: [(&str, &str, Value); 5] = [
    ("size_bytes", "Filesystem size in bytes.", |s| {
        (s.f_blocks * s.f_frsize) as f64
    }),
    ("free_bytes", "Filesystem free space in bytes.", |s| {
        (s.f_bfree * s.f_frsize) as f64
    }),
    (
        "avail_bytes",
        "Filesystem space available to non-root users in bytes.",
        |s| (s.f_bavail * s.f_frsize) as f64,
    ),
    ("files", "Filesystem total file nodes.", |s| s.f_files as f64),
    ("files_free", "Filesystem total free file nodes.", |s| {
        s.f_ffree as f64
    }),
];

impl HostMetrics {
    pub(super) fn file_systems(&mut self, page: &mut Page) {
        let mounts = mounts(&self.root, &self.state);
        let root = self.root.clone();
        let place = |mount: &Mount| root.path(mount.at.trim_start_matches('/'));
        let questions = mounts.iter().map(|mount| {
            let target = place(mount);
            let question: Question<StatVfs> = Box::new(move || statvfs(&target).ok());
            (place(mount), question)
        });
        let stats: BTreeMap<PathBuf, StatVfs> = self.mounts.ask(questions.collect()).into_iter().collect();
        for (name, help, value) in FAMILIES {
            let samples = mounts
                .iter()
                .filter_map(|mount| Some((mount.labels(), value(stats.get(&place(mount))?))));
            page.gauges(&format!("node_filesystem_{name}"), help, samples);
        }
        let samples = mounts
            .iter()
            .map(|mount| (mount.labels(), if mount.read_only { 1.0 } else { 0.0 }));
        page.gauges(
            "node_filesystem_readonly",
            "Filesystem read-only status.",
            samples,
        );
    }
}
