//! Hardware classes: data that is compiled in, checked when first used and by a test.

use crate::root::Root;
use model::{ClassName, Facts};
use serde::Deserialize;
use std::path::Path;
use std::sync::LazyLock;

/// All classes' files, the ones to prefer first.
const FILES: [&str; 4] = [
    include_str!("../classes/jetson-orin-nx.yaml"),
    include_str!("../classes/raspberry-pi-5.yaml"),
    include_str!("../classes/raspberry-pi-4.yaml"),
    include_str!("../classes/generic.yaml"),
];

static CLASSES: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let parse = |text| Class::parse(text).expect("a test parses every class that is compiled in");
    FILES.into_iter().map(parse).collect()
});

/// What the system keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// What workloads' requests may add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// How hot a device is, by its class's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heat {
    /// Below every limit.
    Normal,
    /// Worth a look.
    Warm,
    /// The board slows itself down.
    Throttled,
    /// The board is about to switch itself off.
    Critical,
}

/// Temperatures in degrees Celsius at which a class changes its behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// From here on [`Heat::Warm`].
    pub warm: f64,
    /// From here on [`Heat::Throttled`].
    pub throttle: f64,
    /// From here on [`Heat::Critical`].
    pub shutdown: f64,
}

impl Thermal {
    /// How hot `celsius` is.
    pub fn heat(&self, celsius: f64) -> Heat {
        match celsius {
            t if t >= self.shutdown => Heat::Critical,
            t if t >= self.throttle => Heat::Throttled,
            t if t >= self.warm => Heat::Warm,
            _ => Heat::Normal,
        }
    }
}

/// A hardware class.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: ClassName,
    /// Its name for people.
    pub title: String,
    /// `arm64`; any where absent.
    pub architecture: Option<String>,
    /// Thousandths of a core; the machine's where absent.
    pub cpu_milli: Option<u64>,
    /// Bytes; the machine's where absent.
    pub memory: Option<u64>,
    /// What the system keeps of a full-sized machine.
    pub reserved: Reserved,
    /// See [`Thermal`].
    pub thermal: Thermal,
    /// Folder of the repository that a device of this class renders where its owner names no other.
    pub folder: String,
    /// Device-tree `compatible` strings of its boards.
    boards: Vec<String>,
}

/// A class that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hardware class {name} is not known: use one of {known}, or generic for any other machine")]
pub struct UnknownClass {
    name: ClassName,
    known: String,
}

/// The file's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: ClassName,
    title: String,
    architecture: Option<String>,
    cpus: Option<String>,
    memory: Option<String>,
    reserved: FileReserved,
    thermal: Thermal,
    folder: String,
    boards: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileReserved {
    cpus: String,
    memory: String,
}

/// Why a class's file is none.
#[derive(Debug, thiserror::Error)]
enum BadClass {
    #[error("class file")]
    Form(#[from] serde_saphyr::Error),
    #[error("class file")]
    Quantity(#[from] model::BadQuantity),
    #[error("thermal limits must rise from warm to throttle to shutdown")]
    Thermal,
}

impl Class {
    /// All classes.
    pub fn all() -> &'static [Self] {
        &CLASSES
    }

    /// The class called `name`.
    pub fn find(name: &ClassName) -> Result<&'static Self, UnknownClass> {
        CLASSES.iter().find(|class| class.name == *name).ok_or_else(|| {
            let known: Vec<&str> = CLASSES.iter().map(|class| class.name.as_str()).collect();
            UnknownClass {
                name: name.clone(),
                known: known.join(", "),
            }
        })
    }

    /// What workloads may have on a machine with these facts: capacity less what the system keeps. Capacity is the
    /// class's or the machine's, whichever is less; on a machine smaller than its class the system keeps the same
    /// share, so that a module with an eighth of the memory is not used up by its reservation.
    pub fn allocatable(&self, facts: &Facts) -> Allocatable {
        // Facts come from the kernel and cgroups: cores in fractions, far below the limits of u64.
        let machine_milli = (facts.cpus * 1000.0).max(0.0) as u64;
        Allocatable {
            cpu_milli: after_reserve(self.cpu_milli, machine_milli, self.reserved.cpu_milli),
            memory: after_reserve(self.memory, facts.memory_total, self.reserved.memory),
        }
    }

