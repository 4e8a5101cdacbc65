//! Readings of the board's temperature, one JSON line each: to the log, and to a bounded file.

use crate::{ending, env, json, now, seconds};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// The file of readings is set aside once it has this many bytes, so that at most twice as many are kept.
const MOST_BYTES: u64 = 1 << 20;

/// Reads until the pod ends.
#[expect(clippy::print_stdout, reason = "a container speaks through its output")]
pub(crate) fn run() -> Result<(), String> {
    let interval = seconds("INTERVAL_SECONDS", 10)?;
    let folder = env("DATA_DIR", "/data");
    let folder = Path::new(&folder);
    let zone = env("THERMAL_ZONE", "/sys/class/thermal/thermal_zone0/temp");
    // Numbers go on where the last pod stopped, so that a gap shows.
    let mut number = last_number(folder);
    while !ending() {
        number += 1;
        let reading = reading(number, Path::new(&zone));
        println!("{reading}");
        store(folder, number, &reading)
            .map_err(|err| format!("cannot write in {}: {err}", folder.display()))?;
        std::thread::sleep(Duration::from_secs(interval));
    }
    Ok(())
}

/// Succeeds where `file` was written within the last minute, or `MAX_AGE_SECONDS`.
pub(crate) fn check(file: &str) -> Result<(), String> {
    let most = seconds("MAX_AGE_SECONDS", 60)?;
    let written = fs::metadata(file)
        .and_then(|meta| meta.modified())
        .map_err(|err| format!("{file}: {err}"))?;
    // A clock that was set back makes the file look new; the next reading settles it.
    let age = written.elapsed().unwrap_or_default().as_secs();
    if age > most {
        Err(format!("{file} is {age} s old"))
    } else {
        Ok(())
    }
}

fn last_number(folder: &Path) -> u64 {
    fs::read_to_string(folder.join("last"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn store(folder: &Path, number: u64, reading: &str) -> std::io::Result<()> {
    let path = folder.join("readings.jsonl");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > MOST_BYTES) {
        fs::copy(&path, folder.join("readings.1.jsonl"))?;
        fs::remove_file(&path)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{reading}")?;
    fs::write(folder.join("last"), format!("{number}\n"))
}

fn reading(number: u64, zone: &Path) -> String {
    let time = now();
    let measured = fs::read_to_string(zone)
        .ok()
        .and_then(|text| text.trim().parse::<f64>().ok());
    // The kernel gives thousandths of a degree. Without a sensor: a slow wave, marked as such.
    let (celsius, simulated) = match measured {
        Some(thousandths) => (thousandths / 1000.0, false),
        None => (
            45.0 + 5.0 * ((time % 600) as f64 / 600.0 * std::f64::consts::TAU).sin(),
            true,
        ),
    };
    format!(
        "{{\"device\":{},\"number\":{number},\"time\":{time},\"celsius\":{celsius:.1},\"simulated\":{simulated}}}",
        json(&env("DEVICE", "unknown"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_of_the_board_where_it_has_a_sensor() {
        let zone = std::env::temp_dir().join(format!("zone-{}", std::process::id()));
        fs::write(&zone, "51234\n").unwrap();
        let text = reading(7, &zone);
        fs::remove_file(&zone).unwrap();
        assert!(
            text.contains("\"number\":7") && text.contains("\"celsius\":51.2,\"simulated\":false"),
            "{text}"
        );
        assert!(reading(8, Path::new("/nonexistent")).contains("\"simulated\":true"));
    }
}
