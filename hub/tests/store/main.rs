//! The store keeps what it acknowledges: once, in order, with proof, and with a trail that shows tampering.

mod full_disk;
mod setup;

use bytes::Bytes;
use hub::store::{
    Act, AuditCheck, Batch, Change, DeviceFilter, EVENTS_STREAM, Health, Link, NewSession, NewToken, Options,
    PassKind, Role, STATUS_STREAM, Store, StoreError, TokenRefusal,
};
use jiff::SignedDuration;
use kit::FakeClock;
use model::{DeviceName, Phase};
use proptest::prelude::*;
use setup::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn numbered(range: impl IntoIterator<Item = u64>) -> Vec<(u64, Bytes)> {
    range
        .into_iter()
        .map(|n| (n, json(&event(&format!("event {n}")))))
        .collect()
}

#[tokio::test]
async fn a_batch_sent_twice_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    let first = store
        .append_records(&device, batch(EVENTS_STREAM, 7, numbered(1..=10)))
        .await
        .unwrap();
    assert_eq!((first.upto, first.stored, first.duplicates), (10, 10, 0));
    let again = store
        .append_records(&device, batch(EVENTS_STREAM, 7, numbered(6..=12)))
        .await
        .unwrap();
    assert_eq!((again.upto, again.stored, again.duplicates), (12, 2, 5));
    let events = store.events(&device, None, 100).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=12).rev().collect::<Vec<_>>());
    let page = store.events(&device, Some((1, 5)), 2).await.unwrap();
    assert_eq!(page.iter().map(|e| e.sequence).collect::<Vec<_>>(), [4, 3]);
}

#[tokio::test]
async fn a_hole_holds_the_cursor_back_until_it_is_filled_or_stated_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    let told = store
        .append_records(&device, batch(EVENTS_STREAM, 1, numbered([1, 2, 5, 9])))
        .await
        .unwrap();
    assert_eq!((told.upto, told.missing), (2, vec![(3, 4), (6, 8)]));
    let told = store
        .append_records(&device, batch(EVENTS_STREAM, 1, numbered([3, 4])))
        .await
        .unwrap();
    assert_eq!((told.upto, told.missing), (5, vec![(6, 8)]));
    let stated = Batch {
        lost: vec![(6, 8)],
        ..batch(EVENTS_STREAM, 1, [])
    };
    let told = store.append_records(&device, stated).await.unwrap();
    assert_eq!((told.upto, told.missing), (9, vec![]));
    // One of them comes after all: it is stored, and no longer counts as lost.
    store
        .append_records(&device, batch(EVENTS_STREAM, 1, numbered([7])))
        .await
        .unwrap();
    let cursor = store.cursors(&device).await.unwrap().remove(0);
    assert_eq!(cursor.lost.iter().collect::<Vec<_>>(), [(6, 6), (8, 8)]);
    assert_eq!((cursor.upto, cursor.held.count()), (9, 7));
}

#[tokio::test]
async fn numbers_that_never_were_records_are_neither_lost_nor_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    store
        .append_records(&device, batch(EVENTS_STREAM, 1, numbered([1, 2])))
        .await
        .unwrap();
    // The device's agent was killed: numbers are left out, and one record is really gone.
    let after = Batch {
        lost: vec![(3, 9)],
        unused: vec![(4, 9)],
        ..batch(EVENTS_STREAM, 1, numbered([10]))
    };
    let told = store.append_records(&device, after).await.unwrap();
    assert_eq!((told.upto, told.missing), (10, vec![]));
    let cursor = store.cursors(&device).await.unwrap().remove(0);
    assert_eq!(
        (cursor.held.count(), cursor.lost.count(), cursor.unused.count()),
        (3, 1, 6)
    );
}

