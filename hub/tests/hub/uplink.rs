//! An agent's sender and its spool against a real hub: order, budgets, lost replies, the proof.

use super::rig::{Device, Link, Rig, event, json, name, until, within};
use agent::uplink::{Budget, Now, Policy, Sender, Usage};
use kit::{Clock as _, SystemClock};
use spool::{Class, Durability, Options, Spool, Stream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::client::{HubAddress, Meter, Session};

struct Agent {
    _dir: tempfile::TempDir,
    spool: Spool,
    events: Stream,
    logs: Stream,
}

impl Agent {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(&dir.path().join("spool"), Options::default()).unwrap();
        let events = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
        let logs = spool.stream("logs", Durability::Sampled, Class::Bulk).unwrap();
        for stream in [&events, &logs] {
            stream.attach("hub").unwrap();
        }
        Self {
            _dir: dir,
            spool,
            events,
            logs,
        }
    }

    fn happened(&self, count: u64) {
        let pending: Vec<_> = (0..count)
            .map(|n| self.events.append(&json(&event(n)), None).unwrap())
            .collect();
        for one in pending {
            one.wait().unwrap();
        }
    }

    fn logged(&self, count: u64, bytes: usize) {
        for _ in 0..count {
            self.logs
                .append(&vec![b'x'; bytes], None)
                .unwrap()
                .wait()
                .unwrap();
        }
    }

    fn waits(&self) -> u64 {
        self.events.waiting("hub").0 + self.logs.waiting("hub").0
    }

    /// One session, until nothing waits or the session ends.
    async fn session(&self, device: &mut Device, hub: &HubAddress, policy: Policy, until_done: bool) {
        let meter = Meter::default();
        let tls = device.keys.session_tls().unwrap();
        let (session, _orders) = Session::connect_metered(hub, tls, device.hello(), &meter)
            .await
            .unwrap();
        let clock = SystemClock;
        let now = Now {
            since_boot: clock.since_boot(),
            wall: clock.now(),
        };
        let budget = Arc::new(Mutex::new(Budget::new(policy, Usage::default(), now)));
        let streams = [self.events.clone(), self.logs.clone()];
        let sender = Sender::new(&session, meter, &streams, self.spool.epoch(), Arc::new(clock));
        let done = async {
            until("delivery", async || (self.waits() == 0).then_some(())).await;
        };
        tokio::select! {
            () = sender.run(budget) => {}
            _ = session.ended() => {}
            () = done, if until_done => {}
        }
    }
}

async fn held(rig: &Rig, stream: &str) -> Option<hub::store::Cursor> {
    let cursors = rig.running.hub.store().cursors(&name("a")).await.unwrap();
    cursors.into_iter().find(|cursor| cursor.stream == stream)
}

#[tokio::test]
async fn what_is_new_overtakes_a_long_backlog_and_all_arrives_once() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let agent = Agent::new();
    agent.logged(60, 8_000);
    agent.happened(5);
    // Half a MiB at 160 KB/s: the backlog takes seconds.
    let slow = Policy {
        rate: Some(160_000),
        burst: Some(16_000),
        ..Policy::default()
    };
    let at = rig.at();
    let delivering = agent.session(&mut device, &at, slow, true);
    let overtaking = async {
        until("the first of the backlog", async || held(&rig, "logs").await).await;
        agent.logged(1, 100);
        until("the newest record, before the backlog's end", async || {
            let cursor = held(&rig, "logs").await?;
            assert!(
                cursor.upto < 60 || cursor.held.contains(61),
                "the backlog came first"
            );
            (cursor.held.contains(61) && cursor.upto < 60).then_some(())
        })
        .await;
    };
    tokio::join!(delivering, overtaking);
    for (stream, count) in [("logs", 61), ("events", 5)] {
        let cursor = held(&rig, stream).await.unwrap();
        assert_eq!((cursor.upto, cursor.held.count()), (count, count), "{stream}");
        assert_eq!((cursor.lost.count(), cursor.duplicates), (0, 0), "{stream}");
    }
    assert_eq!(agent.logs.account("hub").acked, 61);
}

