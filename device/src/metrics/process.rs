//! This process, under the names that Prometheus' client libraries give their own.

use super::number;
use super::page::Page;
use std::fs;

/// Ticks per second of `/proc/self/stat` (USER_HZ).
const TICKS: f64 = 100.0;

/// Writes what this process uses. It is the machine's own `/proc` that is read, whatever the device simulates.
pub fn process(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split(' ').collect();
    // Numbered from the third on (proc(5)): 14 utime, 15 stime, 20 threads.
    let field = |index: usize| fields.get(index - 3).and_then(|word| number(word));
    let cpu = field(14)
        .zip(field(15))
        .map(|(user, system)| (user + system) / TICKS);
    let help = "Total user and system CPU time spent in seconds.";
    page.one("process_cpu_seconds_total", "counter", help, cpu);
    // Kilobytes (proc(5)), and in the kernel's own page size, whatever that is.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes = number(line.trim_start_matches(':').trim_end_matches("kB"))?;
        Some(kilobytes * 1024.0)
    };
    let help = "Resident memory size in bytes.";
    page.one("process_resident_memory_bytes", "gauge", help, size("VmRSS"));
    let help = "Virtual memory size in bytes.";
    page.one("process_virtual_memory_bytes", "gauge", help, size("VmSize"));
    page.one(
        "process_threads",
        "gauge",
        "Number of OS threads in the process.",
        field(20),
    );
    // A few hundred.
    let open = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count() as f64);
    page.one(
        "process_open_fds",
        "gauge",
        "Number of open file descriptors.",
        open,
    );
}
