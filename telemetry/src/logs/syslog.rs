//! Syslog messages: RFC 5424, RFC 3164 as it is really sent, and the framing of streams (RFC 6587).
//!
//! Nothing that is sent is refused: what has no form is a message with the usual priority, `user.notice`.

use super::assemble::{Entry, Said};
use super::read::Level;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Bytes of a message; what is longer is cut.
pub const MOST_MESSAGE: usize = 64 << 10;
/// `user.notice`.
const USUAL: u8 = 13;
/// Elements and parameters of structured data that are read.
const MOST_DATA: usize = 64;

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Reads one message. `from` is who sent it over the network, `seen` when it came.
///
/// The times of RFC 3164 have neither year nor zone: such a message counts as written when it came, and keeps its
/// own time as an attribute.
pub fn parse(message: &[u8], from: Option<IpAddr>, seen: Timestamp) -> Entry {
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    let message = message.strip_suffix(b"\0").unwrap_or(message);
    let text = String::from_utf8_lossy(&message[..message.len().min(MOST_MESSAGE)]);
    let (priority, rest) = priority(&text).unwrap_or((USUAL, &text));
    let mut read = Read::default();
    let body = rfc5424(rest, &mut read).unwrap_or_else(|| {
        read = Read::default();
        rfc3164(rest, &mut read)
    });
    let facility = usize::from(priority / 8);
    read.say(
        "syslog.facility",
        FACILITIES.get(facility).copied().unwrap_or_default(),
    );
    if let Some(from) = from {
        read.say("client.address", &from.to_string());
    }
    let program = read.fields.get("syslog.appname").and_then(Value::as_str);
    let whose = from.map(|from| from.to_string()).or(program.map(str::to_owned));
    Entry {
        time: Some(read.time.unwrap_or(seen)),
        stream: None,
        text: body.as_bytes().to_vec(),
        said: Said {
            level: Level::of_priority(priority % 8),
            whose: whose.unwrap_or_default(),
            fields: read.fields,
        },
        file: String::new(),
        upto: 0,
    }
}

#[derive(Debug, Default)]
struct Read {
    time: Option<Timestamp>,
    fields: Map<String, Value>,
}

impl Read {
    fn say(&mut self, name: &str, value: &str) {
        if !value.is_empty() && value != "-" {
            self.fields.insert(name.to_owned(), value.into());
        }
    }

    fn program(&mut self, name: &str) {
        self.say("syslog.appname", name);
        self.say("service.name", name);
    }
}

/// `<165>`.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let sound = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| sound && *number < 192)?;
    Some((number, rest))
}

/// `1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`
fn rfc5424<'a>(text: &'a str, read: &mut Read) -> Option<&'a str> {
    let rest = text.strip_prefix("1 ")?;
    let mut rest = Some(rest);
    let mut word = || {
        let (word, after) = rest?.split_once(' ')?;
        rest = Some(after);
        Some(word)
    };
    let time = word()?;
    if time != "-" {
        read.time = Some(time.parse().ok()?);
    }
    read.say("host.name", word()?);
    read.program(word()?);
    read.say("syslog.procid", word()?);
    read.say("syslog.msgid", word()?);
    let rest = rest?;
    let message = match rest.strip_prefix('-') {
        Some(message) => message,
        None => {
            let (data, message) = structured(rest)?;
            read.fields
                .insert("syslog.structured_data".to_owned(), Value::Object(data));
            message
        }
    };
    if !(message.is_empty() || message.starts_with(' ')) {
        return None;
    }
    let message = message.strip_prefix(' ').unwrap_or(message);
    Some(message.strip_prefix('\u{feff}').unwrap_or(message))
}

/// `[id name="value" ...][id ...]`, with `\"`, `\\` and `\]` in values.
fn structured(text: &str) -> Option<(Map<String, Value>, &str)> {
    let mut all = Map::new();
    let mut rest = text;
    let mut left = MOST_DATA;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        let (id, mut after) = element.split_at(end);
        let mut parameters = Map::new();
        while let Some(parameter) = after.strip_prefix(' ') {
            left = left.checked_sub(1)?;
            let (name, value) = parameter.split_once("=\"")?;
            let (value, behind) = quoted(value)?;
            parameters.insert(name.to_owned(), value.into());
            after = behind;
        }
        rest = after.strip_prefix(']')?;
        all.insert(id.to_owned(), Value::Object(parameters));
    }
    (!all.is_empty()).then_some((all, rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()? {
                (_, letter @ ('"' | '\\' | ']')) => value.push(letter),
                (_, letter) => value.extend(['\\', letter]),
            },
            letter => value.push(letter),
        }
    }
    None
}

