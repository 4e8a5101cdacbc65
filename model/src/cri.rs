//! One line of a container's log as container runtimes write it: `time stream tag text`
//! (Kubernetes, "CRI logging format").

use jiff::Timestamp;
use std::io::Write as _;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// As it stands in the line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// The parts of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339, as written.
    pub time: &'a str,
    /// Which output.
    pub stream: Stream,
    /// The line goes on in the next one of its stream.
    pub partial: bool,
    /// What was written, without an end of line.
    pub text: &'a [u8],
}

/// Reads a line without its end; `None` if it has another form.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Out,
        b"stderr" => Stream::Err,
        _ => return None,
    };
    // Further tags may follow the first behind a colon.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let text = parts.next()?;
    Some(Line {
        time,
        stream,
        partial,
        text,
    })
}

/// Appends one line to `text`; `tag` is `F` for a whole line, `P` where it goes on.
pub fn format_line(text: &mut Vec<u8>, time: Timestamp, stream: Stream, tag: char, line: &[u8]) {
    // Writing to memory cannot fail.
    let _ = write!(text, "{time:.9} {} {tag} ", stream.word());
    text.extend_from_slice(line);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_out_as_it_went_in() {
        let mut text = Vec::new();
        format_line(&mut text, Timestamp::UNIX_EPOCH, Stream::Err, 'P', b"a b ");
        let line = parse(text.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(
            (line.stream, line.partial, line.text),
            (Stream::Err, true, &b"a b "[..])
        );
        assert_eq!(line.time.parse::<Timestamp>().unwrap(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_is_no_such_line_is_none() {
        for text in [
            "",
            "now",
            "2026-01-01T00:00:00Z stdout F",
            "2026-01-01T00:00:00Z stdin F x",
            "t stdout Q x",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert!(parse(b"t stdout F:more x").is_some_and(|line| !line.partial));
    }
}
