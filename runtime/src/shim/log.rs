//! Container output in CRI's log format, `time stream tag text`, rotated by size.
//!
//! Writing never waits and never fails the container: what a full disk refuses is dropped and counted, and the
//! count is written once there is room again.

use jiff::Timestamp;
use model::cri::{self, Stream};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Longer lines are written in parts tagged `P`, as CRI runtimes do.
const MOST_LINE: usize = 16 << 10;

/// Cuts one stream into lines; holds the bytes of a line that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Adds `bytes` and hands each whole line, or full part of one, to `take` with its tag.
    pub(crate) fn add(&mut self, mut bytes: &[u8], mut take: impl FnMut(char, &[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            self.part(line, &mut take);
            take('F', &self.0);
            self.0.clear();
        }
        self.part(bytes, &mut take);
        if self.0.is_empty() {
            // Most of the time nothing is held: give the memory back.
            self.0 = Vec::new();
        }
    }

    /// The stream has ended: what is held is a line.
    pub(crate) fn end(&mut self, mut take: impl FnMut(char, &[u8])) {
        if !self.0.is_empty() {
            take('F', &self.0);
            self.0 = Vec::new();
        }
    }

    fn part(&mut self, mut bytes: &[u8], take: &mut impl FnMut(char, &[u8])) {
        while self.0.len() + bytes.len() > MOST_LINE {
            let (now, rest) = bytes.split_at(MOST_LINE - self.0.len());
            self.0.extend_from_slice(now);
            take('P', &self.0);
            self.0.clear();
            bytes = rest;
        }
        self.0.extend_from_slice(bytes);
    }
}

/// The log file of one run of a container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    most: u64,
    keep: u32,
    /// Lines that a full disk has cost since the last one written.
    dropped: u64,
}

impl LogFile {
    /// A log at `path` of at most about `most` bytes, with `keep` older files beside it.
    pub(crate) fn new(path: PathBuf, most: u64, keep: u32) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            most: most.max(1),
            keep,
            dropped: 0,
        }
    }

    /// Appends text that is whole lines already formatted by [`format_line`]; `lines` is how many.
    pub(crate) fn append(&mut self, text: &[u8], lines: u64) {
        if self.length >= self.most {
            self.rotate();
        }
        if self.dropped > 0 {
            let mut told = Vec::new();
            let message = format!(
                "[leeward: {} lines dropped: they could not be written to disk]",
                self.dropped
            );
            cri::format_line(&mut told, Timestamp::now(), Stream::Err, 'F', message.as_bytes());
            match self.write(&told) {
                Ok(()) => self.dropped = 0,
                Err(_) => {
                    self.dropped += lines;
                    return;
                }
            }
        }
        if self.write(text).is_err() {
            self.dropped += lines;
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                self.length = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        let done = file.write_all(text);
        match done {
            Ok(()) => self.length += text.len() as u64,
            // Half a line would run into the next.
            Err(_) => file.set_len(self.length)?,
        }
        done
    }

    /// `x.log` becomes `x.log.1`, that `x.log.2`, and so on; the oldest goes.
    fn rotate(&mut self) {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        let _ = std::fs::remove_file(numbered(self.keep));
        for number in (0..self.keep).rev() {
            let _ = kit::disk::swap(&numbered(number), &numbered(number + 1));
        }
        if self.keep == 0 {
            let _ = std::fs::remove_file(&self.path);
        }
        self.file = None;
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(char, Vec<u8>)> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in pieces {
            lines.add(piece, |tag, text| seen.push((tag, text.to_vec())));
        }
        lines.end(|tag, text| seen.push((tag, text.to_vec())));
        seen
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let want = [('F', b"one".to_vec()), ('F', Vec::new()), ('F', b"two".to_vec())];
        assert_eq!(cut(&[b"one\n\ntwo"]), want);
        assert_eq!(cut(&[b"o", b"ne\n", b"\nt", b"wo\n"]), want);
    }

    #[test]
    fn a_long_line_is_parts_of_one_line() {
        let long = vec![b'x'; 2 * MOST_LINE + 5];
        let parts = cut(&[&long, b"y\n"]);
        assert_eq!(
            parts
                .iter()
                .map(|(tag, text)| (*tag, text.len()))
                .collect::<Vec<_>>(),
            [('P', MOST_LINE), ('P', MOST_LINE), ('F', 6)]
        );
    }

    #[test]
    fn rotation_keeps_so_many_files_and_loses_no_line_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::new(path.clone(), 200, 2);
        for number in 0..20 {
            let mut text = Vec::new();
            cri::format_line(
                &mut text,
                Timestamp::UNIX_EPOCH,
                Stream::Out,
                'F',
                format!("line {number}").as_bytes(),
            );
            log.append(&text, 1);
        }
        let names = ["0.log.2", "0.log.1", "0.log"].map(|name| dir.path().join(name));
        let all: Vec<u8> = names
            .iter()
            .flat_map(|file| std::fs::read(file).unwrap())
            .collect();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        let texts: Vec<_> = all
            .split(|byte| *byte == b'\n')
            .filter_map(|line| Some(String::from_utf8_lossy(cri::parse(line)?.text).into_owned()))
            .collect();
        let last: Vec<_> = (20 - texts.len()..20)
            .map(|number| format!("line {number}"))
            .collect();
        assert_eq!(texts, last);
        assert!(texts.len() < 20, "the oldest are gone");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent").join("0.log");
        let mut log = LogFile::new(path.clone(), 1000, 1);
        log.append(b"a\nb\n", 2);
        std::fs::create_dir(dir.path().join("absent")).unwrap();
        log.append(b"c\n", 1);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("2 lines dropped") && text.ends_with("c\n"),
            "{text}"
        );
    }
}