#[tokio::test]
async fn a_heartbeat_refreshes_readings_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let device = enrol(&store, "pi").await;
    let mut told = status("pi", Phase::Degraded, "one");
    let workload = |name: &str, reason: Option<&str>| model::WorkloadStatus {
        key: format!("Deployment.apps/edge/{name}").parse().unwrap(),
        state: model::WorkloadState::InProgress,
        desired: 1,
        ready: 0,
        reason: reason.map(str::to_owned),
        message: "0 of 40 MiB".into(),
        images: Vec::new(),
        pods: Vec::new(),
    };
    told.workloads = vec![workload("pulled", Some("Pulling")), workload("other", None)];
    store
        .append_records(&device, batch(STATUS_STREAM, 7, [(1, json(&told))]))
        .await
        .unwrap();
    let beat = |seconds: i64, used| {
        let facts = model::Facts {
            memory_used: used,
            ..told.facts.clone()
        };
        let time = told.time + jiff::SignedDuration::from_secs(seconds);
        json(&model::Heartbeat {
            time,
            fetched_at: None,
            facts,
            progress: told
                .workloads
                .iter()
                .map(|workload| model::WorkloadProgress {
                    key: workload.key.clone(),
                    reason: "Pulling".into(),
                    message: "20 of 40 MiB".into(),
                })
                .collect(),
        })
    };
    store
        .append_records(&device, batch("heartbeat", 7, [(1, beat(60, 1234))]))
        .await
        .unwrap();
    // One that was on its way for longer does not bring old readings back.
    store
        .append_records(&device, batch("heartbeat", 7, [(2, beat(30, 99))]))
        .await
        .unwrap();
    let held = store.device(&device).await.unwrap().unwrap().status.unwrap();
    assert_eq!(held.status.facts.memory_used, 1234);
    assert_eq!((held.sequence, held.status.phase), (1, Phase::Degraded));
    assert_eq!(held.status.generation, told.generation);
    // How far a pull is, is news only for what a status has said to be pulling.
    let messages: Vec<&str> = held.status.workloads.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(messages, ["20 of 40 MiB", "0 of 40 MiB"]);
}

#[tokio::test]
async fn an_older_status_never_replaces_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let device = enrol(&store, "pi").await;
    let say = |epoch, sequence, phase, current| {
        let told = json(&status("pi", phase, current));
        store.append_records(&device, batch(STATUS_STREAM, epoch, [(sequence, told)]))
    };
    let held = async || {
        let held = store.device(&device).await.unwrap().unwrap().status.unwrap();
        (held.epoch, held.sequence, held.status.generation.current.unwrap())
    };
    say(900, 3, Phase::Ready, "three").await.unwrap();
    say(900, 2, Phase::Degraded, "two").await.unwrap();
    assert_eq!(held().await, (900, 3, "three".into()));
    // A spool that was lost starts at 1 again under another, here a lower, epoch: what comes from it is newer.
    say(5, 1, Phase::Progressing, "four").await.unwrap();
    assert_eq!(held().await, (5, 1, "four".into()));
    say(900, 4, Phase::Ready, "late").await.unwrap();
    assert_eq!(held().await, (5, 1, "four".into()));

    let outcomes: BTreeSet<(String, String)> = store
        .generations(&device)
        .await
        .unwrap()
        .into_iter()
        .map(|g| (g.id, g.outcome))
        .collect();
    let expected = [
        ("four", "current"),
        ("late", "superseded"),
        ("three", "superseded"),
        ("two", "superseded"),
    ];
    assert_eq!(outcomes, expected.map(|(a, b)| (a.into(), b.into())).into());
}

#[tokio::test]
async fn a_status_shown_ahead_of_its_record_is_believed_and_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    let newest = status("pi", Phase::Ready, "newest");
    store.show_status(&device, 7, 3, newest.clone()).await.unwrap();
    assert_eq!(store.cursors(&device).await.unwrap()[0].upto, 0);
    let old = (1..=2).map(|n| (n, json(&status("pi", Phase::Degraded, "old"))));
    store
        .append_records(&device, batch(STATUS_STREAM, 7, old))
        .await
        .unwrap();
    let held = async || store.device(&device).await.unwrap().unwrap().status.unwrap();
    assert_eq!(held().await.status, newest);
    let told = store
        .append_records(&device, batch(STATUS_STREAM, 7, [(3, json(&newest))]))
        .await
        .unwrap();
    assert_eq!((told.upto, told.stored), (3, 1));
    assert_eq!(held().await.sequence, 3);
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    let records = [
        (1, Bytes::from_static(b"{ not json")),
        (2, json(&status("another", Phase::Ready, "x"))),
        (3, json(&status("pi", Phase::Ready, "good"))),
    ];
    let told = store
        .append_records(&device, batch(STATUS_STREAM, 1, records))
        .await
        .unwrap();
    assert_eq!((told.upto, told.stored, told.set_aside), (3, 3, 2));
    let why: Vec<String> = store
        .set_aside(&device, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|a| a.why)
        .collect();
    assert_eq!(why[0], "it speaks for device another, which is not its sender");
    assert!(why[1].starts_with("it is no status: "), "{why:?}");
    assert!(store.device(&device).await.unwrap().unwrap().status.is_some());
}

