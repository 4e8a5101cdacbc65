//! What a sender does with a receiver's answer: a state machine without clock, network or disk.
//!
//! A batch (records of one stream with fixed bounds) is sent until all of it is settled. An answer that blames no
//! record makes the sender wait; one that blames the batch makes it halve the batch until the record that the
//! receiver cannot take stands alone, which is then set aside: about log2(n) requests instead of a lost batch, and
//! never a stream that stands still.

use std::collections::VecDeque;
use std::time::Duration;

/// What a receiver answered to a range of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has them all, perhaps since an earlier try.
    Done,
    /// It has all but these, which it will never take; each with its reason.
    Partial(Vec<(u64, String)>),
    /// It cannot take anything now; when to try again, if it said so.
    Later(Option<Duration>),
    /// The request is too large.
    Split,
    /// It will never take the request as it is, without saying which record is to blame.
    Poison(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send the records `first..=last` as one request.
    Send {
        /// The first number.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Wait, then ask again.
    Wait(Duration),
    /// Set a record aside, then ask again.
    SetAside {
        /// Its number.
        seq: u64,
        /// What the receiver said.
        reason: String,
    },
    /// All up to here is settled: acknowledge it.
    Ack(u64),
}

/// How long and how often to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The first wait, doubled at each further one.
    pub first: Duration,
    /// The longest wait of our own.
    pub most: Duration,
    /// The longest wait that a receiver may ask for.
    pub most_asked: Duration,
    /// Answers in a row that blame nobody, while others get through, after which a batch counts as poison. `None`
    /// where nothing else can get through.
    pub tries: Option<u32>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
            most_asked: Duration::from_secs(3600),
            tries: None,
        }
    }
}

/// One batch on its way to one sink.
#[derive(Debug, Clone)]
pub struct Delivery {
    patience: Patience,
    last: u64,
    /// Ranges not settled, the next one first.
    open: VecDeque<(u64, u64)>,
    aside: VecDeque<(u64, String)>,
    waiting: Option<Duration>,
    waits: u32,
    acked: bool,
}

impl Delivery {
    /// Begins a batch of the records `first..=last`.
    pub fn new(first: u64, last: u64, patience: Patience) -> Self {
        Self {
            patience,
            last,
            open: [(first, last)].into(),
            aside: VecDeque::new(),
            waiting: None,
            waits: 0,
            acked: false,
        }
    }

