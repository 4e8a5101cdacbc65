//! Whom a device trusts: several roots at once, so that one can follow another; signed, so that anyone may carry it.

use crate::signed::{BadSignature, Purpose, verify};
use jiff::Timestamp;
use model::Signed;
use serde::{Deserialize, Serialize};

/// What a hub says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// Rises with each change; an older one is never taken.
    pub serial: u64,
    /// The trust domain of all its certificates.
    pub domain: String,
    /// Authorities (PEM) whose certificates count.
    pub roots: Vec<String>,
    /// Ed25519 keys (hexadecimal) whose statements count, the next bundle included.
    pub signers: Vec<String>,
    /// When it was made.
    pub issued_at: Timestamp,
}

/// A bundle that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not signed by one who may.
    #[error("trust bundle refused")]
    Signature(#[from] BadSignature),
    /// Signed, but no bundle.
    #[error("trust bundle does not parse")]
    Parse(#[from] serde_json::Error),
    /// Older than what is held.
    #[error("trust bundle {offered} is older than the one held ({held})")]
    Stale {
        /// Its serial.
        offered: u64,
        /// Ours.
        held: u64,
    },
    /// Of another hub.
    #[error("trust bundle is of domain {offered}, this device is of {held}")]
    OtherDomain {
        /// Its domain.
        offered: String,
        /// Ours.
        held: String,
    },
    /// It would leave the device without anyone to trust.
    #[error("trust bundle names no authority or no signer")]
    Empty,
}

impl TrustBundle {
    /// Reads the first bundle, which came over a connection that the enrolment token verified.
    ///
    /// # Errors
    /// It must at least be signed by a signer that it names.
    pub fn first(signed: &Signed) -> Result<Self, TrustError> {
        let bundle: Self = serde_json::from_str(&signed.text)?;
        verify(signed, Purpose::Bundle, &bundle.signers)?;
        bundle.checked()
    }

    /// Reads a bundle that is to follow `self`; `None` where it is the same.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn next(&self, signed: &Signed) -> Result<Option<Self>, TrustError> {
        let bundle: Self = serde_json::from_str(verify(signed, Purpose::Bundle, &self.signers)?)?;
        if bundle.domain != self.domain {
            return Err(TrustError::OtherDomain {
                offered: bundle.domain,
                held: self.domain.clone(),
            });
        }
        if bundle.serial < self.serial {
            return Err(TrustError::Stale {
                offered: bundle.serial,
                held: self.serial,
            });
        }
        if bundle.serial == self.serial {
            Ok(None)
        } else {
            bundle.checked().map(Some)
        }
    }

    fn checked(self) -> Result<Self, TrustError> {
        if self.roots.is_empty() || self.signers.is_empty() {
            Err(TrustError::Empty)
        } else {
            Ok(self)
        }
    }
}
