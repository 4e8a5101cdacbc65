//! What to do next, and why.
//!
//! Takes: a [`model::Desired`] and what the engine last saw ([`model::Observed`]).
//! Gives: [`Wanted`] (pods and Services, fully resolved) or a list of [`Refusal`]s; from it a [`model::Plan`]
//! with its [`model::WhyReport`], and the state of each workload for people.
//! Never: awaits, does I/O, reads a clock, remembers anything. The same input gives the same plan; applying a
//! plan makes no choices, and planning again after any part of it was applied converges.

mod api;
mod decide;
mod expand;
mod health;
mod refusal;
mod wanted;

pub use decide::plan;
pub use expand::{Limits, expand};
pub use health::{Verdict, verdict, workloads};
pub use refusal::Refusal;
pub use wanted::{Rolling, Run, Wanted, WantedImage, WantedService, Workload};
