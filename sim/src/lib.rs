//! The test rig around the product.
//!
//! Gives: [`git_server`], a Git server over HTTP(S), and [`demo_app`], what the demo runs.
//! Never: is a dependency of a crate that is shipped to devices.

pub mod demo_app;
pub mod git_server;
