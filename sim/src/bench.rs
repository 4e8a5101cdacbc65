//! Figures beside their peers.

use crate::world::World;
use anyhow::Result;
use std::path::PathBuf;

/// To come.
///
/// # Errors
/// None.
pub async fn run(world: World, app: PathBuf, names: Vec<String>, json: Option<PathBuf>) -> Result<()> {
    let _ = (world, app, names, json);
    anyhow::bail!("no figures yet")
}
