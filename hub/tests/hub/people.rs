//! What people do through the API: logs, intents, roles.

use crate::rig::*;
use bytes::Bytes;
use hub::store::Role;
use identity::IntentError;
use model::{IntentKind, Signed};
use std::time::Duration;
use wire::ApiError;
use wire::api::{NewIntent, NewStep, RollOver};
use wire::client::{Order, Orders};
use wire::frame::{LogAsk, Question};

pub fn reason<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> String {
    match outcome {
        Err(ApiError::Connect(err)) => err.reason().map_or_else(|| kit::chain(&err), str::to_owned),
        other => format!("{other:?}"),
    }
}

fn ask() -> LogAsk {
    LogAsk {
        namespace: "edge".into(),
        pod: "web-1".into(),
        container: Some("web & co".into()),
        follow: true,
        tail: Some(10),
        ..LogAsk::default()
    }
}

async fn question(orders: &mut Orders) -> (u64, LogAsk) {
    match within("the question", orders.recv()).await {
        Some(Order::Ask {
            id,
            what: Question::Logs(ask),
        }) => (id, ask),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn logs_stream_through_the_session_and_stop_when_nobody_reads() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let api = rig.api.clone();
    let asked = ask();
    let (name, wanted) = (device.name.clone(), asked.clone());
    let reader = tokio::spawn(async move { api.logs(&name, &wanted).await });
    let (id, got) = question(&mut orders).await;
    assert_eq!(got, asked, "the question came over changed");
    session
        .sender()
        .chunk(id, Bytes::from_static(b"hello\n"))
        .await
        .unwrap();
    let mut stream = reader.await.unwrap().unwrap();
    assert_eq!(
        within("the first line", stream.next()).await.unwrap().unwrap(),
        "hello\n"
    );
    drop(stream);
    let order = within("the end of the question", orders.recv()).await;
    assert_eq!(order, Some(Order::Cancel { id }));
    assert!(
        session
            .sender()
            .chunk(id, Bytes::from_static(b"more"))
            .await
            .is_err(),
        "nobody reads any more"
    );
    // The session itself goes on.
    let batch = device.batch(1);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reader_that_is_slow_slows_the_answer_and_not_the_records() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let (api, name) = (rig.api.clone(), device.name.clone());
    let reader = tokio::spawn(async move { api.logs(&name, &ask()).await });
    let (id, _) = question(&mut orders).await;
    let whole: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    let (sender, data) = (session.sender().clone(), Bytes::from(whole.clone()));
    let sending = tokio::spawn(async move {
        sender.chunk(id, data).await.unwrap();
        sender.done(id, None).await.unwrap();
    });
    let mut stream = reader.await.unwrap().unwrap();
    // Nothing is read yet; windows and buffers on the way hold far less than the whole.
    let batch = device.batch(10);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("events", at(10)))
        .await
        .unwrap();
    assert!(
        !sending.is_finished(),
        "all of the answer was taken although nobody read it"
    );
    let mut got = Vec::new();
    while let Some(part) = within("the answer", stream.next()).await.unwrap() {
        got.extend_from_slice(&part);
    }
    assert!(got == whole, "the answer came over changed");
    sending.await.unwrap();
}

#[tokio::test]
async fn why_logs_cannot_be_had_is_told() {
    let rig = Rig::new().await;
    assert_eq!(reason(rig.api.logs(&name("nobody"), &ask()).await), "NotFound");
    let mut device = rig.device("a").await;
    assert_eq!(reason(rig.api.logs(&device.name, &ask()).await), "Disconnected");
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let (api, name) = (rig.api.clone(), device.name.clone());
    let reader = tokio::spawn(async move { api.logs(&name, &ask()).await });
    let (id, _) = question(&mut orders).await;
    session
        .sender()
        .done(id, Some("no pod is called web-1".into()))
        .await
        .unwrap();
    let refused = reader.await.unwrap();
    let text = format!("{refused:?}");
    assert!(text.contains("no pod is called web-1"), "{text}");
    // Later on it comes at the end of what was sent.
    let (api, name) = (rig.api.clone(), device.name.clone());
    let reader = tokio::spawn(async move { api.logs(&name, &ask()).await });
    let (id, _) = question(&mut orders).await;
    session
        .sender()
        .chunk(id, Bytes::from_static(b"half"))
        .await
        .unwrap();
    session
        .sender()
        .done(id, Some("the file is\ngone".into()))
        .await
        .unwrap();
    let mut stream = reader.await.unwrap().unwrap();
    assert_eq!(within("the data", stream.next()).await.unwrap().unwrap(), "half");
    match within("the end", stream.next()).await {
        Err(ApiError::BrokeOff(why)) => assert_eq!(why, "the file is?gone"),
        other => panic!("{other:?}"),
    }
    // And a session that ends ends its answers.
    let (api, name) = (rig.api.clone(), device.name.clone());
    let reader = tokio::spawn(async move { api.logs(&name, &ask()).await });
    let (id, _) = question(&mut orders).await;
    session
        .sender()
        .chunk(id, Bytes::from_static(b"x"))
        .await
        .unwrap();
    let mut stream = reader.await.unwrap().unwrap();
    within("the data", stream.next()).await.unwrap().unwrap();
    drop(session);
    assert!(matches!(
        within("the end", stream.next()).await,
        Err(ApiError::BrokeOff(_))
    ));
}

