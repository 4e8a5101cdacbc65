use super::*;
use model::Revision;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn name(number: usize) -> DeviceName {
    format!("edge-{number:02}").parse().unwrap()
}

fn revision(commit: &str, committed: i64) -> Revision {
    Revision {
        reference: "main".into(),
        commit: commit.into(),
        summary: String::new(),
        author: String::new(),
        committed_at: at(committed),
    }
}

fn rollout(stages: &[&str]) -> Rollout {
    Rollout {
        id: 1,
        revision: revision("new", 100),
        policy: RolloutPolicy {
            stages: stages.iter().map(|stage| stage.parse().unwrap()).collect(),
            healthy_for_seconds: 60,
            deadline_seconds: 900,
            max_failures: 0,
            unreachable: Unreachable::Continue,
        },
        state: RolloutState::Running,
        stage: 0,
        by: "hub".into(),
        created_at: at(0),
        changed_at: at(0),
        members: BTreeMap::new(),
    }
}

/// Devices that run `old`, healthy and reachable.
fn fleet(count: usize) -> Fleet {
    let seen = Seen {
        runs: Some("old".into()),
        healthy: true,
        ..Seen::default()
    };
    (1..=count).map(|number| (name(number), seen.clone())).collect()
}

/// Those that are admitted move, as devices do that are there.
fn obey(rollout: &Rollout, fleet: &mut Fleet) {
    for (device, seen) in fleet.iter_mut().filter(|(_, seen)| seen.away.is_none()) {
        if rollout.members.contains_key(device) {
            (seen.runs, seen.healthy) = (Some(rollout.revision.commit.clone()), true);
        }
    }
}

fn admitted(rollout: &Rollout) -> Vec<String> {
    rollout.members.keys().map(ToString::to_string).collect()
}

fn state(rollout: &Rollout, number: usize) -> MemberState {
    rollout.members[&name(number)].state
}

#[test]
fn a_stage_begins_when_the_one_before_was_healthy_for_its_time() {
    let (mut rollout, mut fleet) = (rollout(&["1", "50%"]), fleet(4));
    assert!(step(&mut rollout, &fleet, at(0)));
    assert_eq!(admitted(&rollout), ["edge-01"]);
    obey(&rollout, &mut fleet);
    step(&mut rollout, &fleet, at(10));
    step(&mut rollout, &fleet, at(69));
    assert_eq!((admitted(&rollout).len(), rollout.stage), (1, 0));
    step(&mut rollout, &fleet, at(70));
    assert_eq!(admitted(&rollout), ["edge-01", "edge-02"]);
    obey(&rollout, &mut fleet);
    step(&mut rollout, &fleet, at(80));
    step(&mut rollout, &fleet, at(140));
    assert_eq!(admitted(&rollout).len(), 4);
    assert_eq!(rollout.state, RolloutState::Running);
    obey(&rollout, &mut fleet);
    step(&mut rollout, &fleet, at(150));
    step(&mut rollout, &fleet, at(210));
    assert_eq!(rollout.state, RolloutState::Done);
    assert!(!step(&mut rollout, &fleet, at(211)), "what has ended stays");
}

#[test]
fn a_canary_that_is_away_gives_its_place_to_another() {
    let (mut rollout, mut fleet) = (rollout(&["1"]), fleet(3));
    fleet.get_mut(&name(1)).unwrap().away = Some("cannot be reached".into());
    step(&mut rollout, &fleet, at(0));
    assert_eq!(admitted(&rollout), ["edge-02"]);
    // And one that goes away in the middle of it leaves the stage.
    fleet.get_mut(&name(2)).unwrap().away = Some("cannot be reached".into());
    step(&mut rollout, &fleet, at(10));
    assert_eq!(admitted(&rollout), ["edge-02", "edge-03"]);
    assert_eq!(state(&rollout, 2), MemberState::Unknown);
    obey(&rollout, &mut fleet);
    step(&mut rollout, &fleet, at(20));
    step(&mut rollout, &fleet, at(80));
    // Everybody now: those that are away are admitted for when they are back, shown as unknown, and not waited for.
    assert_eq!(admitted(&rollout).len(), 3);
    assert_eq!(state(&rollout, 1), MemberState::Unknown);
    assert_eq!(rollout.state, RolloutState::Done);
}

