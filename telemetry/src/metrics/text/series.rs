//! A series' text as its labels.

use crate::metrics::NAME;
use std::borrow::Cow;

/// Name and value of each label of a text that a [`super::Line`] gave; the metric's name is that of
/// [`crate::metrics::NAME`].
pub fn labels(series: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let (name, mut rest) = match series.find('{') {
        Some(open) => (series[..open].trim_end_matches([' ', '\t']), &series[open + 1..]),
        None => (series, ""),
    };
    let mut labels = Vec::new();
    if !name.is_empty() {
        labels.push((Cow::Borrowed(NAME), Cow::Borrowed(name)));
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() || rest.starts_with('}') {
            return labels;
        }
        let label = if rest.starts_with('"') {
            quoted(&mut rest)
        } else {
            let end = rest.find(['=', ' ', '\t']).unwrap_or(rest.len());
            let (label, after) = rest.split_at(end);
            rest = after;
            Cow::Borrowed(label)
        };
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(after) = rest.strip_prefix('=') else {
            labels.push((Cow::Borrowed(NAME), label));
            continue;
        };
        rest = after.trim_start_matches([' ', '\t']);
        labels.push((label, quoted(&mut rest)));
    }
}

/// What stands in quotes at the beginning, unescaped; goes on behind them.
fn quoted<'a>(rest: &mut &'a str) -> Cow<'a, str> {
    let inside = rest.strip_prefix('"').unwrap_or(rest);
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let end = end.unwrap_or(inside.len());
    *rest = inside.get(end + 1..).unwrap_or_default();
    unescape(&inside[..end])
}

/// `\\`, `\"` and `\n`; any other `\` stands for itself.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, true)
}

/// Help has no quotes around it in the older format.
pub(super) fn unescape_help(text: &str, quotes: bool) -> Cow<'_, str> {
    replace(text, quotes)
}

fn replace(text: &str, quotes: bool) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut chars = text[first..].chars();
    while let Some(next) = chars.next() {
        if next != '\\' {
            out.push(next);
            continue;
        }
        match chars.clone().next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                continue;
            }
        }
        chars.next();
    }
    Cow::Owned(out)
}
