//! Engines that run pods, behind one contract.
//!
//! Takes: [`model::Step`]s, each complete: an engine looks nothing up and decides nothing.
//! Gives: what it sees ([`model::Observed`]), output of containers, and a journal of events per pod that is
//! written where the pod lives, so that what happened while nobody listened is told later, once.
//! [`embedded`] runs containers with a [`shim`] per pod, [`fake`] holds pods in memory.
//! Never: decides what should run, keeps desired state.

mod contract;
pub mod embedded;
pub mod fake;
pub mod logs;
pub mod shim;

pub use contract::{Engine, EngineError, EngineEvent, LogFile, LogQuery, PullProgress, Pulls};
pub use shim::NO_CGROUPS;
