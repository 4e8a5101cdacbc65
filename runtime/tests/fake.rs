//! The contract over the engine in memory.

mod contract;

use kit::SystemClock;
use runtime::fake::FakeEngine;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let engine = FakeEngine::new(Arc::new(SystemClock), Duration::from_millis(50));
    engine.fail_pulls(
        "registry.test/missing:1".parse().unwrap(),
        "the registry does not know it",
    );
    contract::all(&engine).await;
}
