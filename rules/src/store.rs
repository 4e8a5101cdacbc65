//! The samples that rules need, and no others, for as long as they need them.

use crate::eval::{LOOKBACK, Source};
use crate::promql::{Expr, Selector};
use crate::{Labels, Sample};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a series costs beside its samples and the text of its labels.
const SERIES_BYTES: usize = 160;
/// And each label.
const LABEL_BYTES: usize = 48;
/// A selector over a range is answered at the latest after this, in milliseconds, however long the range is.
const LONGEST_WAIT: i64 = 5 * 60 * 1000;
/// So many samples may be too old before they are let go of.
const SLACK: usize = 16;

/// Holds samples of series that some selector means.
#[derive(Debug)]
pub struct Store {
    needs: Vec<Need>,
    /// By the metric's name that a selector asks for; empty for those that ask for none.
    by_metric: HashMap<String, Vec<usize>>,
    series: BTreeMap<String, BTreeMap<Labels, Held>>,
    used: usize,
    most: usize,
}

/// What a selector needs.
#[derive(Debug)]
struct Need {
    selector: Selector,
    shown: String,
    /// Milliseconds.
    keep: i64,
    since: i64,
    /// When a sample of it last found no room.
    refused: Option<i64>,
}

#[derive(Debug)]
struct Held {
    samples: Vec<Sample>,
    keep: i64,
    bytes: usize,
}

/// Why a rule is not evaluated now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Samples are gathered since too short a time.
    #[error("samples of {selector} are gathered for {seconds} s more")]
    Gathering {
        /// For which selector.
        selector: String,
        /// How long still.
        seconds: i64,
    },
    /// There is no room for what it needs.
    #[error("samples of {selector} need more than the {most} bytes that rules have (alerts.memory)")]
    NoRoom {
        /// For which selector.
        selector: String,
        /// The budget.
        most: usize,
    },
}

impl Store {
    /// Takes this many bytes at most, roughly counted.
    pub fn new(most: usize) -> Self {
        Self {
            needs: Vec::new(),
            by_metric: HashMap::new(),
            series: BTreeMap::new(),
            used: 0,
            most,
        }
    }

