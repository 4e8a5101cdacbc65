//! What containers may use, and what happens beyond it.

use crate::contract::{container, find, id, output, pod, start, stop, until};
use crate::rig::{Rig, eventually};
use crate::run_to_end;
use model::{ContainerState, RestartPolicy};
use runtime::embedded::StoredLog;
use runtime::{Engine as _, LogQuery};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

#[tokio::test]
async fn root_limits_are_in_the_control_groups() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("limits", RestartPolicy::Always, "sleep 1000");
    run.containers[0].resources.cpu_request_milli = Some(250);
    run.containers[0].resources.cpu_limit_milli = Some(500);
    run.containers[0].resources.memory_limit = Some(64 << 20);
    run.containers.push(container("free", "sleep 1000"));
    engine.apply(&start(&run)).await.unwrap();
    let uid = rig.pod_dir().file_name().unwrap().to_str().unwrap().to_owned();
    let read = |controller: &str, group: &str, file: &str| {
        let v1 = format!("/sys/fs/cgroup/{controller}{}/pod{uid}{group}/{file}", rig.group);
        fs::read_to_string(v1).unwrap_or_default().trim().to_owned()
    };
    if std::path::Path::new("/sys/fs/cgroup/cpu").exists() {
        assert_eq!(read("cpu", "/main", "cpu.shares"), "256");
        assert_eq!(read("cpu", "/main", "cpu.cfs_quota_us"), "50000");
        assert_eq!(
            read("memory", "/main", "memory.limit_in_bytes"),
            (64 << 20).to_string()
        );
        assert_eq!(read("pids", "/main", "pids.max"), "4096");
        assert_eq!(read("cpu", "", "cpu.shares"), "256", "of the pod");
        let unlimited: u64 = read("memory", "", "memory.limit_in_bytes").parse().unwrap();
        assert!(
            unlimited > 1 << 60,
            "one container without a limit: the pod has none"
        );
    }
    let [group] = engine.groups().try_into().unwrap();
    assert_eq!(
        (group.uid.as_str(), group.id.name.as_str()),
        (uid.as_str(), "limits")
    );
    assert_eq!(group.path, format!("{}/pod{uid}", rig.group));
    let names: Vec<&str> = group.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["main", "free"]);
    assert_eq!(group.containers[0].path, format!("{}/main", group.path));
    assert_eq!(group.containers[0].image, run.containers[0].image.to_string());
    let pid = group.network.expect("it has a network of its own");
    let netns = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(netns(&pid.to_string()), netns("self"));
    engine.apply(&stop("limits")).await.unwrap();
    assert_eq!(engine.groups(), []);
    drop(engine);
    rig.nothing_is_left();
}

/// A real container's use, as the kernel counts it and the device tells it.
#[tokio::test]
async fn root_what_a_container_uses_is_told_under_cadvisors_names() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    // Memory first, then more processor than it may have.
    let script = "x=$(head -c 4000000 /dev/zero | tr '\\0' x); while :; do :; done";
    let mut run = pod("busy", RestartPolicy::Never, script);
    run.containers[0].resources.cpu_limit_milli = Some(100);
    run.containers[0].resources.memory_limit = Some(64 << 20);
    engine.apply(&start(&run)).await.unwrap();
    let metrics = device::ContainerMetrics::new(std::path::Path::new("/"));
    let value = |page: &str, name: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with(name) && line.contains("container=\"main\""))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let above = |page: &str, name: &str, least: f64| value(page, name).is_some_and(|value| value > least);
    eventually("its use", || {
        let page = metrics.text(&engine.groups());
        above(&page, "container_memory_working_set_bytes", 4e6)
            && above(&page, "container_memory_rss", 4e6)
            && above(&page, "container_cpu_usage_seconds_total", 0.2)
            && above(&page, "container_cpu_cfs_throttled_periods_total", 1.0)
            && above(&page, "container_cpu_cfs_throttled_seconds_total", 0.0)
    })
    .await;
    let page = metrics.text(&engine.groups());
    for (name, want) in [
        ("container_spec_memory_limit_bytes", f64::from(64 << 20)),
        ("container_spec_cpu_quota", 10_000.0),
        ("container_oom_events_total", 0.0),
    ] {
        assert_eq!(value(&page, name), Some(want), "{name}");
    }
    let image = run.containers[0].image.to_string();
    assert!(page.contains(&format!("image=\"{image}\"")), "{page}");
    assert!(page.contains(r#",pod="busy"} "#), "{page}");
    engine.apply(&stop("busy")).await.unwrap();
    assert_eq!(metrics.text(&engine.groups()), "");
}

#[tokio::test]
async fn root_more_memory_than_the_limit_is_told_as_such() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("hungry", RestartPolicy::Never, "tail /dev/zero");
    run.containers[0].command = vec!["/bin/tail".to_owned()];
    run.containers[0].args = vec!["/dev/zero".to_owned()];
    run.containers[0].resources.memory_limit = Some(24 << 20);
    let (seen, _) = run_to_end(&engine, &run).await;
    match &seen.containers[0].state {
        ContainerState::Exited {
            code: 137, reason, ..
        } => assert_eq!(reason, "OOMKilled"),
        other => panic!("{other:?}"),
    }
    let events = engine.events(&BTreeMap::new()).await.unwrap();
    assert!(
        events.iter().any(|event| event.event.reason == "OOMKilling"),
        "{events:?}"
    );
}