    /// What to do now; `None` once the batch is settled and acknowledged. `jitter` is drawn from 0 to 1: devices must
    /// not come back in step.
    pub fn next(&mut self, jitter: f64) -> Option<Step> {
        if let Some((seq, reason)) = self.aside.pop_front() {
            return Some(Step::SetAside { seq, reason });
        }
        if let Some(wait) = self.waiting.take() {
            // Never sooner than asked: the jitter only adds.
            return Some(Step::Wait(wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0)));
        }
        if let Some((first, last)) = self.open.front() {
            return Some(Step::Send {
                first: *first,
                last: *last,
            });
        }
        if self.acked {
            return None;
        }
        self.acked = true;
        Some(Step::Ack(self.last))
    }

    /// Takes the answer to the range that [`Delivery::next`] said to send.
    pub fn answered(&mut self, outcome: Outcome) {
        let Some((first, last)) = self.open.pop_front() else {
            return;
        };
        match outcome {
            Outcome::Done => self.waits = 0,
            Outcome::Partial(refused) => {
                self.waits = 0;
                self.aside.extend(
                    refused
                        .into_iter()
                        .filter(|(seq, _)| (first..=last).contains(seq)),
                );
            }
            Outcome::Later(asked) => {
                self.waits += 1;
                if self.patience.tries.is_some_and(|tries| self.waits >= tries) {
                    self.waits = 0;
                    self.blame(first, last, "the receiver failed each time it was sent this");
                } else {
                    self.waiting = Some(self.wait(asked));
                    self.open.push_front((first, last));
                }
            }
            Outcome::Split => self.blame(first, last, "one record alone is too large for the receiver"),
            Outcome::Poison(reason) => self.blame(first, last, &reason),
        }
    }

    /// Halves a range, or sets its only record aside.
    fn blame(&mut self, first: u64, last: u64, reason: &str) {
        if first == last {
            self.aside.push_back((first, reason.to_owned()));
            return;
        }
        let middle = first + (last - first) / 2;
        self.open.push_front((middle + 1, last));
        self.open.push_front((first, middle));
    }

    fn wait(&self, asked: Option<Duration>) -> Duration {
        let doubled = self
            .patience
            .first
            .saturating_mul(1 << self.waits.saturating_sub(1).min(20));
        match asked {
            Some(asked) => asked.clamp(self.patience.first, self.patience.most_asked),
            None => doubled.min(self.patience.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A receiver with records that it never takes, a limit on requests, and bad days.
    struct Receiver {
        poison: BTreeSet<u64>,
        most: u64,
        names_them: bool,
        bad_days: Vec<bool>,
        loses_reply: Vec<bool>,
        has: BTreeSet<u64>,
    }

    impl Receiver {
        fn take(&mut self, first: u64, last: u64) -> Outcome {
            if self.bad_days.pop().unwrap_or(false) {
                return Outcome::Later(None);
            }
            if last - first + 1 > self.most {
                return Outcome::Split;
            }
            let bad: Vec<u64> = self.poison.range(first..=last).copied().collect();
            if !bad.is_empty() && !self.names_them {
                return Outcome::Poison("400".to_owned());
            }
            self.has
                .extend((first..=last).filter(|seq| !self.poison.contains(seq)));
            if self.loses_reply.pop().unwrap_or(false) {
                return Outcome::Later(Some(Duration::from_secs(7200)));
            }
            match bad.is_empty() {
                true => Outcome::Done,
                false => Outcome::Partial(bad.into_iter().map(|seq| (seq, "400".to_owned())).collect()),
            }
        }
    }

    proptest! {
        #[test]
        fn all_but_the_poison_arrives_and_the_poison_is_set_aside_alone(
            count in 1_u64..200,
            poison in prop::collection::btree_set(1_u64..200, 0..6),
            most in 1_u64..200,
            names_them: bool,
            bad_days in prop::collection::vec(any::<bool>(), 0..20),
            loses_reply in prop::collection::vec(any::<bool>(), 0..20),
        ) {
            let poison: BTreeSet<u64> = poison.into_iter().filter(|seq| *seq <= count).collect();
            let mut receiver = Receiver { poison: poison.clone(), most, names_them, bad_days, loses_reply, has: BTreeSet::new() };
            let patience = Patience::default();
            let mut delivery = Delivery::new(1, count, patience);
            let mut aside = BTreeSet::new();
            let mut requests = 0;
            let mut acked = None;
            while let Some(step) = delivery.next(0.5) {
                prop_assert_eq!(acked, None);
                match step {
                    Step::Send { first, last } => {
                        requests += 1;
                        prop_assert!(requests < 5000);
                        delivery.answered(receiver.take(first, last));
                    }
                    Step::Wait(wait) => prop_assert!(wait >= patience.first && wait <= patience.most_asked.mul_f64(1.25)),
                    Step::SetAside { seq, .. } => prop_assert!(aside.insert(seq)),
                    Step::Ack(upto) => acked = Some(upto),
                }
            }
            prop_assert_eq!(acked, Some(count));
            prop_assert_eq!(&aside, &poison);
            let want: BTreeSet<u64> = (1..=count).filter(|seq| !poison.contains(seq)).collect();
            prop_assert_eq!(receiver.has, want);
        }
    }

    #[test]
    fn one_poison_record_of_a_thousand_costs_some_twenty_requests() {
        let mut delivery = Delivery::new(1, 1000, Patience::default());
        let mut requests = 0;
        while let Some(step) = delivery.next(0.0) {
            if let Step::Send { first, last } = step {
                requests += 1;
                let bad = (first..=last).contains(&777);
                delivery.answered(if bad {
                    Outcome::Poison("400".to_owned())
                } else {
                    Outcome::Done
                });
            }
        }
        assert!(requests <= 21, "{requests}");
    }

    #[test]
    fn a_batch_that_always_fails_while_others_pass_becomes_poison() {
        let patience = Patience {
            tries: Some(3),
            ..Patience::default()
        };
        let mut delivery = Delivery::new(1, 2, patience);
        let mut waits = 0;
        let mut aside = Vec::new();
        while let Some(step) = delivery.next(0.0) {
            match step {
                Step::Send { first, last } => delivery.answered(match (first..=last).contains(&2) {
                    true => Outcome::Later(None),
                    false => Outcome::Done,
                }),
                Step::Wait(_) => waits += 1,
                Step::SetAside { seq, .. } => aside.push(seq),
                Step::Ack(upto) => assert_eq!(upto, 2),
            }
        }
        assert_eq!((aside, waits), (vec![2], 4));
    }
}
