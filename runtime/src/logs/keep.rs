//! Rotated files are put away and compressed, and the oldest of them dropped.

use super::files::{self, Part, Rank};
use jiff::{SignedDuration, Timestamp};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How much of what was rotated is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes on disk of each log, beside the file being written.
    pub per_log: u64,
    /// Bytes on disk of all logs together.
    pub total: u64,
    /// Age of a file's last line.
    pub age: SignedDuration,
}

/// What [`keep`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Files put away.
    pub compressed: u64,
    /// Files dropped.
    pub dropped: u64,
    /// Bytes of rotated files that are there now.
    pub bytes: u64,
}

/// Puts away what was rotated of these logs, and holds it within bounds. `may` says whether a file has been taken by
/// everybody who reads it as it is: until then it stays where the shim put it, and the shim's own bound holds it.
///
/// Blocks while it compresses. To be called by one thread at a time.
///
/// # Errors
/// Where a file cannot be read, written or removed. The next call goes on; nothing is lost by it.
pub fn keep(
    logs: &[PathBuf],
    retention: &Retention,
    now: Timestamp,
    mut may: impl FnMut(&Path) -> bool,
) -> io::Result<Kept> {
    let mut kept = Kept::default();
    let mut all = Vec::new();
    for log in logs {
        put_away(log, &mut may, &mut kept)?;
        let mut of_log = sizes(log)?;
        let oldest = now.checked_sub(retention.age).unwrap_or(Timestamp::MIN);
        drop_oldest(&mut of_log, retention.per_log, oldest, &mut kept)?;
        all.extend(of_log);
    }
    all.sort_by_key(|(part, _)| part.rank);
    drop_oldest(&mut all, retention.total, Timestamp::MIN, &mut kept)?;
    kept.bytes = all.iter().map(|(_, bytes)| bytes).sum();
    Ok(kept)
}

fn put_away(log: &Path, may: &mut impl FnMut(&Path) -> bool, kept: &mut Kept) -> io::Result<()> {
    let (parts, unfinished) = files::look(log)?;
    for path in unfinished {
        kit::disk::remove_if_there(&path)?;
    }
    for part in &parts {
        match part.rank {
            Rank::Live => {}
            Rank::Away(_) if part.compressed => {}
            Rank::Away(_) => kept.compressed += u64::from(compress(&part.path)?),
            // What comes after must not be put away before.
            Rank::Rotated(_) if !may(&part.path) => return Ok(()),
            Rank::Rotated(_) => {
                let Some(path) = rename(log, &part.path)? else {
                    // Rotated on in this moment: the next call finds it.
                    return Ok(());
                };
                kept.compressed += u64::from(compress(&path)?);
            }
        }
    }
    Ok(())
}

/// Takes a rotated file out of the shim's numbers, so that it is neither moved nor removed by it. `None` where the
/// shim has moved it just now.
fn rename(log: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    use std::os::unix::fs::MetadataExt as _;
    let gone = |err: &io::Error| err.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(err) if gone(&err) => return Ok(None),
        Err(err) => return Err(err),
    };
    let mut written = files::written(&metadata);
    let mut away = files::away(log, written);
    // Two files of one time, by a coarse clock.
    while away.exists() || files::compressed(&away).exists() {
        written = written
            .checked_add(SignedDuration::from_nanos(1))
            .map_err(io::Error::other)?;
        away = files::away(log, written);
    }
    match kit::disk::swap(path, &away) {
        Ok(()) => {}
        Err(err) if gone(&err) => return Ok(None),
        Err(err) => return Err(err),
    }
    let moved = File::open(&away)?;
    if moved.metadata()?.ino() != metadata.ino() {
        // The shim has rotated in between, and this is a younger file: it gets its own time.
        let right = files::away(log, files::written(&moved.metadata()?));
        kit::disk::swap(&away, &right)?;
        return Ok(Some(right));
    }
    // Whoever holds the file finds its place among the others by this time.
    let since_1970 = Duration::try_from(written.as_duration()).unwrap_or_default();
    moved.set_modified(SystemTime::UNIX_EPOCH + since_1970)?;
    Ok(Some(away))
}

/// False where there is nothing in it.
fn compress(path: &Path) -> io::Result<bool> {
    let (whole, unfinished) = (files::compressed(path), files::unfinished(path));
    if !whole.exists() {
        let input = File::open(path)?;
        if input.metadata()?.len() == 0 {
            fs::remove_file(path)?;
            return Ok(false);
        }
        let output = File::create(&unfinished)?;
        let mut encoder = zstd::Encoder::new(BufWriter::new(output), 3)?;
        encoder.include_checksum(true)?;
        io::copy(&mut BufReader::new(input), &mut encoder)?;
        let mut output = encoder.finish()?;
        output.flush()?;
        output.get_ref().sync_all()?;
        kit::disk::rename(&unfinished, &whole)?;
    }
    fs::remove_file(path)?;
    Ok(true)
}

/// Rotated files with their sizes, the oldest first.
fn sizes(log: &Path) -> io::Result<Vec<(Part, u64)>> {
    let parts = files::parts(log)?;
    let rotated = parts.into_iter().filter(|part| part.rank != Rank::Live);
    Ok(rotated
        .filter_map(|part| {
            let bytes = fs::metadata(&part.path).ok()?.len();
            Some((part, bytes))
        })
        .collect())
}

/// Drops files that were put away: too old, or the oldest ones while there is too much. What is still the shim's
/// counts and stays.
fn drop_oldest(
    files: &mut Vec<(Part, u64)>,
    most: u64,
    oldest: Timestamp,
    kept: &mut Kept,
) -> io::Result<()> {
    let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut left = Vec::new();
    for (part, size) in files.drain(..) {
        match part.rank {
            Rank::Away(written) if written < oldest || bytes > most => {
                kit::disk::remove_if_there(&part.path)?;
                kept.dropped += 1;
                bytes -= size;
            }
            _ => left.push((part, size)),
        }
    }
    *files = left;
    Ok(())
}
