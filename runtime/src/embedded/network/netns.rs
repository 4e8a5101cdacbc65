//! Entering and making network namespaces.
//!
//! A network namespace belongs to a thread. Every change of it happens here, in a plain thread that ends
//! right after: a worker of an async runtime that changed its namespace would take the next task along.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Runs `work` in a thread that has entered the network namespace behind `netns`.
pub fn enter<T: Send>(netns: impl AsFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let netns = netns.as_fd();
    in_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Makes a network namespace with nothing but a loopback that is down; it lives as long as the file is open or
/// a process is in it.
pub fn create() -> io::Result<File> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        current()
    })
}

/// The calling thread's network namespace.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
