//! systemd's journal, as `journalctl -o export` writes it (systemd's "Journal Export Formats") and `--header` tells of
//! its files.
//!
//! The place of an entry is its number (`i=` of the cursor) in the numbering that the cursor names (`s=`): a journal
//! that was replaced has another numbering, so that a place never means two entries.

use super::assemble::{Entry, Said};
use super::read::Level;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::io::{self, BufRead, Read as _};

/// Bytes of a field that are kept: journals hold core dumps.
const MOST_FIELD: usize = 64 << 10;
/// Fields of an entry that are kept.
const MOST_FIELDS: usize = 96;
/// Bytes of a field's name; journald itself allows 64.
const MOST_NAME: usize = 256;

/// Fields that are known by other names, or are told elsewhere.
const NAMED: &[(&str, &str)] = &[
    ("_SYSTEMD_UNIT", "systemd.unit"),
    ("_SYSTEMD_USER_UNIT", "systemd.user_unit"),
    ("SYSLOG_IDENTIFIER", "syslog.appname"),
    ("SYSLOG_FACILITY", "syslog.facility"),
    ("_PID", "process.pid"),
    ("_COMM", "process.executable.name"),
    ("_UID", "process.owner"),
    ("_HOSTNAME", "host.name"),
    ("_TRANSPORT", "journald.transport"),
    ("_BOOT_ID", "journald.boot_id"),
    ("CODE_FILE", "code.file.path"),
    ("CODE_FUNC", "code.function.name"),
    ("CODE_LINE", "code.line.number"),
];

/// In front of a numbering where it names a source.
pub const NUMBERING: &str = "journal-";

/// A place in a journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which numbering: 32 hexadecimal digits.
    pub numbering: String,
    /// The number in it.
    pub number: u64,
}

impl Place {
    /// Reads a cursor, `s=ID;i=NUMBER;...`.
    pub fn parse(cursor: &str) -> Option<Self> {
        let part = |name: &str| {
            cursor
                .split(';')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            numbering: numbering(part("s")?)?,
            number: u64::from_str_radix(part("i")?, 16).ok()?,
        })
    }

    /// As journalctl takes it.
    pub fn cursor(&self) -> String {
        format!("s={};i={:x}", self.numbering, self.number)
    }
}

fn numbering(text: &str) -> Option<String> {
    let sound = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| text.to_ascii_lowercase())
}

/// The files of one numbering, as far as they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Which numbering.
    pub numbering: String,
    /// Its first number that is there.
    pub first: u64,
    /// Its last one.
    pub last: u64,
}

/// Reads what `journalctl --header` says of all files, in the order in which numberings are met.
pub fn extents(headers: &str) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let (mut id, mut first) = (None, None);
    for line in headers.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        // `Head sequential number: 17 (11)`
        let number = || value.split_whitespace().next()?.parse::<u64>().ok();
        match name.trim().to_ascii_lowercase().as_str() {
            "sequential number id" => (id, first) = (numbering(value.trim()), None),
            "head sequential number" => first = number(),
            "tail sequential number" => {
                let (Some(numbering), Some(first), Some(last)) = (id.take(), first.take(), number()) else {
                    continue;
                };
                // A file in which nothing was written yet.
                if last == 0 {
                    continue;
                }
                match found.iter_mut().find(|it| it.numbering == numbering) {
                    Some(known) => {
                        known.first = known.first.min(first);
                        known.last = known.last.max(last);
                    }
                    None => found.push(Extent {
                        numbering,
                        first,
                        last,
                    }),
                }
            }
            _ => {}
        }
    }
    found
}

/// Reads the next entry; `None` at the end. An entry without a cursor is passed over.
///
/// # Errors
/// Where reading fails, or what is read is no export.
pub fn next(input: &mut impl BufRead) -> io::Result<Option<Entry>> {
    loop {
        let Some(fields) = fields(input)? else {
            return Ok(None);
        };
        if let Some(entry) = entry(fields) {
            return Ok(Some(entry));
        }
    }
}

