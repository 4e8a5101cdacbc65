//! A hub that is killed (-9) while devices send: what it acknowledged is there, once, in order.

#[path = "../dashboard/device.rs"]
mod device;
#[path = "../hub/otlp.rs"]
mod otlp;
mod process;

use device::{Device, api};
use hub::{Hub, HubConfig};
use kit::disk;
use process::{BATCH, DIR, Process, event, send};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use wire::api::QueryAsk;

/// The hub's process: this same program, run again with only this test.
#[test]
#[ignore = "the process that `nothing_acknowledged_is_lost_when_the_hub_is_killed` kills"]
fn hub_process() {
    let dir = PathBuf::from(std::env::var_os(DIR).expect("only the other test starts this one"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), dir.join("hub"));
        // Whatever a kill may hit is under way all the time.
        config.history.file_after = Duration::ZERO;
        config.history.every = Duration::from_millis(2);
        let bound = Hub::build(config).await.unwrap();
        if let Some(token) = bound.admin_token() {
            disk::replace(&dir.join("token"), token.as_bytes()).unwrap();
        }
        disk::replace(&dir.join("ca"), bound.hub().ca().as_bytes()).unwrap();
        disk::replace(&dir.join("address"), bound.address().to_string().as_bytes()).unwrap();
        bound.run(std::future::pending()).await;
    });
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_hub_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    let mut process = Process::start(dir.path());
    let mut hub = process.address(dir.path()).await;
    let device = {
        let api = api(&hub, &read("ca"), &read("token"));
        Device::join(&dir.path().join("device"), &hub, &api, "pi", "raspberry-pi-5").await
    };
    let mut acknowledged = 0;
    for round in 0..8_u64 {
        // Another moment each time, from within the first batch to well under way.
        acknowledged = send(
            &device,
            &hub,
            acknowledged,
            Duration::from_millis(13 * round * round),
            process,
            ("events", event),
        )
        .await;
        process = Process::start(dir.path());
        hub = process.address(dir.path()).await;
    }
    assert!(
        acknowledged > 8 * BATCH,
        "only {acknowledged} records were acknowledged: nothing was tested"
    );

    let api = api(&hub, &read("ca"), &read("token"));
    let rows = api.events(Some(&device.name), 5_000).await.unwrap();
    let newest: Vec<&str> = rows.iter().map(|row| row.event.message.as_str()).collect();
    let (session, _orders) = device.connect(&hub).await.unwrap();
    let upto = session.welcome().cursors["events"].upto;
    assert!(upto >= acknowledged);
    let wanted: Vec<String> = (1..=upto)
        .rev()
        .take(newest.len())
        .map(|n| format!("event {n}"))
        .collect();
    assert_eq!(newest, wanted);
    assert!(
        newest.len() as u64 >= upto.min(4_000),
        "{} of {upto} events are there",
        newest.len()
    );
}

#[tokio::test]
async fn every_line_is_a_row_once_when_the_hub_is_killed_while_it_files() {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    let mut process = Process::start(dir.path());
    let mut hub = process.address(dir.path()).await;
    let device = {
        let api = api(&hub, &read("ca"), &read("token"));
        Device::join(&dir.path().join("device"), &hub, &api, "pi", "raspberry-pi-5").await
    };
    let line = |number| otlp::line(&format!("line {number}"));
    let mut acknowledged = 0;
    for round in 0..8_u64 {
        let wait = Duration::from_millis(11 * round * round + 40);
        acknowledged = send(&device, &hub, acknowledged, wait, process, ("logs", line)).await;
        process = Process::start(dir.path());
        hub = process.address(dir.path()).await;
    }
    assert!(
        acknowledged > 8 * BATCH,
        "only {acknowledged} were acknowledged: nothing was tested"
    );

    let api = api(&hub, &read("ca"), &read("token"));
    let (session, _orders) = device.connect(&hub).await.unwrap();
    let upto = session.welcome().cursors["logs"].upto;
    assert!(upto >= acknowledged);
    let ask = QueryAsk {
        sql: "SELECT count(*), count(DISTINCT body), max(CAST(substr(body, 6) AS bigint)) FROM logs".into(),
        limit: None,
    };
    // While files are written, merged and named, at any moment: all of it, once.
    for _ in 0..5 {
        let answer = api.query(&ask).await.unwrap();
        assert_eq!(answer.rows, [[json!(upto), json!(upto), json!(upto)]]);
    }
    let files = std::fs::read_dir(dir.path().join("hub/history/logs"))
        .unwrap()
        .count();
    assert!(files > 0, "nothing was filed");
}
