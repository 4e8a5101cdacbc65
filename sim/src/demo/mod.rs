//! `leeward dev demo`: the story that the product is for, told and checked.

mod stages;
mod story;
mod telemetry;

pub(crate) use story::logs;

use crate::progress::Progress;
use crate::world::World;
use anyhow::Result;
use std::future::Future;
use std::path::PathBuf;

/// One line of the table at the end.
#[derive(Debug)]
struct Check {
    what: &'static str,
    /// What was measured or seen, or why it failed.
    outcome: Result<String, String>,
}

/// Tells the story. Stays up afterwards until `stop`, unless `once`.
///
/// # Errors
/// Where any check failed; everything is stopped then, and its logs are left.
pub async fn run(mut world: World, app: PathBuf, once: bool, stop: impl Future<Output = ()>) -> Result<()> {
    let progress = Progress::default();
    let mut stop = std::pin::pin!(stop);
    if !world.devices().is_empty() || world.hub_alive() {
        progress.line(&format!(
            "removing the world that is in {}",
            world.dir().display()
        ));
        let (dir, program) = (world.dir().to_owned(), world.program().to_owned());
        world.down()?;
        world = World::open(&dir, &program)?;
    }
    if let Some(missing) = crate::rootless::only_root() {
        world.down()?;
        anyhow::bail!("the example's applications do not run here: {missing}; or run this command as root");
    }
    let mut checks = Vec::new();
    let told = tokio::select! {
        told = story::tell(&mut world, &app, &progress, &mut checks) => told,
        () = &mut stop => Err(anyhow::anyhow!("stopped")),
    };
    progress.line(&table(&checks));
    if let Err(err) = told {
        progress.line(&format!("FAILED: {err:#}"));
        progress.line(&story::logs(&world));
        world.down()?;
        anyhow::bail!("the demo failed");
    }
    if once {
        world.down()?;
        return Ok(());
    }
    progress.line(&format!("dashboard: {}", crate::dashboard(&world).await?));
    progress.line(&format!(
        "commands:  export LEEWARD_ACCESS={}",
        world.access_file().display()
    ));
    progress.line(&format!("           {} get devices", world.program().display()));
    progress.line(&format!(
        "change     {} and run `leeward dev push`",
        world.work_tree().display()
    ));
    progress.line("Ctrl-C stops and removes everything");
    stop.await;
    world.down()
}

fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.what.len()).max().unwrap_or(0);
    let mut text = String::from("\n");
    for check in checks {
        let (mark, seen) = match &check.outcome {
            Ok(seen) => ("ok    ", seen),
            Err(why) => ("FAILED", why),
        };
        text.push_str(&format!("  {mark}  {:<width$}  {seen}\n", check.what));
    }
    text
}
