//! The seams to the outside, and the few things every daemon needs.
//!
//! Takes: nothing of the product; this crate knows no product word.
//! Gives: [`Clock`] with its fake, [`disk`] writes that survive a power cut, [`Backoff`],
//! [`varint`]s, [`memory`] given back, [`Tasks`] (one owner, one stop, a name for each task), [`chain`] (an error
//! told once, whole).
//! Never: holds state of its own.

mod backoff;
mod clock;
pub mod disk;
mod error;
pub mod memory;
mod tasks;
pub mod varint;

pub use backoff::Backoff;
pub use clock::{Clock, FakeClock, SystemClock};
pub use error::chain;
pub use tasks::{OnEnd, Tasks};