fn pause() -> NewIntent {
    NewIntent {
        kind: IntentKind::Pause,
        ttl_seconds: None,
    }
}

async fn intent(orders: &mut Orders) -> Signed {
    match within("the intent", orders.recv()).await {
        Some(Order::Intent(signed)) => signed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_intent_is_followed_once_by_the_device_that_it_names() {
    let rig = Rig::new().await;
    let (mut device, mut other) = (rig.device("a").await, rig.device("b").await);
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let made = rig.api.intend(&device.name, &pause()).await.unwrap();
    assert!(made.sent);
    let signed = intent(&mut orders).await;
    let accepted = device.keys.accept_intent(&signed).unwrap();
    assert_eq!(
        (accepted.id, accepted.kind, accepted.by.as_str()),
        (made.id, IntentKind::Pause, "admin")
    );
    session.sender().accepted(made.id).await.unwrap();
    // A replay, also after a restart; a copy for another device; a changed text.
    device.reopen();
    assert!(matches!(
        device.keys.accept_intent(&signed),
        Err(IntentError::Replayed { .. })
    ));
    assert!(matches!(
        other.keys.accept_intent(&signed),
        Err(IntentError::NotForUs { .. })
    ));
    let forged = Signed {
        text: signed.text.replace("pause", "resume"),
        ..signed
    };
    assert!(matches!(
        device.keys.accept_intent(&forged),
        Err(IntentError::Signature(_))
    ));
    until("the note of its delivery", async || {
        let held = rig.running.hub.store().intents(&device.name, 1).await.unwrap();
        held[0].delivered_at
    })
    .await;
    // The next session does not bring it again.
    drop(session);
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let restart = IntentKind::Restart {
        workload: "Deployment.apps/edge/web".parse().unwrap(),
    };
    let next = NewIntent {
        kind: restart.clone(),
        ttl_seconds: Some(60),
    };
    rig.api.intend(&device.name, &next).await.unwrap();
    let signed = intent(&mut orders).await;
    assert_eq!(device.keys.accept_intent(&signed).unwrap().kind, restart);
    drop(session);
}

#[tokio::test]
async fn an_intent_waits_for_a_device_that_is_away_and_expires() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let made = rig.api.intend(&device.name, &pause()).await.unwrap();
    assert!(!made.sent);
    let (session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let signed = intent(&mut orders).await;
    device.clock.advance(Duration::from_secs(601));
    assert!(matches!(
        device.keys.accept_intent(&signed),
        Err(IntentError::OutOfTime { .. })
    ));
    drop(session);
    rig.clock.advance(Duration::from_secs(601));
    let (_session, mut orders) = device.connect(&rig.at()).await.unwrap();
    let fresh = rig
        .api
        .intend(
            &device.name,
            &NewIntent {
                kind: IntentKind::SyncNow,
                ttl_seconds: None,
            },
        )
        .await
        .unwrap();
    let signed = intent(&mut orders).await;
    assert_eq!(
        device.keys.accept_intent(&signed).unwrap().id,
        fresh.id,
        "an expired intent was sent"
    );
}

#[tokio::test]
async fn people_need_a_token_and_viewers_only_look() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let nobody = api(&rig.running, "lwp1.000000000000.wrong");
    assert_eq!(reason(nobody.devices().await), "Unauthorized");
    rig.running
        .hub
        .store()
        .set_person("vera", "look-only", Role::Viewer, None, "admin")
        .await
        .unwrap();
    let viewer = api(&rig.running, "look-only");
    assert_eq!(viewer.devices().await.unwrap().len(), 1);
    assert_eq!(reason(viewer.intend(&device.name, &pause()).await), "Forbidden");
    assert_eq!(reason(viewer.revoke(&device.name).await), "Forbidden");
    assert_eq!(
        reason(viewer.create_token(&Default::default()).await),
        "Forbidden"
    );
    // A device's certificate opens no people's route, and a person's token no device's.
    let as_device = wire::ApiClient::new(rig.at(), device.keys.session_tls().unwrap(), "");
    assert_eq!(reason(as_device.devices().await), "Unauthorized");
    let trail = rig.api.audit(100).await.unwrap();
    assert!(
        trail
            .iter()
            .any(|row| row.who == "vera" && row.outcome.starts_with("refused")),
        "{trail:#?}"
    );
}

#[tokio::test]
async fn what_is_asked_wrongly_is_answered_with_the_reason() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let long = NewIntent {
        kind: IntentKind::Pause,
        ttl_seconds: Some(u64::MAX),
    };
    assert_eq!(reason(rig.api.intend(&device.name, &long).await), "BadRequest");
    assert_eq!(
        reason(rig.api.intend(&name("nobody"), &pause()).await),
        "NotFound"
    );
    assert_eq!(reason(rig.api.device(&name("nobody")).await), "NotFound");
    assert_eq!(reason(rig.api.cancel_token(99).await), "NotFound");
    let unused = wire::api::NewToken {
        uses: Some(0),
        ..Default::default()
    };
    assert_eq!(reason(rig.api.create_token(&unused).await), "BadRequest");
}

