//! The chapter of the staged roll-out.

use super::story::{LONELY, PATIENT};
use crate::until::until;
use anyhow::{Context as _, Result, bail, ensure};
use model::{DeviceName, MemberState, Rollout, RolloutPolicy, RolloutState, Stage, Unreachable};
use wire::ApiClient;

/// The class of the first stage; the device whose link is cut is of it, and one more.
const FIRST: &str = "class=raspberry-pi-5";

pub(super) async fn set_policy(api: &ApiClient) -> Result<()> {
    let policy = RolloutPolicy {
        stages: vec![FIRST.parse::<Stage>()?],
        healthy_for_seconds: 3,
        deadline_seconds: PATIENT.as_secs(),
        max_failures: 0,
        unreachable: Unreachable::Continue,
    };
    api.set_rollout_policy(Some(&policy)).await?;
    Ok(())
}

pub(super) async fn remove_policy(api: &ApiClient) -> Result<()> {
    api.set_rollout_policy(None).await?;
    Ok(())
}

/// The newest roll-out, which is of this commit.
async fn newest(api: &ApiClient, commit: &str) -> Result<Rollout> {
    let newest = api.rollouts(1).await?.pop().context("no roll-out has begun")?;
    ensure!(
        newest.revision.commit == commit,
        "the newest is of {}",
        newest.revision
    );
    if let RolloutState::Halted { why } = &newest.state {
        bail!("it halted: {why}");
    }
    Ok(newest)
}

/// While the first stage is under way nobody of another class runs the revision.
pub(super) async fn first_moves(api: &ApiClient, commit: &str) -> Result<String> {
    let (proven, time) = until("the first stage", PATIENT, || async {
        let devices = api.devices().await?;
        let rollout = newest(api, commit).await?;
        let mut proven = Vec::new();
        for device in devices {
            let revision = device.generation.revision.as_ref();
            let moved = revision.is_some_and(|revision| revision.commit == commit);
            let first = device.class.as_str() == "raspberry-pi-5";
            if moved && !first && rollout.stage == 0 {
                // Waiting longer would not mend it.
                return Ok(Err(format!("{} moved before its stage", device.name)));
            }
            if moved && first {
                proven.push(device.name.to_string());
            }
        }
        ensure!(!proven.is_empty(), "nobody of the first stage runs it yet");
        Ok(Ok(proven.join(", ")))
    })
    .await?;
    let proven = proven.map_err(anyhow::Error::msg)?;
    Ok(format!("{proven} after {:.1} s", time.as_secs_f32()))
}

/// Everybody else is healthy on it, and the one that is away is told as unknown.
pub(super) async fn done(api: &ApiClient, commit: &str) -> Result<String> {
    let lonely: DeviceName = LONELY.parse()?;
    let (rollout, time) = until("the end of the roll-out", PATIENT, || async {
        let rollout = newest(api, commit).await?;
        ensure!(
            rollout.state == RolloutState::Done,
            "it is {}, stage {}",
            rollout.state.word(),
            rollout.stage + 1
        );
        Ok(rollout)
    })
    .await?;
    for (device, member) in &rollout.members {
        let expected = if *device == lonely {
            MemberState::Unknown
        } else {
            MemberState::Healthy
        };
        ensure!(
            member.state == expected,
            "{device} is {:?}: {}",
            member.state,
            member.why
        );
    }
    Ok(format!(
        "{} devices, {LONELY} unknown, {:.1} s",
        rollout.members.len(),
        time.as_secs_f32()
    ))
}
