//! From bytes of a log to entries: parts of long lines joined, stack traces kept together.

use super::follow::Chunk;
use super::read::Level;
use jiff::Timestamp;
use model::cri::{self, Stream};
use regex::bytes::Regex;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// An entry grows to this size at most; what is longer goes on in the next.
const MOST_ENTRY: usize = 256 << 10;
/// Lines that one entry may have.
const MOST_LINES: u32 = 1000;

/// How a log's lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As container runtimes do: [`model::cri`].
    Cri,
    /// One line is one line.
    Plain,
}

/// One thing that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was written, where the log says so.
    pub time: Option<Timestamp>,
    /// Which output, where there are two.
    pub stream: Option<Stream>,
    /// What, without the last end of line.
    pub text: Vec<u8>,
    /// What the source says beside the text.
    pub said: Said,
    /// The file that it ended in.
    pub file: String,
    /// Offset behind it in that file: whoever has this entry has all before.
    pub upto: u64,
}

/// What a source says of an entry beside its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// How bad it is; what the text says of itself counts more.
    pub level: Option<Level>,
    /// Attributes.
    pub fields: Map<String, Value>,
    /// Who wrote it, where one source has many writers: each has a limit of its own.
    pub whose: String,
}

/// Where one entry ends and the next begins.
#[derive(Debug, Clone)]
pub enum Together {
    /// Each line for itself.
    Never,
    /// What is indented, and what stack traces of common languages go on with, belongs to the line before.
    Traces,
    /// A line that matches begins an entry, all others go on with it.
    Start(Regex),
}

impl Together {
    fn goes_on(&self, text: &[u8]) -> bool {
        // What follows the head of a trace without being indented.
        static TRACE: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(r"^(Caused by: |Suppressed: |\.\.\. \d+ more|goroutine \d+ |\[signal )").ok()
        });
        match self {
            Self::Never => false,
            Self::Traces => {
                matches!(text.first(), Some(b' ' | b'\t'))
                    || TRACE.as_ref().is_some_and(|trace| trace.is_match(text))
            }
            Self::Start(start) => !start.is_match(text),
        }
    }
}

/// Makes entries of one log's chunks. Entries come in the order of their ends, so that a place in the file says
/// which of them were given.
#[derive(Debug)]
pub struct Assembler {
    format: Format,
    together: Together,
    /// Parts of a line of standard output and of standard error.
    parts: [Vec<u8>; 2],
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    lines: u32,
    /// Something was added since [`Assembler::settle`] was called last.
    fresh: bool,
}

impl Assembler {
    /// For a log of this form.
    pub fn new(format: Format, together: Together) -> Self {
        Self {
            format,
            together,
            parts: [Vec::new(), Vec::new()],
            held: None,
        }
    }

