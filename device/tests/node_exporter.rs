//! The machine's figures beside those of a real node_exporter.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skips"
)]

use device::HostMetrics;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use telemetry::metrics::Labels;
use telemetry::metrics::text::{Entry, Format, Parser, labels};

/// Debian's package leaves these out, where the original has them.
const OTHERS: [&str; 4] = [
    "device=\"lo\"",
    "mountpoint=\"/run",
    "mountpoint=\"/mnt",
    "mountpoint=\"/media",
];

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut parser = Parser::new(text.as_bytes(), Format::Text).unwrap();
    let mut out = BTreeMap::new();
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Sample(line) = entry {
            let pairs = labels(line.series);
            let series = Labels::new(pairs.iter().map(|(n, v)| (&**n, &**v))).unwrap();
            out.insert(series.to_string(), line.value);
        }
    }
    out
}

fn get(port: u16) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn names_and_values_are_those_of_node_exporter() {
    if !Path::new("/usr/bin/prometheus-node-exporter").exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "prometheus-node-exporter is not installed"
        );
        eprintln!("SKIPPED: prometheus-node-exporter is not installed");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = Command::new("prometheus-node-exporter");
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let start = Instant::now();
    let theirs = loop {
        if let Some(text) = get(port).filter(|text| text.contains("node_load1")) {
            break samples(&text);
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "node_exporter does not answer"
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    let ours = samples(&HostMetrics::new(Path::new("/"), Path::new("/nowhere")).text());
    let mine: BTreeMap<_, _> = ours
        .iter()
        .filter(|(name, _)| name.starts_with("node_") && !OTHERS.iter().any(|other| name.contains(other)))
        .collect();
    let both: Vec<_> = mine
        .iter()
        .filter_map(|(name, value)| Some((name, **value, *theirs.get(*name)?)))
        .collect();
    // What changes names between two moments is little; what the two see differently is told.
    let alone: Vec<_> = mine.keys().filter(|name| !theirs.contains_key(**name)).collect();
    assert!(
        both.len() > 100 && alone.len() * 10 < mine.len(),
        "{} in both, alone: {alone:#?}",
        both.len()
    );
    let still = [
        "node_boot_time",
        "node_memory_MemTotal",
        "node_filesystem_size",
        "node_network_mtu",
        "node_filefd_maximum",
    ];
    let mut compared = 0;
    for (name, mine, theirs) in &both {
        if still.iter().any(|still| name.starts_with(still)) {
            assert_eq!(mine, theirs, "{name}");
            compared += 1;
        } else if name.starts_with("node_cpu_seconds_total") || name.starts_with("node_disk_written_bytes") {
            // Ours was read later.
            assert!(
                *mine >= theirs - 0.02 && *mine <= theirs * 1.5 + 1e9,
                "{name}: {mine} after {theirs}"
            );
            compared += 1;
        }
    }
    assert!(compared > 8, "{compared}");
}
