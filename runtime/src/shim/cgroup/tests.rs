//! Over made-up hierarchies: the machines that run tests seldom have all three kinds.

use super::*;
use model::{ContainerRun, Digest, ObjectKey, PodId, PullPolicy, RestartPolicy, Security};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn container(resources: Resources) -> ContainerRun {
    ContainerRun {
        name: "c".to_owned(),
        image: "x".parse().unwrap(),
        pull: PullPolicy::Never,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        ports: Vec::new(),
        resources,
        mounts: Vec::new(),
        liveness: None,
        readiness: None,
        startup: None,
        security: Security::default(),
    }
}

fn pod(init: &[Resources], side_by_side: &[Resources]) -> PodRun {
    let name = "p".to_owned();
    PodRun {
        id: PodId {
            namespace: name.clone(),
            name: name.clone(),
        },
        owner: ObjectKey {
            group: String::new(),
            kind: "Pod".to_owned(),
            namespace: name.clone(),
            name,
        },
        template: Digest::of(b""),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        host_network: false,
        share_process_namespace: false,
        restart: RestartPolicy::Always,
        grace_seconds: 30,
        active_deadline_seconds: None,
        init_containers: init.iter().cloned().map(container).collect(),
        containers: side_by_side.iter().cloned().map(container).collect(),
        volumes: Vec::new(),
        host_aliases: Vec::new(),
        hostname: None,
        pull_secrets: Vec::new(),
    }
}

fn resources(cpu: (Option<u64>, Option<u64>), memory: (Option<u64>, Option<u64>)) -> Resources {
    Resources {
        cpu_request_milli: cpu.0,
        cpu_limit_milli: cpu.1,
        memory_request: memory.0,
        memory_limit: memory.1,
    }
}

fn v2(dir: &TempDir) -> Cgroups {
    fs::write(
        dir.path().join("cgroup.controllers"),
        "cpuset cpu io memory pids\n",
    )
    .unwrap();
    let mounts = format!("cgroup2 {} cgroup2 rw,nsdelegate 0 0\n", dir.path().display());
    Cgroups::from_mounts(&mounts, "/leeward").unwrap()
}

fn read(dir: &TempDir, path: &str) -> String {
    fs::read_to_string(dir.path().join(path)).unwrap()
}

#[test]
fn v2_limits_are_written_and_controllers_switched_on_all_the_way_down() {
    let dir = tempfile::tempdir().unwrap();
    let cgroups = v2(&dir);
    assert!(cgroups.is_v2());
    let limited = resources((Some(500), Some(1000)), (None, Some(64 << 20)));
    cgroups
        .limit_pod("/leeward/device/podx", &pod(&[], &[limited.clone(), limited]))
        .unwrap();
    assert_eq!(read(&dir, "leeward/device/podx/cpu.weight"), "39");
    assert_eq!(read(&dir, "leeward/device/podx/cpu.max"), "200000 100000");
    assert_eq!(
        read(&dir, "leeward/device/podx/memory.max"),
        (128 << 20).to_string()
    );
    for above in ["", "leeward/", "leeward/device/"] {
        assert_eq!(
            read(&dir, &format!("{above}cgroup.subtree_control")),
            "+pids",
            "the last of three writes"
        );
    }
    assert!(
        !dir.path()
            .join("leeward/device/podx/cgroup.subtree_control")
            .exists(),
        "left to the OCI runtime"
    );
}

#[test]
fn v2_counts_of_killed_processes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let cgroups = v2(&dir);
    assert_eq!(cgroups.oom_kills("/a/b"), 0);
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(
        dir.path().join("a/b/memory.events"),
        "low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
    )
    .unwrap();
    assert_eq!(cgroups.oom_kills("/a/b"), 2);
}