    /// Takes a chunk; hands each entry that is complete to `give`.
    pub fn take(&mut self, chunk: &Chunk, mut give: impl FnMut(Entry)) {
        let mut at = chunk.from;
        for line in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            at += line.len() as u64;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let entry = |time, stream, text| Entry {
                time,
                stream,
                text,
                said: Said::default(),
                file: chunk.file.clone(),
                upto: at,
            };
            match (self.format, cri::parse(line)) {
                (Format::Cri, Some(parsed)) => {
                    let slot = &mut self.parts[usize::from(parsed.stream == Stream::Err)];
                    slot.extend_from_slice(parsed.text);
                    if parsed.partial && slot.len() < MOST_ENTRY {
                        continue;
                    }
                    let text = std::mem::take(slot);
                    let time = parsed.time.parse().ok();
                    self.line(entry(time, Some(parsed.stream), text), &mut give);
                }
                // A line of another form was still written: it is given as it is.
                _ => {
                    let text = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                    self.line(entry(None, None, text), &mut give);
                }
            }
        }
    }

    /// Gives what has waited for another line since the last call. To be called every second or so, and at the end.
    pub fn settle(&mut self, over: bool, mut give: impl FnMut(Entry)) {
        match &mut self.held {
            Some(held) if held.fresh && !over => held.fresh = false,
            held => {
                if let Some(held) = held.take() {
                    give(held.entry);
                }
            }
        }
    }

    fn line(&mut self, line: Entry, give: &mut impl FnMut(Entry)) {
        if matches!(self.together, Together::Never) {
            return give(line);
        }
        if let Some(held) = &mut self.held
            && held.entry.stream == line.stream
            && held.entry.file == line.file
            && held.lines < MOST_LINES
            && held.entry.text.len() + line.text.len() < MOST_ENTRY
            && self.together.goes_on(&line.text)
        {
            held.entry.text.push(b'\n');
            held.entry.text.extend_from_slice(&line.text);
            held.entry.upto = line.upto;
            held.lines += 1;
            held.fresh = true;
            return;
        }
        let before = self.held.replace(Held {
            entry: line,
            lines: 1,
            fresh: true,
        });
        if let Some(before) = before {
            give(before.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(format: Format, together: Together, text: &str) -> Vec<(String, u64)> {
        let mut made = Assembler::new(format, together);
        let mut seen = Vec::new();
        let chunk = Chunk {
            file: "f".to_owned(),
            from: 10,
            bytes: text.as_bytes().to_vec(),
        };
        made.take(&chunk, |entry| seen.push(entry));
        made.settle(true, |entry| seen.push(entry));
        seen.into_iter()
            .map(|entry| (String::from_utf8(entry.text).unwrap(), entry.upto))
            .collect()
    }

    fn texts(together: Together, text: &str) -> Vec<String> {
        entries(Format::Plain, together, text)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    }

    #[test]
    fn parts_of_both_outputs_are_joined_apart() {
        let text = "2026-01-01T00:00:00Z stdout P a\n2026-01-01T00:00:00Z stderr F e\n2026-01-01T00:00:01Z stdout F b\n";
        let one = text.find("2026-01-01T00:00:01Z").unwrap() as u64;
        assert_eq!(
            entries(Format::Cri, Together::Never, text),
            [
                ("e".to_owned(), 10 + one),
                ("ab".to_owned(), 10 + text.len() as u64)
            ]
        );
    }

    #[test]
    fn a_trace_is_one_entry() {
        let java = "boom\n\tat a.b(C.java:1)\nCaused by: x\n\t... 3 more\nnext\n";
        assert_eq!(
            texts(Together::Traces, java),
            ["boom\n\tat a.b(C.java:1)\nCaused by: x\n\t... 3 more", "next"]
        );
        assert_eq!(texts(Together::Never, java).len(), 5);
        let start = Together::Start(Regex::new(r"^\[").unwrap());
        assert_eq!(texts(start, "[1] a\nb\nc\n[2] d\n"), ["[1] a\nb\nc", "[2] d"]);
    }

    #[test]
    fn an_entry_waits_for_one_more_line_and_no_longer() {
        let mut made = Assembler::new(Format::Plain, Together::Traces);
        let mut seen = Vec::new();
        made.take(
            &Chunk {
                file: "f".to_owned(),
                from: 0,
                bytes: b"a\n".to_vec(),
            },
            |entry| seen.push(entry),
        );
        made.settle(false, |entry| seen.push(entry));
        assert!(seen.is_empty());
        made.take(
            &Chunk {
                file: "f".to_owned(),
                from: 2,
                bytes: b" b\n".to_vec(),
            },
            |entry| seen.push(entry),
        );
        made.settle(false, |entry| seen.push(entry));
        made.settle(false, |entry| seen.push(entry));
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].text.as_slice(), seen[0].upto), (&b"a\n b"[..], 5));
    }

    #[test]
    fn an_entry_is_bounded() {
        let text = format!("a\n{}", " x\n".repeat(2500));
        assert_eq!(texts(Together::Traces, &text).len(), 3);
    }
}
