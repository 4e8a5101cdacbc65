//! The tar format: headers with their GNU and pax extensions, within bounds.
//!
//! The `tar` crate splits the stream into raw entries and checks each header's sum. The extensions are read here,
//! since a hostile archive could otherwise claim a name of any length, and since pax values may hold any byte.

use super::UnpackError;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tar::EntryType;

/// Most bytes in one extension header: a path, a link and generous attributes.
const MOST_EXTENSION_BYTES: u64 = 1024 * 1024;

pub(super) struct Archive<R: Read>(tar::Archive<R>);

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink(PathBuf),
    Hardlink(PathBuf),
    Fifo,
    Device { block: bool, major: u32, minor: u32 },
}

/// One entry with its extensions applied.
pub(super) struct Entry<'a> {
    pub path: PathBuf,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: SystemTime,
    /// Extended attributes by name.
    pub attributes: Vec<(String, Vec<u8>)>,
    pub content: &'a mut dyn Read,
}

impl Entry<'_> {
    pub fn hostile(&self, why: impl Into<String>) -> UnpackError {
        UnpackError::Hostile {
            entry: self.path.to_string_lossy().into_owned(),
            why: why.into(),
        }
    }
}

/// What extension entries say about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    modified: Option<SystemTime>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    pub fn new(plain: R) -> Self {
        Self(tar::Archive::new(plain))
    }

    pub fn into_inner(self) -> R {
        self.0.into_inner()
    }

    /// Hands every entry to `apply`, in order; stops at the first error.
    pub fn for_each(
        &mut self,
        mut apply: impl FnMut(&mut Entry<'_>) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut extension = Extension::default();
        for raw in self.0.entries().map_err(UnpackError::Archive)?.raw(true) {
            let mut raw = raw.map_err(UnpackError::Archive)?;
            match raw.header().entry_type() {
                EntryType::GNULongName => extension.path = Some(text(&mut raw)?),
                EntryType::GNULongLink => extension.link = Some(text(&mut raw)?),
                EntryType::XHeader => extension.read_pax(&bounded(&mut raw)?)?,
                // Global headers carry comments (git's commit id); what they could change, no layer needs.
                EntryType::XGlobalHeader => {}
                _ => {
                    let mut entry = entry(&mut raw, std::mem::take(&mut extension))?;
                    apply(&mut entry)?;
                }
            }
        }
        Ok(())
    }
}

fn entry<'a, R: Read>(
    raw: &'a mut tar::Entry<'_, R>,
    extension: Extension,
) -> Result<Entry<'a>, UnpackError> {
    let header = raw.header();
    let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let hostile = |why: String| UnpackError::Hostile {
        entry: String::from_utf8_lossy(&path).into_owned(),
        why,
    };
    let bad = |err: io::Error| hostile(err.to_string());
    if let Some(size) = extension
        .size
        .filter(|size| header.entry_size().ok() != Some(*size))
    {
        // Two sizes are two readings of one archive.
        return Err(hostile(format!(
            "its two headers disagree on its size ({size} bytes in one)"
        )));
    }
    let link = || {
        let held = header.link_name_bytes().map(|link| link.into_owned());
        let link = extension.link.clone().or(held).unwrap_or_default();
        if link.is_empty() || link.contains(&0) {
            return Err(hostile("its link has no target".to_owned()));
        }
        Ok(PathBuf::from(OsStr::from_bytes(&link)))
    };
    let device = |block| -> Result<Kind, UnpackError> {
        Ok(Kind::Device {
            block,
            major: header.device_major().map_err(bad)?.unwrap_or(0),
            minor: header.device_minor().map_err(bad)?.unwrap_or(0),
        })
    };
    let kind = match header.entry_type() {
        // Before ustar, a folder was a file whose name ends with a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symlink(link()?),
        EntryType::Link => Kind::Hardlink(link()?),
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device(false)?,
        EntryType::Block => device(true)?,
        other => {
            return Err(hostile(format!(
                "entries of type {:?} are not supported",
                other.as_byte() as char
            )));
        }
    };
    let id = |of: Option<u64>, held: io::Result<u64>| -> Result<u32, UnpackError> {
        let id = of.map_or(held, Ok).map_err(bad)?;
        u32::try_from(id).map_err(|_| hostile(format!("its owner {id} is no user id")))
    };
    let seconds = header.mtime().map_err(bad)?;
    Ok(Entry {
        kind,
        mode: header.mode().map_err(bad)? & 0o7777,
        uid: id(extension.uid, header.uid())?,
        gid: id(extension.gid, header.gid())?,
        modified: extension.modified.unwrap_or_else(|| time(seconds, 0)),
        attributes: extension.attributes,
        path: PathBuf::from(OsStr::from_bytes(&path)),
        content: raw,
    })
}

fn time(seconds: u64, nanos: u32) -> SystemTime {
    // Beyond what the file system can tell, the epoch will do.
    let since = Duration::new(seconds.min(u64::from(u32::MAX) * 2), nanos);
    SystemTime::UNIX_EPOCH + since
}

fn bounded(raw: &mut dyn Read) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    raw.take(MOST_EXTENSION_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(UnpackError::Archive)?;
    if bytes.len() as u64 > MOST_EXTENSION_BYTES {
        return Err(UnpackError::Hostile {
            entry: "extension header".to_owned(),
            why: format!("it has more than {MOST_EXTENSION_BYTES} bytes"),
        });
    }
    Ok(bytes)
}

/// A name that ends at its first zero byte.
fn text(raw: &mut dyn Read) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = bounded(raw)?;
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    Ok(bytes)
}

impl Extension {
    /// Reads `LENGTH KEY=VALUE\n` records (POSIX pax, "Extended Header").
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        let broken = || UnpackError::Hostile {
            entry: "extension header".to_owned(),
            why: "its records are broken".to_owned(),
        };
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = std::str::from_utf8(&records[..space])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(broken)?;
            let record = records.get(space + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let key = std::str::from_utf8(&record[..equals]).map_err(|_| broken())?;
            self.set(key, &record[equals + 1..]).ok_or_else(broken)?;
            records = &records[length..];
        }
        Ok(())
    }

    /// Takes one record; `None` where a value does not parse. Keys that say nothing to us are skipped.
    fn set(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "size" => self.size = Some(number()?),
            "mtime" => self.modified = pax_time(std::str::from_utf8(value).ok()?),
            // Sparse files have holes that only this record's reader would see.
            _ if key.starts_with("GNU.sparse.") => return None,
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.attributes.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// `SECONDS[.FRACTION]`; a time before 1970 is left to the plain header.
fn pax_time(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(time(seconds.parse().ok()?, digits.parse().ok()?))
}
