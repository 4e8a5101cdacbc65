//! From a push to its pods on every device of the demo's fleet, with the demo's intervals.

use super::report::Row;
use super::{PATIENT, RUNS, median, single};
use crate::progress::Progress;
use crate::until::until;
use crate::world::{SimDevice, World};
use crate::{fleet, local};
use anyhow::{Context as _, Result, ensure};
use model::WorkloadState;
use std::time::Instant;

/// The figure of this file.
pub(super) const NAME: &str = "push-fleet";
/// Pods of each device.
const PODS: usize = 2;

/// Measures it.
pub(super) async fn measure(world: &mut World, progress: &Progress, rows: &mut Vec<Row>) -> Result<()> {
    progress.chapter("The demo's fleet");
    let mut devices: Vec<SimDevice> = Vec::new();
    for (name, class) in fleet() {
        world.add_device(&name, &class).await?;
        world.start_agent(&name)?;
        devices.push(world.device(&name)?.clone());
    }
    push(world, &devices, "first").await?;
    progress.step("four devices run the first revision");
    let mut times = Vec::new();
    for number in 0..RUNS {
        times.push(push(world, &devices, &format!("push {number}")).await?);
    }
    progress.step(&format!("{NAME}: {times:.2?} s"));
    rows.push(Row::alone(NAME, median(times).context("a run")?));
    Ok(())
}

async fn push(world: &World, devices: &[SimDevice], mark: &str) -> Result<f64> {
    single::deploy(world, PODS, mark)?;
    let start = Instant::now();
    let commit = world.push(mark)?.context("a change")?;
    until("the fleet", PATIENT, || async {
        for device in devices {
            let status = local::status(world, device)?;
            let runs = status
                .generation
                .revision
                .as_ref()
                .map(|revision| &revision.commit);
            ensure!(
                runs == Some(&commit),
                "{} runs {runs:?} and not {commit}",
                device.name
            );
            let current = status
                .workloads
                .iter()
                .filter(|w| w.state == WorkloadState::Current)
                .count();
            ensure!(
                current == PODS,
                "{}: {current} of {PODS} workloads are current",
                device.name
            );
        }
        Ok(())
    })
    .await?;
    Ok(start.elapsed().as_secs_f64())
}
