//! The test rig around the product.
//!
//! Gives: [`git_server`], a Git server over HTTP(S).
//! Never: is a dependency of a crate that is shipped to devices.

pub mod git_server;
