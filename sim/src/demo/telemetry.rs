//! What the devices measure and write, asked back from the hub as people would: with `leeward query`.

use super::story::{HELLO_PORT, LONELY, PATIENT};
use crate::run::run;
use crate::until::until;
use crate::world::World;
use crate::{http, local};
use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::OpenOptions;
use std::io::Write as _;

/// Lines that a device's `hello` writes each time that it is asked to.
const LINES: u32 = 20;

/// Lets a device measure more often than usual, so that a short time without a link holds measurements.
pub(super) fn measure_often(world: &World, name: &str) -> Result<()> {
    let path = world.dir().join("devices").join(name).join("agent.yaml");
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.write_all(b"metrics:\n  interval: 1s\n  window: 2s\n")
        .with_context(|| path.display().to_string())
}

/// Has `hello` of a device write lines that nothing else writes: `hello` logs what it is asked for.
pub(super) fn write_lines(world: &World, name: &str, when: &str) -> Result<()> {
    let address = world.device(name)?.address();
    for number in 0..LINES {
        let path = format!("/api?written={when}-{number}");
        http::get(name, address, HELLO_PORT, &path)?;
    }
    Ok(())
}

/// A device without a link has measured, and keeps it.
pub(super) async fn measured_alone(world: &World) -> Result<String> {
    let device = world.device(LONELY)?.clone();
    let (waiting, _) = until("the measurements", PATIENT, || async {
        let streams = local::spool(world, &device)?;
        let waiting = streams.iter().find(|stream| stream.stream == "metrics");
        let waiting = waiting.map_or(0, |stream| stream.resident);
        ensure!(waiting > 0, "no record of metrics waits");
        Ok(waiting)
    })
    .await?;
    Ok(format!("{waiting} records of metrics wait"))
}

#[derive(Debug, Deserialize)]
struct Lines {
    device: String,
    lines: u64,
    different: u64,
    alone: u64,
}

#[derive(Debug, Deserialize)]
struct Samples {
    device: String,
    samples: u64,
    moments: u64,
    alone: u64,
}

/// Everything that the devices wrote and measured is at the hub, also what [`LONELY`] did between the two moments, without
/// a link; nothing twice.
pub(super) async fn all_told(world: &World, dark_at: Timestamp, restored_at: Timestamp) -> Result<String> {
    let between = format!("time > '{dark_at}' AND time < '{restored_at}'");
    let written = format!(
        "SELECT device, count(*) AS lines, count(DISTINCT body) AS different,
           sum(CASE WHEN {between} THEN 1 ELSE 0 END) AS alone
         FROM logs WHERE body LIKE '%/api?written=%' GROUP BY device"
    );
    // The agent's own figure of its link: one series for each device.
    let measured = format!(
        "SELECT device, count(*) AS samples, count(DISTINCT time) AS moments,
           sum(CASE WHEN {between} THEN 1 ELSE 0 END) AS alone
         FROM metrics WHERE name = 'leeward_link_up' GROUP BY device"
    );
    let (seen, _) = until("the telemetry", PATIENT, || async {
        let lines: Vec<Lines> = query(world, &written)?;
        let samples: Vec<Samples> = query(world, &measured)?;
        for device in world.devices() {
            let name = device.name.as_str();
            let lonely = name == LONELY;
            let Some(written) = lines.iter().find(|row| row.device == name) else {
                bail!("no line of {name}");
            };
            // Everybody wrote once with a link; one did twice without.
            let alone = if lonely { 2 * u64::from(LINES) } else { 0 };
            let all = u64::from(LINES) + alone;
            ensure!(
                written.lines == all && written.different == all && (!lonely || written.alone == alone),
                "{all} lines of {name} were written, {alone} of them without a link: {written:?}"
            );
            let Some(measured) = samples.iter().find(|row| row.device == name) else {
                bail!("no sample of {name}");
            };
            ensure!(
                measured.samples == measured.moments,
                "samples of {name} are there twice: {measured:?}"
            );
            ensure!(
                !lonely || measured.alone > 0,
                "nothing that {name} measured without a link is there: {measured:?}"
            );
        }
        let alone = samples.iter().find(|row| row.device == LONELY);
        Ok(format!(
            "{} lines ({} without a link), {} samples of one series each ({} without a link), none twice",
            lines.iter().map(|row| row.lines).sum::<u64>(),
            2 * LINES,
            samples.iter().map(|row| row.samples).sum::<u64>(),
            alone.map_or(0, |row| row.alone),
        ))
    })
    .await?;
    Ok(seen)
}

/// `leeward query`, its rows as objects.
fn query<T: DeserializeOwned>(world: &World, sql: &str) -> Result<Vec<T>> {
    let access = world.access_file();
    let words = ["--access", &access.to_string_lossy(), "query", "-o", "json", sql];
    let answer = run(&world.program().to_string_lossy(), &words)?;
    serde_json::from_str(&answer).with_context(|| format!("rows of {sql}"))
}
