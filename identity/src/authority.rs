//! The hub's certificate authority: made at the first start, kept in one file that is replaced whole.
//!
//! One authority issues; others may be trusted beside it. A roll-over takes three calls with time between them:
//! [`Authority::prepare`] (all learn the next one), [`Authority::activate`] (it issues; its certificate signed by the old
//! one goes along, so that devices that were away can follow), [`Authority::retire`] (the old one is forgotten).

use crate::certificate::{BadCertificate, Kind, Peer, sha256_hex};
use crate::signed::{Purpose, sign};
use crate::time::TimeStatement;
use crate::trust::TrustBundle;
use jiff::{SignedDuration, Timestamp};
use kit::Clock;
use model::{DeviceName, Intent, Signed};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;

/// How long an identity certificate is valid.
pub const IDENTITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// How long an operational certificate is valid, where the hub sets nothing else.
pub const OPERATIONAL_LIFE: SignedDuration = SignedDuration::from_hours(24 * 30);
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650 * 2);
const SERVER_LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Certificates are dated back by this, for peers whose clocks are a little behind.
const SLACK: SignedDuration = SignedDuration::from_mins(5);

/// An authority that cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file or folder.
    #[error("{what} {path}")]
    Disk {
        /// `read` or `write`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no authority.
    #[error(
        "{path} does not parse; restore it from a backup: a new authority would need every device to enrol again"
    )]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Made for another trust domain.
    #[error("the authority in {path} is of domain {held}, not {wanted}")]
    OtherDomain {
        /// Which file.
        path: PathBuf,
        /// Its domain.
        held: String,
        /// The one asked for.
        wanted: String,
    },
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A key or certificate of the file is none, or it names not exactly one that issues.
    #[error("the authority's keys are damaged; restore its file from a backup")]
    Key,
    /// The roll-over is not at this step.
    #[error("roll-over: {0}")]
    RollOver(&'static str),
}