#[tokio::test]
async fn impossible_batches_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    let refused = async |batch: Batch| {
        store
            .append_records(&device, batch)
            .await
            .unwrap_err()
            .to_string()
    };
    let zero = refused(batch(EVENTS_STREAM, 1, numbered([1, 0]))).await;
    assert!(zero.contains("sequence 0 is not valid"), "{zero}");
    let path = refused(batch("../etc", 1, numbered([1]))).await;
    assert!(path.contains("is no stream name"), "{path}");
    let sparse = refused(batch("readings", 1, numbered((0..5000).map(|n| 2 * n + 1)))).await;
    assert!(sparse.contains("more than 4096 gaps"), "{sparse}");
    assert_eq!(store.cursors(&device).await.unwrap(), []);
    let stranger = store
        .append_records(&name("stranger"), batch(EVENTS_STREAM, 1, numbered([1])))
        .await;
    assert!(
        matches!(stranger, Err(StoreError::NoSuchDevice(_))),
        "{stranger:?}"
    );
}

#[tokio::test]
async fn payloads_are_bounded_and_still_never_let_in_twice() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        clock: Arc::new(FakeClock::at(start())),
        events_per_device: 40,
        records_per_stream: 40,
        ..Options::default()
    };
    let store = Store::open_with(dir.path(), options).unwrap();
    let device = enrol(&store, "pi").await;
    for n in 0..30 {
        let range = n * 10 + 1..=n * 10 + 10;
        for stream in [EVENTS_STREAM, "readings"] {
            store
                .append_records(&device, batch(stream, 1, numbered(range.clone())))
                .await
                .unwrap();
        }
    }
    let events = store.events(&device, None, 1000).await.unwrap();
    assert!((40..=50).contains(&events.len()), "{}", events.len());
    assert_eq!(events[0].sequence, 300);
    let records = store.records(&device, "readings", (0, 0), 1000).await.unwrap();
    assert!((40..=50).contains(&records.len()), "{}", records.len());
    assert_eq!(records.last().unwrap().sequence, 300);
    let again = store
        .append_records(&device, batch(EVENTS_STREAM, 1, numbered(1..=10)))
        .await
        .unwrap();
    assert_eq!((again.stored, again.duplicates, again.upto), (0, 10, 300));
}

#[tokio::test]
async fn epochs_and_generations_without_end_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    for n in 1..=300_u64 {
        let mut told = status("pi", Phase::Ready, &format!("generation-{n}"));
        told.time += SignedDuration::from_secs(i64::try_from(n).unwrap());
        store
            .append_records(&device, batch(STATUS_STREAM, n * 7919 % 1009, [(1, json(&told))]))
            .await
            .unwrap();
    }
    let cursors = store.cursors(&device).await.unwrap();
    let ordinals: Vec<u64> = cursors.iter().map(|c| c.ordinal).collect();
    assert_eq!(ordinals, (300 - 63..=300).collect::<Vec<_>>());
    let generations = store.generations(&device).await.unwrap();
    assert_eq!(generations.len(), 256);
    assert_eq!(generations[0].id, "generation-300");
    let held = store.device(&device).await.unwrap().unwrap().status.unwrap();
    assert_eq!(held.status.generation.current.unwrap(), "generation-300");
}