#[tokio::test]
async fn a_budget_of_nothing_holds_records_back_and_not_the_session() {
    let rig = Rig::with(|config| config.heartbeat = Duration::from_millis(100)).await;
    let mut device = rig.device("a").await;
    let agent = Agent::new();
    agent.happened(3);
    let nothing = Policy {
        rate: Some(0),
        ..Policy::default()
    };
    let at = rig.at();
    {
        let session = agent.session(&mut device, &at, nothing, false);
        tokio::pin!(session);
        // Five silences' worth of pings are answered.
        let pings = tokio::time::sleep(Duration::from_millis(1500));
        tokio::select! {
            () = &mut session => panic!("the session ended"),
            () = pings => {}
        }
        assert_eq!(
            (held(&rig, "events").await, agent.events.waiting("hub").0),
            (None, 3)
        );
    }
    let little = Policy {
        rate: Some(8_000),
        ..Policy::default()
    };
    within(
        "delivery at 64 kbit/s",
        agent.session(&mut device, &at, little, true),
    )
    .await;
    assert_eq!(held(&rig, "events").await.unwrap().upto, 3);
}

#[tokio::test]
async fn replies_lost_after_the_commit_cost_a_resend_and_nothing_else() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let agent = Agent::new();
    let link = Link::to(rig.running.address).await;
    for round in 1..=4_u64 {
        agent.happened(10);
        link.allowance.send_replace(u64::MAX);
        let address = link.address.clone();
        let session = agent.session(&mut device, &address, Policy::default(), false);
        let cut = async {
            until("the commit", async || {
                let cursor = held(&rig, "events").await?;
                (cursor.held.count() == 10 * round).then_some(())
            })
            .await;
            // The answer may or may not have come through.
            link.allowance.send_replace(0);
        };
        tokio::join!(session, cut);
    }
    let at = rig.at();
    agent.session(&mut device, &at, Policy::default(), true).await;
    let cursor = held(&rig, "events").await.unwrap();
    assert_eq!(
        (cursor.upto, cursor.held.count(), cursor.lost.count()),
        (40, 40, 0)
    );
    let stored = rig
        .running
        .hub
        .store()
        .events(&name("a"), None, 100)
        .await
        .unwrap();
    assert_eq!(stored.len(), 40);
    assert_eq!(agent.events.account("hub").acked, 40);
}

#[tokio::test]
async fn a_device_accounts_and_the_hub_says_what_it_lacks() {
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let agent = Agent::new();
    agent.happened(10);
    let at = rig.at();
    let proof = {
        let session = agent.session(&mut device, &at, Policy::default(), false);
        tokio::pin!(session);
        let told = until("the account", async || {
            rig.api.device(&name("a")).await.unwrap().summary.proof
        });
        tokio::select! {
            () = &mut session => panic!("the session ended"),
            proof = told => proof,
        }
    };
    let row = proof.streams.iter().find(|row| row.stream == "events").unwrap();
    assert_eq!((proof.missing, row.missing, row.balanced), (0, 0, true));
    assert_eq!(row.appended, 10);

    // A hub that was put back to an older state has forgotten records that the device has let go.
    agent.session(&mut device, &at, Policy::default(), true).await;
    let accounts = wire::frame::Accounts {
        epoch: agent.spool.epoch(),
        streams: vec![wire::frame::StreamAccount {
            stream: "events".into(),
            upto: 12,
            acked: 12,
            appended: 12,
            ..Default::default()
        }],
        ..Default::default()
    };
    rig.running
        .hub
        .store()
        .take_accounts(&name("a"), accounts)
        .await
        .unwrap();
    let proof = rig.api.device(&name("a")).await.unwrap().summary.proof.unwrap();
    assert_eq!((proof.missing, proof.streams[0].held), (2, 10));
}
