//! Agents and shims that die, and machines that start anew.

use crate::contract::{find, id, output, pod, start, stop, until};
use crate::rig::{Rig, eventually};
use model::{ContainerState, PodPhase, RestartPolicy};
use runtime::{Engine as _, LogQuery};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

fn kill_9(pid: i64) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// The agent dies; its container lives on with its output, crashes and is restarted, with no agent there. The
/// next agent finds all of it, and the events are told then.
#[tokio::test]
async fn root_containers_outlive_the_agent_and_are_restarted_without_it() {
    let Some(rig) = Rig::new() else { return };
    let mut agent = rig.agent();
    assert_eq!(agent.answer(), "open");
    let steady = pod("steady", RestartPolicy::Always, "echo begun; sleep 1000");
    agent.send(&start(&steady));
    assert_eq!(agent.answer(), "done");
    eventually("its state", || rig.state()["shim"]["pid"].is_i64()).await;
    let before = rig.state();
    agent.kill();

    let log = rig.pod_dir().join("logs/main/0.log");
    eventually("its output", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("stdout F begun"))
    })
    .await;
    let processes = rig.processes();
    let shim = before["shim"]["pid"].as_i64().unwrap();
    // The shell becomes its last command.
    assert_eq!(processes.len(), 2, "shim and container: {processes:?}");
    let first = processes.iter().find(|pid| i64::from(**pid) != shim).unwrap();
    kill_9((*first).into());
    eventually("the restart", || {
        let state = rig.state();
        state["pod"]["containers"][0]["restarts"] == 1 && state["pod"]["containers"][0]["state"] == "running"
    })
    .await;

    let engine = rig.open().await;
    let seen = engine.observe().await.unwrap();
    let found = find(&seen, "steady").unwrap();
    assert_eq!(
        (found.phase, found.containers[0].restarts),
        (PodPhase::Running, 1)
    );
    assert_eq!(found.containers[0].last_exit, Some((137, "Error".to_owned())));
    assert_eq!(rig.state()["shim"], before["shim"], "the same shim");
    let events = engine.events(&BTreeMap::new()).await.unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.event.reason.as_str()).collect();
    assert_eq!(reasons, ["Created", "Started", "Exited", "Created", "Started"]);
    // A repeated step changes nothing.
    engine.apply(&start(&steady)).await.unwrap();
    assert_eq!(rig.state()["shim"], before["shim"]);
    engine.apply(&stop("steady")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The shim dies: nobody would hold the output or restart the container, so the pod goes, and is made anew.
#[tokio::test]
async fn root_a_dead_shim_takes_its_pod_along() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let run = pod("shimless", RestartPolicy::Always, "sleep 1000");
    engine.apply(&start(&run)).await.unwrap();
    kill_9(rig.state()["shim"]["pid"].as_i64().unwrap());
    until(&engine, "the pod's end", |seen| find(seen, "shimless").is_none()).await;
    assert!(rig.processes().is_empty());
    let events = engine.events(&BTreeMap::new()).await.unwrap();
    assert!(
        events.iter().any(|event| event.event.reason == "ShimLost"),
        "{events:?}"
    );
    engine.apply(&start(&run)).await.unwrap();
    // And now with no agent to see it.
    drop(engine);
    kill_9(rig.state()["shim"]["pid"].as_i64().unwrap());
    assert!(!rig.processes().is_empty(), "the container lives on for now");
    let engine = rig.open().await;
    assert_eq!(find(&engine.observe().await.unwrap(), "shimless"), None);
    drop(engine);
    rig.nothing_is_left();
}

