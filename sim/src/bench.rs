//! `leeward dev bench`: the figures of the main job, beside their peers, for `cargo xtask bench`.
//!
//! One device of its own for what concerns a single board, then the demo's fleet. Every run of a figure is made in
//! turns with its peer, so that both meet the same machine; what is told is the median.

mod fleet;
mod idle;
mod podman;
mod report;
mod single;

use crate::progress::Progress;
use crate::world::World;
use anyhow::{Result, bail, ensure};
use report::Row;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

/// Runs of each figure that is not a window of time.
const RUNS: usize = 5;
/// How long a thing may take that takes a second on a quiet machine.
const PATIENT: Duration = Duration::from_secs(120);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The static demo application.
    pub app: PathBuf,
    /// Names of figures; all where there are none.
    pub names: Vec<String>,
    /// The program of the devices, where it is not the one of the hub: what is shipped to devices.
    pub agent_program: Option<PathBuf>,
    /// Count bytes written for a minute instead of ten.
    pub short: bool,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }
}

/// Measures and prints the rows. Whatever happens, nothing of the world is left.
///
/// # Errors
/// Where a name is not known, a world is up already, or anything on the way does not work.
pub async fn run(mut world: World, plan: Plan, stop: impl Future<Output = ()>) -> Result<()> {
    let known = [&idle::NAMES[..], &single::APPLY, &single::TEN, &[fleet::NAME]].concat();
    for name in &plan.names {
        ensure!(
            known.contains(&name.as_str()),
            "there is no figure {name}; there are: {}",
            known.join(", ")
        );
    }
    for program in std::iter::once(&plan.app).chain(&plan.agent_program) {
        ensure!(program.is_file(), "{}: no such program", program.display());
    }
    if let Some(program) = &plan.agent_program {
        world.run_agents_with(program);
    }
    if !world.devices().is_empty() || world.hub_alive() {
        bail!(
            "a simulated world is in {}, and the bench needs its addresses: remove it with `leeward dev --dir {0} down`",
            world.dir().display()
        );
    }
    if let Some(holder) = crate::net::holder() {
        bail!(
            "another simulated world is up, and the bench needs its addresses: remove it with `leeward dev --dir {} down`",
            holder.display()
        );
    }
    let progress = Progress::default();
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        let load = load.split(' ').next().unwrap_or_default();
        progress.line(&format!("load of this machine before the start: {load}"));
    }
    let mut rows = Vec::new();
    let measured = tokio::select! {
        measured = measure(&mut world, &plan, &progress, &mut rows) => measured,
        () = stop => Err(anyhow::anyhow!("stopped")),
    };
    let logs = measured.is_err().then(|| crate::demo::logs(&world));
    podman::remove(world.dir());
    let removed = world.down();
    report::tell(&rows)?;
    removed?;
    if let (Err(err), Some(logs)) = (&measured, logs) {
        progress.line(&logs);
        progress.line(&format!("figures up to then are told: {err:#}"));
    }
    measured
}

async fn measure(world: &mut World, plan: &Plan, progress: &Progress, rows: &mut Vec<Row>) -> Result<()> {
    progress.chapter("A hub, a repository, an image");
    world.up_with("15s").await?;
    single::prepare(world, &plan.app)?;
    let alone = [&idle::NAMES[..], &single::APPLY, &single::TEN].concat();
    if plan.wants_any(&alone) {
        single::measure(world, plan, progress, rows).await?;
    }
    if plan.wants(fleet::NAME) {
        fleet::measure(world, progress, rows).await?;
    }
    Ok(())
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median(vec![3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }
}
