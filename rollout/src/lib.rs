//! Staged roll-outs: whom to admit to a revision, when to go on, when to halt.
//!
//! Takes: a roll-out as it stands, and what each device says of itself now.
//! Gives: the roll-out one step on. Admitting a device is all that it does; devices move by themselves.
//! Never: does I/O, reads a clock, moves a device back: a device that fails goes back by itself.
//!
//! A device that cannot be reached holds nobody up: it leaves its stage, another takes its place, and it stays admitted
//! for when it is back. But silence is no proof: a stage is through only when somebody was seen healthy.

use jiff::Timestamp;
use model::{
    Admission, DeviceName, Member, MemberState, Rollout, RolloutPolicy, RolloutState, Stage, Unreachable,
};
use std::collections::BTreeMap;

/// What is known of a device now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// With `class` and `site`.
    pub labels: BTreeMap<String, String>,
    /// Why nothing is to be expected of it now: it cannot be reached, or a person holds it.
    pub away: Option<String>,
    /// Commit of the generation that it runs, on trial or not.
    pub runs: Option<String>,
    /// Whether that is healthy, and past its trial.
    pub healthy: bool,
    /// The commit that failed last, and why.
    pub failed: Option<Failure>,
}

/// A revision that a device could not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub commit: String,
    /// Why.
    pub why: String,
    /// It was tried and given up; otherwise the device may still get there, when an image can be pulled for instance.
    pub tried: bool,
}

/// Devices as they are seen now; those that are shut out are not among them.
pub type Fleet = BTreeMap<DeviceName, Seen>;

/// Whom a stage is about.
enum Aim {
    /// So many, counted with those of earlier stages.
    Number(usize),
    /// All that have it.
    Label {
        key: String,
        value: String,
    },
    Everybody,
}

fn aim(policy: &RolloutPolicy, stage: u32, fleet: &Fleet) -> Aim {
    match policy.stages.get(stage as usize) {
        Some(Stage::Count(count)) => Aim::Number(*count as usize),
        Some(Stage::Percent(share)) => Aim::Number((fleet.len() * usize::from(*share)).div_ceil(100)),
        Some(Stage::Label { key, value }) => Aim::Label {
            key: key.clone(),
            value: value.clone(),
        },
        None => Aim::Everybody,
    }
}

/// What a device that is told nothing else may move to: what the roll-out under way admits it to, else what it was
/// admitted to before, else what the last roll-out that is done brought.
pub fn admission(
    device: &DeviceName,
    running: Option<&Rollout>,
    before: Option<&str>,
    done: Option<&str>,
) -> Admission {
    let now = running
        .filter(|rollout| rollout.members.contains_key(device))
        .map(|rollout| rollout.revision.commit.as_str());
    Admission::Only {
        revision: now.or(before).or(done).map(str::to_owned),
    }
}

/// Whether a revision that a device waits for begins a roll-out by itself. An older one does not: that is history
/// moved back, or a device that was away, and a person is asked.
pub fn is_news(revision: &model::Revision, last: Option<&Rollout>) -> bool {
    last.is_none_or(|last| {
        last.revision.commit != revision.commit && last.revision.committed_at < revision.committed_at
    })
}

/// Goes on over what has failed or is away so far.
pub fn resume(rollout: &mut Rollout, now: Timestamp) {
    for member in rollout.members.values_mut() {
        member.overlooked |= matches!(member.state, MemberState::Failed | MemberState::Unknown);
    }
    set(rollout, RolloutState::Running, now);
}

/// Takes in what devices say now, and does what follows from it. Says whether anything changed.
pub fn step(rollout: &mut Rollout, fleet: &Fleet, now: Timestamp) -> bool {
    if rollout.state.has_ended() {
        return false;
    }
    let before = rollout.clone();
    look(rollout, fleet, now);
    while rollout.state == RolloutState::Running {
        if let Some(why) = trouble(rollout, fleet) {
            set(rollout, RolloutState::Halted { why }, now);
            break;
        }
        // Those that are admitted may be away: another look at each.
        if admit(rollout, fleet, now) {
            look(rollout, fleet, now);
            continue;
        }
        if !is_through(rollout, fleet, now) {
            break;
        }
        if rollout.stage as usize >= rollout.policy.stages.len() {
            set(rollout, RolloutState::Done, now);
        } else {
            rollout.stage += 1;
            rollout.changed_at = now;
        }
    }
    *rollout != before
}

fn set(rollout: &mut Rollout, state: RolloutState, now: Timestamp) {
    rollout.state = state;
    rollout.changed_at = now;
}

fn seconds_since(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)
}

/// How each member gets on.
fn look(rollout: &mut Rollout, fleet: &Fleet, now: Timestamp) {
    rollout.members.retain(|device, _| fleet.contains_key(device));
    let (commit, policy) = (&rollout.revision.commit, &rollout.policy);
    for (device, member) in &mut rollout.members {
        let seen = &fleet[device];
        if seen.away.is_none() && member.state == MemberState::Unknown {
            member.from = now;
        }
        let (state, why) = judge(seen, member, commit, policy, now);
        if state != member.state {
            if member.state == MemberState::Healthy {
                member.from = now;
            }
            (member.state, member.since, member.overlooked) = (state, now, false);
        }
        member.why = why;
    }
}

