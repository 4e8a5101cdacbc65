//! Following a log file that is rotated, truncated or deleted under its reader.
//!
//! A file is known by what it is (device, inode, its first bytes), not by its name: renaming it changes nothing, and
//! another file under the same inode or after a truncation is another file. Places are byte offsets in it.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// So many bytes at a file's start, at most to the end of its first line, tell it from another one.
const PRINT: usize = 1024;
/// A line longer than this is given in parts.
const MOST_LINE: usize = 512 << 10;
/// Endings of files that hold what was read before under another name.
const COMPRESSED: &[&str] = &["gz", "xz", "zst", "bz2", "lz4"];

/// New bytes of one file: whole lines, but for the last of a file that has gone and lines beyond any measure.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which file; the same over renames and restarts.
    pub file: String,
    /// Offset of the first byte.
    pub from: u64,
    /// What was written there.
    pub bytes: Vec<u8>,
}

/// One log, with the files that rotation has made of it (`x.log`, `x.log.1`, `x.log-20260101`).
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    open: Vec<Open>,
    /// At least once.
    looked: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    place: (u64, u64),
    print: Vec<u8>,
    id: String,
    at: u64,
    /// What was there when it was found, where that was the first look of all.
    before: u64,
}

impl Follower {
    /// Follows `path`; it need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: Vec::new(),
            looked: false,
        }
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what ends at this offset was there before the first look.
    pub fn was_there(&self, file: &str, upto: u64) -> bool {
        self.open
            .iter()
            .any(|open| open.id == file && upto <= open.before)
    }

    /// Reads at most about `most` bytes of what is new, the oldest file first; nothing where there is nothing.
    ///
    /// `position` says how far a file was taken in by an earlier reader; it is asked once for each file.
    ///
    /// # Errors
    /// Where a file or its folder cannot be read for another reason than being gone. What was read before is read
    /// again then.
    pub fn read(&mut self, most: usize, position: impl Fn(&str) -> Option<u64>) -> io::Result<Vec<Chunk>> {
        let there = self.look(&position)?;
        let mut chunks = Vec::new();
        let mut left = most;
        for open in &mut self.open {
            let gone = !there.contains(&open.place);
            while left > 0
                && let Some(chunk) = open.read(left, gone)?
            {
                left = left.saturating_sub(chunk.bytes.len());
                chunks.push(chunk);
            }
        }
        // A file that has gone is held until it has been read to its end.
        let length = |open: &Open| open.file.metadata().map_or(0, |metadata| metadata.len());
        self.open
            .retain(|open| there.contains(&open.place) || open.at < length(open));
        Ok(chunks)
    }

    /// Whether something is held: a log that was deleted is not over while this is so.
    pub fn holds(&self) -> bool {
        !self.open.is_empty()
    }

    /// The files that are there or are still being read; a place in another one will not be asked for again.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(|open| open.id.as_str())
    }

    /// Opens what is new and puts all files into the order in which they were written; returns where they lie.
    fn look(&mut self, position: &impl Fn(&str) -> Option<u64>) -> io::Result<Vec<(u64, u64)>> {
        let mut there = Vec::new();
        let mut new = Vec::new();
        let mut truncated = Vec::new();
        for path in files_of(&self.path)? {
            let file = match File::open(&path) {
                Ok(file) => file,
                // Renamed in this moment: the next look finds it.
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err),
            };
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                continue;
            }
            let place = (metadata.dev(), metadata.ino());
            there.push(place);
            match self.open.iter().position(|open| open.place == place) {
                Some(index) if self.open[index].is_still_itself(metadata.len())? => {}
                Some(index) => {
                    truncated.push(self.open.remove(index));
                    new.push((file, place, metadata.len()));
                }
                None => new.push((file, place, metadata.len())),
            }
        }
        for (file, place, length) in new {
            let Some(print) = print_of(&file)? else {
                continue;
            };
            let (id, mut at) = identify(place, &print, length, position);
            // Copied, then truncated: what was read of the one need not be read of its copy.
            let copied = truncated
                .iter()
                .find(|old| old.place != place && old.print == print && old.at <= length);
            if let Some(old) = copied {
                at = at.max(old.at);
            }
            self.open.push(Open {
                file,
                place,
                print,
                id,
                at,
                before: if self.looked { 0 } else { length },
            });
        }
        self.looked = true;
        let age = |open: &Open| there.iter().position(|place| *place == open.place);
        // What has gone is older than what is there: `None` sorts first.
        self.open.sort_by_key(age);
        Ok(there)
    }
}

