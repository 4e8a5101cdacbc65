//! Secrets that people hand over: an enrolment token for a device, a bearer token for a person.

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};
use subtle::ConstantTimeEq as _;

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no {what}: it must read {form}")]
pub struct BadToken {
    what: &'static str,
    form: &'static str,
}

/// SHA-256 of a secret: what a hub keeps. The secrets are random, so that a slow hash would add nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretHash(String);

impl SecretHash {
    /// 64 hexadecimal digits, as stored.
    pub fn as_hex(&self) -> &str {
        &self.0
    }

    /// Compares with a stored hash; the time taken tells nothing of where they differ.
    pub fn matches(&self, stored: &str) -> bool {
        self.0.as_bytes().ct_eq(stored.as_bytes()).into()
    }
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random numbers");
    hex::encode(bytes)
}

fn hash(secret: &str) -> SecretHash {
    SecretHash(hex::encode(Sha256::digest(secret.as_bytes())))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Admits one device: `lw1.<id>.<secret>.<sha-256 of the hub's authority>`.
///
/// The last part lets the first connection verify the hub, before anything else is known of it.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolToken {
    id: String,
    secret: String,
    authority: [u8; 32],
}

impl EnrolToken {
    /// Makes a token for the authority with this fingerprint (SHA-256 of its certificate).
    pub fn generate(authority: [u8; 32]) -> Self {
        Self {
            id: random_hex::<6>(),
            secret: random_hex::<20>(),
            authority,
        }
    }

    /// Names it in lists and in the trail; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the hub keeps of it.
    pub fn hash(&self) -> SecretHash {
        hash(&self.secret)
    }

    /// The fingerprint of the authority to trust.
    pub fn authority(&self) -> [u8; 32] {
        self.authority
    }

    /// The whole token, to be given to a device.
    pub fn reveal(&self) -> String {
        format!("lw1.{}.{}.{}", self.id, self.secret, hex::encode(self.authority))
    }
}

impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolToken({})", self.id)
    }
}

impl FromStr for EnrolToken {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bad = BadToken {
            what: "enrolment token",
            form: "lw1.ID.SECRET.FINGERPRINT",
        };
        let parts: Vec<&str> = text.trim().split('.').collect();
        let ["lw1", id, secret, authority] = parts[..] else {
            return Err(bad);
        };
        if !is_hex(id, 12) || !is_hex(secret, 40) || !is_hex(authority, 64) {
            return Err(bad);
        }
        let mut fingerprint = [0; 32];
        hex::decode_to_slice(authority, &mut fingerprint).map_err(|_| bad)?;
        Ok(Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            authority: fingerprint,
        })
    }
}

/// Admits a person or a script to the API: `lwp1.<id>.<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonToken {
    id: String,
    secret: String,
}

impl PersonToken {
    /// Makes a token.
    pub fn generate() -> Self {
        Self {
            id: random_hex::<6>(),
            secret: random_hex::<24>(),
        }
    }

    /// Names it in the trail; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the hub keeps of it.
    pub fn hash(&self) -> SecretHash {
        hash(&self.secret)
    }

    /// The whole token.
    pub fn reveal(&self) -> String {
        format!("lwp1.{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for PersonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PersonToken({})", self.id)
    }
}

impl FromStr for PersonToken {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        match parts[..] {
            ["lwp1", id, secret] if is_hex(id, 12) && is_hex(secret, 48) => Ok(Self {
                id: id.to_owned(),
                secret: secret.to_owned(),
            }),
            _ => Err(BadToken {
                what: "bearer token",
                form: "lwp1.ID.SECRET",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_matches_only_itself() {
        let token = EnrolToken::generate([7; 32]);
        let read: EnrolToken = token.reveal().parse().unwrap();
        assert_eq!(read, token);
        assert!(read.hash().matches(token.hash().as_hex()));
        assert!(
            !EnrolToken::generate([7; 32])
                .hash()
                .matches(token.hash().as_hex())
        );
        assert!(!read.hash().matches(""));
        assert!(!format!("{token:?}").contains(&token.secret), "a secret in a log");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = EnrolToken::generate([7; 32]).reveal();
        for bad in [
            String::new(),
            good.to_uppercase(),
            good[..good.len() - 1].to_owned(),
            format!("{good}.x"),
            good.replace("lw1", "lw2"),
        ] {
            assert!(bad.parse::<EnrolToken>().is_err(), "{bad}");
        }
        assert!(good.parse::<PersonToken>().is_err());
        assert!(PersonToken::generate().reveal().parse::<PersonToken>().is_ok());
    }
}
