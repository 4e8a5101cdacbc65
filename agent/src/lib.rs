//! The device daemon: composition only.
//!
//! Takes: a [`Config`] and an engine; [`embedded::run`] brings the embedded one with all that it stands on.
//! Gives: an [`Agent`] that has bound everything it serves ([`Agent::build`]) and then runs ([`Agent::run`]).
//! `flow` joins the stages: source and render in `prepare`, the one loop in `converge`, status in `report`, events in
//! `journal`, metrics in `telemetry`, rules in `alerts`, the hub in `uplink` and `orders`, people at the device in `local`.
//! Never: holds an algorithm; those are in the stages' crates. Needs no network to start what it last ran.

mod alerts;
mod config;
mod converge;
pub mod embedded;
mod flow;
mod generations;
mod journal;
mod kustomizations;
pub mod local;
mod logs;
mod orders;
mod prepare;
mod receivers;
mod remotes;
mod report;
mod secret_keys;
mod sources;
mod steps;
mod telemetry;
mod traces;
pub mod uplink;

pub use alerts::{AlertsConfig, Receiver};
pub use config::{Config, ConfigError, HistoryPolicy, Hub, Registry};
pub use converge::HealthPolicy;
pub use flow::{Agent, Seams, Task};
pub use orders::stored_logs;
pub use remotes::Remotes;
pub use secret_keys::{SecretKey, SecretKeyError, SecretKeys};
pub use telemetry::{BadMetrics, Export, MetricsConfig};
pub use traces::{Door, Traces};
