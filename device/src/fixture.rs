//! Files of each class's `proc` and `sys`, in their real places and forms, for simulated devices and tests.

use crate::class::{Class, UnknownClass};
use crate::root::{Root, text};
use model::ClassName;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Each class's files: content by path below the root.
const FILES: [(&str, &str); 4] = [
    ("jetson-orin-nx", include_str!("../fixtures/jetson-orin-nx.yaml")),
    ("raspberry-pi-5", include_str!("../fixtures/raspberry-pi-5.yaml")),
    ("raspberry-pi-4", include_str!("../fixtures/raspberry-pi-4.yaml")),
    ("generic", include_str!("../fixtures/generic.yaml")),
];

/// Why a fixture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// No such class.
    #[error(transparent)]
    Class(#[from] UnknownClass),
    /// A file cannot be written.
    #[error("fixture file {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds no fixture of ours.
    #[error("{0} has no thermal zone: write a fixture there first")]
    NoZone(PathBuf),
}

/// Writes the files of `class` below `dir`, for use as `sysroot`. Values are those of a calm device; the boot id is
/// the machine's own, as a simulated device boots with it.
pub fn write(class: &ClassName, dir: &Path) -> Result<(), FixtureError> {
    Class::find(class)?;
    let (_, text) = FILES
        .iter()
        .find(|(name, _)| *name == class.as_str())
        .expect("a test finds files for every class");
    let files: BTreeMap<String, String> =
        serde_saphyr::from_str(text).expect("a test parses every fixture that is compiled in");
    for (path, content) in files {
        put(&dir.join(path), &content)?;
    }
    const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
    let boot_id = Root::new(Path::new("/")).text(BOOT_ID).unwrap_or_default();
    put(&dir.join(BOOT_ID), &format!("{boot_id}\n"))
}

/// Sets every working thermal zone of a fixture, and the chips' own sensors, to `celsius`.
pub fn set_temperature(dir: &Path, celsius: f64) -> Result<(), FixtureError> {
    let root = Root::new(dir);
    let zones = root.entries("sys/class/thermal", "thermal_zone");
    if zones.is_empty() {
        return Err(FixtureError::NoZone(dir.to_owned()));
    }
    let chips = root.entries("sys/class/hwmon", "hwmon");
    let sensors = zones.iter().map(|zone| zone.join("temp"));
    let sensors = sensors.chain(chips.iter().map(|chip| chip.join("temp1_input")));
    for sensor in sensors {
        // What is absent or switched off stays so.
        let works = text(&sensor).and_then(|text| text.parse::<f64>().ok());
        if works.is_some_and(|milli| milli > 0.0) {
            put(&sensor, &format!("{:.0}\n", celsius * 1000.0))?;
        }
    }
    Ok(())
}

/// Raises or clears a Raspberry Pi's alarm of a voltage that is too low; a class without one ignores it.
pub fn set_under_voltage(dir: &Path, low: bool) -> Result<(), FixtureError> {
    for chip in Root::new(dir).entries("sys/class/hwmon", "hwmon") {
        if text(&chip.join("name")).as_deref() == Some("rpi_volt") {
            put(&chip.join("in0_lcrit_alarm"), if low { "1\n" } else { "0\n" })?;
        }
    }
    Ok(())
}

/// Gives the fixture another boot id: what a simulated reboot changes.
pub fn set_boot_id(dir: &Path, boot_id: &str) -> Result<(), FixtureError> {
    put(
        &dir.join("proc/sys/kernel/random/boot_id"),
        &format!("{boot_id}\n"),
    )
}

/// Replaces a file whole, as a reader may come at any moment.
fn put(path: &Path, content: &str) -> Result<(), FixtureError> {
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        kit::disk::replace(path, content.as_bytes())
    };
    write().map_err(|source| FixtureError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FactsReader, detect_class};
    use std::time::Duration;

    #[test]
    fn every_class_has_a_fixture_that_is_taken_for_it() {
        for class in Class::all() {
            let dir = tempfile::tempdir().unwrap();
            write(&class.name, dir.path()).unwrap();
            assert_eq!(detect_class(dir.path()), class.name);
            let facts = FactsReader::patient(dir.path(), dir.path()).read(Duration::from_secs(60));
            assert!(
                facts
                    .temperature_celsius
                    .is_some_and(|t| (20.0..75.0).contains(&t)),
                "{facts:?}"
            );
            assert!(
                facts.memory_total > 0 && facts.memory_used < facts.memory_total,
                "{facts:?}"
            );
            assert_eq!(facts.uptime_seconds, 60);
            assert_eq!(crate::boot_id(dir.path()).unwrap().len(), 36);
        }
        assert_eq!(detect_class(Path::new("/nowhere")).as_str(), "generic");
    }

    #[test]
    fn a_jetson_tells_power_and_gpu_and_leaves_out_what_is_switched_off() {
        let dir = tempfile::tempdir().unwrap();
        write(&"jetson-orin-nx".parse().unwrap(), dir.path()).unwrap();
        let facts = FactsReader::patient(dir.path(), dir.path()).read(Duration::ZERO);
        let board = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit";
        assert_eq!(facts.board.as_deref(), Some(board));
        assert_eq!(facts.gpu_percent, Some(12.4));
        assert_eq!(facts.power_watts.len(), 3);
        assert!((facts.power_watts["VDD_IN"] - 7.596).abs() < 0.001, "{facts:?}");
        assert_eq!(facts.temperatures.len(), 4, "cv0 is off: {facts:?}");
        assert_eq!(facts.under_voltage, None);
    }

    #[test]
    fn a_fixture_can_grow_hot_and_weak() {
        let dir = tempfile::tempdir().unwrap();
        let class = "raspberry-pi-5".parse().unwrap();
        write(&class, dir.path()).unwrap();
        let mut reader = FactsReader::patient(dir.path(), dir.path());
        assert_eq!(reader.read(Duration::ZERO).under_voltage, Some(false));
        set_temperature(dir.path(), 83.5).unwrap();
        set_under_voltage(dir.path(), true).unwrap();
        let facts = reader.read(Duration::ZERO);
        assert_eq!(facts.temperature_celsius, Some(83.5));
        assert_eq!(facts.under_voltage, Some(true));
        set_boot_id(dir.path(), "another").unwrap();
        assert_eq!(crate::boot_id(dir.path()).unwrap(), "another");
        assert!(set_temperature(Path::new("/nowhere"), 1.0).is_err());
    }
}
