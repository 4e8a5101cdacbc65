//! The example repository and its images.

use crate::run::run;
use crate::world::{REGISTRY, World};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// Images of the first revision: name and version.
pub const FIRST: &[(&str, &str)] = &[("hello", "1.0.0"), ("sensor", "1.0.0"), ("report", "1.0.0")];
/// What the demo rolls out next.
pub const SECOND: &[(&str, &str)] = &[("hello", "1.1.0")];

/// `leeward init`, and the bare repository that devices fetch from.
pub fn init_repository(world: &World) -> Result<()> {
    let dir = world.work_tree();
    run(
        &world.program().to_string_lossy(),
        &["init", &dir.to_string_lossy()],
    )?;
    world.publish_repository()
}

/// Builds images from the static program and pushes them to the hub's registry.
pub fn push_images(world: &World, app: &Path, images: &[(&str, &str)]) -> Result<()> {
    for (name, version) in images {
        push_image(world, app, &format!("{REGISTRY}/demo/{name}:{version}"), version)?;
    }
    Ok(())
}

fn push_image(world: &World, app: &Path, image: &str, version: &str) -> Result<()> {
    let add = format!("{}:/demo-app", app.display());
    let access = world.access_file();
    let words = [
        "--access",
        &access.to_string_lossy(),
        "image",
        "build",
        "--tag",
        image,
        "--add",
        &add,
        "--entrypoint",
        "/demo-app",
        "--env",
        &format!("VERSION={version}"),
        "--push",
    ];
    run(&world.program().to_string_lossy(), &words)?;
    Ok(())
}

/// Replaces text in a file of the work tree; the text must be there.
pub fn edit(world: &World, path: &str, from: &str, to: &str) -> Result<()> {
    let file = world.work_tree().join(path);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    anyhow::ensure!(text.contains(from), "{path} does not hold {from:?}");
    fs::write(&file, text.replace(from, to))?;
    Ok(())
}

/// Overlays of the edge classes.
pub const OVERLAYS: [&str; 2] = [
    "apps/edge/jetson/kustomization.yaml",
    "apps/edge/pi/kustomization.yaml",
];

/// Moves `hello` to another version in both overlays.
pub fn set_hello_version(world: &World, from: &str, to: &str) -> Result<()> {
    for overlay in OVERLAYS {
        edit(
            world,
            overlay,
            &format!("newTag: {from}"),
            &format!("newTag: {to}"),
        )?;
    }
    Ok(())
}