fn judge(
    seen: &Seen,
    member: &Member,
    commit: &str,
    policy: &RolloutPolicy,
    now: Timestamp,
) -> (MemberState, String) {
    let runs = seen.runs.as_deref() == Some(commit);
    if let Some(why) = &seen.away {
        return (MemberState::Unknown, why.clone());
    }
    if runs && seen.healthy {
        return (MemberState::Healthy, String::new());
    }
    let failure = seen.failed.as_ref().filter(|failure| failure.commit == commit);
    let why = failure.map_or_else(
        || match runs {
            true => "not healthy yet".to_owned(),
            false => String::new(),
        },
        |failure| failure.why.clone(),
    );
    if failure.is_some_and(|failure| failure.tried) {
        (MemberState::Failed, why)
    } else if member.state == MemberState::Healthy
        || seconds_since(member.from, now) < policy.deadline_seconds
    {
        (MemberState::Moving, why)
    } else {
        let late = format!("not healthy within {} s", policy.deadline_seconds);
        let why = match why.is_empty() {
            true => late,
            false => format!("{late}: {why}"),
        };
        (MemberState::Failed, why)
    }
}

/// Why a running roll-out must not go on.
fn trouble(rollout: &Rollout, fleet: &Fleet) -> Option<String> {
    let in_state = |state| {
        rollout
            .members
            .iter()
            .filter(move |(_, member)| member.state == state && !member.overlooked)
    };
    let failed: Vec<String> = in_state(MemberState::Failed)
        .map(|(device, member)| format!("{device}: {}", member.why))
        .collect();
    let may = rollout.policy.max_failures as usize;
    if failed.len() > may {
        let count = failed.len();
        let told = failed.into_iter().take(3).collect::<Vec<_>>().join("; ");
        return Some(format!("{count} failed where {may} may ({told})"));
    }
    let away = in_state(MemberState::Unknown).find(|(_, member)| member.stage == rollout.stage);
    if let Some((device, member)) = away.filter(|_| rollout.policy.unreachable == Unreachable::Halt) {
        return Some(format!("{device} {}", member.why));
    }
    match aim(&rollout.policy, rollout.stage, fleet) {
        Aim::Label { key, value } if !fleet.values().any(|seen| seen.labels.get(&key) == Some(&value)) => {
            Some(format!(
                "stage {}: no device has {key}={value}; give one the label, or abort and change the policy",
                rollout.stage + 1
            ))
        }
        _ => None,
    }
}

/// Admits whom the stage asks for. Says whether anybody was.
fn admit(rollout: &mut Rollout, fleet: &Fleet, now: Timestamp) -> bool {
    let aim = aim(&rollout.policy, rollout.stage, fleet);
    let new: Vec<DeviceName> = {
        let waiting = fleet
            .iter()
            .filter(|(device, _)| !rollout.members.contains_key(*device));
        let names = |(device, _): (&DeviceName, &Seen)| device.clone();
        match aim {
            Aim::Everybody => waiting.map(names).collect(),
            Aim::Label { key, value } => waiting
                .filter(|(_, seen)| seen.labels.get(&key) == Some(&value))
                .map(names)
                .collect(),
            // Who cannot be reached neither fills a place nor gets one.
            Aim::Number(number) => waiting
                .filter(|(_, seen)| seen.away.is_none())
                .take(number.saturating_sub(present(rollout)))
                .map(names)
                .collect(),
        }
    };
    let any = !new.is_empty();
    for device in new {
        let member = Member {
            stage: rollout.stage,
            state: MemberState::Moving,
            since: now,
            from: now,
            overlooked: false,
            why: String::new(),
        };
        rollout.members.insert(device, member);
        rollout.changed_at = now;
    }
    any
}

/// Members of which something is known.
fn present(rollout: &Rollout) -> usize {
    let known = |member: &&Member| member.state != MemberState::Unknown;
    rollout.members.values().filter(known).count()
}

/// Whether nothing of the stage is waited for any more.
fn is_through(rollout: &Rollout, fleet: &Fleet, now: Timestamp) -> bool {
    let settled = |member: &Member| match member.state {
        MemberState::Moving => false,
        MemberState::Healthy => seconds_since(member.since, now) >= rollout.policy.healthy_for_seconds,
        MemberState::Failed | MemberState::Unknown => true,
    };
    let proven = rollout
        .members
        .values()
        .any(|member| member.state == MemberState::Healthy);
    proven && rollout.members.values().all(settled) && is_full(rollout, fleet)
}

/// Whether as many take part as the stage asks for, or as there are.
fn is_full(rollout: &Rollout, fleet: &Fleet) -> bool {
    match aim(&rollout.policy, rollout.stage, fleet) {
        Aim::Everybody | Aim::Label { .. } => true,
        Aim::Number(number) => {
            let left = fleet
                .iter()
                .any(|(device, seen)| seen.away.is_none() && !rollout.members.contains_key(device));
            present(rollout) >= number || !left
        }
    }
}

#[cfg(test)]
mod tests;
