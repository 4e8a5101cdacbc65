//! Sensors and what boards have of their own. Everything that may hang is read with a deadline.

use super::page::Page;
use super::{HostMetrics, file_name, number};
use crate::root::text;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an off or broken sensor answers is outside of this, in degrees.
const BELIEVABLE: std::ops::RangeInclusive<f64> = -55.0..=200.0;

/// Kinds of hwmon's files (kernel: hwmon/sysfs-interface): prefix, file's end, metric, help, factor.
const HWMON: [(&str, &str, &str, &str, f64); 10] = [
    (
        "temp",
        "input",
        "temp_celsius",
        "Hardware monitor for temperature (input)",
        0.001,
    ),
    (
        "temp",
        "crit",
        "temp_crit_celsius",
        "Hardware monitor for temperature (crit)",
        0.001,
    ),
    (
        "temp",
        "max",
        "temp_max_celsius",
        "Hardware monitor for temperature (max)",
        0.001,
    ),
    (
        "in",
        "input",
        "in_volts",
        "Hardware monitor for voltage (input)",
        0.001,
    ),
    (
        "in",
        "lcrit_alarm",
        "in_lcrit_alarm",
        "Hardware monitor for voltage (lcrit_alarm)",
        1.0,
    ),
    (
        "curr",
        "input",
        "curr_amps",
        "Hardware monitor for current (input)",
        0.001,
    ),
    (
        "curr",
        "crit_alarm",
        "curr_crit_alarm",
        "Hardware monitor for current (crit_alarm)",
        1.0,
    ),
    (
        "power",
        "input",
        "power_watt",
        "Hardware monitor for power usage in watts (input)",
        1e-6,
    ),
    (
        "fan",
        "input",
        "fan_rpm",
        "Hardware monitor for fan revolutions per minute (input)",
        1.0,
    ),
    ("pwm", "", "pwm", "Hardware monitor pwm element", 1.0),
];

/// What holds a Raspberry Pi back, by bit of its firmware's answer; the same 16 bits higher for "since the boot".
const THROTTLES: [&str; 4] = [
    "under-voltage",
    "frequency capped",
    "throttled",
    "soft temperature limit",
];

/// One file of a chip.
struct Sensor {
    chip: String,
    sensor: String,
    kind: usize,
    path: PathBuf,
}

impl HostMetrics {
    pub(super) fn sensors(&mut self, page: &mut Page) {
        self.zones(page);
        self.hwmon(page);
        let rails = crate::sensors::power(&self.root);
        let samples = rails
            .into_iter()
            .map(|(rail, watts)| (vec![("rail", rail)], watts));
        page.gauges(
            "leeward_power_rail_watts",
            "Power that a rail of the board draws.",
            samples,
        );
        self.gpu(page);
        self.throttling(page);
    }

    fn zones(&mut self, page: &mut Page) {
        let zones = self.root.entries("sys/class/thermal", "thermal_zone");
        let told = self.read(zones.iter().map(|zone| zone.join("temp")));
        let samples = zones.iter().filter_map(|zone| {
            let celsius = number(told.get(&zone.join("temp"))?)? / 1000.0;
            let kind = text(&zone.join("type")).unwrap_or_default();
            let labels = vec![
                ("type", kind),
                ("zone", file_name(zone).replace("thermal_zone", "")),
            ];
            BELIEVABLE.contains(&celsius).then_some((labels, celsius))
        });
        page.gauges("node_thermal_zone_temp", "Zone temperature in Celsius", samples);
    }

