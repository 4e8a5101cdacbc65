//! Tests against real peers: Debian's registry, skopeo, umoci, and links that break.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panic and say why they skip"
)]

mod access;
mod api;
mod build;
mod common;
mod crash;
mod fuzz;
mod hostile;
mod images;
mod registry;
mod resume;
