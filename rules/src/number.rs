//! Numbers as Go's formatting and Prometheus' templates write them.

use jiff::Timestamp;

/// `%v`: the shortest that reads back as the same.
pub(crate) fn shortest(value: f64) -> String {
    if let Some(word) = not_finite(value) {
        return word.to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go's limits for the shortest form.
    if !(-4..6).contains(&exponent) {
        return with_exponent(digits, exponent);
    }
    value.to_string()
}

/// `%.Ng`: so many digits, zeros at the end left out.
pub(crate) fn general(value: f64, digits: usize) -> String {
    if let Some(word) = not_finite(value) {
        return word.to_owned();
    }
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let most = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= most {
        return with_exponent(trimmed(mantissa), exponent);
    }
    let behind = usize::try_from(most - 1 - exponent).unwrap_or(0);
    trimmed(&format!("{value:.behind$}")).to_owned()
}

/// `%.Nf`
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    not_finite(value).map_or_else(|| format!("{value:.digits$}"), str::to_owned)
}

/// `%.Ne`
pub(crate) fn exponential(value: f64, digits: usize) -> String {
    if let Some(word) = not_finite(value) {
        return word.to_owned();
    }
    let text = format!("{value:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    with_exponent(mantissa, exponent.parse().unwrap_or(0))
}

fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// Divides until it is small enough; the rest, and the last word used.
fn down(mut value: f64, by: f64, words: [&'static str; 8]) -> (f64, &'static str) {
    let mut said = "";
    for word in words {
        if value.abs() < by {
            break;
        }
        value /= by;
        said = word;
    }
    (value, said)
}

fn up(mut value: f64) -> (f64, &'static str) {
    let mut said = "";
    for word in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        value *= 1000.0;
        said = word;
    }
    (value, said)
}

pub(crate) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return general(value, 4);
    }
    let (value, word) = if value.abs() >= 1.0 {
        down(value, 1000.0, LARGE)
    } else {
        up(value)
    };
    format!("{}{word}", general(value, 4))
}

pub(crate) fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return general(value, 4);
    }
    let (value, word) = down(value, 1024.0, LARGE);
    let binary = if word.is_empty() { "" } else { "i" };
    format!("{}{word}{binary}", general(value, 4))
}

pub(crate) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return general(value, 4);
    }
    if value != 0.0 && value.abs() < 1.0 {
        let (value, word) = up(value);
        return format!("{}{word}s", general(value, 4));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let value = value.abs();
    // Parts of a second are told only where there are no minutes.
    let whole = value as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", general(value, 4)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, ..) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

pub(crate) fn humanize_timestamp(value: f64) -> String {
    let moment = value
        .is_finite()
        .then(|| Timestamp::from_millisecond((value * 1e3) as i64).ok())
        .flatten();
    let Some(moment) = moment else {
        return general(value, 4);
    };
    let text = moment.to_string().replace('T', " ");
    format!("{} +0000 UTC", text.trim_end_matches('Z'))
}
