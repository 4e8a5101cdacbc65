//! What the kernel counts: processors, memory, pressure, network.

use super::page::Page;
use super::{file_name, number};
use crate::root::{Root, text};
use std::collections::BTreeMap;

/// Ticks per second of `/proc/stat` (USER_HZ, 100 on every Linux that we run on).
const TICKS: f64 = 100.0;
/// Columns of `/proc/stat` (proc(5)); guest time is in user time too, and left out.
const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

pub fn write(root: &Root, page: &mut Page) {
    stat(root, page);
    memory(root, page);
    load(root, page);
    pressure(root, page);
    vmstat(root, page);
    files(root, page);
    network(root, page);
    frequencies(root, page);
    uname(root, page);
}

fn uname(root: &Root, page: &mut Page) {
    let told = |name: &str| root.text(&format!("proc/sys/kernel/{name}")).unwrap_or_default();
    let labels = vec![
        ("sysname", "Linux".to_owned()),
        ("release", told("osrelease")),
        ("version", told("version")),
        ("machine", std::env::consts::ARCH.to_owned()),
        ("nodename", told("hostname")),
        ("domainname", told("domainname")),
    ];
    page.gauges("node_uname_info", "Labeled system information.", [(labels, 1.0)]);
}

fn stat(root: &Root, page: &mut Page) {
    let text = root.text("proc/stat").unwrap_or_default();
    let cpus = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let cpu = words.next()?.strip_prefix("cpu").filter(|cpu| !cpu.is_empty())?;
        Some((cpu, words.filter_map(number).collect::<Vec<f64>>()))
    });
    let name = "node_cpu_seconds_total";
    page.family(name, "counter", "Seconds the CPUs spent in each mode.");
    for (cpu, ticks) in cpus {
        for (mode, ticks) in MODES.iter().zip(ticks) {
            page.sample(name, &[("cpu", cpu), ("mode", mode)], ticks / TICKS);
        }
    }
    let field = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|line| number(line.split(' ').next()?))
    };
    for (key, name, kind, help) in [
        (
            "btime",
            "node_boot_time_seconds",
            "gauge",
            "Node boot time, in unixtime.",
        ),
        (
            "ctxt",
            "node_context_switches_total",
            "counter",
            "Total number of context switches.",
        ),
        (
            "intr",
            "node_intr_total",
            "counter",
            "Total number of interrupts serviced.",
        ),
        (
            "processes",
            "node_forks_total",
            "counter",
            "Total number of forks.",
        ),
        (
            "procs_running",
            "node_procs_running",
            "gauge",
            "Number of processes in runnable state.",
        ),
        (
            "procs_blocked",
            "node_procs_blocked",
            "gauge",
            "Number of processes waiting for I/O.",
        ),
    ] {
        page.one(name, kind, help, field(key));
    }
}

