//! Fixture trees of both generations of control groups.

use super::*;
use model::PodId;
use std::fs;

fn pod() -> PodGroup {
    let time = |text: &str| text.parse().unwrap();
    PodGroup {
        id: PodId {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
        },
        uid: "u1".to_owned(),
        path: "/leeward/podu1".to_owned(),
        created_at: time("2026-01-01T00:00:00Z"),
        network: Some(77),
        containers: vec![ContainerGroup {
            name: "main".to_owned(),
            image: "docker.io/library/web:1".to_owned(),
            path: "/leeward/podu1/main".to_owned(),
            since: time("2026-01-01T00:00:10Z"),
        }],
    }
}

fn page(mounts: &str, files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let dev = "Inter-| Receive | Transmit\n face |bytes ...\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
               eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n";
    for (path, text) in files
        .iter()
        .chain(&[("proc/self/mountinfo", mounts), ("proc/77/net/dev", dev)])
    {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let block = dir.path().join("sys/dev/block");
    fs::create_dir_all(&block).unwrap();
    std::os::unix::fs::symlink("../../devices/virtual/block/mmcblk0", block.join("179:0")).unwrap();
    ContainerMetrics::new(dir.path()).text(&[pod()])
}

/// Value of a series by its name and a part of its labels, of the container or (without one) of the pod.
#[track_caller]
fn check(page: &str, container: bool, wants: &[(&str, f64)]) {
    for (want, value) in wants {
        let (name, part) = want.split_once('{').unwrap_or((want, ""));
        let found: Vec<&str> = page
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))
            .filter(|line| line.contains("container=\"main\"") == container && line.contains(part))
            .collect();
        let [line] = found.as_slice() else {
            panic!("{want}: {found:?} in\n{page}")
        };
        assert!(
            line.contains(r#"namespace="shop""#) && line.contains(r#"pod="web-0""#),
            "{line}"
        );
        assert_eq!(
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap(),
            *value,
            "{line}"
        );
    }
}

const NETWORK: [(&str, f64); 4] = [
    ("container_network_receive_bytes_total{interface=\"eth0\"", 1000.0),
    ("container_network_receive_packets_dropped_total", 2.0),
    ("container_network_transmit_errors_total", 3.0),
    ("container_start_time_seconds", 1_767_225_600.0),
];

#[test]
fn v2_has_all_in_one_folder() {
    let group = "sys/fs/cgroup/leeward/podu1";
    let files = [
        (
            "main/cpu.stat",
            "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 40\nnr_throttled 4\nthrottled_usec 250000\n",
        ),
        ("main/cpu.max", "50000 100000\n"),
        ("main/cpu.weight", "10\n"),
        ("main/memory.current", "5000000\n"),
        ("main/memory.peak", "6000000\n"),
        ("main/memory.max", "67108864\n"),
        ("main/memory.swap.current", "0\n"),
        (
            "main/memory.stat",
            "anon 3000000\nfile 1500000\nfile_mapped 4096\ninactive_file 1000000\npgfault 12\npgmajfault 3\n",
        ),
        ("main/memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n"),
        (
            "main/io.stat",
            "179:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
        ),
        ("main/pids.current", "5\n"),
        ("main/pids.max", "4096\n"),
        ("main/cgroup.procs", "7\n8\n"),
        ("memory.current", "5100000\n"),
        ("memory.max", "max\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu.stat", "usage_usec 2600000\nnr_periods 0\n"),
    ];
    let paths: Vec<(String, &str)> = files
        .iter()
        .map(|(path, text)| (format!("{group}/{path}"), *text))
        .collect();
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let page = page("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", &files);
    check(
        &page,
        true,
        &[
            ("container_cpu_usage_seconds_total{cpu=\"total\"", 2.5),
            ("container_cpu_user_seconds_total", 2.0),
            ("container_cpu_cfs_periods_total", 40.0),
            ("container_cpu_cfs_throttled_periods_total", 4.0),
            ("container_cpu_cfs_throttled_seconds_total", 0.25),
            ("container_memory_usage_bytes", 5e6),
            ("container_memory_working_set_bytes", 4e6),
            ("container_memory_rss", 3e6),
            ("container_memory_max_usage_bytes", 6e6),
            ("container_memory_failcnt", 7.0),
            (
                "container_memory_failures_total{failure_type=\"pgmajfault\",scope=\"container\"",
                3.0,
            ),
            ("container_oom_events_total", 1.0),
            ("container_fs_reads_bytes_total{device=\"/dev/mmcblk0\"", 4096.0),
            ("container_fs_writes_total", 2.0),
            ("container_threads", 5.0),
            ("container_processes", 2.0),
            ("container_spec_cpu_quota", 50_000.0),
            ("container_spec_cpu_shares", 237.0),
            (
                "container_spec_memory_limit_bytes{image=\"docker.io/library/web:1\"",
                67_108_864.0,
            ),
            ("container_start_time_seconds", 1_767_225_610.0),
        ],
    );
    check(&page, false, &NETWORK);
    check(
        &page,
        false,
        &[
            ("container_cpu_usage_seconds_total", 2.6),
            ("container_memory_working_set_bytes", 5.1e6),
        ],
    );
    // The pod has no quota.
    assert_eq!(page.matches("\ncontainer_cpu_cfs_periods_total{").count(), 1);
}

