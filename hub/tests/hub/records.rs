//! What devices send: once, in order, whatever breaks.

use crate::rig::*;
use bytes::Bytes;
use std::time::Duration;
use wire::client::Ended;
use wire::frame::{Cursor, Records};

async fn stored(rig: &Rig, device: &Device) -> Vec<String> {
    let rows = rig.api.events(Some(&device.name), 10_000).await.unwrap();
    rows.into_iter().rev().map(|row| row.event.message).collect()
}

fn wanted(upto: u64) -> Vec<String> {
    (1..=upto).map(|n| format!("event {n}")).collect()
}

#[tokio::test]
async fn records_are_stored_and_acknowledged() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    assert!(session.welcome().cursors.is_empty());
    for _ in 0..3 {
        let batch = device.batch(10);
        session.sender().records(batch).await.unwrap();
    }
    within("the acknowledgement", session.acked("events", at(30)))
        .await
        .unwrap();
    assert_eq!(stored(&rig, &device).await, wanted(30));
    let row = rig.api.device(&device.name).await.unwrap();
    assert_eq!(row.summary.link, wire::api::Link::Connected);
}

#[tokio::test]
async fn a_batch_sent_again_after_a_lost_acknowledgement_is_stored_once() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let batch = device.batch(10);
    session.sender().records(batch.clone()).await.unwrap();
    until("the batch in the store", async || {
        (stored(&rig, &device).await.len() == 10).then_some(())
    })
    .await;
    drop(session);
    // Whether the acknowledgement came or not, this device acts as if it had not.
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    assert_eq!(session.welcome().cursors.get("events"), Some(&at(10)));
    session.sender().records(batch).await.unwrap();
    let next = device.batch(5);
    session.sender().records(next).await.unwrap();
    within("the acknowledgement", session.acked("events", at(15)))
        .await
        .unwrap();
    assert_eq!(stored(&rig, &device).await, wanted(15));
}

#[tokio::test]
async fn a_link_cut_at_many_places_in_a_batch_loses_and_doubles_nothing() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let link = Link::to(rig.running.address).await;
    let mut acked = 0;
    // From inside the handshake to far into the records.
    for allowance in (500..60_000).step_by(3700) {
        link.allowance.send_replace(allowance);
        if let Ok((session, _orders)) = device.connect(&link.address).await {
            let held = session.welcome().cursors.get("events").copied().unwrap_or(at(0));
            assert!(held.upto >= acked, "the hub forgot what it had acknowledged");
            device.next = held.upto + 1;
            loop {
                let batch = device.batch(20);
                if session.sender().records(batch).await.is_err() {
                    break;
                }
            }
            within("the end of the session", session.ended()).await;
            acked = session.acks().borrow().get("events").map_or(acked, |at| at.upto);
        }
    }
    link.allowance.send_replace(u64::MAX);
    let (session, _orders) = device.connect(&link.address).await.unwrap();
    let held = session.welcome().cursors.get("events").copied().unwrap_or(at(0));
    assert!(held.upto >= acked && held.upto > 0);
    device.next = held.upto + 1;
    let batch = device.batch(3);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(held.upto + 3)))
        .await
        .unwrap();
    let all = stored(&rig, &device).await;
    let last = all.len() as u64;
    assert_eq!(last, held.upto + 3, "more or fewer than were acknowledged");
    assert_eq!(all, wanted(last));
}

#[tokio::test]
async fn a_hub_that_restarts_goes_on_where_it_was() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let batch = device.batch(10);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(10)))
        .await
        .unwrap();
    let rig = rig.restart().await;
    let ended = within("the end of the session", session.ended()).await;
    assert!(
        matches!(
            ended,
            Ended::ByHub {
                retry_after: Some(_),
                ..
            }
        ),
        "{ended:?}"
    );
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    assert_eq!(session.welcome().cursors.get("events"), Some(&at(10)));
    let batch = device.batch(1);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(11)))
        .await
        .unwrap();
    assert_eq!(stored(&rig, &device).await, wanted(11));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_blocks_nothing() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let records = vec![
        json(&event(1)),
        Bytes::from_static(b"\xff{rubbish"),
        json(&event(3)),
    ];
    session
        .sender()
        .records(Records::new("events", EPOCH, 1, records))
        .await
        .unwrap();
    within("the acknowledgement", session.acked("events", at(3)))
        .await
        .unwrap();
    assert_eq!(stored(&rig, &device).await, ["event 1", "event 3"]);
    let aside = rig.running.hub.store().set_aside(&device.name, 10).await.unwrap();
    assert_eq!(
        aside.iter().map(|record| record.sequence).collect::<Vec<_>>(),
        [2]
    );
}

