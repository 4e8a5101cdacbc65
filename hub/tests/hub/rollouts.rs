//! Staged roll-outs over real sessions: signed admissions, stage after stage, and who is away.

use crate::people::reason;
use crate::rig::{Device, EPOCH, Rig, name, status, until, within};
use jiff::Timestamp;
use model::{Admission, IntentKind, MemberState, Phase, Revision, Rollout, RolloutPolicy, RolloutState};
use std::time::Duration;
use wire::api::{NewRollout, RolloutAct};
use wire::client::{Order, Orders, Session};

fn revision(digit: char, second: i64) -> Revision {
    Revision {
        reference: "main".into(),
        commit: digit.to_string().repeat(40),
        summary: "a change".into(),
        author: "A <a@example.com>".into(),
        committed_at: Timestamp::from_second(second).unwrap(),
    }
}

fn policy(stages: &[&str]) -> RolloutPolicy {
    serde_json::from_value(serde_json::json!({
        "stages": stages, "healthyForSeconds": 30, "deadlineSeconds": 600,
    }))
    .unwrap()
}

fn only(revision: &Revision) -> Admission {
    Admission::Only {
        revision: Some(revision.commit.clone()),
    }
}

/// Time that passes makes nobody silent.
async fn patient_rig() -> Rig {
    Rig::with(|config| config.heartbeat = Duration::from_secs(3600)).await
}

/// More than what the policy asks devices to be healthy for, by everybody's clock.
fn pass(rig: &Rig, members: [&Member; 3]) {
    let time = Duration::from_secs(31);
    rig.clock.advance(time);
    for member in members {
        member.device.clock.advance(time);
    }
}

/// A device that says what it sees and runs, and keeps what it was admitted to.
struct Member {
    device: Device,
    session: Option<(Session, Orders)>,
    admission: Admission,
    sequence: u64,
}

impl Member {
    async fn new(rig: &Rig, name: &str) -> Self {
        let mut member = Self {
            device: rig.device(name).await,
            session: None,
            admission: Admission::Any,
            sequence: 1,
        };
        member.connect(rig).await;
        member
    }

    async fn connect(&mut self, rig: &Rig) {
        self.session = Some(self.device.connect(&rig.at()).await.unwrap());
    }

    /// Sends a status: what it runs, and what its source names.
    async fn says(&mut self, runs: &Revision, sees: &Revision, phase: Phase) {
        let mut told = status(&self.device.name, &runs.commit[..6]);
        told.phase = phase;
        told.generation.revision = Some(runs.clone());
        told.source.revision = Some(sees.clone());
        told.source.waits = !self.admission.admits(&sees.commit);
        if told.phase == Phase::RolledBack {
            told.generation.failed = Some(("bad".into(), "never ready".into()));
            told.generation.failed_commit = Some(sees.commit.clone());
        }
        let json = serde_json::to_vec(&told).unwrap().into();
        let batch = wire::frame::Records::new("status", EPOCH, self.sequence, vec![json]);
        let (session, _) = self.session.as_ref().unwrap();
        session.sender().records(batch).await.unwrap();
        let cursor = wire::frame::Cursor {
            epoch: EPOCH,
            upto: self.sequence,
        };
        within("the acknowledgement", session.acked("status", cursor))
            .await
            .unwrap();
        self.sequence += 1;
    }

    /// Takes orders until it is admitted to this.
    async fn admitted_to(&mut self, admission: &Admission) {
        let (session, orders) = self.session.as_mut().unwrap();
        while self.admission != *admission {
            match within("an admission", orders.recv()).await {
                Some(Order::Intent(signed)) => {
                    let intent = self.device.keys.accept_intent(&signed).unwrap();
                    let IntentKind::Admit(told) = intent.kind else {
                        panic!("{intent:?}")
                    };
                    session.sender().accepted(intent.id).await.unwrap();
                    self.admission = told;
                }
                Some(_) => {}
                None => panic!("the session ended"),
            }
        }
    }
}