#[test]
fn v1_has_a_hierarchy_for_each_controller() {
    let below = "leeward/podu1/main";
    let files = [
        (
            "cpu",
            "cpu.stat",
            "nr_periods 40\nnr_throttled 4\nthrottled_time 250000000\n",
        ),
        ("cpu", "cpu.cfs_quota_us", "-1\n"),
        ("cpu", "cpu.cfs_period_us", "100000\n"),
        ("cpu", "cpu.shares", "256\n"),
        ("acct", "cpuacct.usage", "2500000000\n"),
        ("acct", "cpuacct.stat", "user 200\nsystem 50\n"),
        ("memory", "memory.usage_in_bytes", "5000000\n"),
        ("memory", "memory.max_usage_in_bytes", "6000000\n"),
        ("memory", "memory.failcnt", "7\n"),
        ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
        (
            "memory",
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        ),
        (
            "memory",
            "memory.stat",
            "rss 1\ntotal_rss 3000000\ntotal_inactive_file 1000000\npgfault 2\ntotal_pgfault 12\n",
        ),
        (
            "blkio",
            "blkio.throttle.io_service_bytes",
            "179:0 Read 4096\n179:0 Write 8192\n179:0 Sync 1\n179:0 Total 12288\nTotal 12288\n",
        ),
        (
            "blkio",
            "blkio.throttle.io_serviced",
            "179:0 Read 1\n179:0 Write 2\nTotal 3\n",
        ),
    ];
    let paths: Vec<(String, &str)> = files
        .iter()
        .map(|(mount, file, text)| (format!("cg/{mount}/{below}/{file}"), *text))
        .collect();
    let files: Vec<(&str, &str)> = paths.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let mounts = "1 0 0:1 / /cg/memory rw - cgroup cgroup rw,memory\n2 0 0:2 / /cg/acct rw - cgroup cgroup rw,cpuacct\n\
                  3 0 0:3 / /cg/cpu rw - cgroup cgroup rw,cpu\n4 0 0:4 / /cg/blkio rw - cgroup cgroup rw,blkio\n\
                  5 0 0:5 / /cg/unified rw - cgroup2 cgroup2 rw\n";
    let page = page(mounts, &files);
    check(
        &page,
        true,
        &[
            ("container_cpu_usage_seconds_total", 2.5),
            ("container_cpu_system_seconds_total", 0.5),
            ("container_memory_working_set_bytes", 4e6),
            ("container_memory_rss", 3e6),
            ("container_memory_failcnt", 7.0),
            (
                "container_memory_failures_total{failure_type=\"pgfault\",scope=\"hierarchy\"",
                12.0,
            ),
            ("container_oom_events_total", 1.0),
            ("container_fs_writes_bytes_total{device=\"/dev/mmcblk0\"", 8192.0),
            ("container_fs_reads_total", 1.0),
            ("container_spec_cpu_shares", 256.0),
            ("container_spec_memory_limit_bytes", 0.0),
        ],
    );
    check(&page, false, &NETWORK);
    for absent in [
        "container_spec_cpu_quota",
        "container_cpu_cfs_periods_total",
        "container_threads",
    ] {
        assert!(!page.contains(absent), "{absent}");
    }
}

#[test]
fn a_machine_without_groups_tells_what_it_can() {
    let page = page("", &[]);
    check(&page, false, &NETWORK);
    assert!(!page.contains("cpu"));
}