/// `Mmm dd hh:mm:ss HOST TAG[PID]: MSG`, where a local sender leaves out the host, and some write the time as RFC 3339.
fn rfc3164<'a>(text: &'a str, read: &mut Read) -> &'a str {
    let rest = match stamp(text) {
        Some((stamp, rest)) => {
            read.say("syslog.timestamp", stamp);
            rest
        }
        None => match text.split_once(' ') {
            Some((first, rest)) if first.len() > 10 && first.parse::<Timestamp>().is_ok() => {
                read.time = first.parse().ok();
                rest
            }
            // Without a time nothing else can be told apart from the message, but for the tag.
            _ => return tag(text, read).unwrap_or(text),
        },
    };
    if let Some(message) = tag(rest, read) {
        return message;
    }
    let Some((host, rest)) = rest.split_once(' ') else {
        return rest;
    };
    read.say("host.name", host);
    tag(rest, read).unwrap_or(rest)
}

/// The 15 letters of a time without a year.
fn stamp(text: &str) -> Option<(&str, &str)> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (stamp, rest) = text.split_at_checked(15)?;
    let bytes = stamp.as_bytes();
    let month = MONTHS.as_bytes().chunks(3).any(|month| month == &bytes[..3]);
    let clock = bytes[9] == b':' && bytes[12] == b':' && bytes[3] == b' ' && bytes[6] == b' ';
    (month && clock).then_some((stamp, rest.strip_prefix(' ')?))
}

/// `TAG: MSG` or `TAG[PID]: MSG`.
fn tag<'a>(text: &'a str, read: &mut Read) -> Option<&'a str> {
    let (tag, message) = text.split_once(':')?;
    let (name, pid) = match tag.split_once('[') {
        Some((name, pid)) => (name, Some(pid.strip_suffix(']')?)),
        None => (tag, None),
    };
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_./@()".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(sound) {
        return None;
    }
    read.program(name);
    read.say("syslog.procid", pid.unwrap_or_default());
    Some(message.strip_prefix(' ').unwrap_or(message))
}

/// Messages out of a stream: each begins with its length and a space, or goes to an end of line.
#[derive(Debug, Default)]
pub struct Frames {
    held: Vec<u8>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// At the beginning of a message.
    #[default]
    Begin,
    /// So many bytes are still its own.
    Counted(u64),
    /// It goes to the end of the line.
    Line,
}

