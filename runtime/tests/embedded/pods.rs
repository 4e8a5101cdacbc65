//! Pods of several containers, their order, their surroundings, their end.

use crate::contract::{container, find, id, output, pod, start, stop, until};
use crate::rig::Rig;
use crate::run_to_end;
use model::{ContainerState, EnvVar, PodPhase, RestartPolicy};
use runtime::{Engine as _, LogQuery};
use std::collections::BTreeMap;

#[tokio::test]
async fn root_init_containers_run_first_and_in_order() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("ordered", RestartPolicy::Never, "cat /dev/shm/order");
    run.init_containers = vec![
        container("one", "echo one >> /dev/shm/order"),
        container("two", "echo two >> /dev/shm/order"),
    ];
    engine.apply(&start(&run)).await.unwrap();
    let seen = until(&engine, "its end", |seen| {
        find(seen, "ordered").is_some_and(|p| p.phase == PodPhase::Succeeded)
    })
    .await;
    let containers = &find(&seen, "ordered").unwrap().containers;
    assert_eq!(
        containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["one", "two", "main"]
    );
    assert!(
        containers[0].ready,
        "a finished init container does not hold the pod unready"
    );
    assert_eq!(output(&engine, &LogQuery::of(id("ordered"))).await, "one\ntwo\n");
    engine.apply(&stop("ordered")).await.unwrap();
}

#[tokio::test]
async fn root_a_failed_init_container_keeps_the_others_from_running() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("stuck", RestartPolicy::Never, "echo never");
    run.init_containers = vec![container("bad", "exit 4")];
    engine.apply(&start(&run)).await.unwrap();
    let seen = until(&engine, "failure", |seen| {
        find(seen, "stuck").is_some_and(|p| p.phase == PodPhase::Failed)
    })
    .await;
    let found = find(&seen, "stuck").unwrap();
    assert!(
        found
            .trouble
            .as_ref()
            .unwrap()
            .contains("init container bad failed"),
        "{found:?}"
    );
    let mut query = LogQuery::of(id("stuck"));
    query.container = Some("main".to_owned());
    assert_eq!(output(&engine, &query).await, "");
    engine.apply(&stop("stuck")).await.unwrap();
}

#[tokio::test]
async fn root_surroundings_are_those_of_a_pod() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let script = "hostname; echo $IMAGE $GIVEN $HOSTNAME; cat /etc/hostname; grep alias /etc/hosts; \
                  readlink /proc/self/cwd; grep SigBlk /proc/self/status; ls /sys/fs/cgroup > /dev/null && echo sys";
    let mut run = pod("around", RestartPolicy::Never, script);
    run.hostname = Some("elsewhere".to_owned());
    run.host_aliases = vec![("192.0.2.7".to_owned(), vec!["alias".to_owned()])];
    run.containers[0].working_dir = Some("/tmp".to_owned());
    run.containers[0].env = vec![
        EnvVar::Value {
            name: "GIVEN".to_owned(),
            value: "first".to_owned(),
        },
        EnvVar::Value {
            name: "GIVEN".to_owned(),
            value: "last wins".to_owned(),
        },
    ];
    let (_, text) = run_to_end(&engine, &run).await;
    let want = "elsewhere\nyes last wins elsewhere\nelsewhere\n192.0.2.7\talias\n/tmp\nSigBlk:\t0000000000000000\nsys\n";
    assert_eq!(text, want);
}