fn memory(root: &Root, page: &mut Page) {
    for line in root.text("proc/meminfo").unwrap_or_default().lines() {
        let Some((key, rest)) = line.split_once(':') else {
            continue;
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().and_then(number);
        let kilobytes = words.next() == Some("kB");
        let (factor, unit) = if kilobytes { (1024.0, "_bytes") } else { (1.0, "") };
        let key = key.replace('(', "_").replace(')', "");
        let help = format!("Memory information field {key}{unit}.");
        let name = format!("node_memory_{key}{unit}");
        page.one(&name, "gauge", &help, value.map(|value| value * factor));
    }
}

fn load(root: &Root, page: &mut Page) {
    let text = root.text("proc/loadavg").unwrap_or_default();
    for (time, word) in ["1", "5", "15"].iter().zip(text.split(' ')) {
        let help = format!("{time}m load average.");
        page.one(&format!("node_load{time}"), "gauge", &help, number(word));
    }
}

/// Totals are microseconds (kernel: accounting/psi).
fn pressure(root: &Root, page: &mut Page) {
    for (resource, line, what) in [
        ("cpu", "some", "waiting"),
        ("io", "some", "waiting"),
        ("io", "full", "stalled"),
        ("memory", "some", "waiting"),
        ("memory", "full", "stalled"),
    ] {
        let text = root
            .text(&format!("proc/pressure/{resource}"))
            .unwrap_or_default();
        let of_line = text.lines().find_map(|held| held.strip_prefix(line));
        let total = of_line.and_then(|rest| number(rest.rsplit_once("total=")?.1));
        let name = format!("node_pressure_{resource}_{what}_seconds_total");
        let help = format!("Total time in seconds that processes have waited for {resource}.");
        page.one(&name, "counter", &help, total.map(|micros| micros / 1e6));
    }
}

fn vmstat(root: &Root, page: &mut Page) {
    const KEPT: [&str; 7] = [
        "oom_kill",
        "pgpgin",
        "pgpgout",
        "pswpin",
        "pswpout",
        "pgfault",
        "pgmajfault",
    ];
    for line in root.text("proc/vmstat").unwrap_or_default().lines() {
        if let Some((key, value)) = line.split_once(' ').filter(|(key, _)| KEPT.contains(key)) {
            let help = format!("/proc/vmstat information field {key}.");
            page.one(&format!("node_vmstat_{key}"), "untyped", &help, number(value));
        }
    }
}

fn files(root: &Root, page: &mut Page) {
    let text = root.text("proc/sys/fs/file-nr").unwrap_or_default();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    for (index, what) in [(0, "allocated"), (2, "maximum")] {
        let help = format!("File descriptor statistics: {what}.");
        let value = words.get(index).and_then(|word| number(word));
        page.one(&format!("node_filefd_{what}"), "gauge", &help, value);
    }
}

/// Columns of `/proc/net/dev`.
const RECEIVED: [&str; 8] = [
    "bytes",
    "packets",
    "errs",
    "drop",
    "fifo",
    "frame",
    "compressed",
    "multicast",
];
const SENT: [&str; 8] = [
    "bytes",
    "packets",
    "errs",
    "drop",
    "fifo",
    "colls",
    "carrier",
    "compressed",
];

fn network(root: &Root, page: &mut Page) {
    let text = root.text("proc/net/dev").unwrap_or_default();
    let devices = interfaces(&text);
    for (offset, way, columns) in [(0, "receive", RECEIVED), (8, "transmit", SENT)] {
        for (index, column) in columns.iter().enumerate() {
            let name = format!("node_network_{way}_{column}_total");
            page.family(
                &name,
                "counter",
                &format!("Network device statistic {way}_{column}."),
            );
            for (device, counts) in &devices {
                if let Some(count) = counts.get(offset + index) {
                    page.sample(&name, &[("device", device)], *count);
                }
            }
        }
    }
    links(root, page);
}

/// The counts of each interface, [`RECEIVED`] and then [`SENT`], of a `net/dev`.
pub fn interfaces(text: &str) -> BTreeMap<&str, Vec<f64>> {
    text.lines()
        .filter_map(|line| {
            let (device, counts) = line.split_once(':')?;
            Some((
                device.trim(),
                counts.split_ascii_whitespace().filter_map(number).collect(),
            ))
        })
        .collect()
}

fn links(root: &Root, page: &mut Page) {
    // The kernel says -1 where a link has no speed.
    let speed = |text: &str| {
        number(text)
            .filter(|mbit| *mbit >= 0.0)
            .map(|mbit| mbit * 125_000.0)
    };
    let up = |text: &str| Some(if text == "up" { 1.0 } else { 0.0 });
    type Value<'a> = &'a dyn Fn(&str) -> Option<f64>;
    let families: [(&str, &str, &str, Value<'_>); 4] = [
        (
            "operstate",
            "up",
            "Value is 1 if operstate is 'up', 0 otherwise.",
            &up,
        ),
        ("carrier", "carrier", "Network device property: carrier.", &number),
        ("mtu", "mtu_bytes", "Network device property: mtu_bytes.", &number),
        (
            "speed",
            "speed_bytes",
            "Network device property: speed_bytes.",
            &speed,
        ),
    ];
    let links = root.entries("sys/class/net", "");
    for (file, name, help, value) in families {
        let samples = links.iter().filter_map(|link| {
            let value = value(&text(&link.join(file))?)?;
            Some((vec![("device", file_name(link))], value))
        });
        page.gauges(&format!("node_network_{name}"), help, samples);
    }
}

fn frequencies(root: &Root, page: &mut Page) {
    let cpus = root.entries("sys/devices/system/cpu", "cpu");
    for (file, name, help) in [
        (
            "scaling_cur_freq",
            "frequency_hertz",
            "Current scaled CPU thread frequency in hertz.",
        ),
        (
            "scaling_max_freq",
            "frequency_max_hertz",
            "Maximum scaled CPU thread frequency in hertz.",
        ),
    ] {
        let samples = cpus.iter().filter_map(|cpu| {
            let kilohertz = number(&text(&cpu.join("cpufreq").join(file))?)?;
            Some((
                vec![("cpu", file_name(cpu).replace("cpu", ""))],
                kilohertz * 1000.0,
            ))
        });
        page.gauges(&format!("node_cpu_scaling_{name}"), help, samples);
    }
}
