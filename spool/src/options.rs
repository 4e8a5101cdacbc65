//! How a spool is sized.

use crate::block::{FOOTER, PAGE};
use crate::disk::{Disk, RealDisk};
use crate::error::OpenError;
use crate::record::{BootId, Class};
use kit::{Clock, SystemClock};
use std::sync::Arc;
use std::time::Duration;

/// One value per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerClass<T> {
    /// For [`Class::Critical`].
    pub critical: T,
    /// For [`Class::Normal`].
    pub normal: T,
    /// For [`Class::Bulk`].
    pub bulk: T,
}

impl<T: Copy> PerClass<T> {
    /// The class's value.
    pub fn of(&self, class: Class) -> T {
        match class {
            Class::Critical => self.critical,
            Class::Normal => self.normal,
            Class::Bulk => self.bulk,
        }
    }
}

/// Sizes, delays and seams. The default fits a small device.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a segment, the unit in which room is taken and given back. A change holds for new segments.
    pub segment_bytes: u32,
    /// Most bytes on disk, by class; at least two segments each.
    pub budget: PerClass<u64>,
    /// Takes all of the budget from the file system at open, so that the disk cannot be full later.
    pub reserve: bool,
    /// A block is closed at this many bytes of records.
    pub block_bytes: usize,
    /// How long records gather before they are written, by class: for bulk from the first that waits, for the others
    /// from the write before, so that a record after a quiet time does not wait. A strict record of class bulk gathers as
    /// one of class normal does: somebody waits for it. While a sync runs, records gather anyway.
    pub linger: PerClass<Duration>,
    /// How long an acknowledgement may stay in memory alone; lost, it means a resend and nothing else.
    pub cursor_every: Duration,
    /// Most bytes of records waiting for the disk, by class.
    pub queue_bytes: usize,
    /// Most bytes of records held in memory, of all streams that are not strict.
    pub memory_bytes: usize,
    /// When a sampled record that no sink has acknowledged goes to disk: what a crash may cost.
    pub spill_after: Duration,
    /// The zstd level; `None` stores records as they are.
    pub compression: Option<i32>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The present boot.
    pub boot: BootId,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            segment_bytes: 4 << 20,
            budget: PerClass {
                critical: 64 * MIB,
                normal: 128 * MIB,
                bulk: 256 * MIB,
            },
            reserve: false,
            block_bytes: 64 << 10,
            linger: PerClass {
                critical: Duration::ZERO,
                normal: Duration::from_millis(20),
                bulk: Duration::from_secs(1),
            },
            cursor_every: Duration::from_secs(30),
            queue_bytes: 1 << 20,
            memory_bytes: 4 << 20,
            spill_after: Duration::from_secs(10),
            compression: Some(1),
            clock: Arc::new(SystemClock),
            boot: BootId::current(),
            disk: Arc::new(RealDisk),
        }
    }
}

impl Options {
    /// The longest record taken, in bytes: a quarter of a segment, and 1 MiB at most.
    pub fn most_record(&self) -> usize {
        (self.segment_bytes as usize / 4).min(1 << 20)
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let segment = self.segment_bytes as usize;
        if segment < 16 * PAGE || !segment.is_multiple_of(PAGE) || segment > 1 << 30 {
            return Err(OpenError::Options(format!(
                "segment_bytes is {segment}: a multiple of {PAGE} from {} to {} is needed",
                16 * PAGE,
                1 << 30
            )));
        }
        for class in Class::ALL {
            if self.budget.of(class) < 2 * segment as u64 {
                return Err(OpenError::Options(format!(
                    "the budget of class {class} is {} bytes: two segments ({}) is the least",
                    self.budget.of(class),
                    2 * segment
                )));
            }
        }
        if self.block_bytes == 0 || self.block_bytes > (segment - FOOTER) / 2 {
            return Err(OpenError::Options(format!(
                "block_bytes is {}: more than 0 and at most half a segment is needed",
                self.block_bytes
            )));
        }
        Ok(())
    }
}
