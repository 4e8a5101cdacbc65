//! What the agent costs while nothing happens, and how soon it is there.

use super::report::Row;
use super::{PATIENT, Plan, RUNS, median};
use crate::progress::Progress;
use crate::world::{SimDevice, World};
use crate::{local, process};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

/// The figures of this file.
pub(super) const NAMES: [&str; 4] = ["idle-pss", "start-ready", "idle-cpu", "idle-writes"];

/// What a start leaves behind has settled after this.
const WARM_UP: Duration = Duration::from_secs(300);
/// For a look in between: the agent has given back what its start took.
const SHORT_WARM_UP: Duration = Duration::from_secs(75);
/// CPU time is counted over this.
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes are counted over this, because few are written.
const LONG_WINDOW: Duration = Duration::from_secs(600);
/// Memory is looked at this often.
const SAMPLE: Duration = Duration::from_secs(10);

/// With a device that has one generation, in which no containers are.
pub(super) async fn measure(
    world: &mut World,
    name: &str,
    plan: &Plan,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    if plan.wants("start-ready") {
        let time = start_ready(world, name).await?;
        progress.step(&format!("the agent answers {time:.0} ms after its start"));
        rows.push(Row::alone("start-ready", time));
    }
    if !plan.wants_any(&["idle-pss", "idle-cpu", "idle-writes"]) {
        return Ok(());
    }
    let long = plan.wants("idle-writes");
    let window = if long && !plan.short { LONG_WINDOW } else { WINDOW };
    let warm_up = if plan.short { SHORT_WARM_UP } else { WARM_UP };
    progress.step(&format!(
        "idle: {} s to warm up, then {} s are measured",
        warm_up.as_secs(),
        window.as_secs()
    ));
    tokio::time::sleep(warm_up).await;
    let seen = watch(world.device(name)?, window).await?;
    if plan.wants("idle-pss") {
        rows.push(Row::alone("idle-pss", seen.pss));
    }
    if plan.wants("idle-cpu") {
        rows.push(Row::alone("idle-cpu", seen.cpu_percent));
    }
    if long {
        let day = seen.written as f64 / 1e6 * 86_400.0 / seen.time.as_secs_f64();
        let note = format!(
            "{} bytes handed to the disk in {:.0} s, as a day of that",
            seen.written,
            seen.time.as_secs_f64()
        );
        progress.step(&format!("{note}: {day:.2} MB"));
        rows.push(Row::alone("idle-writes", day).noted(note));
    }
    Ok(())
}

struct Seen {
    time: Duration,
    /// MiB, the median of the samples.
    pss: f64,
    cpu_percent: f64,
    /// Bytes.
    written: u64,
}

async fn watch(device: &SimDevice, window: Duration) -> Result<Seen> {
    let agent = device.agent.context("the agent was started")?;
    let counters = || -> Result<(Duration, u64)> {
        ensure!(agent.alive(), "the agent of {} has ended", device.name);
        Ok((
            process::cpu_time(agent.pid).context("CPU time of the agent")?,
            process::written(agent.pid).context("bytes written by the agent")?,
        ))
    };
    let start = Instant::now();
    let before = counters()?;
    let mut samples = Vec::new();
    while start.elapsed() < window {
        let pss = agent.pss().context("memory of the agent")?;
        samples.push(pss as f64 / f64::from(1 << 20));
        let left = window.saturating_sub(start.elapsed());
        tokio::time::sleep(SAMPLE.min(left)).await;
    }
    let after = counters()?;
    let time = start.elapsed();
    Ok(Seen {
        time,
        pss: median(samples).context("a sample of memory")?,
        cpu_percent: after.0.saturating_sub(before.0).as_secs_f64() / time.as_secs_f64() * 100.0,
        written: after.1.saturating_sub(before.1),
    })
}

/// From the start of the process to a status on its socket, in milliseconds.
async fn start_ready(world: &mut World, name: &str) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        world.kill_agent(name)?;
        let start = Instant::now();
        world.start_agent(name)?;
        let device = world.device(name)?.clone();
        while let Err(missing) = local::status(world, &device) {
            ensure!(device.alive(), "the agent of {name} has ended");
            ensure!(
                start.elapsed() < PATIENT,
                "the agent of {name} gives no status: {missing:#}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    median(times).context("a run of start-ready")
}