#[tokio::test]
async fn silence_makes_health_unknown_and_a_word_makes_it_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let device = enrol(&store, "pi").await;
    let look = async || store.device(&device).await.unwrap().unwrap();
    let never = look().await;
    assert_eq!(
        (never.health, never.reason.as_str(), never.link),
        (Health::Unknown, "NeverConnected", Link::Never)
    );

    let session = NewSession {
        address: "10.0.0.7".into(),
        agent: "0.1.0".into(),
    };
    let old = store.session_opened(&device, session.clone()).await.unwrap();
    assert_eq!(look().await.reason, "NoStatus");
    store
        .append_records(
            &device,
            batch(
                STATUS_STREAM,
                1,
                [(1, json(&status("pi", Phase::RolledBack, "a")))],
            ),
        )
        .await
        .unwrap();
    assert_eq!(look().await.health, Health::RolledBack);

    clock.advance(Duration::from_secs(46));
    let silent = look().await;
    assert_eq!(
        (silent.health, silent.reason.as_str(), silent.link),
        (Health::Unknown, "Silent", Link::Silent)
    );
    assert!(silent.status.is_some(), "what it said last stays visible");
    let mut changes = store.changes();
    store.seen(&device, Some(12));
    assert_eq!(changes.recv().await.unwrap(), Change::Device(device.clone()));
    let back = look().await;
    assert_eq!((back.health, back.backlog), (Health::RolledBack, Some(12)));

    // The end of the old session says nothing about the new one.
    let new = store.session_opened(&device, session).await.unwrap();
    store.session_closed(&device, old).await.unwrap();
    assert!(matches!(look().await.link, Link::Up { .. }));
    store.session_closed(&device, new).await.unwrap();
    assert_eq!(look().await.link, Link::Down);
    clock.advance(Duration::from_secs(46));
    assert_eq!(look().await.reason, "LinkDown");
    let fleet = store.fleet(DeviceFilter::default()).await.unwrap();
    assert_eq!((fleet.counts[&Health::Unknown], fleet.connected), (1, 0));
}

#[tokio::test]
async fn the_fleet_is_filtered_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    for device in ["cam-1", "cam-2", "cam-3", "gate"] {
        enrol(&store, device).await;
    }
    let names = async |filter| {
        let fleet = store.fleet(filter).await.unwrap();
        let names: Vec<String> = fleet.devices.iter().map(|d| d.name.to_string()).collect();
        (fleet.matched, names)
    };
    let search = DeviceFilter {
        search: " CAM".into(),
        offset: 1,
        limit: 1,
        ..DeviceFilter::default()
    };
    assert_eq!(names(search).await, (3, vec!["cam-2".into()]));
    let ready = DeviceFilter {
        health: Some(Health::Ready),
        ..DeviceFilter::default()
    };
    assert_eq!(names(ready).await, (0, vec![]));
    let by_label = DeviceFilter {
        search: "first".into(),
        ..DeviceFilter::default()
    };
    assert_eq!(names(by_label).await.0, 4);
}

