//! What a scalar's text means: the reading rules (YAML 1.2 with octal numbers and dates) and the printing
//! rules (YAML 1.1), as Go's yaml libraries v3 and v2 have them.

use std::borrow::Cow;

/// A scalar with its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    Float(f64),
    /// A date or time, already in RFC 3339 form.
    Time(String),
    Str(Cow<'a, str>),
}

/// Reads a plain (unquoted) scalar of a manifest.
pub(crate) fn resolve(text: &str) -> Plain<'_> {
    let Some(first) = text.bytes().next() else {
        return Plain::Null;
    };
    match first {
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' => match text {
            "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" | "True" | "TRUE" => Plain::Bool(true),
            "false" | "False" | "FALSE" => Plain::Bool(false),
            _ => Plain::Str(Cow::Borrowed(text)),
        },
        b'.' | b'+' | b'-' | b'0'..=b'9' => number(text).unwrap_or(Plain::Str(Cow::Borrowed(text))),
        _ => Plain::Str(Cow::Borrowed(text)),
    }
}

/// Reads a plain scalar of a configuration file: as [`resolve`], with the booleans of YAML 1.1.
pub(crate) fn resolve_yaml11(text: &str) -> Plain<'_> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Plain::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Plain::Bool(false),
        _ => resolve(text),
    }
}

/// Whether a text would be read as something else when printed without quotes.
pub(crate) fn needs_quotes(text: &str) -> bool {
    !matches!(resolve_yaml11(text), Plain::Str(_)) || is_base60(text)
}

/// A folded block as it reads after Go's YAML has written it again.
///
/// The writer doubles the break after a line without leading blanks, looking for a blank at the start of the
/// whole text where it should look behind the break; so lines that are indented more than their neighbours
/// gain a break, and texts that start with a blank lose some.
pub(crate) fn refold(text: &str) -> Cow<'_, str> {
    let blank = |line: &str| line.starts_with([' ', '\t']);
    let doubles = !blank(text.trim_start_matches('\n'));
    let odd = text.split('\n').any(blank) || !doubles || text.ends_with("\n\n");
    if !odd || text.ends_with(' ') || text.contains(" \n") || text.contains('\r') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut previous: Option<&str> = None;
    while !rest.is_empty() {
        let breaks = rest.len() - rest.trim_start_matches('\n').len();
        rest = &rest[breaks..];
        let line = rest.split('\n').next().unwrap_or_default();
        rest = &rest[line.len()..];
        if let Some(previous) = previous {
            let written = breaks + usize::from(doubles && !blank(previous));
            let read = match (line.is_empty(), blank(previous) || blank(line)) {
                (true, _) if breaks < 2 => breaks,
                (true, _) | (_, true) => written,
                (false, false) => written - 1,
            };
            if read == 0 && !line.is_empty() {
                out.push(' ');
            }
            out.extend(std::iter::repeat_n('\n', read));
        } else {
            out.extend(std::iter::repeat_n('\n', breaks));
        }
        out.push_str(line);
        previous = Some(line);
    }
    Cow::Owned(out)
}

fn number(text: &str) -> Option<Plain<'_>> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(Plain::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(Plain::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Plain::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if text.starts_with('.') {
        return float(text).map(Plain::Float);
    }
    if let Some(time) = timestamp(text) {
        return Some(Plain::Time(time));
    }
    let plain: Cow<str> = if text.contains('_') {
        Cow::Owned(text.replace('_', ""))
    } else {
        Cow::Borrowed(text)
    };
    integer(&plain).or_else(|| float(&plain).map(Plain::Float))
}

/// Go's `ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Plain<'static>> {
    let (negative, signed, digits) = match text.as_bytes().first()? {
        b'-' => (true, true, &text[1..]),
        b'+' => (false, true, &text[1..]),
        _ => (false, false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Rust would accept a second sign here.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = i128::from(magnitude);
        return i64::try_from(-value).ok().map(Plain::Int);
    }
    match i64::try_from(magnitude) {
        Ok(value) => Some(Plain::Int(value)),
        Err(_) if signed => None,
        Err(_) => Some(Plain::UInt(magnitude)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, in range.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// `1:30` and the like, numbers of base 60 in old YAML.
fn is_base60(text: &str) -> bool {
    let Some((head, tail)) = text.split_once(':') else {
        return false;
    };
    let head = head.strip_prefix(['-', '+']).unwrap_or(head);
    if !head.starts_with(|c: char| c.is_ascii_digit())
        || !head.bytes().all(|b| b.is_ascii_digit() || b == b'_')
    {
        return false;
    }
    let (groups, fraction) = tail.split_once('.').unwrap_or((tail, ""));
    fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && groups
            .split(':')
            .all(|group| matches!(group.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']))
}

/// A date or date and time in one of the forms that Go's YAML reads, as RFC 3339 text.
fn timestamp(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let year: u32 = text[..4].parse().ok()?;
    let mut rest = &text[5..];
    let month = take_number(&mut rest, 2)?;
    rest = rest.strip_prefix('-')?;
    let day = take_number(&mut rest, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if rest.is_empty() {
        return Some(format!("{year:04}-{month:02}-{day:02}T00:00:00Z"));
    }
    let with_zone = match rest.as_bytes()[0] {
        b'T' | b't' => true,
        b' ' => false,
        _ => return None,
    };
    rest = &rest[1..];
    let hour = take_number(&mut rest, 2)?;
    rest = rest.strip_prefix(':')?;
    let minute = take_number(&mut rest, 2)?;
    rest = rest.strip_prefix(':')?;
    let second = take_number(&mut rest, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix(['.', ',']) {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        if end == 0 {
            return None;
        }
        fraction = after[..end.min(9)].trim_end_matches('0');
        rest = &after[end..];
    }
    let zone = match (with_zone, rest) {
        (true, "Z") | (false, "") => "Z",
        (true, zone) if is_offset(zone) => {
            if zone == "+00:00" || zone == "-00:00" {
                "Z"
            } else {
                zone
            }
        }
        _ => return None,
    };
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"
    ))
}

fn take_number(rest: &mut &str, most: usize) -> Option<u32> {
    let end = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (number, after) = rest.split_at(end);
    *rest = after;
    number.parse().ok()
}

fn is_offset(zone: &str) -> bool {
    match zone.as_bytes() {
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit())
                && zone[1..3].parse::<u32>().is_ok_and(|h| h <= 24)
                && zone[4..6].parse::<u32>().is_ok_and(|m| m < 60)
        }
        _ => false,
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
