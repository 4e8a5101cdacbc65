//! age (C2SP, `age-encryption.org/v1`), as far as SOPS uses it: X25519 recipients, one small payload.
//!
//! Written here over ring, since the `age` crate brings 154 others (translations, post-quantum key exchange, four
//! elliptic curves) for the unwrapping of 32 bytes. Tested against the `sops` binary's files.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hkdf, hmac};
use x25519_dalek::{PublicKey, StaticSecret};

const VERSION: &str = "age-encryption.org/v1";
/// Plain bytes in each chunk of the payload.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// An X25519 identity.
#[derive(Clone)]
pub(crate) struct AgeKey(StaticSecret);

impl AgeKey {
    /// `AGE-SECRET-KEY-1...`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (prefix, bytes) = bech32_decode(text)?;
        if prefix != "age-secret-key-" {
            return Err("it is a key of another kind; X25519 keys are known");
        }
        let secret: [u8; 32] = bytes.try_into().map_err(|_| "it has not 32 bytes")?;
        Ok(Self(StaticSecret::from(secret)))
    }

    fn public(&self) -> PublicKey {
        PublicKey::from(&self.0)
    }

    /// `age1...`.
    pub fn recipient(&self) -> String {
        bech32_encode("age", self.public().as_bytes())
    }

    /// Opens an armoured age file.
    pub fn open(&self, armoured: &str) -> Result<Vec<u8>, Unopened> {
        let data = unarmour(armoured).ok_or(Unopened::Damaged("its armour is damaged"))?;
        let header = Header::parse(&data).ok_or(Unopened::Damaged("its header is damaged"))?;
        let file_key = header
            .stanzas
            .iter()
            .find_map(|stanza| self.unwrap(stanza))
            .ok_or(Unopened::NotOurs)?;
        let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &derive(&[], &file_key, b"header"));
        hmac::verify(&mac_key, header.signed, &header.mac)
            .map_err(|_| Unopened::Damaged("its header was changed"))?;
        payload(&file_key, header.payload).ok_or(Unopened::Damaged("its payload was changed"))
    }

    fn unwrap(&self, stanza: &Stanza<'_>) -> Option<Vec<u8>> {
        let ["X25519", share] = stanza.arguments.as_slice() else {
            return None;
        };
        let share: [u8; 32] = STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
        let shared = self.0.diffie_hellman(&PublicKey::from(share));
        if !shared.was_contributory() {
            return None;
        }
        let salt = [share.as_slice(), self.public().as_bytes()].concat();
        let key = derive(&salt, shared.as_bytes(), b"age-encryption.org/v1/X25519");
        let file_key = open_sealed(&key, [0; 12], &stanza.body)?;
        (file_key.len() == 16).then_some(file_key)
    }
}

/// A new age key: secret and recipient, as `age-keygen` makes them.
pub fn generate_age_key() -> (String, String) {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .expect("the system gives random numbers");
    let key = AgeKey(StaticSecret::from(secret));
    let text = bech32_encode("age-secret-key-", &secret).to_ascii_uppercase();
    (text, key.recipient())
}

/// Why a file did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It is wrapped for others.
    NotOurs,
    /// It is no age file, or no longer the one that was written.
    Damaged(&'static str),
}

struct Stanza<'a> {
    arguments: Vec<&'a str>,
    body: Vec<u8>,
}

struct Header<'a> {
    stanzas: Vec<Stanza<'a>>,
    /// Everything up to and with the three dashes.
    signed: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let mut stanzas: Vec<Stanza<'a>> = Vec::new();
        let mut at = 0;
        let mut next = || {
            let end = at + data[at..].iter().position(|byte| *byte == b'\n')?;
            let line = std::str::from_utf8(&data[at..end]).ok()?;
            let start = at;
            at = end + 1;
            Some((start, line, at))
        };
        if next()?.1 != VERSION {
            return None;
        }
        let mut body_ends = true;
        loop {
            let (start, line, after) = next()?;
            if let Some(mac) = line.strip_prefix("--- ") {
                return (body_ends && !stanzas.is_empty()).then_some(Self {
                    stanzas,
                    signed: &data[..start + 3],
                    mac: STANDARD_NO_PAD.decode(mac).ok()?,
                    payload: &data[after..],
                });
            }
            if let Some(arguments) = line.strip_prefix("-> ") {
                if !body_ends {
                    return None;
                }
                let arguments = arguments.split(' ').collect();
                stanzas.push(Stanza {
                    arguments,
                    body: Vec::new(),
                });
                body_ends = false;
                continue;
            }
            // A body's last line is shorter than 64 characters.
            if body_ends || line.len() > 64 {
                return None;
            }
            let last = stanzas.last_mut()?;
            last.body.extend(STANDARD_NO_PAD.decode(line).ok()?);
            body_ends = line.len() < 64;
        }
    }
}

