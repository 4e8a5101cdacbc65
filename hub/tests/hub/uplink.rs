//! An agent's sender and its spool against a real hub: order, budgets, lost replies, the proof.

use super::rig::{Device, Link, Rig, event, json, name, until, within};
use agent::uplink::{Budget, Now, Policy, Sender, Usage};
use kit::{Clock, FakeClock, SystemClock};
use spool::{Class, Durability, Options, Spool, Stream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::client::{HubAddress, Meter, Session};

struct Agent {
    dir: tempfile::TempDir,
    spool: Spool,
    events: Stream,
    logs: Stream,
}

impl Agent {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), Arc::new(SystemClock))
    }

    fn open(dir: tempfile::TempDir, clock: Arc<dyn Clock>) -> Self {
        let options = Options {
            clock,
            ..Options::default()
        };
        let (spool, _) = Spool::open(&dir.path().join("spool"), options).unwrap();
        let events = spool.stream("events", Durability::Strict, Class::Normal).unwrap();
        let logs = spool.stream("logs", Durability::Sampled, Class::Bulk).unwrap();
        for stream in [&events, &logs] {
            stream.attach("hub").unwrap();
        }
        Self {
            dir,
            spool,
            events,
            logs,
        }
    }

    /// A restart, as after a reboot in order.
    fn restarted(self, clock: Arc<dyn Clock>) -> Self {
        let Self { dir, spool, .. } = self;
        drop(spool);
        Self::open(dir, clock)
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
    let (state, backup) = (rig.dir.path().join("hub"), rig.dir.path().join("backup"));
    let rig = rig.restart_after(|| copy(&state, &backup)).await;
    agent.happened(7);
    agent.session(&mut device, &at, Policy::default(), true).await;
    assert_eq!(held(&rig, "events").await.unwrap().held.count(), 17);
    let put_back = || {
        std::fs::remove_dir_all(&state).unwrap();
        copy(&backup, &state);
    };
    let rig = rig.restart_after(put_back).await;
    agent.happened(3);
    let proof = {
        let session = agent.session(&mut device, &at, Policy::default(), false);
        tokio::pin!(session);
        let told = until("the account", async || {
            let proof = rig.api.device(&name("a")).await.unwrap().summary.proof?;
            (proof.missing > 0).then_some(proof)
        });
        tokio::select! {
            () = &mut session => panic!("the session ended"),
            proof = told => proof,
        }
    };
    assert_eq!(proof.missing, 7, "{proof:?}");
    // What came after is taken as ever.
    agent.session(&mut device, &at, Policy::default(), true).await;
    let cursor = held(&rig, "events").await.unwrap();
    assert_eq!(
        (cursor.upto, cursor.held.count(), cursor.lost.count()),
        (20, 13, 7)
    );
}

#[tokio::test]
async fn days_offline_arrive_whole_and_new_records_before_them() {
    let days: u64 = std::env::var("SPOOL_DAYS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let rig = Rig::new().await;
    let mut device = rig.device("a").await;
    let clock = FakeClock::at(kit::Clock::now(&rig.clock));
    let at_device: Arc<dyn Clock> = Arc::new(clock.clone());
    let mut agent = Agent::open(tempfile::tempdir().unwrap(), Arc::clone(&at_device));
    let hours = days * 24;
    for hour in 1..=hours {
        clock.advance(Duration::from_secs(3600));
        agent.happened(3);
        agent.logged(12, 2_000);
        if hour % 7 == 0 {
            agent = agent.restarted(Arc::clone(&at_device));
        }
    }
    let oldest = agent.spool.snapshot().streams[0].sinks["hub"]
        .oldest_seconds
        .unwrap();
    let away = (hours - 1) as f64 * 3600.0;
    assert!((oldest - away).abs() < 3600.0, "{oldest}");
    let at = rig.at();
    let backlog = agent.logs.last();
    let slow = Policy {
        rate: Some(400_000),
        burst: Some(16_000),
        ..Policy::default()
    };
    let delivering = agent.session(&mut device, &at, slow, true);
    let overtaking = async {
        until("the first of the backlog", async || held(&rig, "logs").await).await;
        agent.logged(1, 100);
        until("the newest record", async || {
            let cursor = held(&rig, "logs").await?;
            cursor.held.contains(agent.logs.last()).then_some(())
        })
        .await;
        assert!(
            held(&rig, "logs").await.unwrap().upto < backlog,
            "the backlog came first"
        );
    };
    tokio::join!(delivering, overtaking);
    let (events, logs) = (
        held(&rig, "events").await.unwrap(),
        held(&rig, "logs").await.unwrap(),
    );
    assert_eq!(
        (events.held.count(), logs.held.count()),
        (3 * hours, 12 * hours + 1)
    );
    assert_eq!((events.lost.count() + logs.lost.count(), logs.duplicates), (0, 0));
    assert!(events.missing.is_empty() && logs.missing.is_empty());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
