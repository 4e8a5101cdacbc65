//! The little of gRPC over HTTP/2 that one unary call needs (grpc/doc/PROTOCOL-HTTP2.md).

use super::Refused;
use super::body::Coding;
use bytes::{Buf as _, Bytes};
use hyper::header::HeaderMap;

/// A flag and a length stand in front of each message.
pub(super) const PREFIX: usize = 5;

pub(super) fn coding(headers: &HeaderMap) -> Result<Coding, Refused> {
    match headers.get("grpc-encoding") {
        None => Ok(Coding::Plain),
        Some(name) => Coding::named(name.as_bytes()),
    }
}

/// The only message of a call, and whether it is packed.
pub(super) fn message(mut framed: Bytes) -> Result<(bool, Bytes), Refused> {
    let bad = |why: &str| Err(Refused::Bad(format!("the call's message {why}")));
    if framed.len() < PREFIX {
        return bad("is missing");
    }
    let flag = framed.get_u8();
    let len = framed.get_u32() as usize;
    match (flag, framed.len()) {
        (0 | 1, held) if held == len => Ok((flag == 1, framed)),
        (0 | 1, held) if held < len => bad("is cut off"),
        (0 | 1, _) => bad("is followed by another: Export takes one"),
        _ => bad("has an unknown flag"),
    }
}

/// A message as it is sent.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX + message.len());
    out.push(0);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

/// `grpc-message`: what is not printable ASCII, and `%`, is written in percent signs.
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
