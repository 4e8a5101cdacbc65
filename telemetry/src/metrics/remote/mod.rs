//! Prometheus' remote write, 1.0 and 2.0: requests out of batches, and what a receiver's answer means.
//!
//! A batch is one request: all its scrapes of a series stand together, which is what makes requests small. A receiver
//! that refuses a request is sent halves of its series until the one to blame stands alone; that one is counted and
//! told, the others get through.

mod answer;
mod export;
mod proto;
#[cfg(test)]
mod tests;
mod write;

pub use answer::{Answer, Written};
pub use export::{Exporter, Tally, deliver_stream};
pub use write::{Version, request};
