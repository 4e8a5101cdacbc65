//! The faults that must not cost a device, as far as an agent alone can meet them: real Git, real spool, real
//! generations on disk; pods in memory.

#![expect(clippy::unwrap_used, reason = "a test's panic is its message")]

mod alerts;
mod flux;
mod images;
mod rig;
mod rollout;
mod sources;

use model::{Phase, PodPhase, WorkloadState};
use rig::{Rig, deployment};

/// F1, F2: the device comes back after a reboot with nothing to reach; all of its generation runs again.
#[tokio::test]
async fn f1_f2_a_reboot_without_any_network_brings_everything_back() {
    let mut rig = Rig::new(&[
        ("web.yaml", &deployment("web", "1", 2)),
        ("db.yaml", &deployment("db", "1", 1)),
    ]);
    rig.start();
    rig.until("three pods, promoted", |seen, status| {
        seen.pods.len() == 3 && status.phase == Phase::Ready && status.generation.last_good.is_some()
    })
    .await;
    rig.stop().await;
    rig.reboot();
    rig.lose_repository();
    rig.start();
    rig.until("three pods again", |seen, status| {
        seen.pods.len() == 3 && seen.pods.iter().all(|pod| pod.ready()) && status.source.error.is_some()
    })
    .await;
}

/// F3: a source that is away for a while changes nothing that is healthy.
#[tokio::test]
async fn f3_a_source_that_returns_restarts_nothing() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 2))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;
    let before = rig.engine.taken().len();
    rig.lose_repository();
    rig.until("the loss is told", |_, status| status.source.error.is_some())
        .await;
    rig.find_repository();
    rig.until("the return is told", |_, status| status.source.error.is_none())
        .await;
    assert_eq!(
        rig.engine.taken().len(),
        before,
        "a step was taken although nothing had changed"
    );
}

/// F4: the agent dies at any moment and is started again; pods are not touched, and no event is told twice or never.
#[tokio::test]
async fn f4_an_agent_that_is_killed_again_and_again_loses_and_repeats_no_event() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 2))]);
    for round in 0..12u64 {
        rig.start();
        // Different moments of its start and of its work.
        tokio::time::sleep(std::time::Duration::from_millis(round * 23)).await;
        rig.kill().await;
    }
    rig.start();
    rig.until("ready", |seen, status| {
        seen.pods.len() == 2 && status.phase == Phase::Ready
    })
    .await;
    let all = rig.engine_events().await;
    rig.until_events("every event of the engine", |told| {
        all.iter().all(|event| told.iter().any(|t| t == event))
    })
    .await;
    rig.stop().await;
    let told = rig.events();
    for event in &all {
        assert_eq!(told.iter().filter(|t| *t == event).count(), 1, "{event:?}");
    }
}

/// F6: the agent ends in the middle of a deployment; afterwards the new generation runs whole and alone, and the next one
/// is accepted.
#[tokio::test]
async fn f6_a_deployment_that_is_cut_off_ends_whole() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 3))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;
    for round in 0..6u64 {
        let version = format!("2.{round}");
        rig.push(&[("web.yaml", &deployment("web", &version, 3))]);
        // Different moments between the fetch and the end of the roll-out.
        tokio::time::sleep(std::time::Duration::from_millis(150 + round * 60)).await;
        rig.kill().await;
        rig.start();
        let image = format!("registry.example/web:{version}");
        rig.until("one template, three pods", |seen, status| {
            seen.pods.len() == 3
                && seen
                    .pods
                    .iter()
                    .all(|p| p.template == seen.pods[0].template && p.ready())
                && status.phase == Phase::Ready
                && status.workloads.iter().all(|w| w.images == [image.as_str()])
        })
        .await;
    }
    rig.push(&[("web.yaml", &deployment("web", "3", 1))]);
    rig.until("the next one", |seen, status| {
        seen.pods.len() == 1 && status.phase == Phase::Ready
    })
    .await;
}

