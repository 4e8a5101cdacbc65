//! A device as its own agent sees it, asked at the socket that people at the device use.

use crate::world::{SimDevice, World};
use agent::local::{Answer, Ask, SOCKET, StreamAccount};
use anyhow::{Context as _, Result, bail};
use model::Status;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
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
    let path = world.state_of(device).join(SOCKET);
    let mut stream = UnixStream::connect(&path).with_context(|| path.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("{} answers {line:?}", device.name))
}
