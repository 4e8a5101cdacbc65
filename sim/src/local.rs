//! A device as its own agent sees it, asked at the socket that people at the device use.

use crate::world::{SimDevice, World};
use agent::local::{Answer, Ask, StreamAccount};
use anyhow::{Result, bail};
use model::Status;
use std::time::Duration;

/// The newest status.
pub fn status(world: &World, device: &SimDevice) -> Result<Status> {
    match ask(world, device, &Ask::Status)? {
        Answer::Status {
            status: Some(status), ..
        } => Ok(*status),
        other => bail!("{} answers {other:?}", device.name),
    }
}

/// Where every record of the spool is.
pub fn spool(world: &World, device: &SimDevice) -> Result<Vec<StreamAccount>> {
    match ask(world, device, &Ask::Spool)? {
        Answer::Spool { streams, .. } => Ok(streams),
        other => bail!("{} answers {other:?}", device.name),
    }
}

/// Lets the agent look at its source now.
pub fn sync(world: &World, device: &SimDevice) -> Result<()> {
    match ask(world, device, &Ask::Sync)? {
        Answer::Done => Ok(()),
        other => bail!("{} answers {other:?}", device.name),
    }
}

fn ask(world: &World, device: &SimDevice, ask: &Ask) -> Result<Answer> {
    Ok(agent::local::ask_blocking(
        &world.state_of(device),
        ask,
        Duration::from_secs(5),
    )?)
}
