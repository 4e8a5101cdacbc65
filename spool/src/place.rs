//! Wall times for records of a boot whose clock was wrong.
//!
//! A device without a clock battery starts in 1970, or where it last was. Its boot clock is right all the time: once
//! the wall clock has been set, the difference of the two dates every record of that boot, also those before. A boot
//! in which the clock never was set can only be put between its neighbours; such times are marked as estimated.
//! Sequence numbers, never times, give the order.

use crate::record::{BootId, Stamp};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Boots remembered.
const MOST: usize = 64;

/// What is known of the clocks of this and earlier boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Boots(Vec<Boot>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Boot {
    id: BootId,
    /// Wall time of boot, once the clock had been set.
    began: Option<Timestamp>,
    /// The latest wall time known to be past when it began.
    floor: Timestamp,
}

/// When a record was appended, as far as can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Wall time.
    pub at: Timestamp,
    /// The clock of that boot was never set: only the neighbouring boots bound the time.
    pub estimated: bool,
}

impl Boots {
    /// Notes a boot; true if it is new.
    pub(crate) fn begin(&mut self, id: BootId) -> bool {
        if self.0.iter().any(|boot| boot.id == id) {
            return false;
        }
        let floor = self
            .0
            .iter()
            .map(|boot| boot.began.unwrap_or(boot.floor).max(boot.floor))
            .max()
            .unwrap_or(Timestamp::UNIX_EPOCH);
        self.0.push(Boot {
            id,
            began: None,
            floor,
        });
        if self.0.len() > MOST {
            self.0.remove(0);
        }
        true
    }

    /// Notes that the wall clock is right; true if that says something new (a second or more).
    pub(crate) fn synced(&mut self, id: BootId, now: Timestamp, since_boot: SignedDuration) -> bool {
        let Some(boot) = self.0.iter_mut().find(|boot| boot.id == id) else {
            return false;
        };
        let Ok(began) = now.checked_sub(since_boot) else {
            return false;
        };
        let news = boot
            .began
            .is_none_or(|held| held.duration_since(began).abs() >= SignedDuration::from_secs(1));
        if news {
            boot.began = Some(began);
        }
        news
    }

    /// Dates a record.
    pub(crate) fn place(&self, stamp: &Stamp) -> Placed {
        let since = SignedDuration::try_from(stamp.since_boot).unwrap_or(SignedDuration::ZERO);
        let Some(index) = self.0.iter().position(|boot| boot.id == stamp.boot) else {
            return Placed {
                at: stamp.wall,
                estimated: true,
            };
        };
        let boot = &self.0[index];
        if let Some(at) = boot.began.and_then(|began| began.checked_add(since).ok()) {
            return Placed { at, estimated: false };
        }
        // Not before what was past already, not after a later boot began.
        let ceiling = self.0[index + 1..].iter().find_map(|later| later.began);
        let earliest = boot.floor.checked_add(since).unwrap_or(boot.floor);
        let at = stamp.wall.max(earliest);
        Placed {
            at: ceiling.map_or(at, |ceiling| at.min(ceiling)),
            estimated: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn stamp(boot: u8, wall: &str, since: u64) -> Stamp {
        Stamp {
            wall: at(wall),
            boot: BootId([boot; 16]),
            since_boot: Duration::from_secs(since),
        }
    }

    fn secs(count: i64) -> SignedDuration {
        SignedDuration::from_secs(count)
    }

    #[test]
    fn records_from_before_the_clock_was_set_get_its_time() {
        let mut boots = Boots::default();
        assert!(boots.begin(BootId([1; 16])) && !boots.begin(BootId([1; 16])));
        assert!(boots.synced(BootId([1; 16]), at("2026-05-01T10:00:00Z"), secs(100)));
        assert!(!boots.synced(BootId([1; 16]), at("2026-05-01T10:00:50Z"), secs(150)));
        let early = boots.place(&stamp(1, "1970-01-01T00:00:10Z", 10));
        assert_eq!(
            early,
            Placed {
                at: at("2026-05-01T09:58:30Z"),
                estimated: false
            }
        );
        // A clock ten years ahead is corrected the same way.
        let ahead = boots.place(&stamp(1, "2036-05-01T10:00:00Z", 200));
        assert_eq!(ahead.at, at("2026-05-01T10:01:40Z"));
    }

    #[test]
    fn a_boot_whose_clock_was_never_set_lies_between_its_neighbours() {
        let mut boots = Boots::default();
        boots.begin(BootId([1; 16]));
        boots.synced(BootId([1; 16]), at("2026-05-01T10:00:00Z"), secs(0));
        boots.begin(BootId([2; 16]));
        let placed = boots.place(&stamp(2, "1970-01-01T00:01:00Z", 60));
        assert_eq!(
            placed,
            Placed {
                at: at("2026-05-01T10:01:00Z"),
                estimated: true
            }
        );
        boots.begin(BootId([3; 16]));
        boots.synced(BootId([3; 16]), at("2026-05-01T12:00:00Z"), secs(10));
        let ahead = boots.place(&stamp(2, "2036-01-01T00:00:00Z", 60));
        assert_eq!(
            ahead,
            Placed {
                at: at("2026-05-01T11:59:50Z"),
                estimated: true
            }
        );
        let unknown = boots.place(&stamp(9, "2026-01-01T00:00:00Z", 60));
        assert!(unknown.estimated);
    }
}
