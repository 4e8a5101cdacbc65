//! `NAME=value` lines; the metadata are those that start with `sops_`.

use crate::{Format, Keys, SopsError, metadata::Metadata, walk::Walk};

const PREFIX: &str = "sops_";

pub(crate) fn decrypt(text: &str, keys: &Keys) -> Result<Vec<u8>, SopsError> {
    let lines: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
    let mut pairs = Vec::new();
    for line in &lines {
        if line.starts_with('#') {
            continue;
        }
        pairs.push(line.split_once('=').ok_or_else(|| SopsError::Unreadable {
            format: Format::Dotenv,
            why: "a line has no '='".to_owned(),
        })?);
    }
    let metadata = pairs
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, (*value).to_owned())));
    let mut walk = Walk::start(&Metadata::from_flat(metadata)?, keys)?;
    let mut out = Vec::new();
    for line in lines {
        if let Some(comment) = line.strip_prefix('#') {
            out.push(b'#');
            match walk.comment(&[], comment) {
                Some(plain) => out.extend(plain.into_bytes()),
                None => out.extend_from_slice(comment.as_bytes()),
            }
            out.push(b'\n');
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if name.starts_with(PREFIX) {
            continue;
        }
        let value = value.replace("\\n", "\n");
        let plain = match walk.text(&[name.to_owned()], &value)? {
            Some(plain) => plain.into_bytes(),
            None => value.into_bytes(),
        };
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        for byte in plain {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                byte => out.push(byte),
            }
        }
        out.push(b'\n');
    }
    walk.finish()?;
    Ok(out)
}
