//! The block: unit of commit and unit of tear, aligned to 4 KiB.
//!
//! ```text
//!  0 magic "LWSB"      4 version  5 codec  6 kind  7 zero    8 header length u32   12 header CRC32C u32
//! 16 segment u64      24 epoch u64       32 incarnation u32  36 commit u32
//! 40 stored u32       44 raw u32         48 body CRC32C u32  52 entries u16  54 zero
//! 56 base wall i64    64 base boot u64   72 boot id 16       88 entries..., body, zeros to 4 KiB
//! ```
//! Little-endian. Both checksums are seeded with the class, the epoch, the segment's number and the offset, so that a
//! block of a file's former life, of another log or at another place never validates. The header with its entries
//! fits in one page and has its own checksum: a rotten body is still known by name.

use crate::record::{BootId, Class, Durability};
use bytes::Bytes;
use kit::varint::{Reader, put, put_text, put_zigzag};

/// Alignment of blocks, and the smallest thing a disk writes.
pub(crate) const PAGE: usize = 4096;
/// Room at a segment's end for its footer.
pub(crate) const FOOTER: usize = 4 * PAGE;
/// Bytes before the entries.
const FIXED: usize = 88;
/// No block is larger, unpacked: half of the largest segment.
const MOST_RAW: u32 = 1 << 29;
const MAGIC: &[u8; 4] = b"LWSB";
const VERSION: u8 = 1;
const KIND_DATA: u8 = 0;
const KIND_FOOTER: u8 = 1;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// Where a block lies; part of its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub class: Class,
    pub epoch: u64,
    pub segment: u64,
    pub offset: u64,
}

impl Place {
    fn seed(&self) -> u32 {
        let mut bytes = [0_u8; 25];
        bytes[0] = self.class as u8;
        bytes[1..9].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.segment.to_le_bytes());
        bytes[17..25].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// One line of a header's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `count` records of a stream from `first` on, in the body in the order of the table.
    Records { stream: u32, first: u64, count: u32 },
    /// What a stream's number stands for; in each segment before its first use.
    Define {
        stream: u32,
        durability: Durability,
        name: String,
    },
    /// How far a source has been taken in with this block; of several, the one of the greatest order holds.
    Position { source: String, value: u64, order: u64 },
    /// How far a sink has acknowledged a stream.
    Ack { stream: u32, sink: String, upto: u64 },
    /// Bytes of a segment from `from` on were never confirmed and are not to be read.
    Cut { segment: u64, from: u64 },
    /// In footers: what a stream has in this segment.
    Span {
        stream: u32,
        first: u64,
        last: u64,
        count: u64,
        bytes: u64,
    },
    /// In footers: where the blocks end, the greatest incarnation, and the newest record's wall time in microseconds.
    End { end: u64, incarnation: u32, newest: i64 },
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entry::Records { stream, first, count } => {
                out.push(1);
                put(out, u64::from(*stream));
                put(out, *first);
                put(out, u64::from(*count));
            }
            Entry::Define {
                stream,
                durability,
                name,
            } => {
                out.push(2);
                put(out, u64::from(*stream));
                out.push(match durability {
                    Durability::Strict => 0,
                    Durability::Replayable => 1,
                    Durability::Sampled => 2,
                });
                put_text(out, name);
            }
            Entry::Position { source, value, order } => {
                out.push(3);
                put_text(out, source);
                put(out, *value);
                put(out, *order);
            }
            Entry::Ack { stream, sink, upto } => {
                out.push(4);
                put(out, u64::from(*stream));
                put_text(out, sink);
                put(out, *upto);
            }
            Entry::Cut { segment, from } => {
                out.push(5);
                put(out, *segment);
                put(out, *from);
            }
            Entry::Span {
                stream,
                first,
                last,
                count,
                bytes,
            } => {
                out.push(6);
                put(out, u64::from(*stream));
                for value in [first, last, count, bytes] {
                    put(out, *value);
                }
            }
            Entry::End {
                end,
                incarnation,
                newest,
            } => {
                out.push(7);
                put(out, *end);
                put(out, u64::from(*incarnation));
                put_zigzag(out, *newest);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Option<Self> {
        Some(match from.byte()? {
            1 => Entry::Records {
                stream: from.u32()?,
                first: from.u64()?,
                count: from.u32()?,
            },
            2 => Entry::Define {
                stream: from.u32()?,
                durability: match from.byte()? {
                    0 => Durability::Strict,
                    1 => Durability::Replayable,
                    2 => Durability::Sampled,
                    _ => return None,
                },
                name: from.text()?.to_owned(),
            },
            3 => Entry::Position {
                source: from.text()?.to_owned(),
                value: from.u64()?,
                order: from.u64()?,
            },
            4 => Entry::Ack {
                stream: from.u32()?,
                sink: from.text()?.to_owned(),
                upto: from.u64()?,
            },
            5 => Entry::Cut {
                segment: from.u64()?,
                from: from.u64()?,
            },
            6 => Entry::Span {
                stream: from.u32()?,
                first: from.u64()?,
                last: from.u64()?,
                count: from.u64()?,
                bytes: from.u64()?,
            },
            7 => Entry::End {
                end: from.u64()?,
                incarnation: from.u32()?,
                newest: from.zigzag()?,
            },
            _ => return None,
        })
    }

    /// Bytes it takes in a header.
    pub(crate) fn size(&self) -> usize {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        out.len()
    }
}

/// A record on its way to the disk.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub stream: u32,
    pub seq: u64,
    /// Microseconds since 1970 by the wall clock.
    pub wall: i64,
    /// Microseconds since boot.
    pub boot: u64,
    pub payload: Bytes,
}

