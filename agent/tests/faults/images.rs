//! Images on their way, and images that must stay.

use crate::rig::{Rig, deployment};
use model::{ImageRef, Phase, Status, WorkloadState, WorkloadStatus};
use runtime::PullProgress;
use std::collections::BTreeSet;

fn workload<'a>(status: &'a Status, name: &str) -> Option<&'a WorkloadStatus> {
    status.workloads.iter().find(|workload| workload.key.name == name)
}

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

const PART: PullProgress = PullProgress {
    done: 3 << 20,
    total: 12 << 20,
};

#[tokio::test]
async fn a_pull_is_told_while_it_lasts_and_what_runs_goes_on() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("ready", |_, status| status.phase == Phase::Ready).await;

    rig.engine.hold_pulls(image("registry.example/web:2"), PART);
    rig.push(&[("web.yaml", &deployment("web", "2", 1))]);
    rig.until("the pull is told", |_, status| {
        workload(status, "web").is_some_and(|web| {
            web.reason.as_deref() == Some("Pulling")
                && web.state == WorkloadState::Current
                && web.message.contains("1 of 1 ready")
                && web.message.contains("registry.example/web:2: 3.0 of 12.0 MiB")
        })
    })
    .await;
    rig.still_runs("registry.example/web:1").await;
    rig.engine.release_pulls(&image("registry.example/web:2"));
    rig.until("the new version", |_, status| {
        status.phase == Phase::Ready
            && workload(status, "web")
                .is_some_and(|web| web.reason.is_none() && web.images == ["registry.example/web:2"])
    })
    .await;

    // One that the device has never had shows up as soon as its image is on its way.
    rig.engine
        .hold_pulls(image("registry.example/new:1"), PullProgress::default());
    rig.push(&[("new.yaml", &deployment("new", "1", 2))]);
    rig.until("the newcomer is told", |_, status| {
        workload(status, "web").is_some_and(|web| web.reason.is_none())
            && workload(status, "new").is_some_and(|new| {
                (new.state, new.ready, new.desired) == (WorkloadState::InProgress, 0, 2)
                    && new.reason.as_deref() == Some("Pulling")
                    && new.message == "pulling registry.example/new:1"
            })
    })
    .await;
    rig.engine.release_pulls(&image("registry.example/new:1"));
    rig.until("both", |seen, status| {
        seen.pods.len() == 3 && status.phase == Phase::Ready
    })
    .await;
}

/// A roll-back must not need the network: what the device would go back to is kept beside what it tries.
#[tokio::test]
async fn the_images_of_the_last_good_generation_are_kept_until_there_is_a_newer_one() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    let engine = rig.engine.clone();
    let set = |images: &[&str]| images.iter().map(|i| image(i)).collect::<BTreeSet<_>>();
    let kept = |images: &[&str]| engine.kept().last() == Some(&set(images));
    rig.start();
    rig.until("the first is kept", |_, status| {
        status.phase == Phase::Ready && kept(&["registry.example/web:1"])
    })
    .await;
    let crashing = deployment("web", "bad", 1).replace("name: c,", "name: c, command: [sh, -c, 'exit 1'],");
    rig.push(&[("web.yaml", &crashing)]);
    rig.until("only the good one is kept after the roll-back", |_, status| {
        status.phase == Phase::RolledBack && kept(&["registry.example/web:1"])
    })
    .await;
    let both = set(&["registry.example/web:1", "registry.example/web:bad"]);
    assert!(
        engine.kept().contains(&both),
        "both while one was on trial: {:?}",
        engine.kept()
    );
    rig.push(&[("web.yaml", &deployment("web", "2", 1))]);
    rig.until("the next good one takes its place", |_, status| {
        status.phase == Phase::Ready && kept(&["registry.example/web:2"])
    })
    .await;
    // After a restart as well: what is kept follows from what is on disk.
    rig.stop().await;
    rig.reboot();
    rig.lose_repository();
    rig.start();
    let engine = rig.engine.clone();
    rig.until("it is kept again", |_, _| {
        engine.kept().last() == Some(&set(&["registry.example/web:2"]))
    })
    .await;
}
