//! The pod network in real network namespaces: needs root, nft, ip, iptables, dig and dnsmasq.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and one that is skipped says so"
)]

mod dns;
mod pods;
mod rig;