/// The machine starts anew: what ran is gone and its remains are removed, what was over is remembered.
#[tokio::test]
async fn root_another_boot_forgets_what_ran_and_remembers_what_ended() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    engine
        .apply(&start(&pod("job", RestartPolicy::Never, "echo result; exit 0")))
        .await
        .unwrap();
    until(&engine, "the job's end", |seen| {
        find(seen, "job").is_some_and(|p| p.phase == PodPhase::Succeeded)
    })
    .await;
    engine
        .apply(&start(&pod("server", RestartPolicy::Always, "sleep 1000")))
        .await
        .unwrap();
    drop(engine);
    // A power cut.
    for pid in rig.processes() {
        kill_9(pid.into());
    }
    for dir in fs::read_dir(rig.root().join("pods")).unwrap().flatten() {
        of_another_boot(&dir.path().join("state.json"));
    }
    // And one that was being made.
    fs::create_dir(rig.root().join("pods/0123456789")).unwrap();

    let engine = rig.open().await;
    let seen = engine.observe().await.unwrap();
    let names: Vec<_> = seen.pods.iter().map(|pod| pod.id.name.as_str()).collect();
    assert_eq!(names, ["job"]);
    assert!(matches!(
        seen.pods[0].containers[0].state,
        ContainerState::Exited { code: 0, .. }
    ));
    assert_eq!(output(&engine, &LogQuery::of(id("job"))).await, "result\n");
    engine
        .apply(&start(&pod("server", RestartPolicy::Always, "sleep 1000")))
        .await
        .unwrap();
    engine.apply(&stop("server")).await.unwrap();
    engine.apply(&stop("job")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

fn of_another_boot(state: &Path) {
    let text = fs::read_to_string(state).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["boot"] = "another".into();
    fs::write(state, value.to_string()).unwrap();
}

/// The agent is killed at random moments of starting and stopping; afterwards each wanted pod has exactly one
/// live container, and nothing else is left.
#[tokio::test]
async fn root_a_kill_at_any_moment_leaves_one_container_per_pod() {
    let Some(rig) = Rig::new() else { return };
    let wanted: Vec<_> = (0..3)
        .map(|n| pod(&format!("any-{n}"), RestartPolicy::Always, "sleep 1000"))
        .collect();
    for round in 0..6 {
        let mut agent = rig.agent();
        assert_eq!(agent.answer(), "open");
        agent.send(&stop("any-0"));
        wanted.iter().for_each(|run| agent.send(&start(run)));
        agent.send(&stop("any-1"));
        // From the middle of the first steps to the last one's end; no two rounds alike.
        let wait = 15 * round + rand::random_range(0..60);
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        agent.kill();
    }
    let engine = rig.open().await;
    for run in &wanted {
        engine.apply(&start(run)).await.unwrap();
    }
    let seen = until(&engine, "all run", |seen| {
        seen.pods.len() == 3 && seen.pods.iter().all(|pod| pod.ready())
    })
    .await;
    assert_eq!(seen.pods.len(), 3);
    let sleeping = || {
        rig.processes()
            .into_iter()
            .filter(|pid| name_of(*pid) == "sleep")
            .count()
    };
    eventually("three sleeps", || sleeping() == 3).await;
    // Whatever an earlier agent had begun ends by itself.
    eventually("three shims and three sleeps", || rig.processes().len() == 6).await;
    for run in &wanted {
        engine.apply(&stop(&run.id.name)).await.unwrap();
    }
    drop(engine);
    rig.nothing_is_left();
}

/// The process that shims are forked from dies: running pods do not mind, and the next one is forked from another.
#[tokio::test]
async fn root_a_dead_nursery_is_replaced() {
    let Some(rig) = Rig::new() else { return };
    let mut agent = rig.agent();
    assert_eq!(agent.answer(), "open");
    agent.send(&start(&pod("one", RestartPolicy::Always, "sleep 1000")));
    assert_eq!(agent.answer(), "done");
    let children = children_of(agent.child.id());
    assert_eq!(children.len(), 1, "the nursery alone: shims are init's");
    kill_9(children[0].into());
    agent.send(&start(&pod("two", RestartPolicy::Always, "sleep 1000")));
    assert_eq!(agent.answer(), "done");
    agent.kill();
    let engine = rig.open().await;
    let seen = engine.observe().await.unwrap();
    assert!(
        seen.pods.len() == 2 && seen.pods.iter().all(model::PodObserved::ready),
        "{seen:?}"
    );
    engine.apply(&stop("one")).await.unwrap();
    engine.apply(&stop("two")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

fn children_of(parent: u32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // After the name: state, then the parent.
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            after.split_ascii_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}