#[tokio::test]
async fn what_the_device_dropped_does_not_hold_the_rest_back() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let batch = device.batch(2);
    session.sender().records(batch).await.unwrap();
    // Dropped by policy while the link was down.
    device.next = 10;
    let batch = device.batch(2);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(11)))
        .await
        .unwrap();
    // Lost with the spool itself: a new epoch.
    let new = Records::new("events", EPOCH + 1, 1, vec![json(&event(100))]);
    session.sender().records(new).await.unwrap();
    within(
        "the acknowledgement",
        session.acked(
            "events",
            Cursor {
                epoch: EPOCH + 1,
                upto: 1,
            },
        ),
    )
    .await
    .unwrap();
    let cursors = rig.running.hub.store().cursors(&device.name).await.unwrap();
    let first = cursors.iter().find(|cursor| cursor.epoch == EPOCH).unwrap();
    assert_eq!(first.lost.iter().collect::<Vec<_>>(), [(3, 9)]);
    assert!(first.missing.is_empty());
}

#[tokio::test]
async fn the_newest_status_is_shown_before_older_ones_have_caught_up() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let mut hello = device.hello();
    hello.status = Some(status(&device.name, "newest"));
    hello.status_at = Some(at(50));
    let tls = device.keys.session_tls().unwrap();
    let (session, _orders) = wire::client::Session::connect(&rig.at(), tls, hello)
        .await
        .unwrap();
    let shown = async || {
        rig.api
            .device(&device.name)
            .await
            .unwrap()
            .summary
            .generation
            .current
    };
    assert_eq!(shown().await.as_deref(), Some("newest"));
    let old = (1..=49)
        .map(|n| json(&status(&device.name, &format!("old-{n}"))))
        .collect();
    session
        .sender()
        .records(Records::new("status", EPOCH, 1, old))
        .await
        .unwrap();
    within("the acknowledgement", session.acked("status", at(49)))
        .await
        .unwrap();
    assert_eq!(
        shown().await.as_deref(),
        Some("newest"),
        "an older status hid the newest"
    );
    let newest = vec![
        json(&status(&device.name, "newest")),
        json(&status(&device.name, "newer still")),
    ];
    session
        .sender()
        .records(Records::new("status", EPOCH, 50, newest))
        .await
        .unwrap();
    within("the acknowledgement", session.acked("status", at(51)))
        .await
        .unwrap();
    assert_eq!(shown().await.as_deref(), Some("newer still"));
    device.next = 1;
}

#[tokio::test]
async fn a_device_that_is_not_heard_becomes_unknown_with_its_age() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let told = Records::new("status", EPOCH, 1, vec![json(&status(&device.name, "g1"))]);
    session.sender().records(told).await.unwrap();
    within("the acknowledgement", session.acked("status", at(1)))
        .await
        .unwrap();
    assert_eq!(
        rig.api.device(&device.name).await.unwrap().summary.health,
        "Ready"
    );
    drop(session);
    until("the end of the session", async || {
        let row = rig.api.device(&device.name).await.unwrap().summary;
        (row.link == wire::api::Link::Disconnected).then_some(())
    })
    .await;
    rig.clock.advance(Duration::from_secs(3600));
    let row = rig.api.device(&device.name).await.unwrap().summary;
    assert_eq!(row.health, "Unknown");
    assert!(
        row.status_age_seconds
            .is_some_and(|age| (3600..3700).contains(&age)),
        "{row:?}"
    );
    assert_eq!(
        row.generation.current.as_deref(),
        Some("g1"),
        "what it said last is still shown"
    );
    let (_session, _orders) = device.connect(&rig.at()).await.unwrap();
    assert_eq!(
        rig.api.device(&device.name).await.unwrap().summary.health,
        "Ready"
    );
}

