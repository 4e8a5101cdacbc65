//! Going through a segment block by block, telling tear from rot.
//!
//! Each block names where its commit began, and all before that was synced when it was written. So damage before the
//! last known commit's start (or before the mark in the saved state) is *rot*: the disk lost what it had confirmed.
//! Damage after it lies in a commit that was never confirmed: a *tear*, and the segment ends there.

use crate::block::{FOOTER, Header, PAGE, Parsed, Place};
use crate::disk::DiskFile;
use crate::record::Class;

const WINDOW: usize = 128 * 1024;

/// Bytes that should be a block and are not.
#[derive(Debug, Clone)]
pub(crate) struct Bad {
    pub offset: u64,
    pub len: u64,
    /// Known if only the body is damaged.
    pub header: Option<Header>,
    /// Whether the bytes are marked as of this segment.
    ours: bool,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Whole blocks in order.
    pub blocks: Vec<Header>,
    /// Confirmed once, unreadable now.
    pub rot: Vec<Bad>,
    /// Where an unconfirmed commit is not whole.
    pub torn: Option<u64>,
    /// Whether something of this segment was cut away at the tear.
    pub cut_own: bool,
    /// Where the next block goes.
    pub end: u64,
    /// The greatest incarnation seen, in blocks that were cut too.
    pub incarnation: u32,
}

/// Which bytes of a segment may be relied on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// All before this was synced.
    pub confirmed: u64,
    /// Nothing from here on is to be read.
    pub cut: u64,
    /// A later segment was begun, so all of this one was synced.
    pub closed: bool,
}

/// Reads pages in larger strides.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Bytes from `offset`, `len` of them; fewer at the file's end or where the disk refuses.
    fn get(&mut self, offset: u64, len: usize) -> &[u8] {
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.start = offset;
            self.bytes.resize(len.max(WINDOW), 0);
            let got = match self.file.read_at(&mut self.bytes, offset) {
                Ok(got) => got,
                // One bad page must not hide its neighbours.
                Err(_) => {
                    self.bytes.truncate(len);
                    self.file.read_at(&mut self.bytes, offset).unwrap_or(0)
                }
            };
            self.bytes.truncate(got);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let to = (from + len).min(self.bytes.len());
        self.bytes.get(from..to).unwrap_or_default()
    }
}

enum Piece {
    Whole(Header),
    Bad(Bad),
}

/// Walks a segment of `size` bytes; `bodies` says whether bodies are checked too.
pub(crate) fn walk(
    file: &dyn DiskFile,
    (class, epoch, segment): (Class, u64, u64),
    size: u64,
    bounds: Bounds,
    bodies: bool,
) -> Walk {
    let stop = (size.saturating_sub(FOOTER as u64)).min(bounds.cut);
    let mut window = Window {
        file,
        start: 0,
        bytes: Vec::new(),
    };
    let mut pieces = Vec::new();
    let mut incarnation = 0;
    let mut offset = 0;
    while offset + PAGE as u64 <= stop {
        let place = Place {
            class,
            epoch,
            segment,
            offset,
        };
        let (piece, len) = match Header::parse(window.get(offset, PAGE), place) {
            // A block older than one before it was cut away in an earlier life of the process.
            Parsed::Header(header) if header.incarnation < incarnation || header.footer => {
                (bad(offset, PAGE, None, false), PAGE)
            }
            Parsed::Header(header) => {
                incarnation = header.incarnation;
                let len = header.size();
                if bodies && !header.body_is_whole(window.get(offset, len)) {
                    (bad(offset, len, Some(header), true), len)
                } else {
                    (Piece::Whole(header), len)
                }
            }
            Parsed::Ours => (bad(offset, PAGE, None, true), PAGE),
            Parsed::Foreign => (bad(offset, PAGE, None, false), PAGE),
        };
        pieces.push(piece);
        offset += len as u64;
    }
    sort_out(pieces, bounds, stop)
}

fn bad(offset: u64, len: usize, header: Option<Header>, ours: bool) -> Piece {
    Piece::Bad(Bad {
        offset,
        len: len as u64,
        header,
        ours,
    })
}

fn sort_out(pieces: Vec<Piece>, bounds: Bounds, stop: u64) -> Walk {
    let mut confirmed = bounds.confirmed.min(stop);
    let mut walk = Walk::default();
    for piece in &pieces {
        let (at, header) = match piece {
            Piece::Whole(header) => (header.commit, Some(header)),
            Piece::Bad(bad) => (0, bad.header.as_ref()),
        };
        // In a closed segment all up to the last trace of a block was synced.
        let closed_at = match piece {
            Piece::Whole(header) => header.place.offset + header.size() as u64,
            Piece::Bad(bad) if bad.ours => bad.offset + bad.len,
            Piece::Bad(_) => 0,
        };
        confirmed = confirmed.max(at).max(if bounds.closed { closed_at } else { 0 });
        if let Some(header) = header {
            walk.incarnation = walk.incarnation.max(header.incarnation);
        }
    }
    let mut ended = false;
    for piece in pieces {
        match piece {
            Piece::Whole(header) if !ended => {
                walk.end = header.place.offset + header.size() as u64;
                walk.blocks.push(header);
            }
            Piece::Whole(_) => walk.cut_own = true,
            Piece::Bad(bad) if bad.offset < confirmed => {
                walk.end = bad.offset + bad.len;
                match walk.rot.last_mut() {
                    // Pages without a header are one hole until the next block.
                    Some(held)
                        if held.header.is_none()
                            && bad.header.is_none()
                            && held.offset + held.len == bad.offset =>
                    {
                        held.len += bad.len;
                    }
                    _ => walk.rot.push(bad),
                }
            }
            // Also where valid blocks of the same commit follow: a source's position rides in them and must not
            // pass over records that are not there.
            Piece::Bad(bad) => {
                ended = true;
                walk.cut_own |= bad.ours;
            }
        }
    }
    walk.torn = walk.cut_own.then_some(walk.end);
    walk
}
