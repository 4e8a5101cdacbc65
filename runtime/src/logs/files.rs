//! The files that one log has become.

use jiff::Timestamp;
use jiff::fmt::strtime;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Ending of a compressed file.
const COMPRESSED: &str = ".zst";
/// Of a file that is being compressed.
const UNFINISHED: &str = ".tmp";
/// The stamp in a name; as text it sorts as the times do.
const STAMP: &str = "%Y%m%dT%H%M%S.%9fZ";

/// Where a file stands among those of its log: older ones are less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Put away; when its last line was written.
    Away(Timestamp),
    /// Rotated; `u32::MAX` less its number.
    Rotated(u32),
    /// Being written.
    Live,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) rank: Rank,
    pub(super) compressed: bool,
}

/// The files of the log that is written to `path`, the oldest first.
///
/// # Errors
/// Where the folder cannot be read; one that is not there is empty.
pub(super) fn parts(path: &Path) -> io::Result<Vec<Part>> {
    let (found, _) = look(path)?;
    Ok(found)
}

/// [`parts`], and what was left half compressed.
pub(super) fn look(path: &Path) -> io::Result<(Vec<Part>, Vec<PathBuf>)> {
    let (mut found, mut unfinished): (Vec<Part>, Vec<PathBuf>) = Default::default();
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok((found, unfinished));
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok((found, unfinished)),
        Err(err) => return Err(err),
    };
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(rest) = file_name.to_str().and_then(|text| text.strip_prefix(name)) else {
            continue;
        };
        if rest.starts_with('-') && rest.ends_with(UNFINISHED) {
            unfinished.push(entry.path());
        } else if let Some((rank, compressed)) = rank_of(rest) {
            found.push(Part {
                path: entry.path(),
                rank,
                compressed,
            });
        }
    }
    // Of a file that is there twice, a cut came between its compression and its end: the one as written is first.
    found.sort_by_key(|part| (part.rank, part.compressed));
    found.dedup_by_key(|part| part.rank);
    Ok((found, unfinished))
}

fn rank_of(rest: &str) -> Option<(Rank, bool)> {
    if rest.is_empty() {
        return Some((Rank::Live, false));
    }
    if let Some(number) = rest.strip_prefix('.') {
        return Some((Rank::Rotated(u32::MAX - number.parse::<u32>().ok()?), false));
    }
    let stamp = rest.strip_prefix('-')?;
    let (stamp, compressed) = match stamp.strip_suffix(COMPRESSED) {
        Some(stamp) => (stamp, true),
        None => (stamp, false),
    };
    let time = strtime::parse(STAMP, stamp).ok()?.to_datetime().ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    Some((Rank::Away(time), compressed))
}

/// The name of a file that is put away.
pub(super) fn away(path: &Path, written: Timestamp) -> PathBuf {
    with(path, &format!("-{}", written.strftime(STAMP)))
}

/// The name of a file once it is compressed.
pub(super) fn compressed(path: &Path) -> PathBuf {
    with(path, COMPRESSED)
}

/// The name of a file while it is being compressed.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    with(path, UNFINISHED)
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// When a file was written to last: the stamp that it gets, or has.
pub(super) fn written(metadata: &Metadata) -> Timestamp {
    let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}