#[test]
fn a_hybrid_host_is_limited_by_v1_and_joined_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let mounts: String = [
        ("cpu,cpuacct", "cgroup"),
        ("memory", "cgroup"),
        ("name=systemd", "cgroup"),
        ("unified", "cgroup2"),
    ]
    .iter()
    .map(|(name, kind)| {
        fs::create_dir(dir.path().join(name)).unwrap();
        format!("x {}/{name} {kind} rw,{name} 0 0\n", dir.path().display())
    })
    .collect();
    let cgroups = Cgroups::from_mounts(&mounts, "/l").unwrap();
    assert!(!cgroups.is_v2());
    cgroups
        .limit_pod(
            "/l/podx",
            &pod(&[], &[resources((None, Some(250)), (None, Some(1 << 20)))]),
        )
        .unwrap();
    assert_eq!(
        read(&dir, "cpu,cpuacct/l/podx/cpu.shares"),
        "256",
        "a limit is a request"
    );
    assert_eq!(read(&dir, "cpu,cpuacct/l/podx/cpu.cfs_quota_us"), "25000");
    assert_eq!(
        read(&dir, "memory/l/podx/memory.limit_in_bytes"),
        (1 << 20).to_string()
    );
    assert!(!dir.path().join("unified/l/podx").exists());
    cgroups.join("/l/shims/x", 42).unwrap();
    for hierarchy in ["cpu,cpuacct", "memory", "name=systemd", "unified"] {
        assert_eq!(read(&dir, &format!("{hierarchy}/l/shims/x/cgroup.procs")), "42");
    }
    assert_eq!(cgroups.pids("/l/shims/x"), BTreeSet::from([42]));
}

#[test]
fn no_hierarchy_is_an_error_where_it_was_not_said() {
    let none = "tmpfs /tmp tmpfs rw 0 0\n";
    let err = Cgroups::from_mounts(none, "/leeward").unwrap_err();
    assert!(err.to_string().contains("cgroup: none"), "{err}");
    let cgroups = Cgroups::from_mounts(none, NO_CGROUPS).unwrap();
    assert!(cgroups.is_absent() && !cgroups.is_v2());
    cgroups.join("none/podx", 42).unwrap();
    cgroups.remove("none/podx", Duration::ZERO).unwrap();
    // Where there are some, limits are not dropped in silence.
    let some = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    assert!(Cgroups::from_mounts(some, NO_CGROUPS).is_err());
}

#[test]
fn init_containers_count_where_they_need_more_and_a_missing_limit_is_none() {
    let small = resources((None, Some(100)), (None, Some(10)));
    let large = resources((None, Some(500)), (None, Some(5)));
    let sum = Sum::of(&pod(
        std::slice::from_ref(&large),
        &[small.clone(), small.clone()],
    ));
    assert_eq!(
        sum,
        Sum {
            shares: 204,
            cpu_limit_milli: Some(500),
            memory_limit: Some(20)
        }
    );
    let sum = Sum::of(&pod(&[Resources::default()], std::slice::from_ref(&small)));
    assert_eq!((sum.cpu_limit_milli, sum.memory_limit), (None, None));
}

#[test]
fn classes_and_scores_are_kubelets() {
    let none = Resources::default();
    let full = resources((Some(100), Some(100)), (None, Some(1 << 30)));
    let some = resources((None, None), (Some(1 << 30), None));
    assert_eq!(qos(&pod(&[], &[none.clone(), none.clone()])), Qos::BestEffort);
    assert_eq!(qos(&pod(&[], std::slice::from_ref(&full))), Qos::Guaranteed);
    assert_eq!(qos(&pod(&[], &[full.clone(), none.clone()])), Qos::Burstable);
    assert_eq!(qos(&pod(&[], std::slice::from_ref(&some))), Qos::Burstable);
    assert_eq!(oom_score_adj(Qos::Guaranteed, &full, 4 << 30), -997);
    assert_eq!(oom_score_adj(Qos::BestEffort, &none, 4 << 30), 1000);
    assert_eq!(oom_score_adj(Qos::Burstable, &some, 4 << 30), 750);
    assert_eq!(oom_score_adj(Qos::Burstable, &none, 4 << 30), 999);
}