fn unarmour(text: &str) -> Option<Vec<u8>> {
    let inside = text
        .trim()
        .strip_prefix("-----BEGIN AGE ENCRYPTED FILE-----")?
        .strip_suffix("-----END AGE ENCRYPTED FILE-----")?;
    let joined: String = inside.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(joined).ok()
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256 to 32 bytes.
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], Length(32))
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes are within what HKDF-SHA-256 gives");
    key
}

/// ChaCha20-Poly1305.
fn open_sealed(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).ok()?;
    let mut buffer = sealed.to_vec();
    let plain = aead::LessSafeKey::new(key)
        .open_in_place(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::empty(),
            &mut buffer,
        )
        .ok()?
        .len();
    buffer.truncate(plain);
    Some(buffer)
}

/// The STREAM construction: each chunk under a counter, the last one marked.
fn payload(file_key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (nonce, data) = data.split_at_checked(16)?;
    let key = derive(nonce, file_key, b"payload");
    let mut plain = Vec::with_capacity(data.len());
    let chunks: Vec<&[u8]> = data.chunks(CHUNK + TAG).collect();
    let last = chunks.len().checked_sub(1)?;
    for (at, chunk) in chunks.into_iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&(at as u64).to_be_bytes());
        nonce[11] = u8::from(at == last);
        plain.extend(open_sealed(&key, nonce, chunk)?);
    }
    Some(plain)
}

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// BIP 173, without its limit on length.
fn bech32_decode(text: &str) -> Result<(String, Vec<u8>), &'static str> {
    let lower = text.to_ascii_lowercase();
    if text != lower && text != text.to_ascii_uppercase() {
        return Err("it mixes upper and lower case");
    }
    let (prefix, data) = lower.rsplit_once('1').ok_or("it is cut short")?;
    let values: Vec<u8> = data
        .bytes()
        .map(|byte| {
            ALPHABET
                .iter()
                .position(|known| *known == byte)
                .map(|at| at as u8)
        })
        .collect::<Option<_>>()
        .ok_or("it holds a character that no key has")?;
    if values.len() < 6 || checksum(prefix, &values) != 1 {
        return Err("its checksum is wrong: it was mistyped or cut short");
    }
    let bytes = regroup(&values[..values.len() - 6], 5, 8, false).ok_or("it is cut short")?;
    Ok((prefix.to_owned(), bytes))
}

fn bech32_encode(prefix: &str, bytes: &[u8]) -> String {
    let mut values = regroup(bytes, 8, 5, true).unwrap_or_default();
    let with_room = [values.as_slice(), &[0; 6]].concat();
    let sum = checksum(prefix, &with_room) ^ 1;
    values.extend((0..6).map(|at| ((sum >> (5 * (5 - at))) & 31) as u8));
    let data = values
        .into_iter()
        .map(|value| char::from(ALPHABET[usize::from(value)]));
    format!("{prefix}1{}", data.collect::<String>())
}

fn checksum(prefix: &str, values: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let mut sum: u32 = 1;
    for value in high.chain([0]).chain(low).chain(values.iter().copied()) {
        let top = sum >> 25;
        sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        for (bit, generator) in GENERATOR.iter().enumerate() {
            if (top >> bit) & 1 == 1 {
                sum ^= generator;
            }
        }
    }
    sum
}

fn regroup(values: &[u8], from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut held, mut bits) = (0u32, 0);
    let mut out = Vec::new();
    for value in values {
        held = (held << from) | u32::from(*value);
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(((held >> bits) & ((1 << to) - 1)) as u8);
        }
        held &= (1 << bits) - 1;
    }
    if pad {
        if bits > 0 {
            out.push(((held << (to - bits)) & ((1 << to) - 1)) as u8);
        }
    } else if bits >= from || held != 0 {
        return None;
    }
    Some(out)
}
