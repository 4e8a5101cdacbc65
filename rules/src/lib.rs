//! PromQL, and the alerting and recording rules that are written in it, as far as a device evaluates them.
//!
//! Takes: `PrometheusRule` objects, samples as they are scraped, moments.
//! Gives: expressions that were checked ([`promql::parse`]), their values as Prometheus 3 computes them
//! ([`evaluate`]); the rules of an object and its faults ([`read`]);
//! a [`Store`] of the samples that they need; what they make of these ([`Group::evaluate`]).
//! Never: does I/O, reads a clock, guesses: what is beyond the subset is refused by its name and place.

mod eval;
mod labels;
mod number;
pub mod promql;
mod run;
mod spec;
mod store;
mod template;

pub use eval::{Element, EvalError, LOOKBACK, Source, Value, evaluate};
pub use labels::{Labels, NAME};
pub use run::{ALERTNAME, Alert, Change, Given, Memory, RuleError, State};
pub use spec::{Action, Fault, Group, Rule, read};
pub use store::{NotReady, Store};
pub use template::{Template, TemplateError};

/// A value at a time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Any bits.
    pub value: f64,
}

/// Bits of the value that says that a series has ended (Prometheus' staleness marker).
const STALE: u64 = 0x7ff0_0000_0000_0002;

impl Sample {
    /// The end of a series.
    pub fn end(time: i64) -> Self {
        Self {
            time,
            value: f64::from_bits(STALE),
        }
    }

    /// Whether the series ends here.
    pub fn is_end(&self) -> bool {
        self.value.to_bits() == STALE
    }
}
