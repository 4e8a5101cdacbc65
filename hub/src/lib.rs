//! The cloud side: what the fleet said, who may join it, and how people see it.
//!
//! Takes: devices' sessions and people's requests.
//! Gives: [`store`] (what was received, kept before it is acknowledged) and [`dashboard`] (pages for people).
//! Never: reaches into a device; a device runs what Git says, and the hub only listens and states intent.

pub mod dashboard;
pub mod store;
