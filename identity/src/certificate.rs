//! What a verified certificate says of its owner.

use jiff::Timestamp;
use model::DeviceName;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Long-lived; to renew only.
    Identity,
    /// Short-lived; for sessions and pulls.
    Operational,
}

impl Kind {
    /// `identity` or `operational`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Operational => "operational",
        }
    }

    pub(crate) fn uri(self, domain: &str, name: &DeviceName) -> String {
        match self {
            Self::Identity => format!("spiffe://{domain}/identity/{name}"),
            Self::Operational => format!("spiffe://{domain}/device/{name}"),
        }
    }
}

/// The owner of a certificate. Its fields are true only if the chain was verified before: by TLS, or at issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which device.
    pub name: DeviceName,
    /// In which trust domain.
    pub domain: String,
    /// See [`Kind`].
    pub kind: Kind,
    /// Hexadecimal.
    pub serial: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid to.
    pub not_after: Timestamp,
    /// SHA-256 of the public key (SubjectPublicKeyInfo), hexadecimal.
    pub key: String,
}

/// A certificate that is none of a device's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// Not X.509.
    #[error("the certificate does not parse")]
    Parse,
    /// No name of the form `spiffe://DOMAIN/device/NAME`.
    #[error("the certificate names no device (subject alternative name spiffe://DOMAIN/device/NAME)")]
    NoDevice,
}

impl Peer {
    /// Reads the owner out of the first certificate of a chain.
    ///
    /// # Errors
    /// See [`BadCertificate`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, BadCertificate> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadCertificate::Parse)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| BadCertificate::Parse)?
            .ok_or(BadCertificate::NoDevice)?;
        // SPIFFE: exactly one URI.
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(BadCertificate::NoDevice);
        };
        let (domain, kind, name) = read_uri(uri).ok_or(BadCertificate::NoDevice)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| BadCertificate::Parse);
        Ok(Self {
            name,
            domain,
            kind,
            serial: hex::encode(parsed.raw_serial()),
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            key: sha256_hex(parsed.public_key().raw),
        })
    }

    /// The same for PEM.
    ///
    /// # Errors
    /// See [`BadCertificate`].
    pub fn of_pem(pem: &str) -> Result<Self, BadCertificate> {
        Self::of(&CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadCertificate::Parse)?)
    }
}

pub(crate) fn sha256_hex(data: &[u8]) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(data))
}

fn read_uri(uri: &str) -> Option<(String, Kind, DeviceName)> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let (kind, name) = match path.split_once('/')? {
        ("device", name) => (Kind::Operational, name),
        ("identity", name) => (Kind::Identity, name),
        _ => return None,
    };
    Some((domain.to_owned(), kind, name.parse().ok()?))
}
