//! A place in a log that may be rotated, put away and compressed under its reader.

use super::files::{Part, Rank, parts, written};
use super::lines::Lines;
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Bytes of a file that are looked at in one go.
const PIECE: usize = 64 << 10;
/// Bytes of a file that one [`Cursor::read`] looks at; what blocks gives way to others after that.
const TURN: usize = 4 << 20;
/// Bytes of chosen lines that are given as one.
const CHUNK: usize = 16 << 10;
/// A line longer than this was not written by a shim; its rest is not read.
const MOST_LINE: usize = 256 << 10;

/// Reads a log from its first file to the one being written, and on.
#[derive(Debug)]
pub(crate) struct Cursor {
    path: PathBuf,
    /// The file being read, held: what is written just before it goes can still be read.
    now: Option<Open>,
}

#[derive(Debug)]
struct Open {
    input: Input,
    rank: Rank,
    /// A line whose end was not read yet.
    begun: Vec<u8>,
}

enum Input {
    Plain(File),
    Compressed(Box<zstd::Decoder<'static, BufReader<File>>>),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Compressed(_) => "Compressed",
        })
    }
}

impl Cursor {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, now: None }
    }

    /// Finds where the last lines begin, if only those are wanted, so that files before are not read.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub(crate) fn begin(&mut self, lines: &mut Lines) -> io::Result<()> {
        let Some(wanted) = lines.tail() else {
            return Ok(());
        };
        let mut found = 0;
        for part in parts(&self.path)?.into_iter().rev() {
            if too_old(&part, lines) {
                return Ok(());
            }
            let Some(open) = Open::new(&part)? else { continue };
            let (mut counting, mut count) = (lines.clone(), 0);
            let mut open = open;
            while open.piece(|line| count += usize::from(counting.take(line).is_some()))? > 0 {}
            found += count;
            // The oldest that was looked at is where reading begins.
            self.now = Open::new(&part)?;
            if found >= wanted {
                lines.skip(found - wanted);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads new whole lines and gives those that are wanted. False: for now there are no more.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub(crate) fn read(&mut self, lines: &mut Lines) -> io::Result<(Vec<Bytes>, bool)> {
        let (mut chunks, mut chunk) = (Vec::new(), BytesMut::new());
        let mut left = TURN;
        while left > 0 {
            // Looked at before the read: what is written until it is rotated is read of the file that is held.
            let there = parts(&self.path)?;
            let next = match &self.now {
                Some(open) => open.successor(&there)?,
                None => there.iter().find(|part| !too_old(part, lines)),
            };
            let read = match &mut self.now {
                None => 0,
                Some(open) => open.piece(|line| {
                    if let Some(line) = lines.take(line) {
                        if !chunk.is_empty() && chunk.len() + line.len() > CHUNK {
                            chunks.push(chunk.split().freeze());
                        }
                        chunk.extend_from_slice(&line);
                    }
                })?,
            };
            left = left.saturating_sub(read);
            if read > 0 {
                continue;
            }
            let Some(next) = next else {
                chunks.extend((!chunk.is_empty()).then(|| chunk.freeze()));
                return Ok((chunks, false));
            };
            // One that is gone by now was put away or dropped: the next look finds what is there.
            if let Some(open) = Open::new(next)? {
                self.now = Some(open);
            }
        }
        chunks.extend((!chunk.is_empty()).then(|| chunk.freeze()));
        Ok((chunks, true))
    }
}

/// Nothing in it is of the time that is asked for.
fn too_old(part: &Part, lines: &Lines) -> bool {
    matches!((part.rank, lines.since()), (Rank::Away(last), Some(since)) if last < since)
}

impl Open {
    /// `None` if the file is gone.
    fn new(part: &Part) -> io::Result<Option<Self>> {
        let file = match File::open(&part.path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let input = if part.compressed {
            Input::Compressed(Box::new(zstd::Decoder::new(file)?))
        } else {
            Input::Plain(file)
        };
        Ok(Some(Self {
            input,
            rank: part.rank,
            begun: Vec::new(),
        }))
    }

    /// The file that was begun when this one was full; `None` while this one is being written, or is the last.
    fn successor<'a>(&self, there: &'a [Part]) -> io::Result<Option<&'a Part>> {
        let here = match &self.input {
            Input::Compressed(_) => self.rank,
            Input::Plain(file) => {
                let metadata = file.metadata()?;
                let place = (metadata.dev(), metadata.ino());
                let same = |part: &&Part| {
                    !part.compressed
                        && part
                            .path
                            .metadata()
                            .is_ok_and(|other| (other.dev(), other.ino()) == place)
                };
                match there.iter().find(same) {
                    Some(part) => part.rank,
                    // Compressed meanwhile, under the time of its last line, or dropped.
                    None => Rank::Away(written(&metadata)),
                }
            }
        };
        Ok(there.iter().find(|part| part.rank > here))
    }

    /// Hands the whole lines of the next piece to `give`; says how many bytes were read, 0 at the end.
    fn piece(&mut self, mut give: impl FnMut(&[u8])) -> io::Result<usize> {
        let from = self.begun.len();
        let source: &mut dyn Read = match &mut self.input {
            Input::Plain(file) => file,
            Input::Compressed(decoder) => decoder,
        };
        let read = source.take(PIECE as u64).read_to_end(&mut self.begun)?;
        let Some(end) = self.begun[from..].iter().rposition(|byte| *byte == b'\n') else {
            if self.begun.len() > MOST_LINE {
                self.begun.truncate(MOST_LINE);
            }
            return Ok(read);
        };
        let end = from + end;
        self.begun[..end].split(|byte| *byte == b'\n').for_each(&mut give);
        self.begun.drain(..=end);
        Ok(read)
    }
}