    fn parse(text: &str) -> Result<Self, BadClass> {
        let file: File = serde_saphyr::from_str(text)?;
        let Thermal {
            warm,
            throttle,
            shutdown,
        } = file.thermal;
        if !(warm < throttle && throttle < shutdown) {
            return Err(BadClass::Thermal);
        }
        Ok(Self {
            name: file.name,
            title: file.title,
            architecture: file.architecture,
            cpu_milli: file.cpus.as_deref().map(model::parse_cpu_milli).transpose()?,
            memory: file.memory.as_deref().map(model::parse_bytes).transpose()?,
            reserved: Reserved {
                cpu_milli: model::parse_cpu_milli(&file.reserved.cpus)?,
                memory: model::parse_bytes(&file.reserved.memory)?,
            },
            thermal: file.thermal,
            folder: file.folder,
            boards: file.boards,
        })
    }
}

fn after_reserve(class: Option<u64>, machine: u64, reserved: u64) -> u64 {
    let capacity = class.map_or(machine, |class| class.min(machine));
    let share = match class {
        Some(class) if class > 0 => u128::from(reserved) * u128::from(capacity) / u128::from(class),
        // Without a nominal size there is no proportion; a tiny machine keeps half.
        _ => u128::from(reserved.min(capacity / 2)),
    };
    capacity.saturating_sub(u64::try_from(share).unwrap_or(u64::MAX))
}

/// The class of the machine below `sysroot`, by its device tree; `generic` for a board that no class names.
pub fn detect_class(sysroot: &Path) -> ClassName {
    let compatible = Root::new(sysroot).strings("sys/firmware/devicetree/base/compatible");
    // The tree names the board first and its chip last, so the first match is the closest.
    let by_board = compatible
        .iter()
        .find_map(|board| CLASSES.iter().find(|class| class.boards.contains(board)));
    let class = by_board.unwrap_or_else(|| CLASSES.last().expect("generic is compiled in"));
    class.name.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> &'static Class {
        Class::find(&name.parse().unwrap()).unwrap()
    }

    fn machine(cpus: f64, memory: u64) -> Facts {
        Facts {
            cpus,
            memory_total: memory,
            ..Facts::default()
        }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn every_class_is_well_formed_and_generic_is_last() {
        for text in FILES {
            Class::parse(text).unwrap();
        }
        assert_eq!(Class::all().last().unwrap().name.as_str(), "generic");
        let err = Class::find(&"toaster".parse().unwrap()).unwrap_err().to_string();
        assert!(err.contains("toaster") && err.contains("raspberry-pi-5"), "{err}");
    }

    #[test]
    fn reservations_are_those_of_the_design() {
        let full = class("jetson-orin-nx").allocatable(&machine(8.0, 64 * GIB));
        assert_eq!((full.cpu_milli, full.memory), (6000, 56 * GIB));
        for pi in ["raspberry-pi-4", "raspberry-pi-5"] {
            let full = class(pi).allocatable(&machine(4.0, 8 * GIB));
            assert_eq!((full.cpu_milli, full.memory), (3000, 6 * GIB));
        }
    }

    #[test]
    fn a_machine_smaller_than_its_class_keeps_the_share_and_a_larger_one_the_size() {
        let small = class("jetson-orin-nx").allocatable(&machine(2.0, 8 * GIB));
        assert_eq!((small.cpu_milli, small.memory), (1500, 7 * GIB));
        let large = class("raspberry-pi-5").allocatable(&machine(64.0, 256 * GIB));
        assert_eq!((large.cpu_milli, large.memory), (3000, 6 * GIB));
        let any = class("generic").allocatable(&machine(2.0, GIB));
        assert_eq!((any.cpu_milli, any.memory), (1800, GIB - (256 << 20)));
        let tiny = class("generic").allocatable(&machine(0.2, GIB / 8));
        assert_eq!((tiny.cpu_milli, tiny.memory), (100, GIB / 16));
    }

    #[test]
    fn heat_follows_the_limits() {
        let thermal = class("raspberry-pi-5").thermal;
        let heats = [20.0, 75.0, 84.9, 110.0].map(|t| thermal.heat(t));
        assert_eq!(heats, [Heat::Normal, Heat::Warm, Heat::Throttled, Heat::Critical]);
    }
}
