//! Temperatures, power and alarms, where the board tells them.
//!
//! Some thermal zones block while their engine is switched off, and one would block the agent with it (Jetson Orin);
//! so each is read in a thread of its own, waited for until a deadline, and left alone while it hangs.

use crate::root::{Root, text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long all thermal zones together are waited for.
const DEADLINE: Duration = Duration::from_millis(250);

/// What a switched-off or broken sensor answers lies outside of these (-256 on Tegra, 0 K or 255 elsewhere).
const BELIEVABLE: std::ops::RangeInclusive<f64> = -55.0..=200.0;

/// Readings that come later than their deadline.
#[derive(Debug)]
pub struct Sensors {
    deadline: Duration,
    pending: BTreeMap<PathBuf, Receiver<Option<f64>>>,
}

impl Default for Sensors {
    fn default() -> Self {
        Self::with_deadline(DEADLINE)
    }
}

impl Sensors {
    /// Waits so long for all zones together.
    pub fn with_deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            pending: BTreeMap::new(),
        }
    }

    /// Degrees Celsius by zone; chips' own sensors only where there are no zones, as zones repeat them.
    pub fn temperatures(&mut self, root: &Root) -> BTreeMap<String, f64> {
        let zones = root.entries("sys/class/thermal", "thermal_zone");
        let mut names = Names::default();
        let mut sensors: Vec<(String, PathBuf)> = zones
            .into_iter()
            .filter_map(|zone| Some((names.unique(text(&zone.join("type"))?), zone.join("temp"))))
            .collect();
        if sensors.is_empty() {
            sensors = chips(root, &mut names);
        }
        self.read(sensors)
    }

    fn read(&mut self, sensors: Vec<(String, PathBuf)>) -> BTreeMap<String, f64> {
        for (_, path) in &sensors {
            self.ask(path);
        }
        let deadline = Instant::now() + self.deadline;
        let mut temperatures = BTreeMap::new();
        for (name, path) in sensors {
            let Some(answer) = self.pending.get(&path) else {
                continue;
            };
            match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                answered => {
                    self.pending.remove(&path);
                    if let Ok(Some(celsius)) = answered {
                        temperatures.insert(name, celsius);
                    }
                }
            }
        }
        temperatures
    }

    /// Has a sensor read, unless an earlier reading hangs.
    fn ask(&mut self, path: &Path) {
        if let Some(earlier) = self.pending.get(path) {
            match earlier.try_recv() {
                Err(TryRecvError::Empty) => return,
                // Too late to be of use; ask anew.
                Ok(_) | Err(TryRecvError::Disconnected) => {}
            }
        }
        let (sender, receiver) = channel();
        let target = path.to_owned();
        let started = thread::Builder::new()
            .name("sensor".into())
            .stack_size(64 * 1024)
            .spawn(move || {
                let milli = text(&target).and_then(|text| text.parse::<f64>().ok());
                let celsius = milli.map(|milli| milli / 1000.0);
                // Nobody waits for an answer that is too late.
                let _late = sender.send(celsius.filter(|celsius| BELIEVABLE.contains(celsius)));
            });
        if started.is_ok() {
            self.pending.insert(path.to_owned(), receiver);
        }
    }
}

/// Names as the board gives them; a second zone of the same name gets a number.
#[derive(Debug, Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
    fn unique(&mut self, name: String) -> String {
        let count = self.0.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 {
            name
        } else {
            format!("{name}-{count}")
        }
    }
}

/// Chips of hwmon with their names.
fn hwmon(root: &Root) -> impl Iterator<Item = (String, PathBuf)> {
    let chips = root.entries("sys/class/hwmon", "hwmon").into_iter();
    chips.filter_map(|chip| Some((text(&chip.join("name"))?, chip)))
}

fn chips(root: &Root, names: &mut Names) -> Vec<(String, PathBuf)> {
    let mut sensors = Vec::new();
    for (chip, dir) in hwmon(root) {
        // Numbers start at 1 and may have gaps (kernel's hwmon sysfs interface).
        for number in 1..=64 {
            let input = dir.join(format!("temp{number}_input"));
            if input.exists() {
                let label = text(&dir.join(format!("temp{number}_label")));
                let name = label.map_or(chip.clone(), |label| format!("{chip} {label}"));
                sensors.push((names.unique(name), input));
            }
        }
    }
    sensors
}

