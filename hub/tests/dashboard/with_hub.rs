//! The pages of a real hub, over TLS, with a real session behind them.

use crate::browser::Browser;
use crate::device::{Device, api};
use crate::{seed, site::made};
use hub::{Hub, HubConfig};
use jiff::Timestamp;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wire::client::{HubAddress, Order};
use wire::frame::{Question, Records};

#[tokio::test]
async fn a_real_session_is_shown_its_logs_are_tailed_and_its_end_is_seen() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = |listen| {
        let mut config = HubConfig::new(listen, dir.path().join("hub"));
        config.heartbeat = Duration::from_secs(3);
        config
    };
    let bound = Hub::build(config("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let listen = bound.address();
    let base = format!("https://{}", bound.address());
    let at: HubAddress = bound.address().to_string().parse().unwrap();
    let token = bound.admin_token().unwrap().to_owned();
    let api = api(&at, &bound.hub().ca(), &token);
    let stop = CancellationToken::new();
    let running = tokio::spawn(bound.run(stop.clone().cancelled_owned()));

    let device = Device::join(
        &dir.path().join("device"),
        &at,
        &api,
        "gate-reader-1",
        "raspberry-pi-5",
    )
    .await;
    let link = api.login_link().await.unwrap();
    browser.open(&format!("{base}{}", link.path)).await;
    browser.until("location.pathname === '/'").await;
    let row = "document.getElementById('row-gate-reader-1').innerText";
    browser
        .until(&format!("{row}.includes('has not opened a session yet')"))
        .await;

    let (session, mut orders) = device.connect(&at).await.unwrap();
    let told = seed::status(&made("gate-reader-1"), Timestamp::now());
    let record = serde_json::to_vec(&told).unwrap().into();
    session
        .sender()
        .records(Records::new("status", 7, 1, vec![record]))
        .await
        .unwrap();
    browser
        .until(&format!("{row}.includes('Ready') && {row}.includes('Up')"))
        .await;

    browser.open(&format!("{base}/devices/gate-reader-1")).await;
    browser
        .run("document.querySelector('a.log[data-log=\"badge-reader-90aa-0/reader\"]').click()")
        .await;
    let asked = tokio::time::timeout(Duration::from_secs(60), orders.recv())
        .await
        .unwrap()
        .unwrap();
    let Order::Ask {
        id,
        what: Question::Logs(ask),
    } = asked
    else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (ask.namespace.as_str(), ask.pod.as_str(), ask.container.as_deref()),
        ("edge", "badge-reader-90aa-0", Some("reader"))
    );
    assert!(ask.follow && ask.timestamps);
    session
        .sender()
        .chunk(id, "2026-11-24T12:00:00.5Z badge 17 read\n".into())
        .await
        .unwrap();
    browser
        .until("document.getElementById('log-lines').innerText.includes('12:00:00.5 badge 17 read')")
        .await;
    // Whoever closes the log stops the device's work.
    browser.run("document.getElementById('log-close').click()").await;
    let cancelled = tokio::time::timeout(Duration::from_secs(60), orders.recv())
        .await
        .unwrap();
    assert_eq!(cancelled, Some(Order::Cancel { id }));
    let trail = api.audit(100).await.unwrap();
    assert!(trail.iter().any(|row| row.action == "logs.read"
        && row.who == "admin"
        && row.target == "gate-reader-1/edge/badge-reader-90aa-0"));

    browser.open(&base).await;
    browser
        .until(&format!("{row}.includes('Up') && live.classList.contains('on')"))
        .await;
    drop((session, orders));
    browser.until(&format!("{row}.includes('Down')")).await;
    browser
        .until(&format!(
            "{row}.includes('Unknown') && {row}.includes('Its link is down')"
        ))
        .await;

    // A page that is left open holds up no stop, and shows that it is no longer live.
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap();
    browser
        .until("!live.classList.contains('on') && live.innerText.includes('Reconnecting')")
        .await;
    browser.run("window.untouched = true").await;

    // Back again, the page catches up by itself, and whoever had logged in still is.
    let deadline = Instant::now() + Duration::from_secs(60);
    let bound = loop {
        match Hub::build(config(listen)).await {
            Ok(bound) => break bound,
            // The last connection of the first one may not have let go of the state yet.
            Err(err) => assert!(Instant::now() < deadline, "{}", kit::chain(&err)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let running = tokio::spawn(bound.run(std::future::pending()));
    let (_session, _orders) = device.connect(&at).await.unwrap();
    browser
        .until(&format!("live.classList.contains('on') && {row}.includes('Up')"))
        .await;
    assert_eq!(
        browser.run("return window.untouched").await,
        json!(true),
        "the page was loaded anew"
    );
    running.abort();
}