async fn rollout_is(rig: &Rig, what: &str, met: impl Fn(&Rollout) -> bool) -> Rollout {
    until(what, async || {
        rig.api
            .rollouts(1)
            .await
            .unwrap()
            .pop()
            .filter(|rollout| met(rollout))
    })
    .await
}

/// F18: the canary is proven first, who cannot be reached is shown as unknown and waited for by nobody, and follows when
/// it is back.
#[tokio::test]
async fn f18_a_revision_goes_stage_by_stage_and_leaves_nobody_behind() {
    let rig = patient_rig().await;
    let (old, new) = (revision('a', 100), revision('b', 200));
    let mut a = Member::new(&rig, "a").await;
    let mut b = Member::new(&rig, "b").await;
    let mut c = Member::new(&rig, "c").await;
    let state = rig
        .api
        .set_rollout_policy(Some(&policy(&["1", "50%"])))
        .await
        .unwrap();
    assert_eq!(state.set_by.as_deref(), Some("admin"));
    let hold = Admission::Only { revision: None };
    for member in [&mut a, &mut b, &mut c] {
        member.admitted_to(&hold).await;
        member.says(&old, &old, Phase::Ready).await;
    }
    // The canary would be a; but it is away.
    a.session = None;
    until("the loss of a", async || {
        let device = rig.api.device(&name("a")).await.unwrap();
        (device.summary.link != wire::api::Link::Connected).then_some(())
    })
    .await;
    b.says(&old, &new, Phase::Ready).await;
    c.says(&old, &new, Phase::Ready).await;
    b.admitted_to(&only(&new)).await;
    let running = rollout_is(&rig, "the new one", |rollout| rollout.revision == new).await;
    assert_eq!(
        running.members.keys().map(|d| d.as_str()).collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(c.admission, hold);
    // Two of three are half, rounded up; and then everybody.
    b.says(&new, &new, Phase::Ready).await;
    rollout_is(&rig, "b healthy", |rollout| {
        rollout.members[&name("b")].state == MemberState::Healthy
    })
    .await;
    pass(&rig, [&a, &b, &c]);
    b.says(&new, &new, Phase::Ready).await;
    c.says(&old, &new, Phase::Ready).await;
    c.admitted_to(&only(&new)).await;
    c.says(&new, &new, Phase::Ready).await;
    rollout_is(&rig, "c healthy", |rollout| {
        rollout.members[&name("c")].state == MemberState::Healthy
    })
    .await;
    pass(&rig, [&a, &b, &c]);
    b.says(&new, &new, Phase::Ready).await;
    c.says(&new, &new, Phase::Ready).await;
    let done = rollout_is(&rig, "the end", |rollout| rollout.state == RolloutState::Done).await;
    let away = &done.members[&name("a")];
    assert_eq!(
        (away.state, away.why.as_str()),
        (MemberState::Unknown, "cannot be reached")
    );
    // The hub forgets nothing over a restart, and a follows when it is back.
    drop((b, c));
    let rig = rig.restart().await;
    a.connect(&rig).await;
    a.admitted_to(&only(&new)).await;
    let acts = rig.api.audit(100).await.unwrap();
    for action in ["rollout.policy", "rollout.begin", "rollout.done", "intent.admit"] {
        assert!(acts.iter().any(|act| act.action == action), "{action}: {acts:#?}");
    }
    // Without a policy everybody follows the source again.
    rig.api.set_rollout_policy(None).await.unwrap();
    a.admitted_to(&Admission::Any).await;
}

/// A canary that goes back halts the roll-out; nobody else is admitted until a person has seen it.
#[tokio::test]
async fn f18_a_canary_that_fails_halts_the_roll_out() {
    let rig = patient_rig().await;
    let (old, new, mended) = (revision('a', 100), revision('b', 200), revision('c', 300));
    let mut a = Member::new(&rig, "a").await;
    let mut b = Member::new(&rig, "b").await;
    rig.api.set_rollout_policy(Some(&policy(&["1"]))).await.unwrap();
    let hold = Admission::Only { revision: None };
    for member in [&mut a, &mut b] {
        member.admitted_to(&hold).await;
        member.says(&old, &new, Phase::Ready).await;
    }
    a.admitted_to(&only(&new)).await;
    a.says(&old, &new, Phase::RolledBack).await;
    let halted = rollout_is(&rig, "the halt", |rollout| {
        matches!(rollout.state, RolloutState::Halted { .. })
    })
    .await;
    assert!(
        matches!(&halted.state, RolloutState::Halted { why } if why.contains("a: never ready")),
        "{halted:?}"
    );
    assert_eq!(b.admission, hold);
    let act = |act| rig.api.act_on_rollout(halted.id, act);
    assert_eq!(act(RolloutAct::Abort).await.unwrap().state, RolloutState::Aborted);
    assert_eq!(reason(act(RolloutAct::Resume).await), "Ended");
    // What mends it takes its way from the beginning.
    b.says(&old, &mended, Phase::Ready).await;
    a.says(&old, &mended, Phase::Ready).await;
    a.admitted_to(&only(&mended)).await;
    let next = rollout_is(&rig, "the mended one", |rollout| rollout.revision == mended).await;
    assert_eq!((next.stage, next.id), (0, halted.id + 1));
}

#[tokio::test]
async fn what_is_wrong_with_a_roll_out_is_told() {
    let rig = Rig::new().await;
    let begin = |text: &str| {
        let new = NewRollout {
            revision: text.to_owned(),
        };
        let api = rig.api.clone();
        async move { api.begin_rollout(&new).await }
    };
    assert_eq!(reason(begin("aaaaaaa").await), "NoPolicy");
    rig.api.set_rollout_policy(Some(&policy(&["1"]))).await.unwrap();
    assert_eq!(reason(begin("main").await), "BadRequest");
    assert_eq!(reason(begin("aaaaaaa").await), "NotFound");
    assert_eq!(reason(rig.api.rollout(7).await), "NotFound");
    let mut a = Member::new(&rig, "a").await;
    a.admitted_to(&Admission::Only { revision: None }).await;
    let (newer, older) = (revision('b', 200), revision('a', 100));
    // What runs already waits for nobody.
    a.says(&older, &older, Phase::Ready).await;
    a.says(&older, &newer, Phase::Ready).await;
    rollout_is(&rig, "the first", |rollout| rollout.revision == newer).await;
    // History moved back begins nothing by itself; a person may.
    a.says(&newer, &older, Phase::Ready).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let past = rig.api.rollouts(10).await.unwrap();
    assert_eq!(
        past.iter().map(|rollout| &rollout.revision).collect::<Vec<_>>(),
        [&newer]
    );
    let begun = begin("aaaaaaaa").await.unwrap();
    assert_eq!((begun.revision, begun.by.as_str()), (older, "admin"));
    let past = rig.api.rollouts(10).await.unwrap();
    assert_eq!(past[1].state, RolloutState::Superseded);
}

/// A step that was made of what a person has changed since is not kept over it.
#[tokio::test]
async fn who_was_quicker_is_not_overwritten() {
    let rig = Rig::new().await;
    let store = rig.running.hub.store();
    let id = store
        .begin_rollout(revision('a', 100), policy(&["1"]), "admin")
        .await
        .unwrap();
    let before = store.rollout(id).await.unwrap().unwrap();
    let with = |state| Rollout {
        state,
        ..before.clone()
    };
    let keep = |after| store.save_rollout(before.clone(), after, "admin");
    assert!(keep(with(RolloutState::Aborted)).await.unwrap());
    assert!(!keep(with(RolloutState::Running)).await.unwrap());
    let held = store.rollout(id).await.unwrap().unwrap();
    assert_eq!(held.state, RolloutState::Aborted);
}