    fn hwmon(&mut self, page: &mut Page) {
        let chips = self.root.entries("sys/class/hwmon", "hwmon");
        let chips: Vec<(String, String, PathBuf)> = chips
            .into_iter()
            .filter_map(|dir| Some((chip_name(&dir), text(&dir.join("name"))?, dir)))
            .collect();
        let samples = chips
            .iter()
            .map(|(chip, name, _)| (vec![("chip", chip.clone()), ("chip_name", name.clone())], 1.0));
        let help = "Annotation metric for human-readable chip names";
        page.gauges("node_hwmon_chip_names", help, samples);
        let sensors: Vec<Sensor> = chips
            .iter()
            .flat_map(|(chip, _, dir)| sensors_of(chip, dir))
            .collect();
        let told = self.read(sensors.iter().map(|sensor| sensor.path.clone()));
        for (kind, (.., metric, help, factor)) in HWMON.iter().enumerate() {
            let of_kind = sensors.iter().filter(|sensor| sensor.kind == kind);
            let samples = of_kind.filter_map(|sensor| {
                let value = number(told.get(&sensor.path)?)? * factor;
                let labels = vec![("chip", sensor.chip.clone()), ("sensor", sensor.sensor.clone())];
                Some((labels, value))
            });
            page.gauges(&format!("node_hwmon_{metric}"), help, samples);
        }
        let labels = chips.iter().flat_map(|(chip, _, dir)| labels_of(chip, dir));
        let samples = labels.map(|labels| (labels, 1.0));
        page.gauges(
            "node_hwmon_sensor_label",
            "Label for given chip and sensor",
            samples,
        );
    }

    fn gpu(&mut self, page: &mut Page) {
        let busy = crate::sensors::gpu_percent(&self.root).map(|percent| percent / 100.0);
        let help = "Part of the time that the GPU was busy.";
        page.one("leeward_gpu_busy_ratio", "gauge", help, busy);
        let engines = self.root.entries("sys/class/devfreq", "");
        let told = self.read(engines.iter().map(|dir| dir.join("cur_freq")));
        let samples = told.iter().filter_map(|(path, text)| {
            let device = path.parent().map(file_name).unwrap_or_default();
            Some((vec![("device", device)], number(text)?))
        });
        page.gauges(
            "leeward_devfreq_hertz",
            "Frequency that an engine of the board runs at.",
            samples,
        );
    }

    fn throttling(&mut self, page: &mut Page) {
        let file = self
            .root
            .path("sys/devices/platform/soc/soc:firmware/get_throttled");
        let told = self.read([file]);
        let bits = told
            .values()
            .find_map(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        let samples = bits.into_iter().flat_map(|bits| {
            let reasons = THROTTLES.into_iter().enumerate();
            reasons.flat_map(move |(bit, reason)| {
                [("now", bit), ("boot", bit + 16)].map(|(since, shift)| {
                    let labels = vec![("reason", reason.to_owned()), ("since", since.to_owned())];
                    (labels, f64::from(bits >> shift & 1))
                })
            })
        });
        let help = "Whether the firmware holds the board back, by reason.";
        page.gauges("leeward_throttled", help, samples);
        let low = crate::sensors::under_voltage(&self.root).map(f64::from);
        let help = "Whether the supply's voltage is too low.";
        page.one("leeward_under_voltage", "gauge", help, low);
    }
}

/// As node_exporter names a chip: its bus and device, else its own name.
fn chip_name(dir: &Path) -> String {
    let clean = |text: &str| {
        let kept = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        };
        text.chars()
            .map(kept)
            .collect::<String>()
            .trim_matches('_')
            .to_owned()
    };
    let Ok(device) = std::fs::canonicalize(dir.join("device")) else {
        return clean(&text(&dir.join("name")).unwrap_or_else(|| file_name(dir)));
    };
    let name = clean(&file_name(&device));
    match std::fs::canonicalize(device.join("subsystem")) {
        Ok(bus) => format!("{}_{name}", clean(&file_name(&bus))),
        Err(_) => name,
    }
}