#[tokio::test]
async fn lists_show_what_devices_said() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    rig.device("b").await;
    let (session, _orders) = device.connect(&rig.at()).await.unwrap();
    let mut told = status(&device.name, "g1");
    told.workloads = serde_json::from_value(serde_json::json!([{
        "key": { "group": "apps", "kind": "Deployment", "namespace": "edge", "name": "web" },
        "state": "Current", "desired": 2, "ready": 2, "message": "2 of 2 pods are ready",
        "images": ["hub.example/web:1"], "pods": [],
    }]))
    .unwrap();
    let batch = wire::frame::Records::new("status", EPOCH, 1, vec![json(&told)]);
    session.sender().records(batch).await.unwrap();
    within("the acknowledgement", session.acked("status", at(1)))
        .await
        .unwrap();
    let devices = rig.api.devices().await.unwrap();
    assert_eq!(
        devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!((devices[0].workloads_ready, devices[0].workloads), (1, 1));
    assert_eq!(devices[1].link, wire::api::Link::Never);
    let workloads = rig.api.workloads(None).await.unwrap();
    assert_eq!(workloads.len(), 1);
    assert!(workloads[0].fresh && workloads[0].workload.key.name == "web");
    assert_eq!(rig.api.workloads(Some(&name("b"))).await.unwrap(), []);
    let generations = rig.api.generations(Some(&device.name)).await.unwrap();
    assert_eq!(
        (generations[0].id.as_str(), generations[0].outcome.as_str()),
        ("g1", "current")
    );
    let detail = rig.api.device(&device.name).await.unwrap();
    assert_eq!(detail.status, Some(told));
    let tokens = rig.api.tokens().await.unwrap();
    assert!(
        tokens
            .iter()
            .all(|token| token.uses_left == 0 && token.created_by == "admin")
    );
}

#[tokio::test]
async fn an_administrator_who_lost_the_token_gets_a_new_one_at_the_hub() {
    let rig = Rig::new().await;
    rig.device("a").await;
    let dir = rig.dir.path().to_owned();
    rig.running.stop().await;
    let mut config = config(&dir, &rig.clock);
    config.reset_admin = true;
    let running = RunningHub::start(config).await;
    let fresh = api(&running, running.admin_token.as_deref().unwrap());
    assert_eq!(fresh.devices().await.unwrap().len(), 1);
    let stale = api(&running, &rig.admin_token);
    assert_eq!(reason(stale.devices().await), "Unauthorized");
    running.stop().await;
}

#[tokio::test]
async fn the_authority_rolls_over_by_the_api_and_shuts_nobody_out_unasked() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let step = |step| NewStep { step, force: false };
    rig.clock.advance(Duration::from_secs(60));
    let early = rig.api.roll_over(&step(RollOver::Activate)).await;
    assert_eq!(reason(early), "RollOver");
    let state = rig.api.roll_over(&step(RollOver::Prepare)).await.unwrap();
    assert_eq!(roles(&state), ["issuing", "next"]);
    assert!(state.behind.is_empty());
    let state = rig.api.roll_over(&step(RollOver::Activate)).await.unwrap();
    assert_eq!(roles(&state), ["old", "issuing"]);
    assert_eq!(state.behind, [device.name.clone()]);
    assert_eq!(reason(rig.api.roll_over(&step(RollOver::Retire)).await), "Behind");

    device.connect(&rig.at()).await.unwrap();
    device.renew(&rig.at()).await.unwrap();
    assert!(rig.api.authority().await.unwrap().behind.is_empty());
    let state = rig.api.roll_over(&step(RollOver::Retire)).await.unwrap();
    assert_eq!(roles(&state), ["issuing"]);
    device.connect(&rig.at()).await.unwrap();
    let acts = rig.api.audit(10).await.unwrap();
    assert!(
        acts.iter().any(|act| act.action == "authority.retire"),
        "{acts:?}"
    );
}

fn roles(state: &wire::api::AuthorityState) -> Vec<&str> {
    state
        .authorities
        .iter()
        .map(|authority| authority.role.as_str())
        .collect()
}
