//! The simulated world: a hub and a fleet of devices on one machine, all real but the boards.
//!
//! Takes: the `leeward` program itself, which it starts as hub and as agents.
//! Gives: [`World`] (what `leeward dev` drives), [`demo`] (the story with its checks), [`bench`] (the figures beside
//! their peers), [`GitServer`] (a Git server over HTTP(S)).
//! Never: is a dependency of what is shipped to devices; pretends: a cut link is a dropped packet, a crash is a
//! killed process.

mod apps;
pub mod bench;
mod cgroups;
pub mod demo;
pub mod git_server;
mod http;
mod local;
mod net;
mod process;
mod progress;
mod relay;
pub mod rootless;
mod run;
mod shape;
mod until;
mod world;

pub use git_server::{GitServer, Options as GitServerOptions};
pub use shape::{Delay, Loss, Rate, Shape};
pub use world::{NoDevice, SimDevice, World, names};

use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// The fleet of the demo: name and class.
pub fn fleet() -> Vec<(String, String)> {
    world::FLEET
        .iter()
        .map(|(name, class)| ((*name).to_owned(), (*class).to_owned()))
        .collect()
}

/// Disturbs the link of the `index`th device until the process ends: `leeward dev relay`.
///
/// # Errors
/// Where there are no TAP devices.
pub fn disturb(index: u8, delay: Duration, loss_percent: f64) -> Result<()> {
    let (ends, bridges) = (net::detour(index).ends, net::detour_bridges(index));
    let disturbance = relay::Disturbance { delay, loss_percent };
    relay::carry(
        ends.each_ref().map(String::as_str),
        bridges.each_ref().map(String::as_str),
        disturbance,
    )
}

/// Where a person sees the fleet: a link that logs in once, and where the token is for every other time.
///
/// # Errors
/// Where the hub has not written its access file yet, or does not answer.
pub async fn dashboard(world: &World) -> Result<String> {
    let link = world.api()?.login_link().await?;
    Ok(format!(
        "https://localhost:{}{} (logs in once, within minutes; after that with the token in {})",
        world.port(),
        link.path,
        world.access_file().display()
    ))
}

/// Makes repository, images and devices where they are missing, and starts every agent. Returns what this machine does
/// not let devices have, a line each.
///
/// # Errors
/// The first thing that does not work.
pub async fn start(world: &mut World, fleet: &[(String, String)], app: Option<&Path>) -> Result<Vec<String>> {
    if !world.work_tree().exists() {
        apps::init_repository(world)?;
        match app {
            Some(app) => apps::push_images(world, app, apps::FIRST)?,
            None => tracing::warn!(
                "no demo application was given (--app): the example's images are not in the registry"
            ),
        }
    }
    let mut gaps = rootless::gaps();
    for (name, class) in fleet {
        world.add_device(name, class).await?;
        gaps.extend(world.start_agent(name)?);
    }
    Ok(gaps)
}