#[tokio::test]
async fn root_logs_are_rotated_by_size() {
    let Some(mut rig) = Rig::new() else { return };
    rig.pace.log_bytes = 20_000;
    rig.pace.log_files = 2;
    let engine = rig.open().await;
    let run = pod("chatty", RestartPolicy::Never, "seq 1 5000");
    engine.apply(&start(&run)).await.unwrap();
    until(&engine, "its end", |seen| {
        find(seen, "chatty")
            .is_some_and(|pod| matches!(pod.containers[0].state, ContainerState::Exited { .. }))
    })
    .await;
    let dir = rig.pod_dir().join("logs/main");
    let mut sizes: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().len(),
            )
        })
        .collect();
    sizes.sort();
    let names: Vec<_> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
    // One read of a pipe may go over the bound: 8 KiB of text, and each line's time.
    assert!(
        sizes.iter().all(|(_, size)| *size < 20_000 + 120_000),
        "{sizes:?}"
    );
    let text = output(&engine, &LogQuery::of(id("chatty"))).await;
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&5000));
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "no gap in what is kept"
    );
    let mut query = LogQuery::of(id("chatty"));
    query.tail = Some(2);
    assert_eq!(output(&engine, &query).await, "4999\n5000\n");
    // Where no agent runs, they are read all the same.
    let stored = StoredLog::open(&rig.root(), &query).unwrap();
    let chunks = stored.flat_map(Result::unwrap).map(|chunk| chunk.to_vec());
    assert_eq!(chunks.collect::<Vec<_>>().concat(), b"4999\n5000\n");
    engine.apply(&stop("chatty")).await.unwrap();
}

/// A full disk costs lines, which are counted; the container does not wait.
#[tokio::test]
async fn root_a_full_disk_drops_lines_and_holds_nobody_up() {
    let Some(mut rig) = Rig::new() else { return };
    rig.pace.log_bytes = 64 << 20;
    let root = rig.root();
    fs::create_dir_all(&root).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "small"])
        .arg(&root)
        .status()
        .unwrap();
    assert!(mounted.success());
    let engine = rig.open().await;
    let script = "seq 1 200000; while [ ! -e /go/on ]; do sleep 0.05; done; echo after; sleep 1000";
    let mut run = pod("loud", RestartPolicy::Never, script);
    let go = rig.dir.path().join("go");
    fs::create_dir(&go).unwrap();
    run.volumes = vec![model::Volume {
        name: "go".to_owned(),
        source: model::VolumeSource::HostPath {
            path: go.to_str().unwrap().to_owned(),
            kind: model::HostPathType::Directory,
        },
    }];
    run.containers[0].mounts = vec![model::Mount {
        volume: "go".to_owned(),
        path: "/go".to_owned(),
        sub_path: None,
        read_only: true,
    }];
    engine.apply(&start(&run)).await.unwrap();
    // The script gets to its loop although its output has nowhere to go.
    eventually("the end of the flood", || {
        rig.processes().into_iter().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("sleep\x000.05"))
        })
    })
    .await;
    let log = rig.pod_dir().join("logs/main/0.log");
    assert_eq!(fs::read_dir(log.parent().unwrap()).unwrap().count(), 1);
    // Room again. Nothing is taken out of the log: a count may be in it already, as the flood's last lines were few
    // enough for the room that the ones before them had left.
    let grown = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(&root)
        .status()
        .unwrap();
    assert!(grown.success());
    fs::write(go.join("on"), "").unwrap();
    eventually("the line after the flood", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("stdout F after\n"))
    })
    .await;
    let text = fs::read_to_string(&log).unwrap();
    let mut numbers = Vec::new();
    let mut dropped = 0;
    for line in text.lines() {
        let (_, said) = line.split_once(" F ").unwrap();
        if let Some(told) = said.strip_prefix("[leeward: ") {
            dropped += told.split(' ').next().unwrap().parse::<usize>().unwrap();
        } else if said != "after" {
            numbers.push(said.parse::<u32>().unwrap());
        }
    }
    assert!(dropped > 0, "10 MB of lines do not fit into 3 MB");
    assert_eq!(numbers.len() + dropped, 200_000, "each line is there or counted");
    assert!(numbers.is_sorted());
    engine.apply(&stop("loud")).await.unwrap();
    drop(engine);
    let unmounted = Command::new("umount").arg(&root).status().unwrap();
    assert!(unmounted.success());
}
