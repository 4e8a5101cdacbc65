//! What a device tells of itself and of its workloads beyond its status.
//!
//! Takes: bytes that exporters, containers and programs offer; the kernel's figures, from whoever reads them.
//! Gives: the records of the spool's telemetry streams and back ([`metrics::Batch`]), collectors that fill them,
//! exporters that turn them into a receiver's request and its answer into a `spool::Outcome`.
//! Never: blocks a workload, keeps a clock of its own, decides where records go: `agent` and `hub` compose.

pub mod http;
pub mod logs;
pub mod metrics;
pub mod receive;
pub mod traces;
pub mod webhook;