impl Open {
    /// False if the file was truncated, or its inode was given to another one.
    fn is_still_itself(&self, length: u64) -> io::Result<bool> {
        if length < self.at {
            return Ok(false);
        }
        let mut now = vec![0; self.print.len()];
        match self.file.read_exact_at(&mut now, 0) {
            Ok(()) => Ok(now == self.print),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(err) => Err(err),
        }
    }

    fn read(&mut self, most: usize, gone: bool) -> io::Result<Option<Chunk>> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let limit = most.clamp(4096, MOST_LINE);
        let mut bytes = Vec::new();
        (&self.file).take(limit as u64).read_to_end(&mut bytes)?;
        let mut whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole == 0 && bytes.len() == limit && limit < MOST_LINE {
            // A line that is longer than what was asked for.
            return self.read(MOST_LINE, gone);
        }
        if whole == 0 && (bytes.len() == MOST_LINE || gone) {
            whole = bytes.len();
        }
        if whole == 0 {
            return Ok(None);
        }
        bytes.truncate(whole);
        let chunk = Chunk {
            file: self.id.clone(),
            from: self.at,
            bytes,
        };
        self.at += whole as u64;
        Ok(Some(chunk))
    }
}

/// Whether a file of this name holds compressed what was read before under another name.
pub fn is_compressed(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| COMPRESSED.contains(&ending))
}

/// Whether a log file has been taken in to its end, by what `position` says of it: it need not be read again.
///
/// # Errors
/// Where it cannot be read.
pub fn is_taken(path: &Path, position: impl Fn(&str) -> Option<u64>) -> io::Result<bool> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let Some(print) = print_of(&file)? else {
        return Ok(metadata.len() == 0);
    };
    let (_, at) = identify(
        (metadata.dev(), metadata.ino()),
        &print,
        metadata.len(),
        &position,
    );
    Ok(at == metadata.len())
}

/// The first bytes of a file; `None` while there are too few to tell it from another.
fn print_of(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut print = vec![0; PRINT];
    let mut length = 0;
    while length < PRINT {
        let read = file.read_at(&mut print[length..], length as u64)?;
        if read == 0 {
            break;
        }
        length += read;
    }
    print.truncate(length);
    if let Some(end) = print.iter().position(|byte| *byte == b'\n') {
        print.truncate(end + 1);
        return Ok(Some(print));
    }
    Ok((length == PRINT).then_some(print))
}

/// Name and place of a file. One that is shorter than what was read of it, with the same first line, was truncated
/// and begun again: it gets the next name.
fn identify(
    (device, inode): (u64, u64),
    print: &[u8],
    length: u64,
    position: &impl Fn(&str) -> Option<u64>,
) -> (String, u64) {
    let hash = hex::encode(&Sha256::digest(print)[..6]);
    let first = format!("{device:x}-{inode:x}-{hash}");
    let named = |life: u64| match life {
        0 => first.clone(),
        _ => format!("{first}-{life}"),
    };
    let mut life = 0;
    loop {
        let id = named(life);
        let at = position(&id).unwrap_or(0);
        life += 1;
        if at <= length && position(&named(life)).is_none() {
            return (id, at);
        }
    }
}

/// The files of a log in the order in which they were begun, as far as times and names tell.
fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(rest) = file_name.to_str().and_then(|text| text.strip_prefix(name)) else {
            continue;
        };
        if is_compressed(rest) || !(rest.is_empty() || rest.starts_with(['.', '-'])) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        // `x.2` is older than `x.1`, and both than `x`.
        let number = rest.strip_prefix('.').and_then(|text| text.parse::<u64>().ok());
        let rank = match number {
            Some(number) => u64::MAX - number,
            None if rest.is_empty() => u64::MAX,
            None => 0,
        };
        let time = (metadata.mtime(), metadata.mtime_nsec());
        // Numbers are exact where times are coarse.
        let key = if number.is_some() || rest.is_empty() {
            (1, (0, 0), rank)
        } else {
            (0, time, 0)
        };
        files.push((key, entry.path()));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}
