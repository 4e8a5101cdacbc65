//! The engine with real containers; needs root, overlayfs, control groups, Debian's busybox-static and runc.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../contract/mod.rs"]
mod contract;
mod death;
mod limits;
mod network;
mod pods;
mod probes;
mod pulls;
mod rig;
mod security;
mod volumes;

use model::{PodObserved, PodRun};
use rig::Rig;
use runtime::LogQuery;
use runtime::embedded::{Embedded, OciChoice};

#[tokio::test]
async fn root_the_embedded_engine_keeps_the_contract() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    contract::all(&engine).await;
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_it_keeps_the_contract_with_runc() {
    let Some(rig) = Rig::new() else { return };
    let mut config = rig.config();
    config.oci = OciChoice::CommandLine("/usr/sbin/runc".into());
    let engine = Embedded::open(config, rig.images.clone(), None).await.unwrap();
    contract::all(&engine).await;
    drop(engine);
    rig.nothing_is_left();
}

/// Starts a pod that ends by itself, waits for its end, and gives its state and output; then removes it.
pub async fn run_to_end(engine: &Embedded, run: &PodRun) -> (PodObserved, String) {
    use runtime::Engine as _;
    let name = run.id.name.clone();
    engine.apply(&contract::start(run)).await.unwrap();
    let seen = contract::until(engine, "its end", |seen| {
        contract::find(seen, &name)
            .is_some_and(|pod| matches!(pod.phase, model::PodPhase::Succeeded | model::PodPhase::Failed))
    })
    .await;
    let pod = contract::find(&seen, &name).unwrap().clone();
    let output = contract::output(engine, &LogQuery::of(run.id.clone())).await;
    engine.apply(&contract::stop(&name)).await.unwrap();
    (pod, output)
}
