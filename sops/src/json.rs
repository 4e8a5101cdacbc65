//! JSON, rewritten in place: order, numbers and layout stay as they are.

use crate::{Format, Keys, SopsError, cipher::Plain, metadata::Metadata, walk::Walk};
use serde::Deserialize;

const MAX_DEPTH: usize = 128;

pub(crate) fn is_encrypted(data: &[u8]) -> bool {
    data.trim_ascii_start().starts_with(b"{")
        && has(data, b"\"sops\"")
        && has(data, b"\"mac\"")
        && has(data, b"ENC[")
}

/// The envelope of a binary file: nothing beside `data` and `sops`.
pub(crate) fn is_envelope(data: &[u8]) -> bool {
    is_encrypted(data) && serde_json::from_slice::<Envelope>(data).is_ok()
}

pub(crate) fn has(data: &[u8], mark: &[u8]) -> bool {
    data.windows(mark.len()).any(|window| window == mark)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    data: String,
    sops: Metadata,
}

#[derive(Deserialize)]
struct Holder {
    sops: Option<Metadata>,
}

fn unreadable(why: impl ToString) -> SopsError {
    SopsError::Unreadable {
        format: Format::Json,
        why: why.to_string(),
    }
}

pub(crate) fn decrypt_envelope(text: &str, keys: &Keys) -> Result<Vec<u8>, SopsError> {
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| SopsError::Unreadable {
        format: Format::Binary,
        why: error.to_string(),
    })?;
    let mut walk = Walk::start(&envelope.sops, keys)?;
    let plain = walk.text(&["data".to_owned()], &envelope.data)?;
    walk.finish()?;
    Ok(plain.map_or_else(|| envelope.data.into_bytes(), Plain::into_bytes))
}

pub(crate) fn decrypt(text: &str, keys: &Keys) -> Result<Vec<u8>, SopsError> {
    let holder: Holder = serde_json::from_str(text).map_err(unreadable)?;
    let metadata = holder.sops.ok_or(SopsError::NoMetadata)?;
    let mut rewriter = Rewriter {
        text,
        at: 0,
        out: String::with_capacity(text.len()),
        path: Vec::new(),
        walk: Walk::start(&metadata, keys)?,
        depth: 0,
    };
    rewriter.space();
    rewriter.value()?;
    rewriter.out.push_str(&text[rewriter.at..]);
    rewriter.walk.finish()?;
    Ok(rewriter.out.into_bytes())
}

/// serde_json has read the text: it is JSON.
struct Rewriter<'a> {
    text: &'a str,
    at: usize,
    out: String,
    path: Vec<String>,
    walk: Walk,
    depth: usize,
}

impl<'a> Rewriter<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn space(&mut self) {
        let length = self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.copy(length);
    }

    /// A text's length with its quotes.
    fn text_length(&self) -> Result<usize, SopsError> {
        let bytes = self.rest().as_bytes();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => return Err(unreadable("a text does not end")),
            }
        }
    }

    fn value(&mut self) -> Result<(), SopsError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unreadable(format!("it is nested more than {MAX_DEPTH} deep")));
        }
        match self.peek() {
            b'{' => self.object()?,
            b'[' => self.list()?,
            b'"' => self.string()?,
            _ => self.scalar()?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self) -> Result<(), SopsError> {
        self.copy(1);
        loop {
            let before = self.out.len();
            self.space();
            if self.peek() == b'}' {
                self.copy(1);
                return Ok(());
            }
            let length = self.text_length()?;
            let key: String = serde_json::from_str(&self.rest()[..length]).map_err(unreadable)?;
            self.copy(length);
            self.space();
            self.copy(1);
            self.space();
            let metadata = self.path.is_empty() && self.depth == 1 && key == "sops";
            if metadata {
                self.skip()?;
                self.out.truncate(before);
            } else {
                self.path.push(key);
                self.value()?;
                self.path.pop();
            }
            let between = self.out.len();
            self.space();
            if self.peek() == b',' {
                if metadata {
                    self.out.truncate(between);
                    self.at += 1;
                } else {
                    self.copy(1);
                }
            } else if metadata && self.out[..between].trim_end().ends_with(',') {
                let comma = self.out[..between].trim_end().len() - 1;
                self.out.remove(comma);
            }
        }
    }

    fn list(&mut self) -> Result<(), SopsError> {
        self.copy(1);
        loop {
            self.space();
            match self.peek() {
                b']' => {
                    self.copy(1);
                    return Ok(());
                }
                b',' => self.copy(1),
                _ => self.value()?,
            }
        }
    }

    fn string(&mut self) -> Result<(), SopsError> {
        let length = self.text_length()?;
        let text: String = serde_json::from_str(&self.rest()[..length]).map_err(unreadable)?;
        match self.walk.text(&self.path, &text)? {
            None => self.copy(length),
            Some(plain) => {
                self.at += length;
                self.out.push_str(&written(&plain)?);
            }
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), SopsError> {
        let rest = self.rest();
        let length = rest
            .find([',', '}', ']', ' ', '\n', '\t', '\r'])
            .unwrap_or(rest.len());
        let token = &rest[..length];
        let value = match token {
            "null" => None,
            "true" => Some(Plain::Bool(true)),
            "false" => Some(Plain::Bool(false)),
            number => Some(match number.parse() {
                Ok(number) => Plain::Int(number),
                Err(_) => Plain::Float(number.parse().map_err(unreadable)?),
            }),
        };
        if let Some(value) = value {
            self.walk.other(&self.path, &value)?;
        }
        self.copy(length);
        Ok(())
    }

    /// Passes a value over.
    fn skip(&mut self) -> Result<(), SopsError> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<serde::de::IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => self.at += values.byte_offset(),
            _ => return Err(unreadable("the SOPS metadata do not end")),
        }
        Ok(())
    }
}

fn written(plain: &Plain) -> Result<String, SopsError> {
    Ok(match plain {
        Plain::Int(number) => number.to_string(),
        Plain::Float(number) => number.to_string(),
        Plain::Bool(flag) => flag.to_string(),
        Plain::Text(text) | Plain::Comment(text) | Plain::Time(text) => text_written(text)?,
        Plain::Bytes(bytes) => text_written(&String::from_utf8_lossy(bytes))?,
    })
}

/// Go escapes what could end a script in HTML.
fn text_written(text: &str) -> Result<String, SopsError> {
    let mut out = serde_json::to_string(text).map_err(unreadable)?;
    for (c, escaped) in [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        if out.contains(c) {
            out = out.replace(c, escaped);
        }
    }
    Ok(out)
}
