//! Delay and loss on a link where the kernel has no `netem`: a process between two halves of a cut cable.
//!
//! Two TAP devices, one on each half's bridge: a frame that comes in at one goes out at the other when its time has
//! come, or never. The kernel hands TAP devices whole frames with finished checksums, as a real card would get them.

mod tap;

use crate::run::run;
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};
use tap::Tap;

/// Frames that are under way in one direction at most; a real queue drops what comes then.
const MOST_FRAMES: usize = 4096;
/// Largest frame that a TAP device gives.
const FRAME: usize = 65_536;

/// What a link does to frames, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Disturbance {
    /// How late each comes.
    pub delay: Duration,
    /// How many of a hundred do not come.
    pub loss_percent: f64,
}

/// Carries frames between two new TAP devices on two bridges until the process ends, and the devices with it.
///
/// # Errors
/// Where there are no TAP devices, or they go.
pub fn carry(ends: [&str; 2], bridges: [&str; 2], disturbance: Disturbance) -> Result<()> {
    let mut taps = [Tap::open(ends[0])?, Tap::open(ends[1])?];
    for (end, bridge) in ends.iter().zip(bridges) {
        run("ip", &["link", "set", end, "master", bridge, "up"])?;
    }
    let mut under_way: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    let mut buffer = vec![0; FRAME];
    loop {
        wait(&taps, &under_way)?;
        for from in [0, 1] {
            take_in(&mut taps[from], &mut under_way[from], &mut buffer, disturbance)?;
            let due = |(due, _): &(Instant, Vec<u8>)| *due <= Instant::now();
            while under_way[from].front().is_some_and(due) {
                if let Some((_, frame)) = under_way[from].pop_front() {
                    // A frame that finds no room is lost, as on any link.
                    let _ = taps[1 - from].write(&frame);
                }
            }
        }
    }
}

/// Until a frame comes, or is due.
fn wait(taps: &[Tap; 2], under_way: &[VecDeque<(Instant, Vec<u8>)>; 2]) -> Result<()> {
    let next = under_way
        .iter()
        .filter_map(|queue| queue.front())
        .map(|(due, _)| *due)
        .min();
    let patience = next.map(|due| due.saturating_duration_since(Instant::now()));
    let patience = patience.map(Timespec::try_from).transpose()?;
    let mut fds = [
        PollFd::new(&taps[0], PollFlags::IN),
        PollFd::new(&taps[1], PollFlags::IN),
    ];
    match poll(&mut fds, patience.as_ref()) {
        Err(err) if err != rustix::io::Errno::INTR => Err(err).context("waiting for frames"),
        _ => Ok(()),
    }
}

fn take_in(
    tap: &mut Tap,
    queue: &mut VecDeque<(Instant, Vec<u8>)>,
    buffer: &mut [u8],
    disturbance: Disturbance,
) -> Result<()> {
    loop {
        match tap.read(buffer) {
            Ok(length) => {
                let lost = rand::random::<f64>() * 100.0 < disturbance.loss_percent;
                if !lost && queue.len() < MOST_FRAMES {
                    queue.push_back((Instant::now() + disturbance.delay, buffer[..length].to_vec()));
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            // The device is down for the moment, or for good: then its bridge is gone, and we are about to be.
            Err(err) if err.raw_os_error() == Some(nix::libc::EIO) => return Ok(()),
            Err(err) => return Err(err).context("reading frames"),
        }
    }
}