#[tokio::test]
async fn root_a_shared_process_namespace_is_seen_by_all() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod(
        "shared",
        RestartPolicy::Never,
        "sleep 0.2; ps -o args | grep '[s]leep 4321' && exit 0; exit 1",
    );
    run.share_process_namespace = true;
    run.containers.push(container("other", "sleep 4321"));
    engine.apply(&start(&run)).await.unwrap();
    let seen = until(&engine, "the answer", |seen| {
        find(seen, "shared").is_some_and(|p| matches!(p.containers[0].state, ContainerState::Exited { .. }))
    })
    .await;
    let state = &find(&seen, "shared").unwrap().containers[0].state;
    assert!(
        matches!(state, ContainerState::Exited { code: 0, .. }),
        "{state:?}"
    );
    engine.apply(&stop("shared")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_a_command_that_is_not_there_is_named() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("typo", RestartPolicy::Always, "");
    run.containers[0].command = vec!["/bin/serve-it".to_owned()];
    engine.apply(&start(&run)).await.unwrap();
    let seen = engine.observe().await.unwrap();
    let found = find(&seen, "typo").unwrap();
    let trouble = found.trouble.as_ref().expect("told at once");
    assert!(
        trouble.contains("container main") && trouble.contains("/bin/serve-it"),
        "{trouble}"
    );
    assert!(matches!(
        found.containers[0].state,
        ContainerState::Waiting { .. }
    ));
    assert_eq!(found.phase, PodPhase::Pending);
    // A second container is not held up by the first one's fault, and retries go on.
    until(&engine, "another try", |seen| {
        find(seen, "typo").is_some_and(|p| p.containers[0].restarts >= 2)
    })
    .await;
    engine.apply(&stop("typo")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_a_pod_has_its_grace_and_no_more() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let polite = pod(
        "polite",
        RestartPolicy::Always,
        "trap 'echo bye; exit 0' TERM; echo set; while :; do sleep 0.05; done",
    );
    engine.apply(&start(&polite)).await.unwrap();
    let deaf = pod(
        "deaf",
        RestartPolicy::Always,
        "trap '' TERM; echo set; while :; do sleep 1000; done",
    );
    engine.apply(&start(&deaf)).await.unwrap();
    let mut query = LogQuery::of(id("polite"));
    query.follow = true;
    let mut receiver = engine.logs(&query).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), "set\n");
    let (mut step, began) = (stop("polite"), std::time::Instant::now());
    if let model::Action::StopPod { grace_seconds, .. } = &mut step.action {
        *grace_seconds = 120;
    }
    engine.apply(&step).await.unwrap();
    assert!(
        began.elapsed() < std::time::Duration::from_secs(60),
        "it ended long before its grace was over"
    );
    assert_eq!(receiver.recv().await.unwrap(), "bye\n");
    engine.apply(&stop("deaf")).await.unwrap();
    let exits: Vec<_> = engine
        .events(&BTreeMap::new())
        .await
        .unwrap()
        .into_iter()
        .filter(|event| event.event.reason == "Exited")
        .map(|event| (event.event.about, event.event.message))
        .collect();
    let of = |name: &str| &exits.iter().find(|(about, _)| about.ends_with(name)).unwrap().1;
    assert!(
        of("polite").ends_with("code 0") && of("deaf").ends_with("code 137"),
        "{exits:?}"
    );
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_a_job_that_takes_too_long_fails() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("late", RestartPolicy::OnFailure, "sleep 1000");
    run.active_deadline_seconds = Some(1);
    let (seen, _) = run_to_end(&engine, &run).await;
    assert_eq!(seen.phase, PodPhase::Failed);
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_a_long_root_path_is_no_obstacle() {
    let Some(rig) = Rig::new() else { return };
    let mut config = rig.config();
    // Longer than a socket's name may be.
    config.root = rig.dir.path().join("long".repeat(30)).join("x".repeat(100));
    let engine = runtime::embedded::Embedded::open(config.clone(), rig.images.clone(), None)
        .await
        .unwrap();
    engine
        .apply(&start(&pod("far", RestartPolicy::Always, "sleep 1000")))
        .await
        .unwrap();
    drop(engine);
    let engine = runtime::embedded::Embedded::open(config, rig.images.clone(), None)
        .await
        .unwrap();
    assert!(find(&engine.observe().await.unwrap(), "far").is_some_and(model::PodObserved::ready));
    engine.apply(&stop("far")).await.unwrap();
}