/// A request that is not signed.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Not PKCS #10, or its own signature does not prove the key.
    #[error("the certificate request is not valid, or does not prove possession of its key")]
    Request(#[source] rcgen::Error),
    /// A key of another kind than the one asked for.
    #[error("the certificate request must hold an ECDSA P-256 key")]
    Algorithm,
    /// The certificate could not be made.
    #[error("issue a certificate")]
    Make(#[source] rcgen::Error),
    /// What was issued cannot be read back.
    #[error("issue a certificate")]
    ReadBack(#[source] BadCertificate),
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// What it says.
    pub peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Role {
    Issuing,
    Next,
    Old,
}

/// An authority that is trusted, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// `issuing`, `next` or `old`.
    pub role: &'static str,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    role: Role,
    /// Self-signed, PEM.
    certificate: String,
    /// PKCS #8, PEM.
    key: String,
    /// The same name and key, signed by the authority before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crossed: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    domain: String,
    bundle_serial: u64,
    changed_at: Timestamp,
    /// PKCS #8, hexadecimal.
    signer: String,
    roots: Vec<Root>,
}

/// See the module's words.
#[derive(Debug)]
pub struct Authority {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    kept: Kept,
    signer: Ed25519KeyPair,
    bundle: Signed,
}

impl Authority {
    /// Opens `dir/authority.json`, or makes an authority for `domain` where there is none. `dir/ca.pem` is a copy of the
    /// certificate for people.
    ///
    /// # Errors
    /// A damaged file is an error, never a reason for a new authority.
    pub fn open(dir: &Path, domain: &str, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        let path = dir.join("authority.json");
        let disk = |what, source| AuthorityError::Disk {
            what,
            path: path.clone(),
            source,
        };
        let kept = match kit::disk::read_if_there(&path).map_err(|err| disk("read", err))? {
            Some(data) => serde_json::from_slice(&data).map_err(|source| AuthorityError::Parse {
                path: path.clone(),
                source,
            })?,
            None => {
                kit::disk::create_dir_all(dir).map_err(|err| disk("write", err))?;
                let kept = first(domain, clock.now())?;
                write(&path, &kept)?;
                kept
            }
        };
        if kept.domain != domain {
            return Err(AuthorityError::OtherDomain {
                path,
                held: kept.domain,
                wanted: domain.to_owned(),
            });
        }
        check(&kept)?;
        let signer = hex::decode(&kept.signer)
            .ok()
            .and_then(|der| Ed25519KeyPair::from_pkcs8(&der).ok())
            .ok_or(AuthorityError::Key)?;
        let bundle = bundle_of(&kept, &signer);
        let authority = Self {
            path,
            clock,
            kept,
            signer,
            bundle,
        };
        let ca = dir.join("ca.pem");
        kit::disk::replace(&ca, authority.issuing().certificate.as_bytes()).map_err(|source| {
            AuthorityError::Disk {
                what: "write",
                path: ca,
                source,
            }
        })?;
        Ok(authority)
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// The trust domain.
    pub fn domain(&self) -> &str {
        &self.kept.domain
    }

    /// The issuing authority's certificate (PEM).
    pub fn certificate(&self) -> &str {
        &self.issuing().certificate
    }

    /// SHA-256 of the issuing authority's certificate (DER): what enrolment tokens carry.
    ///
    /// # Errors
    /// [`AuthorityError::Key`] where the stored certificate is none.
    pub fn fingerprint(&self) -> Result<[u8; 32], AuthorityError> {
        let der = CertificateDer::from_pem_slice(self.issuing().certificate.as_bytes())
            .map_err(|_| AuthorityError::Key)?;
        Ok(<sha2::Sha256 as sha2::Digest>::digest(&der).into())
    }

    /// All authorities whose certificates count (PEM).
    pub fn roots(&self) -> Vec<String> {
        self.kept
            .roots
            .iter()
            .map(|root| root.certificate.clone())
            .collect()
    }

    /// All that are trusted, with what each is for.
    ///
    /// # Errors
    /// [`AuthorityError::Key`] where a certificate of ours cannot be read.
    pub fn trusted(&self) -> Result<Vec<Trusted>, AuthorityError> {
        let look = |root: &Root| {
            let der = CertificateDer::from_pem_slice(root.certificate.as_bytes())
                .map_err(|_| AuthorityError::Key)?;
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| AuthorityError::Key)?;
            Ok(Trusted {
                role: match root.role {
                    Role::Issuing => "issuing",
                    Role::Next => "next",
                    Role::Old => "old",
                },
                fingerprint: sha256_hex(&der),
                certificate: root.certificate.clone(),
                not_after: Timestamp::from_second(parsed.validity().not_after.timestamp())
                    .unwrap_or(Timestamp::MAX),
            })
        };
        self.kept.roots.iter().map(look).collect()
    }

    /// When the last step of a roll-over was made.
    pub fn changed_at(&self) -> Timestamp {
        self.kept.changed_at
    }

    /// The signed trust bundle.
    pub fn bundle(&self) -> &Signed {
        &self.bundle
    }

    /// Its serial.
    pub fn bundle_serial(&self) -> u64 {
        self.kept.bundle_serial
    }

    /// Signs a request for a device; name, purpose and dates are ours, only the key is taken from the request.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn issue(
        &self,
        kind: Kind,
        csr: &str,
        name: &DeviceName,
        life: SignedDuration,
    ) -> Result<Issued, CsrError> {
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(CsrError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CsrError::Algorithm);
        }
        self.sign_leaf(kind, &request.public_key, name, life)
    }

    /// SHA-256 (hexadecimal) of the public key whose possession a request proves, before anything is signed for it.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn key_in(csr: &str) -> Result<String, CsrError> {
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(CsrError::Request)?;
        Ok(sha256_hex(&request.public_key.subject_public_key_info()))
    }

    fn sign_leaf(
        &self,
        kind: Kind,
        key: &impl PublicKeyData,
        name: &DeviceName,
        life: SignedDuration,
    ) -> Result<Issued, CsrError> {
        let now = self.clock.now();
        let mut params = leaf_params(name.as_str(), now, life, ExtendedKeyUsagePurpose::ClientAuth);
        let uri = kind
            .uri(&self.kept.domain, name)
            .try_into()
            .map_err(CsrError::Make)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let issuer = self.issuer().map_err(CsrError::Make)?;
        let certificate = params.signed_by(key, &issuer).map_err(CsrError::Make)?;
        let peer = Peer::of(certificate.der()).map_err(CsrError::ReadBack)?;
        Ok(Issued {
            pem: certificate.pem(),
            peer,
        })
    }

    /// The next identity certificate for a device that shows `certificate` (verified by TLS, which also proved its key):
    /// where the old one is in the second half of its life, or of an authority that issues no more. The key stays.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn follow_up(&self, certificate: &CertificateDer<'_>) -> Result<Option<Issued>, CsrError> {
        let old = Peer::of(certificate).map_err(CsrError::ReadBack)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| CsrError::ReadBack(BadCertificate::Parse))?;
        let issuing = CertificateDer::from_pem_slice(self.issuing().certificate.as_bytes())
            .map_err(|_| CsrError::ReadBack(BadCertificate::Parse))?;
        let (_, issuing) = x509_parser::parse_x509_certificate(&issuing)
            .map_err(|_| CsrError::ReadBack(BadCertificate::Parse))?;
        let half = old
            .not_before
            .saturating_add(old.not_before.duration_until(old.not_after) / 2);
        let young = half.is_ok_and(|half| self.clock.now() < half);
        if young && parsed.issuer().as_raw() == issuing.subject().as_raw() {
            return Ok(None);
        }
        let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw).map_err(CsrError::Make)?;
        self.sign_leaf(Kind::Identity, &key, &old.name, IDENTITY_LIFE)
            .map(Some)
    }

    /// A fresh certificate and key for the hub's listener. Devices verify the fixed name
    /// [`crate::tls::HUB_NAME`]; `names` (DNS names and addresses) are for people's tools.
    ///
    /// # Errors
    /// [`AuthorityError::Make`], for instance for a name that is none.
    pub fn server(
        &self,
        names: &[String],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = leaf_params(
            "leeward hub",
            self.clock.now(),
            SERVER_LIFE,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let mut all = vec![SanType::DnsName(crate::tls::HUB_NAME.try_into()?)];
        for name in names {
            all.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.subject_alt_names = all;
        let leaf = params.signed_by(&key, &self.issuer()?)?;
        let mut chain = vec![leaf.der().clone()];
        let issuing = self.issuing();
        for pem in issuing.crossed.iter().chain([&issuing.certificate]) {
            chain.push(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorityError::Key)?);
        }
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| AuthorityError::Key)?;
        Ok((chain, key))
    }

    /// Signs an intent.
    pub fn sign_intent(&self, intent: &Intent) -> Signed {
        sign(&self.signer, Purpose::Intent, json(intent))
    }

    /// Signs the hub's time together with a device's nonce.
    pub fn sign_time(&self, nonce: &str) -> Signed {
        let statement = TimeStatement {
            nonce: nonce.to_owned(),
            time: self.clock.now(),
        };
        sign(&self.signer, Purpose::Time, json(&statement))
    }

    /// First step of a roll-over: makes the next authority and trusts it beside the present one.
    ///
    /// # Errors
    /// [`AuthorityError::RollOver`] where one is prepared already.
    pub fn prepare(&mut self) -> Result<(), AuthorityError> {
        if self.kept.roots.iter().any(|root| root.role != Role::Issuing) {
            return Err(AuthorityError::RollOver("one is under way already"));
        }
        let now = self.clock.now();
        let mut next = root(&self.kept.domain, now, Role::Next)?;
        let key = KeyPair::from_pem(&next.key)?;
        let crossed = root_params(&self.kept.domain, now, &key).signed_by(&key, &self.issuer()?)?;
        next.crossed = Some(crossed.pem());
        let mut kept = self.kept.clone();
        kept.roots.push(next);
        self.change(kept)
    }

    /// Second step: the next authority issues from now on.
    ///
    /// # Errors
    /// [`AuthorityError::RollOver`] where none is prepared.
    pub fn activate(&mut self) -> Result<(), AuthorityError> {
        if !self.kept.roots.iter().any(|root| root.role == Role::Next) {
            return Err(AuthorityError::RollOver("no next authority is prepared"));
        }
        let mut kept = self.kept.clone();
        for root in &mut kept.roots {
            root.role = if root.role == Role::Next {
                Role::Issuing
            } else {
                Role::Old
            };
        }
        self.change(kept)
    }

    /// Last step: certificates of the old authority are refused from now on.
    ///
    /// # Errors
    /// [`AuthorityError::RollOver`] where there is none.
    pub fn retire(&mut self) -> Result<(), AuthorityError> {
        let mut kept = self.kept.clone();
        kept.roots.retain(|root| root.role != Role::Old);
        if kept.roots.len() == self.kept.roots.len() {
            return Err(AuthorityError::RollOver("no old authority is left"));
        }
        self.change(kept)
    }

    fn change(&mut self, mut kept: Kept) -> Result<(), AuthorityError> {
        kept.bundle_serial += 1;
        kept.changed_at = self.clock.now();
        write(&self.path, &kept)?;
        self.bundle = bundle_of(&kept, &self.signer);
        self.kept = kept;
        Ok(())
    }

    fn issuing(&self) -> &Root {
        self.kept
            .roots
            .iter()
            .find(|root| root.role == Role::Issuing)
            .unwrap_or(&self.kept.roots[0])
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
        let root = self.issuing();
        Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key)?)
    }
}

