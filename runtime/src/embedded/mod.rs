//! Runs pods as containers of this device, with no daemon but the agent.

pub mod network;
