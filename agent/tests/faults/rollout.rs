//! A device that moves only to what a roll-out admits.

use crate::rig::{Rig, deployment};
use model::Phase;
use serde_json::{Value, json};

/// As a signed intent leaves it on disk.
fn admit(rig: &Rig, admission: Value) {
    let path = rig.state().join("generations/state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["admission"] = admission;
    std::fs::write(&path, state.to_string()).unwrap();
}

/// F18, the device's part: what no roll-out admits waits and is told; what one admits runs, wherever the tip is by then.
#[tokio::test]
async fn f18_a_device_moves_to_what_is_admitted_and_nothing_else() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("the first runs", |_, status| status.phase == Phase::Ready)
        .await;
    rig.stop().await;
    admit(&rig, json!({"admission": "only"}));
    rig.start();
    rig.push(&[("web.yaml", &deployment("web", "2", 1))]);
    let second = rig.head();
    rig.until("the second is seen and waits", |_, status| {
        status.source.waits
            && status
                .source
                .revision
                .as_ref()
                .is_some_and(|r| r.commit == second)
    })
    .await;
    rig.still_runs("registry.example/web:1").await;
    rig.push(&[("web.yaml", &deployment("web", "3", 1))]);
    let third = rig.head();
    rig.until("the third waits", |_, status| {
        status.source.revision.as_ref().is_some_and(|r| r.commit == third)
    })
    .await;
    rig.stop().await;
    admit(&rig, json!({"admission": "only", "revision": second}));
    rig.start();
    rig.until("the second runs, behind the tip", |seen, status| {
        let runs = status
            .generation
            .revision
            .as_ref()
            .is_some_and(|r| r.commit == second);
        runs && status.phase == Phase::Ready && status.source.waits && seen.pods.len() == 1
    })
    .await;
    rig.still_runs("registry.example/web:2").await;
    rig.until("the tip is still what is told", |_, status| {
        status
            .source
            .revision
            .as_ref()
            .is_some_and(|r| r.commit == third && r.reference == "main")
    })
    .await;
    rig.stop().await;
    admit(&rig, json!({"admission": "any"}));
    rig.start();
    rig.until("the tip runs", |_, status| {
        let runs = status
            .generation
            .revision
            .as_ref()
            .is_some_and(|r| r.commit == third);
        runs && status.phase == Phase::Ready && !status.source.waits
    })
    .await;
}

/// A revision that was admitted and is gone from the repository changes nothing, and is told.
#[tokio::test]
async fn f18_an_admitted_revision_that_is_nowhere_is_told() {
    let mut rig = Rig::new(&[("web.yaml", &deployment("web", "1", 1))]);
    rig.start();
    rig.until("the first runs", |_, status| status.phase == Phase::Ready)
        .await;
    rig.stop().await;
    admit(&rig, json!({"admission": "only", "revision": "1".repeat(40)}));
    rig.start();
    rig.until("it is told", |_, status| {
        let told = status.source.error.as_deref().unwrap_or_default();
        status.phase == Phase::Ready && told.contains("1111") && told.contains("is admitted")
    })
    .await;
    rig.still_runs("registry.example/web:1").await;
}
