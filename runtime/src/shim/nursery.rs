//! One process that shims are forked from, so that they share what the program's start has written.
//!
//! A position-independent program of this size has a megabyte of addresses filled in at each start, private to each
//! process. Forked from one process that has no thread and has done nothing else, all shims share that megabyte. The
//! nursery ends with its agent; the shims are nobody's children but init's from their start.

use super::{complain, fork, setup};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Longest path of a pod's folder (PATH_MAX).
const MOST_PATH: usize = 4096;

/// `nursery`: forks a shim for each folder and connection that come through standard input.
pub(super) fn serve() -> u8 {
    loop {
        match receive(io::stdin()) {
            Ok(Some((dir, stream))) => {
                if let Err(err) = fork::detached(|| shim(&dir, stream)) {
                    complain(format!("no shim for {}: {err}", dir.display()));
                }
            }
            Ok(None) => return 0,
            Err(err) => {
                complain(format!("the nursery ends: {err}"));
                return 1;
            }
        }
    }
}

/// The new process: nothing of the nursery's is to stay open.
fn shim(dir: &Path, stream: UnixStream) -> u8 {
    let own_log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join(super::protocol::SHIM_LOG));
    let apart = own_log.and_then(|log| {
        nix::unistd::dup2_stderr(log)?;
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(())
    });
    if apart.is_err() {
        return 1;
    }
    setup::pod(dir, stream)
}

/// Asks a nursery for a shim that supervises the pod in `dir` and speaks through `stream`.
pub(crate) fn ask(nursery: impl AsFd, dir: &Path, stream: impl AsFd) -> io::Result<()> {
    let fds = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = dir.as_os_str().as_bytes();
    sendmsg(nursery, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One folder with its connection; the socket keeps messages apart. `None` once the agent has gone.
fn receive(socket: impl AsFd) -> io::Result<Option<(PathBuf, UnixStream)>> {
    let mut bytes = vec![0; MOST_PATH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let stream: OwnedFd = fds.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((
        PathBuf::from(OsStr::from_bytes(&bytes[..length])),
        stream.into(),
    )))
}
