//! Scalars of YAML as SOPS reads and writes them (go-yaml v3).

use crate::cipher::Plain;

/// What a plain scalar is; `None` for null.
pub(crate) fn resolve(text: &str) -> Option<Plain> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return None,
        "true" | "True" | "TRUE" => return Some(Plain::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Plain::Bool(false)),
        _ => {}
    }
    let starts_a_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if starts_a_number {
        if let Some(number) = integer(&text.replace('_', "")) {
            return Some(Plain::Int(number));
        }
        if let Some(number) = float(&text.replace('_', "")) {
            return Some(Plain::Float(number));
        }
    }
    Some(Plain::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |digits: &str, radix| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok();
    match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => radix(&digits[2..], 16),
        [b'0', b'o' | b'O', ..] => radix(&digits[2..], 8),
        [b'0', b'b' | b'B', ..] => radix(&digits[2..], 2),
        [b'0', _, ..] => radix(&digits[1..], 8),
        [b'0'..=b'9', ..] => radix(digits, 10),
        _ => None,
    }
}

fn float(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    let fits = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if fits { text.parse().ok() } else { None }
}

/// A value as go-yaml writes it behind a key at column `indent`; `flow` where something follows in the line.
pub(crate) fn written(plain: &Plain, indent: usize, flow: bool) -> String {
    match plain {
        Plain::Int(number) => number.to_string(),
        Plain::Float(number) => number.to_string(),
        Plain::Bool(flag) => flag.to_string(),
        Plain::Time(text) => text.clone(),
        Plain::Text(text) | Plain::Comment(text) => text_written(text, indent, flow),
        Plain::Bytes(bytes) => text_written(&String::from_utf8_lossy(bytes), indent, flow),
    }
}

fn text_written(text: &str, indent: usize, flow: bool) -> String {
    if text.contains('\n') {
        return match literal(text, indent) {
            Some(block) if !flow => block,
            _ => double_quoted(text),
        };
    }
    let printable = text.chars().all(is_printable);
    if !printable || flow || !matches!(resolve(text), Some(Plain::Text(_))) || is_old(text) {
        return double_quoted(text);
    }
    if plain_fits(text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
        && c != '\u{2028}'
        && c != '\u{2029}'
}

/// What YAML 1.1 takes for a boolean, a number in base 60, a date.
fn is_old(text: &str) -> bool {
    let boolean = ["y", "n", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    let digit_first = text
        .trim_start_matches(['+', '-'])
        .starts_with(|c: char| c.is_ascii_digit());
    let sixty = text.contains(':')
        && digit_first
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b":+-._".contains(&byte));
    let date = text.len() >= 8 && digit_first && text.as_bytes().get(4) == Some(&b'-');
    boolean
        || sixty
        || date
        || text == "<<"
        || text
            .trim_start_matches(['+', '-', '.'])
            .eq_ignore_ascii_case("inf")
        || text.eq_ignore_ascii_case(".nan")
}

fn plain_fits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let blank = |at: usize| bytes.get(at).is_none_or(|byte| b" \t".contains(byte));
    let first_fits = match bytes.first() {
        None => false,
        Some(
            b'#' | b',' | b'[' | b']' | b'{' | b'}' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%'
            | b'@' | b'`',
        ) => false,
        Some(b'?' | b':' | b'-') => !blank(1),
        Some(_) => true,
    };
    let inner = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b':' => !blank(at + 1),
        b'#' => at == 0 || !b" \t".contains(&bytes[at - 1]),
        _ => true,
    });
    first_fits && inner && text.trim() == text && !text.starts_with("---") && !text.starts_with("...")
}

/// A literal block; `None` for a text that would not come back from one.
fn literal(text: &str, indent: usize) -> Option<String> {
    let safe = text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c));
    let trailing = text.lines().any(|line| line.ends_with([' ', '\t']));
    if !safe || trailing || text.starts_with([' ', '\n', '\t']) {
        return None;
    }
    let body = text.trim_end_matches('\n');
    let chomp = match text.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    // The key of an entry in a list stands two behind its dash; levels are four apart.
    let pad = " ".repeat(indent / 4 * 4 + 4);
    let mut out = format!("|{chomp}");
    let lines = if chomp == "+" {
        &text[..text.len() - 1]
    } else {
        body
    };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&pad);
            out.push_str(line);
        }
    }
    Some(out)
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