#[tokio::test]
async fn a_silent_hub_is_noticed() {
    let rig = Rig::with(|config| config.heartbeat = Duration::from_millis(200)).await;
    let mut device = rig.device("a").await;
    let proxy = Silencer::to(rig.running.address).await;
    let (session, _orders) = device.connect(&proxy.address).await.unwrap();
    proxy.silence();
    // Both ends notice by themselves: no packet says that the link is gone.
    let ended = within("the end of the session", session.ended()).await;
    assert!(matches!(ended, Ended::Silent(_)), "{ended:?}");
    until("the hub's notice", async || {
        let row = rig.api.device(&device.name).await.unwrap().summary;
        (row.link == wire::api::Link::Disconnected).then_some(())
    })
    .await;
}

/// A link that can stop carrying anything, without closing.
struct Silencer {
    address: wire::client::HubAddress,
    silent: tokio::sync::watch::Sender<bool>,
}

impl Silencer {
    async fn to(hub: std::net::SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let (silent, told) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            let (mut device, _) = listener.accept().await.unwrap();
            let mut hub = tokio::net::TcpStream::connect(hub).await.unwrap();
            let mut watch = told.clone();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut device, &mut hub) => {}
                () = async { let _ = watch.wait_for(|silent| *silent).await; } => {
                    // Both sockets stay open and nothing moves.
                    std::future::pending::<()>().await;
                }
            }
        });
        Self { address, silent }
    }

    fn silence(&self) {
        self.silent.send_replace(true);
    }
}

#[tokio::test]
async fn a_record_too_long_for_the_wire_does_not_hold_the_rest_back() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let long = Bytes::from(vec![b'x'; wire::codec::MAX_BODY + 1]);
    let records = vec![json(&event(1)), long, json(&event(3))];
    session
        .sender()
        .records(Records::new("events", EPOCH, 1, records))
        .await
        .unwrap();
    within("the acknowledgement", session.acked("events", at(3)))
        .await
        .unwrap();
    assert_eq!(stored(&rig, &device).await, ["event 1", "event 3"]);
    let cursors = rig.running.hub.store().cursors(&device.name).await.unwrap();
    assert_eq!(cursors[0].lost.iter().collect::<Vec<_>>(), [(2, 2)]);
}

#[tokio::test]
async fn a_hub_restored_from_a_backup_takes_its_devices_back() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let batch = device.batch(5);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(5)))
        .await
        .unwrap();
    let (state, backup) = (rig.dir.path().join("hub"), rig.dir.path().join("backup"));
    let rig = rig.restart_after(|| copy(&state, &backup)).await;
    // After the backup: a new certificate, and records that the device then forgets.
    device.renew(&rig.at()).await.unwrap();
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let batch = device.batch(5);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(10)))
        .await
        .unwrap();
    let rig = rig
        .restart_after(|| {
            std::fs::remove_dir_all(&state).unwrap();
            copy(&backup, &state);
        })
        .await;
    let Err(err) = device.connect(&rig.at()).await else {
        panic!("the hub knows a certificate that it issued after its backup")
    };
    let failure = identity::Failure::of(err.tls(), err.reason(), err.retry_after(), kit::chain(&err));
    assert_eq!(failure, identity::Failure::OwnExpired, "it must renew by itself");
    device.renew(&rig.at()).await.unwrap();
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    assert_eq!(session.welcome().cursors.get("events"), Some(&at(5)));
    let batch = device.batch(2);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(12)))
        .await
        .unwrap();
    let cursors = rig.running.hub.store().cursors(&device.name).await.unwrap();
    assert_eq!(
        cursors[0].lost.iter().collect::<Vec<_>>(),
        [(6, 10)],
        "the gap is told, not hidden"
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