/// Watts by rail, from power monitors; the product of volts and amperes where a chip has no power of its own.
pub fn power(root: &Root) -> BTreeMap<String, f64> {
    let mut rails = BTreeMap::new();
    for (chip, dir) in hwmon(root).filter(|(chip, _)| chip.starts_with("ina")) {
        let number = |name: String| text(&dir.join(name))?.parse::<f64>().ok();
        // Channels 4 to 7 of an ina3221 are sums of shunt voltages, not rails.
        for channel in 1..=3 {
            let label = text(&dir.join(format!("in{channel}_label"))).unwrap_or(format!("{chip} {channel}"));
            if label == "NC" {
                continue;
            }
            let microwatts = number(format!("power{channel}_input"));
            let product = || {
                let millivolts = number(format!("in{channel}_input"))?;
                Some(millivolts * number(format!("curr{channel}_input"))?)
            };
            if let Some(microwatts) = microwatts.or_else(product) {
                rails.insert(label, microwatts / 1e6);
            }
        }
    }
    rails
}

/// Whether the supply's voltage is too low, on a Raspberry Pi.
pub fn under_voltage(root: &Root) -> Option<bool> {
    let (_, dir) = hwmon(root).find(|(chip, _)| chip == "rpi_volt")?;
    Some(text(&dir.join("in0_lcrit_alarm"))? != "0")
}

/// Busy share of the GPU, 0 to 100. The device is found by its node's name, as its path changes with each release.
pub fn gpu_percent(root: &Root) -> Option<f64> {
    let gpu = root.entries("sys/class/devfreq", "").into_iter().find(|dir| {
        let name = text(&dir.join("device/of_node/name")).unwrap_or_default();
        ["gpu", "ga10b", "gv11b"].contains(&name.as_str())
    })?;
    let per_mille: f64 = text(&gpu.join("device/load"))?.parse().ok()?;
    (0.0..=1000.0).contains(&per_mille).then_some(per_mille / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn zone(root: &Path, number: u32, kind: &str) -> PathBuf {
        let dir = root.join(format!("sys/class/thermal/thermal_zone{number}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("type"), kind).unwrap();
        dir.join("temp")
    }

    #[test]
    fn a_zone_that_blocks_is_passed_over_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::write(zone(dir.path(), 0, "cpu"), "40000").unwrap();
        // A pipe that nobody writes to blocks its reader, as the driver of a gated GPU does.
        let blocking = zone(dir.path(), 1, "gpu");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &blocking,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        fs::create_dir(zone(dir.path(), 2, "broken")).unwrap();
        fs::write(zone(dir.path(), 3, "off"), "-256000").unwrap();
        fs::write(zone(dir.path(), 10, "cpu"), "41500").unwrap();

        let mut sensors = Sensors::default();
        let want = BTreeMap::from([("cpu".to_owned(), 40.0), ("cpu-2".to_owned(), 41.5)]);
        let mut eventually = |what: &str, holds: &dyn Fn(&BTreeMap<String, f64>, &Sensors) -> bool| {
            let start = Instant::now();
            loop {
                let found = sensors.temperatures(&root);
                if holds(&found, &sensors) {
                    return;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(30),
                    "never {what}: {found:?}"
                );
            }
        };
        for _ in 0..3 {
            // One thread waits, not one more each time.
            eventually("all but the blocking one", &|found, sensors| {
                *found == want && sensors.pending.len() == 1
            });
        }
        fs::write(&blocking, "60000").unwrap();
        fs::remove_file(&blocking).unwrap();
        fs::write(&blocking, "61000").unwrap();
        eventually("back", &|found, _| found.get("gpu") == Some(&61.0));
    }

    #[test]
    fn chips_serve_where_there_are_no_zones() {
        let dir = tempfile::tempdir().unwrap();
        crate::fixture::write(&"generic".parse().unwrap(), dir.path()).unwrap();
        fs::remove_dir_all(dir.path().join("sys/class/thermal")).unwrap();
        let patient = Duration::from_secs(30);
        let found = Sensors::with_deadline(patient).temperatures(&Root::new(dir.path()));
        assert_eq!(
            found,
            BTreeMap::from([("coretemp Package id 0".to_owned(), 44.0)])
        );
    }
}
