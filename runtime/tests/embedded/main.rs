//! The engine with real containers; needs root, overlayfs, control groups and Debian's busybox-static.

#[path = "../contract/mod.rs"]
mod contract;
mod rig;

use rig::Rig;

#[tokio::test]
async fn root_the_embedded_engine_keeps_the_contract() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    contract::all(&engine).await;
    drop(engine);
    rig.nothing_is_left();
}
