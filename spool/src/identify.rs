//! Which segment a file holds, by what it begins and ends with.

use crate::block::{FOOTER, Header, PAGE, Parsed, Place};
use crate::disk::DiskFile;
use crate::record::Class;
use crate::state::{Saved, SavedLog};
use std::sync::Arc;

/// What one file turned out to be.
pub(crate) struct Found {
    pub slot: u32,
    pub size: u64,
    pub file: Arc<dyn DiskFile>,
    pub life: Option<Life>,
    /// The damaged beginning of a segment that nothing else tells of.
    pub ghost: bool,
}

pub(crate) struct Life {
    pub segment: u64,
    pub epoch: u64,
    pub footer: Option<Header>,
    /// Known by a block in the middle only.
    pub searched: bool,
}

/// Finds out which segment a file holds now.
pub(crate) fn identify(file: &Found, class: Class, saved: Option<&SavedLog>) -> Option<Life> {
    let first = header_at(file, class, 0, PAGE);
    let footer = file
        .size
        .checked_sub(FOOTER as u64)
        .and_then(|offset| header_at(file, class, offset, FOOTER))
        .filter(|header| header.footer);
    let lives = |segment: u64| saved.is_none_or(|saved| saved.lives(segment));
    let segment = match (&first, &footer) {
        (Some(first), Some(footer)) => first.place.segment.max(footer.place.segment),
        (Some(first), None) => first.place.segment,
        (None, Some(footer)) if lives(footer.place.segment) => footer.place.segment,
        _ => return search(file, class, lives),
    };
    let epoch = first.as_ref().or(footer.as_ref())?.place.epoch;
    Some(Life {
        segment,
        epoch,
        footer: footer.filter(|footer| footer.place.segment == segment),
        searched: false,
    })
}

/// The newest living segment of which any block is whole: both ends of the file are damaged.
fn search(file: &Found, class: Class, lives: impl Fn(u64) -> bool) -> Option<Life> {
    let mut best: Option<Life> = None;
    let mut offset = PAGE as u64;
    while offset + PAGE as u64 <= file.size {
        if let Some(header) = header_at(file, class, offset, PAGE)
            && lives(header.place.segment)
            && best
                .as_ref()
                .is_none_or(|held| held.segment < header.place.segment)
        {
            best = Some(Life {
                segment: header.place.segment,
                epoch: header.place.epoch,
                footer: None,
                searched: true,
            });
        }
        offset += PAGE as u64;
    }
    best
}

/// Whether a file begins with the damaged first block of a segment begun since the state was saved.
pub(crate) fn is_ghost(file: &Found, class: Class, saved: Option<&Saved>) -> bool {
    let Some(saved) = saved else { return false };
    let next = saved
        .logs
        .get(class.name())
        .map_or(1, |log| log.next_segment.max(1));
    let mut page = vec![0; PAGE];
    let Ok(got) = file.file.read_at(&mut page, 0) else {
        return true;
    };
    page.truncate(got);
    (next..next + 4).any(|segment| {
        let place = Place {
            class,
            epoch: saved.epoch,
            segment,
            offset: 0,
        };
        matches!(Header::parse(&page, place), Parsed::Ours)
    })
}

fn header_at(file: &Found, class: Class, offset: u64, len: usize) -> Option<Header> {
    let mut page = vec![0; len];
    let got = file.file.read_at(&mut page, offset).ok()?;
    page.truncate(got);
    let (segment, epoch) = Header::claimed(&page)?;
    let place = Place {
        class,
        epoch,
        segment,
        offset,
    };
    match Header::parse(&page, place) {
        Parsed::Header(header) => Some(header),
        _ => None,
    }
}