#[test]
fn a_fleet_that_nobody_hears_of_proves_nothing() {
    let (mut rollout, mut fleet) = (rollout(&["canary=yes"]), fleet(2));
    let canary = fleet.get_mut(&name(1)).unwrap();
    canary.labels = BTreeMap::from([("canary".into(), "yes".into())]);
    canary.away = Some("cannot be reached".into());
    step(&mut rollout, &fleet, at(0));
    step(&mut rollout, &fleet, at(100_000));
    assert_eq!((admitted(&rollout).len(), rollout.stage), (1, 0));
    assert_eq!(rollout.state, RolloutState::Running);
    // Its time runs from when it is back.
    fleet.get_mut(&name(1)).unwrap().away = None;
    step(&mut rollout, &fleet, at(100_001));
    assert_eq!(state(&rollout, 1), MemberState::Moving);
}

#[test]
fn by_policy_one_that_is_away_halts_and_a_person_goes_on() {
    let (mut rollout, mut fleet) = (rollout(&["2"]), fleet(3));
    rollout.policy.unreachable = Unreachable::Halt;
    step(&mut rollout, &fleet, at(0));
    fleet.get_mut(&name(2)).unwrap().away = Some("cannot be reached".into());
    step(&mut rollout, &fleet, at(10));
    let RolloutState::Halted { why } = &rollout.state else {
        panic!("{rollout:?}")
    };
    assert_eq!(why, "edge-02 cannot be reached");
    assert_eq!(admitted(&rollout).len(), 2);
    resume(&mut rollout, at(20));
    step(&mut rollout, &fleet, at(20));
    assert_eq!(rollout.state, RolloutState::Running);
    assert_eq!(admitted(&rollout).len(), 3, "another takes its place");
}

#[test]
fn more_failures_than_may_halt_it_and_nobody_else_is_admitted() {
    let (mut rollout, mut fleet) = (rollout(&["2"]), fleet(5));
    rollout.policy.max_failures = 1;
    step(&mut rollout, &fleet, at(0));
    for number in [1, 2] {
        fleet.get_mut(&name(number)).unwrap().failed = Some(Failure {
            commit: "new".into(),
            why: "never ready".into(),
            tried: true,
        });
        step(&mut rollout, &fleet, at(10));
    }
    let RolloutState::Halted { why } = &rollout.state else {
        panic!("{rollout:?}")
    };
    assert_eq!(
        why,
        "2 failed where 1 may (edge-01: never ready; edge-02: never ready)"
    );
    step(&mut rollout, &fleet, at(10_000));
    assert_eq!(admitted(&rollout).len(), 2);
    resume(&mut rollout, at(10_001));
    step(&mut rollout, &fleet, at(10_001));
    // Two failures prove nothing: there must be a device that is healthy.
    assert_eq!(
        (admitted(&rollout).len(), &rollout.state),
        (2, &RolloutState::Running)
    );
}

#[test]
fn a_revision_that_may_still_come_fails_at_the_deadline_only() {
    let (mut rollout, mut fleet) = (rollout(&["1"]), fleet(2));
    step(&mut rollout, &fleet, at(0));
    fleet.get_mut(&name(1)).unwrap().failed = Some(Failure {
        commit: "new".into(),
        why: "image cannot be pulled".into(),
        tried: false,
    });
    step(&mut rollout, &fleet, at(899));
    assert_eq!(state(&rollout, 1), MemberState::Moving);
    assert_eq!(rollout.members[&name(1)].why, "image cannot be pulled");
    step(&mut rollout, &fleet, at(900));
    assert!(matches!(&rollout.state, RolloutState::Halted { why } if why.contains("within 900 s: image")));
}

#[test]
fn a_failure_of_another_revision_says_nothing() {
    let (mut rollout, mut fleet) = (rollout(&["1"]), fleet(2));
    fleet.get_mut(&name(1)).unwrap().failed = Some(Failure {
        commit: "older".into(),
        why: "x".into(),
        tried: true,
    });
    step(&mut rollout, &fleet, at(0));
    step(&mut rollout, &fleet, at(1));
    assert_eq!(state(&rollout, 1), MemberState::Moving);
}

#[test]
fn a_label_that_nobody_has_halts() {
    let (mut rollout, fleet) = (rollout(&["canary=yes"]), fleet(2));
    step(&mut rollout, &fleet, at(0));
    assert!(
        matches!(&rollout.state, RolloutState::Halted { why } if why.contains("no device has canary=yes"))
    );
    assert!(rollout.members.is_empty());
}

#[test]
fn a_paused_one_watches_and_admits_nobody() {
    let (mut rollout, fleet) = (rollout(&["1"]), fleet(2));
    rollout.state = RolloutState::Paused;
    step(&mut rollout, &fleet, at(0));
    assert!(rollout.members.is_empty());
}