    /// From now on these expressions are evaluated: what they need and was there stays, what they do not goes.
    pub fn follow<'a>(&mut self, expressions: impl Iterator<Item = &'a Expr>, now: i64) {
        let before: HashMap<String, (i64, i64)> = self
            .needs
            .drain(..)
            .map(|need| (need.shown, (need.keep, need.since)))
            .collect();
        let mut needs: BTreeMap<String, Need> = BTreeMap::new();
        for expr in expressions {
            expr.selectors(LOOKBACK, &mut |selector, keep| {
                let shown = selector.to_string();
                let need = needs.entry(shown.clone()).or_insert_with(|| Need {
                    selector: selector.clone(),
                    shown,
                    keep,
                    since: now,
                    refused: None,
                });
                need.keep = need.keep.max(keep);
            });
        }
        for need in needs.values_mut() {
            if let Some((_, since)) = before.get(&need.shown) {
                need.since = *since;
            }
        }
        self.needs = needs.into_values().collect();
        self.by_metric.clear();
        for (at, need) in self.needs.iter().enumerate() {
            let metric = need.selector.metric().unwrap_or_default().to_owned();
            self.by_metric.entry(metric).or_default().push(at);
        }
        let held = std::mem::take(&mut self.series);
        self.used = 0;
        for (labels, mut held) in held.into_values().flatten() {
            if let Some(keep) = self.keep_of(&labels) {
                held.keep = keep;
                self.used += held.bytes;
                self.series
                    .entry(labels.name().to_owned())
                    .or_default()
                    .insert(labels, held);
            }
        }
    }

    /// Whether series of this metric may be wanted: a quick no for most.
    pub fn wants(&self, metric: &str) -> bool {
        self.by_metric.contains_key(metric) || self.by_metric.contains_key("")
    }

    /// Whether any series is wanted.
    pub fn wants_any(&self) -> bool {
        !self.needs.is_empty()
    }

    /// Whether this series is wanted.
    pub fn wants_series(&self, labels: &Labels) -> bool {
        self.keep_of(labels).is_some()
    }

    fn needs_of(&self, labels: &Labels) -> impl Iterator<Item = usize> + use<> {
        let lists =
            [labels.name(), ""].map(|metric| self.by_metric.get(metric).map_or(&[][..], Vec::as_slice));
        let all = lists[0]
            .iter()
            .chain(if labels.name().is_empty() { &[] } else { lists[1] });
        all.copied()
            .filter(|at| self.needs[*at].selector.matches(labels))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn keep_of(&self, labels: &Labels) -> Option<i64> {
        self.needs_of(labels).map(|at| self.needs[at].keep).max()
    }

    /// Takes a sample, if it is wanted, there is room, and it is newer than those held.
    pub fn put(&mut self, labels: &Labels, sample: Sample) {
        let Some(keep) = self.keep_of(labels) else { return };
        let metric = labels.name();
        let known = self
            .series
            .get_mut(metric)
            .and_then(|series| series.get_mut(labels));
        let mut room = self.most.saturating_sub(self.used);
        if let Some(held) = known {
            if held.samples.last().is_some_and(|last| last.time >= sample.time) {
                return;
            }
            let before = held.bytes;
            held.trim(sample.time);
            room = (room + before).saturating_sub(held.bytes);
            self.used = self.used - before + held.bytes;
            if held.samples.len() < held.samples.capacity() || held.growth() <= room {
                let before = held.bytes;
                held.push(sample);
                self.used = self.used - before + held.bytes;
                return;
            }
        } else {
            let text: usize = labels
                .iter()
                .map(|(name, value)| name.len() + value.len() + LABEL_BYTES)
                .sum();
            let mut held = Held {
                samples: Vec::new(),
                keep,
                bytes: SERIES_BYTES + text,
            };
            held.push(sample);
            if held.bytes <= room {
                self.used += held.bytes;
                self.series
                    .entry(metric.to_owned())
                    .or_default()
                    .insert(labels.clone(), held);
                return;
            }
        }
        for at in self.needs_of(labels) {
            self.needs[at].refused = Some(sample.time);
        }
    }

    /// Lets go of what is too old.
    pub fn trim(&mut self, now: i64) {
        for series in self.series.values_mut() {
            for held in series.values_mut() {
                held.trim(now);
            }
            series.retain(|_, held| {
                held.samples
                    .last()
                    .is_some_and(|last| last.time > now - held.keep)
            });
        }
        self.series.retain(|_, series| !series.is_empty());
        let all = self.series.values().flat_map(BTreeMap::values);
        self.used = all.map(|held| held.bytes).sum();
    }

    /// The budget.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes in use, roughly.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// Series held.
    pub fn len(&self) -> usize {
        self.series.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Whether what an expression needs is gathered: for the whole range of its selectors, five minutes at most, and
    /// for at least `settle` milliseconds.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn ready(&self, expr: &Expr, now: i64, settle: i64) -> Result<(), NotReady> {
        let needs: HashMap<&str, &Need> = self
            .needs
            .iter()
            .map(|need| (need.shown.as_str(), need))
            .collect();
        let mut answer = Ok(());
        let mut seen = HashSet::new();
        expr.selectors(0, &mut |selector, reach| {
            let shown = selector.to_string();
            let Some(need) = needs.get(shown.as_str()) else {
                return;
            };
            if !seen.insert((shown.clone(), reach)) || answer.is_err() {
                return;
            }
            let refused = need
                .refused
                .is_some_and(|time| now - time <= need.keep.max(LOOKBACK));
            let wait = reach.clamp(settle, LONGEST_WAIT.max(settle));
            let missing = need.since + wait - now;
            if refused {
                answer = Err(NotReady::NoRoom {
                    selector: shown,
                    most: self.most,
                });
            } else if missing > 0 {
                answer = Err(NotReady::Gathering {
                    selector: shown,
                    seconds: (missing + 999) / 1000,
                });
            }
        });
        answer
    }
}

impl Held {
    fn push(&mut self, sample: Sample) {
        if self.samples.len() == self.samples.capacity() {
            let more = self.growth() / size_of::<Sample>();
            self.samples.reserve_exact(more);
            self.bytes += more * size_of::<Sample>();
        }
        self.samples.push(sample);
    }

    /// Bytes that one more sample needs, where there is no place for it.
    fn growth(&self) -> usize {
        (self.samples.capacity() / 2).max(4) * size_of::<Sample>()
    }

    fn trim(&mut self, now: i64) {
        let old = self
            .samples
            .partition_point(|sample| sample.time <= now - self.keep);
        if old < SLACK {
            return;
        }
        self.samples.drain(..old);
        if self.samples.len() * 4 < self.samples.capacity() {
            let before = self.samples.capacity();
            self.samples.shrink_to(self.samples.len() * 2);
            self.bytes -= (before - self.samples.capacity()) * size_of::<Sample>();
        }
    }
}

impl Source for Store {
    fn select(&self, selector: &Selector, visit: &mut dyn FnMut(&Labels, &[Sample])) {
        let mut look = |series: &BTreeMap<Labels, Held>| {
            for (labels, held) in series {
                if selector.matches(labels) {
                    visit(labels, &held.samples);
                }
            }
        };
        match selector.metric() {
            Some(metric) => {
                if let Some(series) = self.series.get(metric) {
                    look(series);
                }
            }
            None => self.series.values().for_each(look),
        }
    }
}
