//! Sets of sequence numbers as sorted, disjoint, inclusive ranges.

use serde::{Deserialize, Serialize};

/// Sequence numbers held; a stream received in order is one range, whatever its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Whether `sequence` is in the set.
    pub fn contains(&self, sequence: u64) -> bool {
        self.at_or_after(sequence).is_some_and(|(low, _)| low <= sequence)
    }

    /// Adds `low..=high`; what overlaps or touches becomes one range. An empty range adds nothing.
    pub fn insert(&mut self, low: u64, high: u64) {
        if low > high {
            return;
        }
        // Everything from the first range that touches on the left to the last that touches on the right.
        let from = self.0.partition_point(|&(_, end)| end.saturating_add(1) < low);
        let to = self
            .0
            .partition_point(|&(start, _)| start <= high.saturating_add(1));
        let merged = self.0[from..to]
            .iter()
            .fold((low, high), |(a, b), &(start, end)| (a.min(start), b.max(end)));
        self.0.splice(from..to, [merged]);
    }

    /// Removes `low..=high`.
    pub fn remove(&mut self, low: u64, high: u64) {
        if low > high {
            return;
        }
        self.0 = self
            .0
            .iter()
            .flat_map(|&(start, end)| {
                let left = (start, end.min(low.saturating_sub(1)));
                let right = (start.max(high.saturating_add(1)), end);
                let left = (start < low).then_some(left);
                let right = (end > high).then_some(right);
                left.into_iter().chain(right)
            })
            .collect();
    }

    /// What is missing between 1 and the highest number in the set.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut next = 1;
        let mut gaps = Vec::new();
        for &(start, end) in &self.0 {
            if start > next {
                gaps.push((next, start - 1));
            }
            next = end.saturating_add(1);
        }
        gaps
    }

    /// The highest `n` with all of `1..=n` in the set; 0 where 1 is absent.
    pub fn contiguous(&self) -> u64 {
        match self.0.first() {
            Some(&(1, end)) => end,
            _ => 0,
        }
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, (start, end)| sum.saturating_add(end - start + 1))
    }

    /// How many numbers of `1..=upto` are in the set.
    pub fn count_upto(&self, upto: u64) -> u64 {
        let below = self.0.iter().filter(|(start, _)| *start <= upto);
        below.fold(0, |sum, (start, end)| {
            sum.saturating_add((*end).min(upto) - (*start).max(1).min(upto) + 1)
        })
    }

    /// The ranges, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many ranges it takes to write the set down.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// Both sets together.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        other.iter().for_each(|(low, high)| all.insert(low, high));
        all
    }

    fn at_or_after(&self, sequence: u64) -> Option<(u64, u64)> {
        self.0
            .get(self.0.partition_point(|&(_, end)| end < sequence))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((any::<bool>(), 1_u64..60, 0_u64..12), 0..40)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (add, low, length) in steps {
                let high = low + length;
                if add {
                    ranges.insert(low, high);
                    set.extend(low..=high);
                } else {
                    ranges.remove(low, high);
                    set.retain(|n| *n < low || *n > high);
                }
                prop_assert_eq!(ranges.iter().flat_map(|(a, b)| a..=b).collect::<BTreeSet<_>>(), set.clone());
                prop_assert_eq!(ranges.count(), set.len() as u64);
                prop_assert_eq!(ranges.contiguous(), (1..).take_while(|n| set.contains(n)).last().unwrap_or(0));
                let missing: Vec<u64> = ranges.gaps().into_iter().flat_map(|(a, b)| a..=b).collect();
                let top = set.last().copied().unwrap_or(0);
                prop_assert_eq!(missing, (1..=top).filter(|n| !set.contains(n)).collect::<Vec<_>>());
                prop_assert!((0..80).all(|n| ranges.contains(n) == set.contains(&n)));
                // Touching ranges are one: the form is canonical.
                let parts: Vec<_> = ranges.iter().collect();
                prop_assert!(parts.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            }
        }
    }

    #[test]
    fn ends_of_the_number_line() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(0, 0);
        ranges.insert(2, 1);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 0), (u64::MAX, u64::MAX)]);
        ranges.remove(0, u64::MAX);
        assert_eq!(ranges.pieces(), 0);
    }
}