#[test]
fn who_was_admitted_stays_so() {
    let mut running = rollout(&["1"]);
    let only = |commit: &str| Admission::Only {
        revision: Some(commit.into()),
    };
    step(&mut running, &fleet(2), at(0));
    assert_eq!(
        admission(&name(1), Some(&running), Some("old"), Some("older")),
        only("new")
    );
    assert_eq!(
        admission(&name(2), Some(&running), Some("old"), Some("older")),
        only("old")
    );
    assert_eq!(
        admission(&name(2), Some(&running), None, Some("older")),
        only("older")
    );
    let nothing = Admission::Only { revision: None };
    assert_eq!(admission(&name(2), None, None, None), nothing);
    assert!(!nothing.admits("new"));
}

#[test]
fn only_what_is_newer_begins_by_itself() {
    let last = rollout(&["1"]);
    assert!(is_news(&revision("first", 5), None));
    assert!(is_news(&revision("newer", 101), Some(&last)));
    assert!(!is_news(&revision("new", 100), Some(&last)));
    assert!(!is_news(&revision("rolled-back", 50), Some(&last)));
}

#[test]
fn stages_are_told_and_read_alike() {
    for text in ["3", "25%", "canary=yes", "class=raspberry-pi-5"] {
        assert_eq!(text.parse::<Stage>().unwrap().to_string(), text);
    }
    for text in ["", "0", "0%", "101%", "-1", "canary=", "=yes", "many"] {
        assert!(text.parse::<Stage>().is_err(), "{text}");
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Away(usize),
    Back(usize),
    Moves(usize),
    Fails(usize),
    Passes(i64),
    Resumed,
}

fn happens() -> impl Strategy<Value = Happens> {
    let device = 1..=8usize;
    prop_oneof![
        device.clone().prop_map(Happens::Away),
        device.clone().prop_map(Happens::Back),
        device.clone().prop_map(Happens::Moves),
        device.prop_map(Happens::Fails),
        (1..200i64).prop_map(Happens::Passes),
        Just(Happens::Resumed),
    ]
}

fn happen(what: Happens, rollout: &mut Rollout, fleet: &mut Fleet, now: &mut i64) {
    let is_admitted = |number| rollout.members.contains_key(&name(number));
    match what {
        Happens::Away(number) => {
            fleet.get_mut(&name(number)).unwrap().away = Some("cannot be reached".into())
        }
        Happens::Back(number) => fleet.get_mut(&name(number)).unwrap().away = None,
        Happens::Moves(number) if is_admitted(number) => {
            let seen = fleet.get_mut(&name(number)).unwrap();
            (seen.runs, seen.healthy, seen.failed) = (Some("new".into()), true, None);
        }
        Happens::Fails(number) if is_admitted(number) => {
            let seen = fleet.get_mut(&name(number)).unwrap();
            seen.runs = Some("old".into());
            seen.failed = Some(Failure {
                commit: "new".into(),
                why: "bad".into(),
                tried: true,
            });
        }
        Happens::Moves(_) | Happens::Fails(_) => {}
        Happens::Passes(seconds) => *now += seconds,
        Happens::Resumed if matches!(rollout.state, RolloutState::Halted { .. }) => resume(rollout, at(*now)),
        Happens::Resumed => {}
    }
}

proptest! {
    /// Whatever happens: nobody is admitted while it halts, nobody's admission is taken back, a count stage never has
    /// more devices at risk than it allows, a stage begins only where somebody is healthy, and when the world behaves it comes to its end.
    #[test]
    fn a_rollout_risks_no_more_than_it_may(
        events in prop::collection::vec(happens(), 0..60),
        halt in any::<bool>(),
    ) {
        let (mut rollout, mut fleet, mut now) = (rollout(&["1", "50%"]), fleet(8), 0);
        if halt {
            rollout.policy.unreachable = Unreachable::Halt;
        }
        for event in events {
            happen(event, &mut rollout, &mut fleet, &mut now);
            let before = rollout.clone();
            step(&mut rollout, &fleet, at(now));
            prop_assert!(before.members.keys().all(|device| rollout.members.contains_key(device)));
            if before.state != RolloutState::Running {
                prop_assert_eq!(before.members.len(), rollout.members.len());
            }
            if rollout.stage == 0 {
                prop_assert!(present(&rollout) <= before.members.len().max(1));
            }
            if rollout.stage > before.stage {
                prop_assert!(rollout.members.values().any(|member| member.state == MemberState::Healthy));
            }
        }
        for seen in fleet.values_mut() {
            (seen.away, seen.failed) = (None, None);
        }
        for _ in 0..100 {
            if matches!(rollout.state, RolloutState::Halted { .. }) {
                resume(&mut rollout, at(now));
            }
            obey(&rollout, &mut fleet);
            now += 61;
            step(&mut rollout, &fleet, at(now));
        }
        prop_assert_eq!(rollout.state, RolloutState::Done);
    }
}