impl Frames {
    /// Takes what was read and hands each whole message to `give`.
    pub fn take(&mut self, mut bytes: &[u8], mut give: impl FnMut(&[u8])) {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Begin => bytes = self.begin(first, bytes),
                State::Counted(left) => {
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.keep(&bytes[..now]);
                    bytes = &bytes[now..];
                    // `now` came out of a u64.
                    self.state = State::Counted(left - now as u64);
                    if left == now as u64 {
                        self.give(&mut give);
                    }
                }
                State::Line => {
                    let end = bytes.iter().position(|byte| *byte == b'\n' || *byte == 0);
                    self.keep(&bytes[..end.unwrap_or(bytes.len())]);
                    bytes = end.map_or(&[][..], |end| &bytes[end + 1..]);
                    if end.is_some() {
                        self.give(&mut give);
                    }
                }
            }
        }
    }

    /// The stream has ended: what is held is a message, unless it was to be longer.
    pub fn end(&mut self, mut give: impl FnMut(&[u8])) {
        self.give(&mut give);
    }

    /// The count is read by the byte, since it may come in pieces.
    fn begin<'a>(&mut self, first: u8, bytes: &'a [u8]) -> &'a [u8] {
        match first {
            b'1'..=b'9' if self.held.len() < 9 => self.held.push(first),
            b'0' if !self.held.is_empty() && self.held.len() < 9 => self.held.push(first),
            b' ' if !self.held.is_empty() => {
                let digits = std::mem::take(&mut self.held);
                let count = String::from_utf8_lossy(&digits).parse().unwrap_or(0);
                self.state = State::Counted(count);
            }
            b'\n' | 0 if self.held.is_empty() => {}
            // No count: digits that were held belong to the line.
            _ => {
                self.state = State::Line;
                return bytes;
            }
        }
        &bytes[1..]
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MOST_MESSAGE.saturating_sub(self.held.len());
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn give(&mut self, give: &mut impl FnMut(&[u8])) {
        if !self.held.is_empty() {
            give(&self.held);
        }
        self.held.clear();
        self.state = State::Begin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, Entry) {
        let entry = parse(text.as_bytes(), None, Timestamp::UNIX_EPOCH);
        (String::from_utf8(entry.text.clone()).unwrap(), entry)
    }

    fn fields(entry: &Entry) -> String {
        Value::Object(entry.said.fields.clone()).to_string()
    }

    #[test]
    fn rfc_5424_with_structured_data() {
        let (body, entry) = read(
            "<165>1 2026-10-11T22:14:15.003Z mach.example evntslog 17 ID47 \
             [ex@32473 iut=\"3\" src=\"a \\\"b\\\" \\] c\"][pri high=\"1\"] \u{feff}An event",
        );
        assert_eq!(body, "An event");
        assert_eq!(entry.said.level, Some(Level::Info));
        assert_eq!(entry.time.unwrap().to_string(), "2026-10-11T22:14:15.003Z");
        assert_eq!(
            fields(&entry),
            concat!(
                r#"{"host.name":"mach.example","service.name":"evntslog","syslog.appname":"evntslog","#,
                r#""syslog.facility":"local4","syslog.msgid":"ID47","syslog.procid":"17","syslog.structured_data":"#,
                r#"{"ex@32473":{"iut":"3","src":"a \"b\" ] c"},"pri":{"high":"1"}}}"#
            )
        );
        let (body, entry) = read("<34>1 - - su - - -");
        assert_eq!((body.as_str(), entry.said.level), ("", Some(Level::Fatal)));
        assert_eq!(entry.time, Some(Timestamp::UNIX_EPOCH), "when it came");
    }

    #[test]
    fn rfc_3164_with_and_without_a_host() {
        for (text, host, program, pid, body) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
                "mymachine",
                "su",
                "",
                "'su root' failed",
            ),
            (
                "<13>Oct  1 22:14:15 cron[42]: (root) CMD",
                "",
                "cron",
                "42",
                "(root) CMD",
            ),
            (
                "<13>2026-10-11T22:14:15Z gate app[7]: up",
                "gate",
                "app",
                "7",
                "up",
            ),
            ("<13>app: no time at all", "", "app", "", "no time at all"),
            ("no form: at all", "", "", "", "no form: at all"),
            (
                "<13>Oct 11 22:14:15 host no tag here",
                "host",
                "",
                "",
                "no tag here",
            ),
            ("<999>odd", "", "", "", "<999>odd"),
            ("", "", "", "", ""),
        ] {
            let (found, entry) = read(text);
            let word = |name: &str| entry.said.fields.get(name).and_then(Value::as_str).unwrap_or("");
            assert_eq!(
                (
                    word("host.name"),
                    word("syslog.appname"),
                    word("syslog.procid"),
                    found.as_str()
                ),
                (host, program, pid, body),
                "{text}"
            );
        }
        let (_, entry) = read("<34>Oct 11 22:14:15 mymachine su: x");
        assert_eq!(entry.said.fields["syslog.timestamp"], "Oct 11 22:14:15");
    }

    #[test]
    fn both_framings_in_one_stream_and_in_any_pieces() {
        let stream = b"11 <13>a: one\n<13>b: two\n\n11 <13>c: a\nb 3<13>4 is a line\n7 <13>d: 5";
        let want = [
            "<13>a: one\n",
            "<13>b: two",
            "<13>c: a\nb ",
            "3<13>4 is a line",
            "<13>d: ",
        ];
        for size in 1..stream.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in stream.chunks(size) {
                frames.take(piece, |message| seen.push(message.to_vec()));
            }
            frames.end(|message| seen.push(message.to_vec()));
            let seen: Vec<_> = seen.iter().map(|it| String::from_utf8_lossy(it)).collect();
            assert_eq!(seen[..5], want, "pieces of {size}");
        }
    }

    #[test]
    fn a_message_is_cut_and_the_next_one_found() {
        let mut stream = format!("{} ", 200 << 10).into_bytes();
        stream.extend(vec![b'x'; 200 << 10]);
        stream.extend_from_slice(b"5 <13>y");
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        frames.take(&stream, |message| seen.push(message.len()));
        assert_eq!(seen, [MOST_MESSAGE, 5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn nothing_that_is_sent_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(<[0-9]{1,4}>)?1? ?[ -~\\[\\]\"=\\\\é]{0,80}") {
            parse(&bytes, None, Timestamp::UNIX_EPOCH);
            parse(text.as_bytes(), None, Timestamp::UNIX_EPOCH);
            let mut frames = Frames::default();
            frames.take(&bytes, |message| assert!(!message.is_empty()));
        }
    }
}
