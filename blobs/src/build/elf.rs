//! As much of the ELF format as tells for which machine a program is and whether it needs a loader (System V gABI).

use std::io::{self, Read, Seek, SeekFrom};

/// How every ELF file begins.
pub(super) const MAGIC: &[u8] = b"\x7fELF";
const PT_INTERP: u32 = 3;
/// Longer than any loader's path.
const MOST_LOADER_BYTES: u64 = 4096;

/// What an ELF header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// Whether addresses have 64 bits.
    pub is_64: bool,
    /// Whether numbers begin with their low byte.
    pub little_endian: bool,
    /// The dynamic loader that the program asks for; a static one has none.
    pub loader: Option<String>,
}

/// Why an ELF header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadElf {
    /// The file ends early or cannot be read.
    #[error("its header cannot be read")]
    Io(#[from] io::Error),
    /// A field holds what it may not.
    #[error("its header is wrong: {0}")]
    Header(&'static str),
}

impl Elf {
    /// Reads the header; `None` where the file is no ELF file.
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Option<Self>, BadElf> {
        let mut start = Vec::new();
        file.take(64).read_to_end(&mut start)?;
        if !start.starts_with(MAGIC) {
            return Ok(None);
        }
        let is_64 = match start.get(4) {
            Some(1) => false,
            Some(2) => true,
            _ => return Err(BadElf::Header("class is neither 32 nor 64 bit")),
        };
        let little_endian = match start.get(5) {
            Some(1) => true,
            Some(2) => false,
            _ => return Err(BadElf::Header("byte order is neither little nor big")),
        };
        let fields = Fields {
            bytes: &start,
            little_endian,
        };
        let machine = fields.u16(18)?;
        let (table, entry_bytes, entries) = if is_64 {
            (fields.u64(32)?, fields.u16(54)?, fields.u16(56)?)
        } else {
            (fields.u32(28)?.into(), fields.u16(42)?, fields.u16(44)?)
        };
        let mut elf = Self {
            machine,
            is_64,
            little_endian,
            loader: None,
        };
        let least = if is_64 { 56 } else { 32 };
        if entries > 0 && entry_bytes < least {
            return Err(BadElf::Header("program headers are too short"));
        }
        let mut headers = vec![0; usize::from(entry_bytes) * usize::from(entries)];
        file.seek(SeekFrom::Start(table))?;
        file.read_exact(&mut headers)?;
        for header in headers.chunks_exact(usize::from(entry_bytes.max(1))) {
            let fields = Fields {
                bytes: header,
                little_endian,
            };
            if fields.u32(0)? != PT_INTERP {
                continue;
            }
            let (offset, size) = if is_64 {
                (fields.u64(8)?, fields.u64(32)?)
            } else {
                (fields.u32(4)?.into(), fields.u32(16)?.into())
            };
            elf.loader = Some(read_loader(file, offset, size)?);
        }
        Ok(Some(elf))
    }

    /// The architecture in Go's words, where it is a known one.
    pub fn architecture(&self) -> Option<&'static str> {
        match (self.machine, self.is_64, self.little_endian) {
            (3, false, true) => Some("386"),
            (40, false, true) => Some("arm"),
            (62, true, true) => Some("amd64"),
            (183, true, true) => Some("arm64"),
            (243, true, true) => Some("riscv64"),
            (21, true, true) => Some("ppc64le"),
            (22, true, false) => Some("s390x"),
            (258, true, true) => Some("loong64"),
            _ => None,
        }
    }

    pub(super) fn architecture_text(&self) -> String {
        match self.architecture() {
            Some(known) => known.to_owned(),
            None => format!(
                "machine {} of {} bits",
                self.machine,
                if self.is_64 { 64 } else { 32 }
            ),
        }
    }
}

fn read_loader(file: &mut (impl Read + Seek), offset: u64, size: u64) -> Result<String, BadElf> {
    if size > MOST_LOADER_BYTES {
        return Err(BadElf::Header("the loader's path is too long"));
    }
    let mut path = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(size).read_to_end(&mut path)?;
    while path.last() == Some(&0) {
        path.pop();
    }
    String::from_utf8(path).map_err(|_| BadElf::Header("the loader's path is not text"))
}

struct Fields<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

impl Fields<'_> {
    fn number<const N: usize>(&self, at: usize) -> Result<[u8; N], BadElf> {
        let held = self
            .bytes
            .get(at..at + N)
            .and_then(|held| <[u8; N]>::try_from(held).ok());
        let mut held = held.ok_or(BadElf::Header("it ends early"))?;
        if !self.little_endian {
            held.reverse();
        }
        Ok(held)
    }

    fn u16(&self, at: usize) -> Result<u16, BadElf> {
        self.number(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, BadElf> {
        self.number(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, BadElf> {
        self.number(at).map(u64::from_le_bytes)
    }
}
