//! fork(2), where it is sound.
#![expect(
    unsafe_code,
    reason = "fork has no safe wrapper: a child of a process with threads may only exec"
)]

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::io;

/// Runs `work` in a process of its own that is nobody's child but init's; its result is that process's exit code.
pub(super) fn detached(work: impl FnOnce() -> u8) -> io::Result<()> {
    // SAFETY: the nursery is dispatched from `main` before anything starts a thread and starts none itself, so no lock
    // can be held by a thread that the child does not have.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(())
        }
        // SAFETY: as above; this process is a copy of one without threads.
        ForkResult::Child => match unsafe { fork() } {
            Ok(ForkResult::Child) => std::process::exit(work().into()),
            Ok(ForkResult::Parent { .. }) => std::process::exit(0),
            Err(_) => std::process::exit(1),
        },
    }
}