fn files_of(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn sensors_of(chip: &str, dir: &Path) -> Vec<Sensor> {
    let found = files_of(dir).filter_map(|file| {
        let (kind, sensor) = kind_of(&file)?;
        Some(Sensor {
            chip: chip.to_owned(),
            sensor: sensor.to_owned(),
            kind,
            path: dir.join(&file),
        })
    });
    let mut sensors: Vec<Sensor> = found.collect();
    sensors.sort_by_key(|sensor| (sensor.kind, sensor.sensor.len(), sensor.sensor.clone()));
    sensors
}

/// Which of [`HWMON`] a file is, and its sensor: `temp1_input` is temp1.
fn kind_of(file: &str) -> Option<(usize, &str)> {
    let (sensor, end) = file.split_once('_').unwrap_or((file, ""));
    let prefix = sensor.trim_end_matches(|c: char| c.is_ascii_digit());
    let kind = HWMON
        .iter()
        .position(|(kind, ends, ..)| *kind == prefix && *ends == end)?;
    (prefix.len() < sensor.len()).then_some((kind, sensor))
}

fn labels_of(chip: &str, dir: &Path) -> Vec<Vec<(&'static str, String)>> {
    let labels: BTreeMap<String, String> = files_of(dir)
        .filter_map(|file| Some((file.strip_suffix("_label")?.to_owned(), text(&dir.join(&file))?)))
        .collect();
    let of_chip = |(sensor, label)| vec![("chip", chip.to_owned()), ("sensor", sensor), ("label", label)];
    labels.into_iter().map(of_chip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;

    fn page(dir: &Path) -> String {
        HostMetrics::new(dir, Path::new("/nowhere")).text()
    }

    #[test]
    fn a_jetson_and_a_pi_tell_what_they_have() {
        for (class, wants) in [
            (
                "jetson-orin-nx",
                vec![
                    "node_thermal_zone_temp{type=\"gpu-thermal\",zone=\"1\"} 47.25\n",
                    "leeward_power_rail_watts{rail=\"VDD_IN\"} 7.596288\n",
                    "leeward_gpu_busy_ratio 0.124\n",
                    "leeward_devfreq_hertz{device=\"17000000.gpu\"} 306000000\n",
                    "node_hwmon_in_volts{chip=\"ina3221\",sensor=\"in1\"} 5.024\n",
                    "node_hwmon_sensor_label{chip=\"ina3221\",sensor=\"in1\",label=\"VDD_IN\"} 1\n",
                    "node_memory_MemTotal_bytes 68719476736\n",
                ],
            ),
            (
                "raspberry-pi-5",
                vec![
                    "leeward_under_voltage 0\n",
                    "node_thermal_zone_temp{type=\"cpu-thermal\"",
                ],
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            crate::fixture::write(&class.parse().unwrap(), dir.path()).unwrap();
            let text = page(dir.path());
            for want in wants {
                assert!(text.contains(want), "{class}: no {want} in\n{text}");
            }
            // A gated engine's sensor answers -256 degrees: that is no temperature.
            assert!(!text.contains("-256"), "{text}");
        }
    }

    #[test]
    fn what_a_pi_and_a_worn_card_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for (path, text) in [
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
            ("sys/block/mmcblk0/device/life_time", "0x01 0x0b\n"),
            ("sys/block/mmcblk0/device/pre_eol_info", "0x02\n"),
        ] {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let text = page(dir.path());
        for want in [
            "leeward_throttled{reason=\"under-voltage\",since=\"now\"} 1\n",
            "leeward_throttled{reason=\"frequency capped\",since=\"now\"} 0\n",
            "leeward_throttled{reason=\"throttled\",since=\"boot\"} 1\n",
            "leeward_emmc_life_used_ratio{device=\"mmcblk0\",area=\"a\"} 0.1\n",
            "leeward_emmc_life_used_ratio{device=\"mmcblk0\",area=\"b\"} 1.1\n",
            "leeward_emmc_pre_eol_info{device=\"mmcblk0\"} 2\n",
        ] {
            assert!(text.contains(want), "no {want} in\n{text}");
        }
    }
}
