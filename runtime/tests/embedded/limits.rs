//! What containers may use, and what happens beyond it.

use crate::contract::{container, find, id, output, pod, start, stop, until};
use crate::rig::{Rig, eventually};
use crate::run_to_end;
use model::{ContainerState, RestartPolicy};
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
    engine.apply(&stop("limits")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
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
    let filler = fs::read_dir(rig.pod_dir().join("logs/main")).unwrap().count();
    assert_eq!(filler, 1);
    // Room again: what is in the log already is of no use here.
    fs::File::options()
        .write(true)
        .open(rig.pod_dir().join("logs/main/0.log"))
        .unwrap()
        .set_len(0)
        .unwrap();
    fs::write(go.join("on"), "").unwrap();
    let log = rig.pod_dir().join("logs/main/0.log");
    eventually("the count and the line after it", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("lines dropped") && text.contains("stdout F after")
    })
    .await;
    engine.apply(&stop("loud")).await.unwrap();
    drop(engine);
    let unmounted = Command::new("umount").arg(&root).status().unwrap();
    assert!(unmounted.success());
}
