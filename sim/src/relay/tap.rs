//! A TAP device: a network card whose cable is a file.
#![expect(
    unsafe_code,
    reason = "TUNSETIFF has no safe wrapper: the kernel reads one `ifreq` of 40 bytes, which `Request` is, and writes \
              back into it no more than that"
)]

use anyhow::{Context as _, Result, ensure};
use rustix::ioctl::{Setter, ioctl};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// `_IOW('T', 202, int)` of `linux/if_tun.h`.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TAP: i16 = 0x0002;
/// No header before each frame.
const IFF_NO_PI: i16 = 0x1000;
/// IFNAMSIZ, with the zero at the end.
const MOST_NAME: usize = 16;

/// `struct ifreq`: name and flags, and what other requests use.
#[repr(C)]
struct Request {
    name: [u8; MOST_NAME],
    flags: i16,
    rest: [u8; 22],
}

/// See the module's words; gone with the last descriptor of it.
#[derive(Debug)]
pub(super) struct Tap(File);

impl Tap {
    /// Makes the device of this name.
    pub(super) fn open(name: &str) -> Result<Self> {
        ensure!(name.len() < MOST_NAME, "{name} is too long for a network device");
        let mut request = Request {
            name: [0; MOST_NAME],
            flags: IFF_TAP | IFF_NO_PI,
            rest: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("delay and loss need /dev/net/tun, or netem in the kernel")?;
        // SAFETY: see the reason at the top.
        unsafe {
            let set = Setter::<TUNSETIFF, Request>::new(request);
            ioctl(&file, set).with_context(|| format!("cannot make the network device {name}"))?;
        }
        Ok(Self(file))
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tap {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.0.write(frame)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