/// What all blocks of a commit share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    pub incarnation: u32,
    /// Offset of the commit's first block in this segment: all before it was synced earlier.
    pub commit: u64,
    pub boot: BootId,
}

/// A block not yet placed.
#[derive(Debug)]
pub(crate) struct Draft {
    kind: u8,
    codec: u8,
    entries: Vec<Entry>,
    table: Vec<u8>,
    stored: Vec<u8>,
    raw: u32,
    base_wall: i64,
    base_boot: u64,
}

impl Draft {
    /// Packs records, stream by stream in the order of their arrival; `entries` are the table's other lines.
    pub(crate) fn of_records(items: &[&Item], mut entries: Vec<Entry>, level: Option<i32>) -> Self {
        let base_wall = items.first().map_or(0, |item| item.wall);
        let base_boot = items.first().map_or(0, |item| item.boot);
        let mut order = items.to_vec();
        order.sort_by_key(|item| (item.stream, item.seq));
        let mut raw = Vec::with_capacity(items.iter().map(|item| item.payload.len() + 8).sum());
        let mut boot = base_boot;
        let mut offset = base_wall.wrapping_sub(base_boot.cast_signed());
        for item in &order {
            put(&mut raw, item.payload.len() as u64);
            put_zigzag(&mut raw, item.boot.wrapping_sub(boot).cast_signed());
            boot = item.boot;
            let own = item.wall.wrapping_sub(item.boot.cast_signed());
            put_zigzag(&mut raw, own.wrapping_sub(offset));
            offset = own;
            raw.extend_from_slice(&item.payload);
        }
        for run in order.chunk_by(|a, b| a.stream == b.stream && a.seq + 1 == b.seq) {
            entries.push(Entry::Records {
                stream: run[0].stream,
                first: run[0].seq,
                count: u32::try_from(run.len()).expect("a commit holds far fewer than 2^32 records"),
            });
        }
        let mut draft = Self::of_entries(KIND_DATA, entries);
        draft.base_wall = base_wall;
        draft.base_boot = base_boot;
        draft.raw = u32::try_from(raw.len()).expect("a block is far smaller than 4 GiB");
        draft.stored = raw;
        draft.compress(level);
        draft
    }

    /// A segment's footer.
    pub(crate) fn footer(entries: Vec<Entry>) -> Self {
        Self::of_entries(KIND_FOOTER, entries)
    }

    fn of_entries(kind: u8, entries: Vec<Entry>) -> Self {
        let mut table = Vec::new();
        for entry in &entries {
            entry.encode(&mut table);
        }
        Self {
            kind,
            codec: CODEC_NONE,
            entries,
            table,
            stored: Vec::new(),
            raw: 0,
            base_wall: 0,
            base_boot: 0,
        }
    }