#[tokio::test]
async fn a_token_lets_in_whom_it_names_as_often_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let orin = "jetson-orin-nx".parse().unwrap();
    let pi = "raspberry-pi-5".parse().unwrap();
    let only_pi = NewToken {
        class: Some("raspberry-pi-5".parse().unwrap()),
        ..token(1)
    };
    store.create_token("s1", only_pi, "ann").await.unwrap();
    let refusal = async |secret: &str, device: &str, class| match store
        .enrol(secret, &name(device), class, vec![])
        .await
    {
        Err(StoreError::Token(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal("guess", "a", &pi).await, TokenRefusal::Unknown);
    assert!(matches!(
        refusal("s1", "a", &orin).await,
        TokenRefusal::Class { .. }
    ));
    store
        .check_token("s1", &name("a"), &pi, "key-of-s")
        .await
        .unwrap();
    store
        .enrol("s1", &name("a"), &pi, vec![certificate("c1")])
        .await
        .unwrap();
    assert_eq!(refusal("s1", "b", &pi).await, TokenRefusal::Used);

    store.create_token("s2", token(5), "ann").await.unwrap();
    let taken = store.enrol("s2", &name("a"), &pi, vec![]).await;
    assert!(matches!(taken, Err(StoreError::NameTaken(_))), "{taken:?}");
    // Nothing of a refused enrolment stays: neither a use of the token nor a certificate.
    let twice = store.enrol("s2", &name("b"), &pi, vec![certificate("c1")]).await;
    assert!(matches!(twice, Err(StoreError::Sql(_))), "{twice:?}");
    assert_eq!(store.tokens().await.unwrap()[0].uses_left, 5);
    assert_eq!(store.device(&name("b")).await.unwrap(), None);

    let replaces = NewToken {
        replaces: true,
        ..token(1)
    };
    store.create_token("s3", replaces, "ann").await.unwrap();
    store
        .enrol("s3", &name("a"), &orin, vec![certificate("c2")])
        .await
        .unwrap();
    assert!(
        store
            .certificate("c1")
            .await
            .unwrap()
            .unwrap()
            .revoked_at
            .is_some()
    );
    assert!(
        store
            .certificate("c2")
            .await
            .unwrap()
            .unwrap()
            .revoked_at
            .is_none()
    );

    assert!(store.cancel_token(2, "ann").await.unwrap());
    assert_eq!(refusal("s2", "c", &pi).await, TokenRefusal::Used);
    store.create_token("s4", token(1), "ann").await.unwrap();
    clock.advance(Duration::from_secs(25 * 3600));
    assert!(matches!(refusal("s4", "c", &pi).await, TokenRefusal::Expired(_)));
    let refused = store.audit_rows(None, 100).await.unwrap();
    assert_eq!(
        refused
            .iter()
            .filter(|row| row.action == "device.enrol" && row.outcome != "ok")
            .count(),
        6
    );
}

#[tokio::test]
async fn a_single_use_token_lets_one_of_many_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    store.create_token("once", token(1), "ann").await.unwrap();
    let tries = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let class = "raspberry-pi-5".parse().unwrap();
            store
                .enrol("once", &name(&format!("d{n}")), &class, vec![])
                .await
                .is_ok()
        })
    });
    let mut let_in = 0;
    for one in tries.collect::<Vec<_>>() {
        let_in += usize::from(one.await.unwrap());
    }
    assert_eq!(let_in, 1);
}

#[tokio::test]
async fn a_revoked_device_is_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    store.revoke_device(&device, "ann", "stolen").await.unwrap();
    assert_eq!(store.revoked_serials().await.unwrap(), ["serial-pi"]);
    let view = store.device(&device).await.unwrap().unwrap();
    assert_eq!(
        (view.health, view.revoked.unwrap().1),
        (Health::Revoked, "stolen".into())
    );
    let session = NewSession {
        address: String::new(),
        agent: String::new(),
    };
    assert!(matches!(
        store.session_opened(&device, session).await,
        Err(StoreError::Revoked(_))
    ));
    let records = batch(EVENTS_STREAM, 1, numbered([1]));
    assert!(matches!(
        store.append_records(&device, records).await,
        Err(StoreError::Revoked(_))
    ));
    let renewal = store.add_certificate(&device, certificate("new")).await;
    assert!(matches!(renewal, Err(StoreError::Revoked(_))));
}

#[tokio::test]
async fn people_log_in_with_tokens_and_one_time_codes() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    store
        .set_person("ann", "secret", Role::Admin, None, "hub")
        .await
        .unwrap();
    assert_eq!(store.person("secret").await.unwrap().unwrap().role, Role::Admin);
    assert_eq!(store.person("guess").await.unwrap(), None);
    let soon = start() + SignedDuration::from_mins(5);
    store
        .give_pass("ann", PassKind::Login, "code", soon)
        .await
        .unwrap();
    assert_eq!(
        store.session_of("code").await.unwrap(),
        None,
        "a login code is no session"
    );
    assert_eq!(store.use_login("code").await.unwrap().unwrap().name, "ann");
    assert_eq!(store.use_login("code").await.unwrap(), None);
    store
        .give_pass("ann", PassKind::Session, "cookie", soon)
        .await
        .unwrap();
    assert!(store.session_of("cookie").await.unwrap().is_some());
    clock.advance(Duration::from_secs(301));
    assert_eq!(store.session_of("cookie").await.unwrap(), None);
    // A new token ends the old one.
    store
        .set_person("ann", "other", Role::Viewer, None, "hub")
        .await
        .unwrap();
    assert_eq!(store.person("secret").await.unwrap(), None);
    assert_eq!(store.person("other").await.unwrap().unwrap().role, Role::Viewer);
}

