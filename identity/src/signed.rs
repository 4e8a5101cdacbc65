//! Statements signed with Ed25519 (RFC 8032). A signature is for one purpose: an intent can never pass for a bundle.

use model::Signed;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// What a signature is for; part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A [`model::Intent`].
    Intent,
    /// A [`crate::TrustBundle`].
    Bundle,
    /// The hub's time with a nonce.
    Time,
}

impl Purpose {
    fn message(self, text: &str) -> Vec<u8> {
        let name = match self {
            Self::Intent => "intent",
            Self::Bundle => "bundle",
            Self::Time => "time",
        };
        format!("leeward/{name}/1\n{text}").into_bytes()
    }
}

/// A statement that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// Another key than those that count.
    #[error("signed by {0}, which this device does not trust")]
    UnknownSigner(String),
    /// The signature does not fit text, key and purpose.
    #[error("the signature does not fit the text")]
    Forged,
}

pub(crate) fn sign(key: &Ed25519KeyPair, purpose: Purpose, text: String) -> Signed {
    let signature = key.sign(&purpose.message(&text));
    Signed {
        text,
        key: hex::encode(key.public_key()),
        signature: hex::encode(signature),
    }
}

/// Gives the text where one of `signers` (hexadecimal) signed it for `purpose`.
pub(crate) fn verify<'a>(
    signed: &'a Signed,
    purpose: Purpose,
    signers: &[String],
) -> Result<&'a str, BadSignature> {
    if !signers.contains(&signed.key) {
        return Err(BadSignature::UnknownSigner(signed.key.chars().take(16).collect()));
    }
    let key = hex::decode(&signed.key).map_err(|_| BadSignature::Forged)?;
    let signature = hex::decode(&signed.signature).map_err(|_| BadSignature::Forged)?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&purpose.message(&signed.text), &signature)
        .map_err(|_| BadSignature::Forged)?;
    Ok(&signed.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()
    }

    #[test]
    fn only_the_same_text_key_and_purpose_pass() {
        let signed = sign(&key(), Purpose::Intent, "pause".into());
        let signers = [signed.key.clone()];
        assert_eq!(verify(&signed, Purpose::Intent, &signers), Ok("pause"));
        assert_eq!(
            verify(&signed, Purpose::Bundle, &signers),
            Err(BadSignature::Forged)
        );
        assert!(matches!(
            verify(&signed, Purpose::Intent, &[]),
            Err(BadSignature::UnknownSigner(_))
        ));
        let other = Signed {
            text: "resume".into(),
            ..signed.clone()
        };
        assert_eq!(
            verify(&other, Purpose::Intent, &signers),
            Err(BadSignature::Forged)
        );
        let broken = Signed {
            signature: "zz".into(),
            ..signed
        };
        assert_eq!(
            verify(&broken, Purpose::Intent, &signers),
            Err(BadSignature::Forged)
        );
    }
}