type Fields = Vec<(String, Vec<u8>)>;

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no journal export: {why}"))
}

/// The fields of one entry; `None` at the end of the input.
fn fields(input: &mut impl BufRead) -> io::Result<Option<Fields>> {
    let mut fields = Fields::new();
    loop {
        let mut name = Vec::new();
        let end = until(input, &mut name, MOST_NAME, b"=\n")?;
        let value = match end {
            None if name.is_empty() && fields.is_empty() => return Ok(None),
            None if name.is_empty() => return Ok(Some(fields)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(b'\n') if name.is_empty() => {
                if fields.is_empty() {
                    continue;
                }
                return Ok(Some(fields));
            }
            Some(b'\n') => binary(input)?,
            Some(_) => {
                let mut value = Vec::new();
                until(input, &mut value, MOST_FIELD, b"\n")?;
                value
            }
        };
        let name = String::from_utf8(name).map_err(|_| bad("a field's name is no text"))?;
        if fields.len() < MOST_FIELDS {
            fields.push((name, value));
        }
    }
}

/// A length as 8 bytes, the lowest first, that many bytes, and an end of line.
fn binary(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut value = Vec::new();
    let kept = length.min(MOST_FIELD as u64);
    input.take(kept).read_to_end(&mut value)?;
    io::copy(&mut input.take(length - kept), &mut io::sink())?;
    let mut end = [0];
    input.read_exact(&mut end)?;
    if end != *b"\n" {
        return Err(bad("a field is longer than it says"));
    }
    Ok(value)
}

/// Reads up to one of `ends`, which is returned, and keeps the first `most` bytes.
fn until(input: &mut impl BufRead, into: &mut Vec<u8>, most: usize, ends: &[u8]) -> io::Result<Option<u8>> {
    loop {
        let there = match input.fill_buf() {
            Ok(there) => there,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        if there.is_empty() {
            return Ok(None);
        }
        let found = there.iter().position(|byte| ends.contains(byte));
        let length = found.unwrap_or(there.len());
        let room = most.saturating_sub(into.len());
        into.extend_from_slice(&there[..length.min(room)]);
        let end = found.map(|at| there[at]);
        input.consume(length + usize::from(found.is_some()));
        if end.is_some() {
            return Ok(end);
        }
    }
}

fn entry(fields: Fields) -> Option<Entry> {
    let (mut place, mut time, mut text) = (None, None, Vec::new());
    let mut said = Said::default();
    let mut more = Map::new();
    for (name, value) in fields {
        let words = || String::from_utf8_lossy(&value).into_owned();
        match name.as_str() {
            "__CURSOR" => place = Place::parse(&words()),
            "__REALTIME_TIMESTAMP" => {
                time = words()
                    .parse()
                    .ok()
                    .and_then(|micros| Timestamp::from_microsecond(micros).ok());
            }
            "MESSAGE" => text = value,
            "PRIORITY" => said.level = words().parse().ok().and_then(Level::of_priority),
            name => {
                if let Some((_, ours)) = NAMED.iter().find(|(theirs, _)| *theirs == name) {
                    more.insert((*ours).to_owned(), plain(words()));
                } else if !name.starts_with('_') && !name.starts_with("SYSLOG_") {
                    // What the program itself has added.
                    more.insert(format!("journald.{}", name.to_lowercase()), words().into());
                }
            }
        }
    }
    let word = |name: &str| more.get(name).and_then(Value::as_str);
    let whose = word("systemd.unit")
        .or(word("syslog.appname"))
        .or(word("journald.transport"))
        .unwrap_or_default();
    said.whose = whose.to_owned();
    if !whose.is_empty() {
        let service = whose.strip_suffix(".service").unwrap_or(whose);
        more.insert("service.name".to_owned(), service.into());
    }
    said.fields = more;
    let place = place?;
    Some(Entry {
        time,
        stream: None,
        text,
        said,
        file: format!("{NUMBERING}{}", place.numbering),
        upto: place.number,
    })
}

/// Numbers as such.
fn plain(text: String) -> Value {
    match text.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "e6672e0911eb429cb5e821f4af072944";

    fn one(bytes: &[u8]) -> io::Result<Option<Entry>> {
        // A reader that gives a byte at a time meets every boundary.
        next(&mut io::BufReader::with_capacity(1, bytes))
    }

    fn export(fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out =
            format!("__CURSOR=s={ID};i=1f;b=0\n__REALTIME_TIMESTAMP=1764000001000000\n").into_bytes();
        for (name, value) in fields {
            out.extend_from_slice(name.as_bytes());
            if value.contains(&b'\n') || value.contains(&0) {
                out.push(b'\n');
                out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                out.push(b'=');
            }
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    #[test]
    fn an_entry_has_its_place_its_level_and_its_names() {
        let bytes = export(&[
            ("PRIORITY", b"3"),
            ("_SYSTEMD_UNIT", b"ssh.service"),
            ("_PID", b"17"),
            ("_CMDLINE", b"sshd --secret"),
            ("MY_FIELD", b"a=b"),
            ("MESSAGE", b"two\nlines\0and bytes"),
        ]);
        let entry = one(&bytes).unwrap().unwrap();
        let place = Place::parse(&format!("s={ID};i=1f;b=0")).unwrap();
        assert_eq!((place.number, place.cursor()), (31, format!("s={ID};i=1f")));
        assert_eq!(entry.file, format!("journal-{ID}"));
        assert_eq!(entry.text, b"two\nlines\0and bytes");
        assert_eq!((entry.said.level, entry.upto), (Some(Level::Error), 31));
        assert_eq!(entry.time.unwrap().as_second(), 1_764_000_001);
        assert_eq!(
            serde_json::to_string(&entry.said.fields).unwrap(),
            r#"{"journald.my_field":"a=b","process.pid":17,"service.name":"ssh","systemd.unit":"ssh.service"}"#
        );
    }

    #[test]
    fn a_core_dump_is_cut_and_the_next_entry_found() {
        let mut bytes = export(&[("COREDUMP", &vec![0; 3 << 20]), ("MESSAGE", b"crashed")]);
        bytes.extend(export(&[("MESSAGE", b"next")]));
        let mut input = io::BufReader::new(bytes.as_slice());
        let entry = next(&mut input).unwrap().unwrap();
        let dump = entry.said.fields["journald.coredump"].as_str().unwrap();
        assert_eq!((entry.text.as_slice(), dump.len()), (&b"crashed"[..], MOST_FIELD));
        assert_eq!(next(&mut input).unwrap().unwrap().text, b"next");
        assert!(next(&mut input).unwrap().is_none());
    }

    #[test]
    fn what_is_cut_off_or_no_export_is_an_error_or_the_end() {
        let whole = export(&[("MESSAGE", b"a\nb")]);
        for end in 0..whole.len() {
            // Never an entry that is not whole, but for the blank line behind it.
            if let Ok(Some(entry)) = one(&whole[..end]) {
                assert!(entry.text.is_empty() || entry.text == b"a\nb", "{end}");
            }
        }
        assert!(one(b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\x7fabc").is_err());
        assert!(one(b"no cursor=1\n\n").unwrap().is_none());
    }

    #[test]
    fn extents_are_those_of_all_files_of_a_numbering() {
        let file = |id: &str, head: u64, tail: u64| {
            format!(
                "File path: x\nSequential number ID: {id}\nHead sequential number: {head} ({head:x})\n\
                 Tail sequential number: {tail} ({tail:x})\nHead realtime timestamp: Mon 2025 (1)\n"
            )
        };
        let other = "5b15d655d97b46a2b80465196a71b1f9";
        let text = file(ID, 40, 90) + &file(other, 1, 5) + &file(ID, 17, 60) + &file(other, 0, 0);
        let found = extents(&text);
        assert_eq!(
            found
                .iter()
                .map(|it| (it.numbering.as_str(), it.first, it.last))
                .collect::<Vec<_>>(),
            [(ID, 17, 90), (other, 1, 5)]
        );
        assert!(extents("nothing: here").is_empty());
    }
}