#[tokio::test]
async fn intents_are_numbered_signed_and_delivered_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let device = enrol(&store, "pi").await;
    let until = start() + SignedDuration::from_mins(10);
    let sign = |id: u64| format!("signed {id}").into_bytes();
    let first = store
        .state_intent(&device, "pause", until, "ann", sign)
        .await
        .unwrap();
    let second = store
        .state_intent(&device, "resume", until, "ann", sign)
        .await
        .unwrap();
    assert!(second > first);
    store.intent_delivered(&device, first).await.unwrap();
    let pending = store.pending_intents(&device).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].signed, sign(second));
    clock.advance(Duration::from_secs(601));
    assert_eq!(store.pending_intents(&device).await.unwrap(), []);
    assert_eq!(store.intents(&device, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_audit_trail_shows_tampering() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    for n in 0..5 {
        let act = Act {
            who: "ann".into(),
            action: "test".into(),
            target: format!("thing/{n}"),
            outcome: "ok".into(),
            detail: String::new(),
        };
        store.audit(act).await.unwrap();
    }
    let newest = store.audit_rows(None, 1).await.unwrap().remove(0);
    let whole = AuditCheck::Whole {
        rows: 5,
        head: newest.hash,
    };
    assert_eq!(store.check_audit().await.unwrap(), whole);
    let middle = store.audit_rows(Some(4), 1).await.unwrap().remove(0);
    let earlier = AuditCheck::Whole {
        rows: 3,
        head: middle.hash,
    };
    assert_eq!(store.check_audit_since(&earlier).await.unwrap(), whole);
    let forged = AuditCheck::Whole {
        rows: 3,
        head: "other".into(),
    };
    let found = store.check_audit_since(&forged).await.unwrap();
    assert!(
        matches!(found, AuditCheck::Broken { sequence: 4, .. }),
        "{found:?}"
    );

    let broken_at = async |change: &str, undo: &str| {
        let sql = rusqlite::Connection::open(dir.path().join("hub.db")).unwrap();
        sql.execute_batch(change).unwrap();
        let found = store.check_audit().await.unwrap();
        sql.execute_batch(undo).unwrap();
        match found {
            AuditCheck::Broken { sequence, .. } => sequence,
            AuditCheck::Whole { .. } => 0,
        }
    };
    let set = |target: &str| format!("UPDATE audit SET target = '{target}' WHERE sequence = 3");
    assert_eq!(broken_at(&set("thing/9"), &set("thing/2")).await, 3);
    // Moving a letter from one field to the next is no way around the hash.
    let moved = "UPDATE audit SET action = 'tes', target = 'tthing/1' WHERE sequence = 2";
    let back = "UPDATE audit SET action = 'test', target = 'thing/1' WHERE sequence = 2";
    assert_eq!(broken_at(moved, back).await, 2);
    assert_eq!(broken_at("DELETE FROM audit WHERE sequence = 1", "").await, 2);
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::at(start());
    let store = open(dir.path(), &clock);
    let device = enrol(&store, "pi").await;
    let session = NewSession {
        address: "10.0.0.7".into(),
        agent: "0.1.0".into(),
    };
    store.session_opened(&device, session).await.unwrap();
    store
        .append_records(
            &device,
            batch(STATUS_STREAM, 1, [(1, json(&status("pi", Phase::Ready, "a")))]),
        )
        .await
        .unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    let cursors = store.cursors(&device).await.unwrap();
    drop(store);
    let store = open(dir.path(), &clock);
    assert_eq!(store.cursors(&device).await.unwrap(), cursors);
    let view = store.device(&device).await.unwrap().unwrap();
    assert_eq!((view.link, view.health), (Link::Down, Health::Ready));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &FakeClock::at(start())));
    let sql = rusqlite::Connection::open(dir.path().join("hub.db")).unwrap();
    sql.pragma_update(None, "user_version", 99).unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(
        matches!(refused, StoreError::Newer { found: 99, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn many_writers_at_once_are_all_told_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    let device = enrol(&store, "pi").await;
    // Good and impossible writes share commits: one that fails takes back only itself.
    let writers = (1..=200_u64).map(|n| {
        let (store, device) = (store.clone(), device.clone());
        tokio::spawn(async move {
            let sender = if n % 3 == 0 { name("nobody") } else { device };
            let done = store
                .append_records(&sender, batch(EVENTS_STREAM, 1, numbered([n])))
                .await;
            assert_eq!(done.is_ok(), n % 3 != 0);
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let held = store.cursors(&device).await.unwrap().remove(0).held;
    let numbers: Vec<u64> = held.iter().flat_map(|(a, b)| a..=b).collect();
    assert_eq!(numbers, (1..=200).filter(|n| n % 3 != 0).collect::<Vec<_>>());
    assert_eq!(
        store.events(&device, None, 1000).await.unwrap().len(),
        numbers.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever the order, the overlap and the repetition: each record once, and the cursor at the end of the run.
    #[test]
    fn any_arrival_gives_the_same_store(
        batches in prop::collection::vec((prop::collection::vec(1_u64..40, 0..12), prop::option::of((1_u64..40, 0_u64..4))), 1..14),
        reopen_after in 0_usize..14,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = FakeClock::at(start());
            let mut store = open(dir.path(), &clock);
            let device: DeviceName = enrol(&store, "pi").await;
            let (mut held, mut lost) = (BTreeSet::new(), BTreeSet::new());
            for (n, (numbers, gone)) in batches.into_iter().enumerate() {
                let gone = gone.map(|(low, length)| (low, low + length));
                let sent = Batch { lost: gone.into_iter().collect(), ..batch(EVENTS_STREAM, 1, numbered(numbers.clone())) };
                let told = store.append_records(&device, sent).await.unwrap();
                held.extend(numbers);
                lost.extend(gone.into_iter().flat_map(|(a, b)| a..=b));
                lost.retain(|n| !held.contains(n));
                let known = |n: &u64| held.contains(n) || lost.contains(n);
                let upto = (1..).take_while(known).last().unwrap_or(0);
                assert_eq!(told.upto, upto);
                let top = held.iter().chain(&lost).max().copied().unwrap_or(0);
                let missing: Vec<u64> = told.missing.iter().flat_map(|&(a, b)| a..=b).collect();
                assert_eq!(missing, (1..=top).filter(|n| !known(n)).collect::<Vec<_>>());
                if n == reopen_after {
                    drop(store);
                    store = open(dir.path(), &clock);
                }
            }
            let events = store.events(&device, None, 1000).await.unwrap();
            let numbers: Vec<u64> = events.iter().rev().map(|e| e.sequence).collect();
            assert_eq!(numbers, held.iter().copied().collect::<Vec<_>>());
            for cursor in store.cursors(&device).await.unwrap() {
                assert_eq!(cursor.lost.count(), lost.len() as u64);
            }
        });
    }
}

#[tokio::test]
async fn a_device_whose_answer_was_lost_joins_again_with_the_same_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &FakeClock::at(start()));
    store.create_token("s", token(1), "test").await.unwrap();
    let (device, class) = (name("a"), "raspberry-pi-5".parse().unwrap());
    let issued = |serial: &str, key: &str| {
        vec![hub::store::NewCertificate {
            key: key.into(),
            ..certificate(serial)
        }]
    };
    store.enrol("s", &device, &class, issued("1", "k")).await.unwrap();
    store.enrol("s", &device, &class, issued("2", "k")).await.unwrap();
    // The first answer may have come after all: its certificate holds too.
    for serial in ["1", "2"] {
        let kept = store.certificate(serial).await.unwrap().unwrap();
        assert_eq!(kept.revoked_at, None);
    }
    let other = store.enrol("s", &device, &class, issued("3", "other")).await;
    assert!(
        matches!(other, Err(StoreError::Token(TokenRefusal::Used))),
        "{other:?}"
    );
    let elsewhere = store.enrol("s", &name("b"), &class, issued("4", "k")).await;
    assert!(
        matches!(elsewhere, Err(StoreError::Token(TokenRefusal::Used))),
        "{elsewhere:?}"
    );
    store.revoke_device(&device, "test", "stolen").await.unwrap();
    assert!(store.enrol("s", &device, &class, issued("5", "k")).await.is_err());
}
