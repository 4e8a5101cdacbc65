//! How a shim comes to be: out of the agent's session and control group, into namespaces of its own.

use super::cgroup::Cgroups;
use super::control::Client;
use super::pod::{Pod, Seat};
use super::protocol::{Handover, ProcessId, Report, Request, SOCKET, boot_id, shim_cgroup};
use super::{complain, prepare};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Supervises the pod in this folder; `stream` is the first connection.
pub(super) fn pod(dir: &Path, stream: UnixStream) -> u8 {
    match supervise(dir, stream) {
        Ok(()) => 0,
        Err(err) => {
            complain(format!("the shim ends: {err}"));
            1
        }
    }
}

fn supervise(dir: &Path, stream: UnixStream) -> io::Result<()> {
    let dir = dir.canonicalize()?;
    // The agent's terminal, process group and cgroup must not take the pod along.
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(c"leeward-shim")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Best effort: root without CAP_SYS_RESOURCE may not lower it.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");

    let handover = receive_handover(&stream)?;

    let cgroups = Cgroups::detect(&handover.cgroup_parent)?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    cgroups.join(&shim_cgroup(&handover.cgroup_parent, &dir), own)?;

    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    flags.set(CloneFlags::CLONE_NEWNET, !handover.run.host_network);
    unshare(flags)?;
    nix::unistd::sethostname(prepare::hostname(&handover))?;
    let run = private_mounts(&dir)?;
    if !handover.run.host_network {
        // As Docker and containerd do: what runs as a user may still serve port 80, and ping.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    }

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    let mut client = Client::new(stream)?;
    client.send(&Report::Ready);
    let seat = Seat {
        listener: listen(&dir)?,
        signals,
        client,
        boot: boot_id()?,
        own: ProcessId::of(own)?,
        cgroups,
        run,
        dir,
    };
    Pod::new(seat, *handover)?.supervise()
}

fn receive_handover(stream: &UnixStream) -> io::Result<Box<Handover>> {
    let mut line = Vec::new();
    // The agent waits for `Ready` before it says more, so that nothing is read ahead and lost.
    BufReader::new(stream).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line)? {
        Request::Begin(handover) => Ok(handover),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected Begin, got {other:?}"),
        )),
    }
}

/// A mount namespace whose mounts nobody else sees: however the shim ends, they end with it. The device's own
/// mounts still come in.
fn private_mounts(dir: &Path) -> io::Result<PathBuf> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let run = dir.join("run");
    fs::create_dir_all(&run)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("leeward"), &run, Some("tmpfs"), flags, Some("mode=0700"))?;
    Ok(run)
}

/// Listens in the pod's folder, however long its path: `sun_path` takes 107 bytes, `/proc/self/fd/N/ctl` fewer.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    kit::disk::remove_if_there(&dir.join(SOCKET))?;
    let listener = UnixListener::bind(short_path(&open_dir(dir)?))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Opens a folder to name it shortly.
pub(crate) fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(fs::File::open(dir)?.into())
}

/// The control socket in an open folder.
pub(crate) fn short_path(dir: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
