//! Sections of `name = value` lines; the metadata are the section `sops`.

use crate::{Format, Keys, SopsError, metadata::Metadata, walk::Walk};

/// What stands before the first section.
const DEFAULT: &str = "DEFAULT";

enum Line<'a> {
    Section(&'a str),
    /// Name, what stands between it and the value, the value.
    Pair(&'a str, &'a str, String),
    /// A comment's sign and text.
    Comment(&'a str, &'a str),
    Blank,
}

fn read(line: &str) -> Result<Line<'_>, SopsError> {
    let trimmed = line.trim();
    if trimmed.is_empty() {
        return Ok(Line::Blank);
    }
    if trimmed.starts_with([';', '#']) {
        let text = trimmed.trim_start_matches([';', '#', ' ']);
        return Ok(Line::Comment(&trimmed[..trimmed.len() - text.len()], text));
    }
    if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Ok(Line::Section(name));
    }
    let Some(at) = trimmed.find(['=', ':']) else {
        return Err(SopsError::Unreadable {
            format: Format::Ini,
            why: "a line is no section, pair or comment".to_owned(),
        });
    };
    let name = trimmed[..at].trim_end();
    let value = trimmed[at + 1..].trim_start();
    let between = &trimmed[name.len()..trimmed.len() - value.len()];
    Ok(Line::Pair(name, between, unquote(value)))
}

fn unquote(value: &str) -> String {
    for quote in ["\"\"\"", "`", "\"", "'"] {
        if let Some(inside) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inside.to_owned();
        }
    }
    value.to_owned()
}

/// A value that would be read differently is put in quotes.
fn quote(value: &str) -> String {
    if value.contains('\n') || value.contains('`') && value.contains(['#', ';']) {
        return format!("\"\"\"{value}\"\"\"");
    }
    if value.contains(['#', ';', '"', '\'']) || value.trim() != value {
        return format!("`{value}`");
    }
    value.to_owned()
}

pub(crate) fn decrypt(text: &str, keys: &Keys) -> Result<Vec<u8>, SopsError> {
    let lines: Vec<Line<'_>> = text.lines().map(read).collect::<Result<_, _>>()?;
    let mut section = DEFAULT;
    let mut metadata = Vec::new();
    let mut sections = vec![DEFAULT];
    for line in &lines {
        match line {
            Line::Section(name) => {
                section = name;
                sections.push(name);
            }
            Line::Pair(name, _, value) if section == "sops" => metadata.push((*name, value.clone())),
            _ => {}
        }
    }
    let mut walk = Walk::start(&Metadata::from_flat(metadata.into_iter())?, keys)?;
    let mut out = String::new();
    section = DEFAULT;
    for line in lines {
        if let Line::Section(name) = line {
            section = name;
        }
        if section == "sops" {
            continue;
        }
        match line {
            Line::Section(name) => out.push_str(&format!("[{name}]")),
            Line::Pair(name, between, value) => {
                let path = [section.to_owned(), name.to_owned()];
                let plain = match walk.text(&path, &value)? {
                    Some(plain) => String::from_utf8_lossy(&plain.into_bytes()).into_owned(),
                    None => value,
                };
                out.push_str(&format!("{name}{between}{}", quote(&plain)));
            }
            Line::Comment(sign, text) => {
                // A comment belongs to what follows, which may be the next section.
                let plain = sections
                    .iter()
                    .find_map(|name| walk.comment(&[(*name).to_owned()], text));
                out.push_str(sign);
                out.push_str(plain.as_deref().unwrap_or(text));
            }
            Line::Blank => {}
        }
        out.push('\n');
    }
    walk.finish()?;
    out.truncate(out.trim_end().len());
    out.push('\n');
    Ok(out.into_bytes())
}