    /// Only where it saves a page: less is not written anyway.
    fn compress(&mut self, level: Option<i32>) {
        let Some(level) = level else { return };
        if self.size() <= PAGE {
            return;
        }
        if let Ok(packed) = zstd::bulk::compress(&self.stored, level) {
            let size = padded(FIXED + self.table.len() + packed.len());
            if size < self.size() {
                self.codec = CODEC_ZSTD;
                self.stored = packed;
            }
        }
    }

    /// Whether compression made it smaller, or it is one page anyway.
    pub(crate) fn gained(&self) -> bool {
        self.codec != CODEC_NONE || self.size() <= PAGE
    }

    /// Bytes it takes on disk.
    pub(crate) fn size(&self) -> usize {
        padded(FIXED + self.table.len() + self.stored.len())
    }

    /// Writes it for its place at the end of `out`.
    pub(crate) fn write(&self, place: Place, shared: Shared, out: &mut Vec<u8>) {
        let start = out.len();
        let header_len = FIXED + self.table.len();
        let seed = place.seed();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.codec, self.kind, 0]);
        out.extend_from_slice(&to_u32(header_len).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&place.segment.to_le_bytes());
        out.extend_from_slice(&place.epoch.to_le_bytes());
        out.extend_from_slice(&shared.incarnation.to_le_bytes());
        out.extend_from_slice(
            &u32::try_from(shared.commit / PAGE as u64)
                .expect("segments are far smaller than 2^44 bytes")
                .to_le_bytes(),
        );
        out.extend_from_slice(&to_u32(self.stored.len()).to_le_bytes());
        out.extend_from_slice(&self.raw.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c_append(seed, &self.stored).to_le_bytes());
        out.extend_from_slice(
            &u16::try_from(self.entries.len())
                .expect("the table fits in a page")
                .to_le_bytes(),
        );
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.base_wall.to_le_bytes());
        out.extend_from_slice(&self.base_boot.to_le_bytes());
        out.extend_from_slice(&shared.boot.0);
        out.extend_from_slice(&self.table);
        let crc = header_crc(seed, &out[start..start + header_len]);
        out[start + 12..start + 16].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&self.stored);
        out.resize(start + self.size(), 0);
    }
}

/// What a page says about the block that would begin there.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A header of this segment, whole.
    Header(Header),
    /// Not whole, but marked as of this segment: damaged.
    Ours,
    /// Nothing of this segment's present life.
    Foreign,
}

/// A block's header.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub place: Place,
    pub incarnation: u32,
    pub commit: u64,
    pub boot: BootId,
    pub entries: Vec<Entry>,
    pub footer: bool,
    len: usize,
    stored: usize,
    raw: usize,
    codec: u8,
    body_crc: u32,
    /// Wall time of its first record, in microseconds.
    pub base_wall: i64,
    base_boot: u64,
}

impl Header {
    /// Reads the header at the start of `page`; the segment is the one that is expected there.
    pub(crate) fn parse(page: &[u8], place: Place) -> Parsed {
        match Self::whole(page, place) {
            Some(header) => Parsed::Header(header),
            None if looks_ours(page, place) => Parsed::Ours,
            None => Parsed::Foreign,
        }
    }

    /// Which segment the bytes claim to be of, true only if [`Header::parse`] then agrees.
    pub(crate) fn claimed(page: &[u8]) -> Option<(u64, u64)> {
        (page.len() >= FIXED && &page[..4] == MAGIC).then(|| (u64_at(page, 16), u64_at(page, 24)))
    }