/// F12: an image that cannot be pulled stops a deployment before it begins; once it can, the deployment goes on by itself.
#[tokio::test]
async fn f12_a_pull_that_fails_leaves_what_runs_alone() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;
    let before = rig.engine.taken().iter().filter(|s| !rig::is_pull(s)).count();
    let image = "registry.example/web:2".parse().unwrap();
    rig.engine.fail_pulls(image, "the link broke");
    rig.push(&[("web.yaml", &deployment("web", "2", 1))]);
    rig.until("the failure is told", |_, status| {
        status
            .source
            .error
            .as_ref()
            .is_some_and(|err| err.contains("registry.example/web:2"))
    })
    .await;
    assert_eq!(
        rig.engine.taken().iter().filter(|s| !rig::is_pull(s)).count(),
        before
    );
    rig.engine.mend_pulls(&"registry.example/web:2".parse().unwrap());
    rig.until("the new version", |_, status| {
        status.phase == Phase::Ready
            && status
                .workloads
                .iter()
                .any(|w| w.images == ["registry.example/web:2"] && w.state == WorkloadState::Current)
    })
    .await;
}

/// F13: a revision that does not render, one that is refused, one that crashes, one that is never healthy.
#[tokio::test]
async fn f13_no_bad_revision_takes_the_last_good_one_down() {
    let good = deployment("web", "1", 1);
    let mut rig = Rig::new(&[("web.yaml", &good)]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;

    rig.push(&[("web.yaml", "apiVersion: apps/v1\nkind: [")]);
    rig.until("it does not render", |_, status| {
        status
            .source
            .error
            .as_ref()
            .is_some_and(|err| err.contains("web.yaml"))
    })
    .await;
    rig.still_runs("registry.example/web:1").await;

    rig.push(&[("web.yaml", &good.replace("image:", "imagee:"))]);
    rig.until("it is refused", |_, status| {
        status.generation.failed.as_ref().is_some_and(|(_, why)| {
            let place = "clusters/test/web.yaml:1: Deployment.apps/web: spec.";
            why.contains(place) && why.contains("imagee")
        })
    })
    .await;
    rig.still_runs("registry.example/web:1").await;

    rig.push(&[(
        "web.yaml",
        &deployment("web", "bad", 1).replace("name: c,", "name: c, command: [sh, -c, 'exit 1'],"),
    )]);
    rig.until("the crash is rolled back", |_, status| {
        status.phase == Phase::RolledBack
            && status
                .generation
                .failed
                .as_ref()
                .is_some_and(|(_, why)| why.contains("CrashLoopBackOff"))
    })
    .await;
    rig.still_runs("registry.example/web:1").await;

    rig.push(&[("web.yaml", &deployment("web", "2", 1))]);
    rig.until("the next one is accepted", |seen, status| {
        status.phase == Phase::Ready
            && seen.pods.len() == 1
            && seen.pods[0].phase == PodPhase::Running
            && status.generation.failed.is_none()
    })
    .await;
    rig.still_runs("registry.example/web:2").await;
}

/// A force-push is refused where policy says so, across a restart, until history is back.
#[tokio::test]
async fn rewritten_history_is_refused_by_policy_until_it_is_back() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.refuse_rewrites();
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;
    let good = rig.head();
    rig.rewrite(&[("web.yaml", &deployment("web", "2", 1))]);
    for _ in 0..2 {
        rig.until("refused", |_, status| {
            status
                .source
                .error
                .as_ref()
                .is_some_and(|err| err.contains("refused by policy"))
        })
        .await;
        rig.still_runs("registry.example/web:1").await;
        rig.stop().await;
        rig.start();
    }
    rig.reset_to(&good);
    rig.until("back", |_, status| {
        status.source.error.is_none() && status.phase == Phase::Ready
    })
    .await;
    rig.push(&[("web.yaml", &deployment("web", "3", 1))]);
    rig.until("forward from there", |_, status| {
        status
            .workloads
            .iter()
            .any(|w| w.images == ["registry.example/web:3"])
    })
    .await;
}