/// A file that was changed by hand is found out at the start, not at the first device.
fn check(kept: &Kept) -> Result<(), AuthorityError> {
    let issuing = kept.roots.iter().filter(|root| root.role == Role::Issuing);
    if issuing.count() != 1 {
        return Err(AuthorityError::Key);
    }
    for root in &kept.roots {
        KeyPair::from_pem(&root.key).map_err(|_| AuthorityError::Key)?;
        CertificateDer::from_pem_slice(root.certificate.as_bytes()).map_err(|_| AuthorityError::Key)?;
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data without maps of odd keys serialises")
}

fn write(path: &Path, kept: &Kept) -> Result<(), AuthorityError> {
    kit::disk::replace_mode(path, json(kept).as_bytes(), 0o600).map_err(|source| AuthorityError::Disk {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

fn first(domain: &str, now: Timestamp) -> Result<Kept, AuthorityError> {
    let signer = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| AuthorityError::Key)?;
    Ok(Kept {
        domain: domain.to_owned(),
        bundle_serial: 1,
        changed_at: now,
        signer: hex::encode(signer.as_ref()),
        roots: vec![root(domain, now, Role::Issuing)?],
    })
}

fn root(domain: &str, now: Timestamp, role: Role) -> Result<Root, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = root_params(domain, now, &key).self_signed(&key)?;
    Ok(Root {
        role,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        crossed: None,
    })
}

/// The name holds a part of the key's hash, so that two authorities of one domain are told apart.
fn root_params(domain: &str, now: Timestamp, key: &KeyPair) -> CertificateParams {
    let mut params = dated(now, AUTHORITY_LIFE);
    let mark = sha256_hex(key.public_key_raw());
    params.distinguished_name = named(&format!("Leeward authority {} of {domain}", &mark[..8]));
    // One below it: the next authority, signed by this one at a roll-over.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    name: &str,
    now: Timestamp,
    life: SignedDuration,
    usage: ExtendedKeyUsagePurpose,
) -> CertificateParams {
    let mut params = dated(now, life);
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn dated(now: Timestamp, life: SignedDuration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let date = |time: Timestamp| {
        OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = date(now.saturating_sub(SLACK).unwrap_or(now));
    params.not_after = date(now.saturating_add(life).unwrap_or(now));
    params.serial_number = Some(random_serial());
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 128 random bits; positive and without a leading zero, so that it reads the same everywhere (RFC 5280, 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random numbers");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn bundle_of(kept: &Kept, signer: &Ed25519KeyPair) -> Signed {
    let bundle = TrustBundle {
        serial: kept.bundle_serial,
        domain: kept.domain.clone(),
        roots: kept.roots.iter().map(|root| root.certificate.clone()).collect(),
        signers: vec![hex::encode(signer.public_key())],
        issued_at: kept.changed_at,
    };
    sign(signer, Purpose::Bundle, json(&bundle))
}
