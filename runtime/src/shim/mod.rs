//! The small process beside each pod: `leeward shim`.
//!
//! Takes: a pod and its images, once, from the agent; then requests over a socket.
//! Gives: running containers, their output in log files, their state in a file and over the socket, a journal of
//! what happened. It holds the pod's namespaces, restarts containers by policy and runs their probes, whether an
//! agent lives or not.
//! Never: has a second thread, an async runtime, or a view of what should run.

mod cgroup;
mod container;
mod control;
mod fork;
mod helper;
mod https;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod nursery;
mod oci;
mod output;
mod pod;
mod prepare;
mod probe;
pub(crate) mod protocol;
mod rootfs;
mod seccomp;
mod setup;
mod spec;
mod volumes;

pub(crate) use cgroup::Cgroups;
pub use cgroup::NO_CGROUPS;
pub use protocol::{LocalImage, OciChoice, Pace};
pub(crate) use setup::{open_dir, short_path};

use std::ffi::OsString;

/// Runs a shim or one of its helpers; gives the exit code. `args` are those after the word `shim`.
///
/// Call it from `main` before anything starts a thread: namespaces are entered and processes cloned.
pub fn main(args: Vec<OsString>) -> u8 {
    let mut args = args.into_iter();
    let what = args.next();
    let rest: Vec<OsString> = args.collect();
    // A shim blocks the signals that it waits for, and what it starts inherits that: a container would never hear
    // SIGTERM.
    if nix::sys::signal::SigSet::all().thread_unblock().is_err() {
        return 2;
    }
    match what.as_ref().and_then(|what| what.to_str()) {
        Some("nursery") => nursery::serve(),
        Some("run") => helper::run(rest),
        Some("exec") => helper::exec(rest),
        Some("https") => https::probe(rest),
        Some("call") => helper::call(rest),
        Some("hold") => helper::hold(rest),
        Some("bury") => helper::bury(),
        _ => {
            complain("leeward shim is started by the agent, not by hand");
            2
        }
    }
}

/// Writes to the shim's log, which is its standard error.
#[expect(
    clippy::print_stderr,
    reason = "the agent gives the shim its log as standard error"
)]
fn complain(what: impl std::fmt::Display) {
    eprintln!("{} {what}", jiff::Timestamp::now());
}