    fn whole(page: &[u8], place: Place) -> Option<Self> {
        if page.len() < FIXED || &page[..4] != MAGIC || page[4] != VERSION {
            return None;
        }
        let len = u32_at(page, 8) as usize;
        if len < FIXED
            || len > page.len()
            || u64_at(page, 16) != place.segment
            || u64_at(page, 24) != place.epoch
        {
            return None;
        }
        if header_crc(place.seed(), &page[..len]) != u32_at(page, 12) {
            return None;
        }
        let mut reader = Reader::new(&page[FIXED..len]);
        let mut entries = Vec::new();
        for _ in 0..u16::from_le_bytes([page[52], page[53]]) {
            let entry = Entry::decode(&mut reader)?;
            // A checksum says that the bytes are as written, not who wrote them.
            if let Entry::Records { first, count, .. } = &entry {
                first.checked_add(u64::from(*count))?;
            }
            entries.push(entry);
        }
        if u32_at(page, 44) > MOST_RAW {
            return None;
        }
        Some(Self {
            place,
            incarnation: u32_at(page, 32),
            commit: u64::from(u32_at(page, 36)) * PAGE as u64,
            boot: BootId(page[72..88].try_into().ok()?),
            entries,
            footer: page[6] == KIND_FOOTER,
            len,
            stored: u32_at(page, 40) as usize,
            raw: u32_at(page, 44) as usize,
            codec: page[5],
            body_crc: u32_at(page, 48),
            base_wall: u64_at(page, 56).cast_signed(),
            base_boot: u64_at(page, 64),
        })
    }

    /// Bytes from the block's start to the next block's.
    pub(crate) fn size(&self) -> usize {
        padded(self.len + self.stored)
    }

    /// Bytes of the body as stored.
    pub(crate) fn stored(&self) -> usize {
        self.stored
    }

    /// Whether the block's bytes are what was written; `block` is the whole block.
    pub(crate) fn body_is_whole(&self, block: &[u8]) -> bool {
        block.len() >= self.len + self.stored
            && crc32c::crc32c_append(self.place.seed(), &block[self.len..self.len + self.stored])
                == self.body_crc
    }

    /// Whether it holds a record of the stream from `seq` on.
    pub(crate) fn holds(&self, wanted: u32, seq: u64) -> bool {
        self.runs()
            .any(|(stream, first, count)| stream == wanted && first + u64::from(count) > seq)
    }

    /// The runs of records: stream, first, count.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, u64, u32)> + '_ {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Records { stream, first, count } => Some((*stream, *first, *count)),
            _ => None,
        })
    }

    /// Takes the records out; `None` if the body is not what its header says.
    pub(crate) fn items(&self, block: &[u8]) -> Option<Vec<Item>> {
        if !self.body_is_whole(block) {
            return None;
        }
        let stored = &block[self.len..self.len + self.stored];
        let unpacked;
        let raw = match self.codec {
            CODEC_NONE => stored,
            CODEC_ZSTD => {
                unpacked = zstd::bulk::decompress(stored, self.raw).ok()?;
                &unpacked[..]
            }
            _ => return None,
        };
        let mut reader = Reader::new(raw);
        let mut boot = self.base_boot;
        let mut offset = self.base_wall.wrapping_sub(self.base_boot.cast_signed());
        let mut items = Vec::new();
        for (stream, first, count) in self.runs() {
            for at in 0..u64::from(count) {
                let len = usize::try_from(reader.u64()?).ok()?;
                boot = boot.wrapping_add(reader.zigzag()?.cast_unsigned());
                offset = offset.wrapping_add(reader.zigzag()?);
                items.push(Item {
                    stream,
                    seq: first + at,
                    wall: offset.wrapping_add(boot.cast_signed()),
                    boot,
                    payload: Bytes::copy_from_slice(reader.take(len)?),
                });
            }
        }
        Some(items)
    }
}

/// Damaged bytes of this segment differ from its former life's by naming the segment, or by validating once the
/// fields that are known anyway are put right.
fn looks_ours(page: &[u8], place: Place) -> bool {
    if page.len() < FIXED {
        return false;
    }
    if u64_at(page, 16) == place.segment && u64_at(page, 24) == place.epoch {
        return true;
    }
    let mut repaired = page.to_vec();
    repaired[..4].copy_from_slice(MAGIC);
    repaired[16..24].copy_from_slice(&place.segment.to_le_bytes());
    repaired[24..32].copy_from_slice(&place.epoch.to_le_bytes());
    Header::whole(&repaired, place).is_some()
}

fn header_crc(seed: u32, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &header[..12]), &header[16..])
}

pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).expect("blocks are far smaller than 4 GiB")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
