//! Variables in text, in the forms of bash that Flux knows.

use crate::error::{Problem, RenderError, Result};
use std::{borrow::Cow, collections::BTreeMap};

/// Replaces `${NAME}` and its forms; `$${NAME}` stays as `${NAME}`.
///
/// Forms: `:-` and `-` (default), `:=` and `=` (the same), `:offset`, `:offset:length`, `#NAME` (length),
/// `#` `##` `%` `%%` (strip a pattern from the front or back), `/` `//` `/#` `/%` (replace), `^` `^^` `,`
/// `,,` (case).
///
/// # Errors
/// A variable without value and default, a form that is not closed or not known.
pub fn substitute(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(escaped) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = escaped;
            continue;
        }
        let Some(inside) = rest.strip_prefix("${") else {
            out.push('$');
            rest = &rest[1..];
            continue;
        };
        let Some(end) = closing(inside) else {
            return Err(wrong(first_line(inside), "it is not closed by '}'"));
        };
        out.push_str(&expand(&inside[..end], variables)?);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The place of the brace that closes an expression; inner ones are skipped.
fn closing(inside: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = inside.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            b'\n' if depth == 0 && !inside[at..].contains('}') => return None,
            _ => {}
        }
    }
    None
}

fn expand(expression: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    if let Some(name) = expression.strip_prefix('#').filter(|name| is_name(name)) {
        return Ok(value(name, variables, expression)?.chars().count().to_string());
    }
    let end = expression
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(expression.len());
    let (name, form) = expression.split_at(end);
    if !is_name(name) {
        return Err(wrong(expression, "it does not start with a variable's name"));
    }
    let known = variables.get(name).map(String::as_str);
    for (mark, empty_counts) in [(":-", false), (":=", false), ("-", true), ("=", true)] {
        let Some(default) = form.strip_prefix(mark) else {
            continue;
        };
        return match known {
            Some(known) if empty_counts || !known.is_empty() => Ok(clean(known).into_owned()),
            _ => substitute(default, variables),
        };
    }
    let value = value(name, variables, expression)?;
    let argument = |text: &str| substitute(text, variables);
    Ok(match form.as_bytes() {
        [] => value.into_owned(),
        [b':', ..] => {
            slice(&value, &form[1..]).ok_or_else(|| wrong(expression, "offset and length are numbers"))?
        }
        [b'#', b'#', ..] => strip_front(&value, &argument(&form[2..])?, true),
        [b'#', ..] => strip_front(&value, &argument(&form[1..])?, false),
        [b'%', b'%', ..] => strip_back(&value, &argument(&form[2..])?, true),
        [b'%', ..] => strip_back(&value, &argument(&form[1..])?, false),
        [b'/', ..] => replace(&value, &form[1..], variables)?,
        b"^^" => value.to_uppercase(),
        b"^" => first(&value, |c| c.to_uppercase().collect()),
        b",," => value.to_lowercase(),
        b"," => first(&value, |c| c.to_lowercase().collect()),
        _ => return Err(wrong(expression, "this form is not known")),
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn value<'a>(name: &str, variables: &'a BTreeMap<String, String>, expression: &str) -> Result<Cow<'a, str>> {
    match variables.get(name) {
        Some(value) => Ok(clean(value)),
        None => Err(RenderError::new(
            Problem::Undefined,
            format!("the variable {name} in ${{{expression}}} has no value"),
        )
        .field("spec.postBuild.substitute")
        .remedy(format!(
            "give it one, a default as in ${{{name}:-default}}, or write $${{{name}}} to keep the text"
        ))),
    }
}

/// Flux takes line breaks out of values.
fn clean(value: &str) -> Cow<'_, str> {
    if value.contains('\n') {
        Cow::Owned(value.replace('\n', ""))
    } else {
        Cow::Borrowed(value)
    }
}

fn slice(value: &str, bounds: &str) -> Option<String> {
    let (offset, length) = match bounds.split_once(':') {
        Some((offset, length)) => (offset, Some(length)),
        None => (bounds, None),
    };
    let chars: Vec<char> = value.chars().collect();
    let offset: i64 = offset.trim().parse().ok()?;
    let total = i64::try_from(chars.len()).ok()?;
    let start = if offset < 0 {
        (total + offset).max(0)
    } else {
        offset.min(total)
    };
    let end = match length {
        None => total,
        Some(length) => {
            let length: i64 = length.trim().parse().ok()?;
            if length < 0 {
                total + length
            } else {
                (start + length).min(total)
            }
        }
    };
    let range = usize::try_from(start).ok()?..usize::try_from(end.max(start)).ok()?;
    Some(chars[range].iter().collect())
}

fn first(value: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = value.chars();
    match chars.next() {
        None => String::new(),
        Some(c) => change(c) + chars.as_str(),
    }
}

/// Cuts the shortest or longest start that matches.
fn strip_front(value: &str, pattern: &str, longest: bool) -> String {
    let mut ends: Vec<usize> = value
        .char_indices()
        .map(|(at, _)| at)
        .chain([value.len()])
        .collect();
    if longest {
        ends.reverse();
    }
    let cut = ends.into_iter().find(|end| matches(pattern, &value[..*end]));
    cut.map_or(value, |end| &value[end..]).to_owned()
}

/// Cuts the shortest or longest end that matches.
fn strip_back(value: &str, pattern: &str, longest: bool) -> String {
    let mut starts: Vec<usize> = value
        .char_indices()
        .map(|(at, _)| at)
        .chain([value.len()])
        .collect();
    if !longest {
        starts.reverse();
    }
    let cut = starts
        .into_iter()
        .find(|start| matches(pattern, &value[*start..]));
    cut.map_or(value, |start| &value[..start]).to_owned()
}

/// `/old/new`, `//old/new`, `/#old/new` and `/%old/new`, without the first slash.
fn replace(value: &str, form: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let (mode, form) = match form.as_bytes() {
        [b'/', ..] => ('/', &form[1..]),
        [b'#', ..] => ('#', &form[1..]),
        [b'%', ..] => ('%', &form[1..]),
        _ => (' ', form),
    };
    let (old, new) = form.split_once('/').unwrap_or((form, ""));
    let (old, new) = (substitute(old, variables)?, substitute(new, variables)?);
    if old.is_empty() {
        return Ok(value.to_owned());
    }
    Ok(match mode {
        '/' => value.replace(&old, &new),
        '#' => match value.strip_prefix(&old) {
            Some(rest) => format!("{new}{rest}"),
            None => value.to_owned(),
        },
        '%' => match value.strip_suffix(&old) {
            Some(rest) => format!("{rest}{new}"),
            None => value.to_owned(),
        },
        _ => value.replacen(&old, &new, 1),
    })
}

/// Shell patterns: `*`, `?` and `[...]`.
fn matches(pattern: &str, text: &str) -> bool {
    super::ignore::glob(pattern, text, true)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn wrong(expression: &str, why: &str) -> RenderError {
    RenderError::new(
        Problem::Configuration,
        format!("${{{expression}}} cannot be replaced: {why}"),
    )
    .remedy("write $${ where the text is meant")
}
