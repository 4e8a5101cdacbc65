//! What containers write, on its way from their pipes to their logs.

use super::log::{Lines, LogFile};
use jiff::Timestamp;
use model::cri::{Stream, format_line};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One stream of one run of a container.
#[derive(Debug)]
pub(crate) struct Output {
    /// Index of the container.
    pub(crate) container: usize,
    stream: Stream,
    pipe: File,
    lines: Lines,
}

impl Output {
    /// A pipe: our end, and the container's.
    pub(crate) fn open(container: usize, stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Only our end must not wait: a container that finds its pipe full is to wait, as everywhere.
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((
            Self {
                container,
                stream,
                pipe: File::from(ours),
                lines: Lines::default(),
            },
            theirs,
        ))
    }

    /// Moves what is there to the log; says whether more may come.
    pub(crate) fn pump(&mut self, log: &mut LogFile) -> bool {
        let mut buffer = [0; 8192];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {
                self.write(log, &[], true);
                false
            }
            Ok(count) => {
                self.write(log, &buffer[..count], false);
                true
            }
            Err(err) => matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Moves all that is there and ends the last line: the container has ended.
    pub(crate) fn drain(mut self, log: &mut LogFile) {
        let mut buffer = [0; 8192];
        // A process that has left the container may hold the pipe and write for ever.
        for _ in 0..1024 {
            match self.pipe.read(&mut buffer) {
                Ok(count) if count > 0 => self.write(log, &buffer[..count], false),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.write(log, &[], true);
    }

    fn write(&mut self, log: &mut LogFile, bytes: &[u8], end: bool) {
        let (now, stream) = (Timestamp::now(), self.stream);
        let (mut text, mut count) = (Vec::new(), 0);
        let mut take = |tag, line: &[u8]| {
            format_line(&mut text, now, stream, tag, line);
            count += 1;
        };
        if end {
            self.lines.end(&mut take);
        } else {
            self.lines.add(bytes, &mut take);
        }
        if count > 0 {
            log.append(&text, count);
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
