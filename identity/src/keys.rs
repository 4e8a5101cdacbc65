//! A device's keys and certificates, in a folder of their own that no other damage can reach.
//!
//! | file | what | written |
//! |---|---|---|
//! | `device.key` | identity key (PKCS #8) | once, before the first request |
//! | `device.pem` | identity certificate | at enrolment, last: it says that the device is enrolled |
//! | `operational.pem` | operational key and certificate together | at enrolment and each renewal |
//! | `seal.key` | key of [`crate::Seal`] | once |
//! | `sops/` | keys that people gave to decrypt secrets with | by people |
//! | `bundle.json` | signed trust bundle | when a newer one is accepted |
//! | `intent.json` | number of the last intent accepted | before the intent is followed |
//! | `time.json` | see [`TimeKeeper`] | about once an hour |

use crate::certificate::{BadCertificate, Kind, Peer};
use crate::signed::{BadSignature, Purpose, verify};
use crate::time::{TimeError, TimeKeeper};
use crate::tls::{self, Shown, TlsError};
use crate::token::EnrolToken;
use crate::trust::{TrustBundle, TrustError};
use jiff::Timestamp;
use kit::Clock;
use model::{DeviceName, Intent, Signed};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keys that cannot be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file.
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
    /// A file is damaged. Enrolling again with a new token mends it.
    #[error("{path} is damaged; enrol the device again with a new token")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A key or request could not be made.
    #[error("make a key")]
    Make(#[from] rcgen::Error),
    /// The hub's certificate is not for our key or name.
    #[error("the hub issued a certificate for {0}")]
    NotOurs(String),
    /// The hub's certificate is none.
    #[error("the hub issued something else than a certificate")]
    Certificate(#[from] BadCertificate),
    /// The hub's trust bundle.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The bundle does not hold the authority that the token named.
    #[error("the hub's trust bundle does not hold the authority that the token names")]
    OtherAuthority,
    /// Asked for before enrolment.
    #[error("the device is not enrolled")]
    NotEnrolled,
    /// A TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Time.
    #[error(transparent)]
    Time(#[from] TimeError),
}

/// An intent that is not followed.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// Not signed by the hub.
    #[error("intent refused")]
    Signature(#[from] BadSignature),
    /// Signed, but no intent that this version knows.
    #[error("intent does not parse")]
    Parse(#[from] serde_json::Error),
    /// For another device.
    #[error("intent {id} is for {device}")]
    NotForUs {
        /// Its number.
        id: u64,
        /// For whom it is.
        device: DeviceName,
    },
    /// Not above the last one: a replay.
    #[error("intent {id} was seen already (the last one was {last})")]
    Replayed {
        /// Its number.
        id: u64,
        /// The last one accepted.
        last: u64,
    },
    /// Outside its time.
    #[error("intent {id} is valid from {from} to {to}; it is {now}")]
    OutOfTime {
        /// Its number.
        id: u64,
        /// First moment.
        from: Timestamp,
        /// Last moment.
        to: Timestamp,
        /// The best known time.
        now: Timestamp,
    },
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// What a device holds, as far as the next step depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: DeviceName,
    /// End of the identity certificate.
    pub identity_until: Timestamp,
    /// Begin and end of the operational certificate; none where its file is damaged or absent.
    pub operational: Option<(Timestamp, Timestamp)>,
}

/// Certificate requests, and the fresh key that one of them is for.
pub struct Requests {
    /// For the identity key (PEM).
    pub identity_csr: String,
    /// For the operational key (PEM).
    pub operational_csr: String,
    operational_key: String,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

struct Operational {
    /// Key and certificate, PEM, one after the other.
    pem: String,
    peer: Peer,
}

struct Enrolled {
    certificate: String,
    peer: Peer,
    operational: Option<Operational>,
    trust: TrustBundle,
}

/// See the module's words.
pub struct DeviceKeys {
    dir: PathBuf,
    key: String,
    time: Arc<TimeKeeper>,
    enrolled: Option<Enrolled>,
    last_intent: u64,
}

impl std::fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKeys")
            .field("dir", &self.dir)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct LastIntent {
    last: u64,
}

impl DeviceKeys {
    /// Opens the folder; makes it and the identity key where they are absent.
    ///
    /// # Errors
    /// A damaged identity key, identity certificate or bundle is [`KeyError::Damaged`]; a damaged operational
    /// certificate is not: it is renewed.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        make_private(dir)?;
        let key = match read(dir, "device.key")? {
            Some(pem) => {
                KeyPair::from_pem(&pem).map_err(|_| KeyError::Damaged {
                    path: dir.join("device.key"),
                })?;
                pem
            }
            None => {
                let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
                write(dir, "device.key", &pem)?;
                pem
            }
        };
        let last_intent =
            read(dir, "intent.json")?.and_then(|text| serde_json::from_str::<LastIntent>(&text).ok());
        Ok(Self {
            dir: dir.to_owned(),
            key,
            time: Arc::new(TimeKeeper::open(dir, clock)),
            enrolled: enrolled(dir)?,
            last_intent: last_intent.map_or(0, |kept| kept.last),
        })
    }

    /// What is held; none before enrolment.
    pub fn held(&self) -> Option<Held> {
        self.enrolled.as_ref().map(|enrolled| Held {
            name: enrolled.peer.name.clone(),
            identity_until: enrolled.peer.not_after,
            operational: enrolled
                .operational
                .as_ref()
                .map(|held| (held.peer.not_before, held.peer.not_after)),
        })
    }

    /// The time that certificates and intents are judged by.
    pub fn time(&self) -> &Arc<TimeKeeper> {
        &self.time
    }

    /// Serial of the trust bundle; 0 before enrolment.
    pub fn bundle_serial(&self) -> u64 {
        self.enrolled.as_ref().map_or(0, |enrolled| enrolled.trust.serial)
    }

    /// Number of the last intent accepted.
    pub fn last_intent(&self) -> u64 {
        self.last_intent
    }

    /// Makes requests with a fresh operational key; they prove possession of both keys.
    ///
    /// # Errors
    /// [`KeyError::Make`].
    pub fn requests(&self, name: &DeviceName) -> Result<Requests, KeyError> {
        let operational = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Requests {
            identity_csr: csr(&KeyPair::from_pem(&self.key)?, name)?,
            operational_csr: csr(&operational, name)?,
            operational_key: operational.serialize_pem(),
        })
    }

    /// Keeps what the hub answered to an enrolment.
    ///
    /// # Errors
    /// Certificates of other keys and bundles without the token's authority are refused; the device is not enrolled then.
    pub fn store_enrolment(
        &mut self,
        token: &EnrolToken,
        requests: &Requests,
        identity: &str,
        operational: &str,
        bundle: &Signed,
    ) -> Result<Held, KeyError> {
        let peer = Peer::of_pem(identity)?;
        check_owner(&peer, Kind::Identity, &self.key)?;
        let trust = TrustBundle::first(bundle)?;
        if !holds(&trust, token.authority()) {
            return Err(KeyError::OtherAuthority);
        }
        let fresh = operational_of(requests, operational, &peer.name)?;
        write(
            &self.dir,
            "bundle.json",
            &serde_json::to_string(bundle).unwrap_or_default(),
        )?;
        write(&self.dir, "operational.pem", &fresh.pem)?;
        write(&self.dir, "device.pem", identity)?;
        self.enrolled = Some(Enrolled {
            certificate: identity.to_owned(),
            peer,
            operational: Some(fresh),
            trust,
        });
        self.held().ok_or(KeyError::NotEnrolled)
    }

    /// Keeps what the hub answered to a renewal.
    ///
    /// # Errors
    /// As [`DeviceKeys::store_enrolment`]; what was held before stays then.
    pub fn store_renewal(
        &mut self,
        requests: &Requests,
        identity: Option<&str>,
        operational: &str,
        bundle: Option<&Signed>,
    ) -> Result<Held, KeyError> {
        if let Some(bundle) = bundle {
            self.accept_bundle(bundle)?;
        }
        let key = self.key.clone();
        let dir = self.dir.clone();
        let enrolled = self.enrolled.as_mut().ok_or(KeyError::NotEnrolled)?;
        let fresh = operational_of(requests, operational, &enrolled.peer.name)?;
        if let Some(identity) = identity {
            let peer = Peer::of_pem(identity)?;
            check_owner(&peer, Kind::Identity, &key)?;
            if peer.name != enrolled.peer.name {
                return Err(KeyError::NotOurs(peer.name.to_string()));
            }
            write(&dir, "device.pem", identity)?;
            (enrolled.certificate, enrolled.peer) = (identity.to_owned(), peer);
        }
        write(&dir, "operational.pem", &fresh.pem)?;
        enrolled.operational = Some(fresh);
        self.held().ok_or(KeyError::NotEnrolled)
    }

    /// Keeps a newer trust bundle. Says whether it was newer.
    ///
    /// # Errors
    /// [`KeyError::Trust`]; the old one stays then.
    pub fn accept_bundle(&mut self, signed: &Signed) -> Result<bool, KeyError> {
        let enrolled = self.enrolled.as_mut().ok_or(KeyError::NotEnrolled)?;
        let Some(next) = enrolled.trust.next(signed)? else {
            return Ok(false);
        };
        write(
            &self.dir,
            "bundle.json",
            &serde_json::to_string(signed).unwrap_or_default(),
        )?;
        enrolled.trust = next;
        Ok(true)
    }

    /// Takes the hub's signed time: see [`TimeKeeper::prove`].
    ///
    /// # Errors
    /// [`KeyError::Time`].
    pub fn prove_time(&self, signed: &Signed, nonce: &str) -> Result<(), KeyError> {
        Ok(self.time.prove(signed, nonce, &self.enrolled()?.trust.signers)?)
    }

    /// Verifies an intent and remembers its number on disk, so that it is followed at most once.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub fn accept_intent(&mut self, signed: &Signed) -> Result<Intent, IntentError> {
        let enrolled = self.enrolled()?;
        let intent: Intent = serde_json::from_str(verify(signed, Purpose::Intent, &enrolled.trust.signers)?)?;
        if intent.device != enrolled.peer.name {
            return Err(IntentError::NotForUs {
                id: intent.id,
                device: intent.device,
            });
        }
        if intent.id <= self.last_intent {
            return Err(IntentError::Replayed {
                id: intent.id,
                last: self.last_intent,
            });
        }
        let now = self.time.now();
        if now < intent.not_before || now > intent.not_after {
            return Err(IntentError::OutOfTime {
                id: intent.id,
                from: intent.not_before,
                to: intent.not_after,
                now,
            });
        }
        write(&self.dir, "intent.json", &format!("{{\"last\":{}}}", intent.id))?;
        self.last_intent = intent.id;
        Ok(intent)
    }

    /// For the first connection: trusts the token's authority.
    ///
    /// # Errors
    /// [`KeyError::Tls`].
    pub fn enrol_tls(&self, token: &EnrolToken) -> Result<Arc<ClientConfig>, KeyError> {
        Ok(tls::enrolling(token.authority(), &self.time)?)
    }

    /// For sessions and pulls: shows the operational certificate.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`], or where the operational certificate is lost and must be renewed first.
    pub fn session_tls(&self) -> Result<Arc<ClientConfig>, KeyError> {
        let enrolled = self.enrolled()?;
        let path = || self.dir.join("operational.pem");
        let held = enrolled
            .operational
            .as_ref()
            .ok_or_else(|| KeyError::Damaged { path: path() })?;
        let shown = Shown {
            certificate: &held.pem,
            key: &held.pem,
        };
        Ok(tls::known(&enrolled.trust.roots, &self.time, shown)?)
    }

    /// To renew: shows the identity certificate.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`].
    pub fn renew_tls(&self) -> Result<Arc<ClientConfig>, KeyError> {
        let enrolled = self.enrolled()?;
        let shown = Shown {
            certificate: &enrolled.certificate,
            key: &self.key,
        };
        Ok(tls::known(&enrolled.trust.roots, &self.time, shown)?)
    }

    /// To ask for the time: overlooks that the hub's certificate has expired by our clock.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`].
    pub fn time_tls(&self) -> Result<Arc<ClientConfig>, KeyError> {
        Ok(tls::asking_time(&self.enrolled()?.trust.roots, &self.time)?)
    }

    fn enrolled(&self) -> Result<&Enrolled, KeyError> {
        self.enrolled.as_ref().ok_or(KeyError::NotEnrolled)
    }
}

fn csr(key: &KeyPair, name: &DeviceName) -> Result<String, KeyError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name.as_str());
    params.distinguished_name = subject;
    Ok(params.serialize_request(key)?.pem()?)
}

/// The certificate must be for this key: another one would be of no use, or a mistake of the hub.
fn check_owner(peer: &Peer, kind: Kind, key_pem: &str) -> Result<(), KeyError> {
    use rcgen::PublicKeyData as _;
    let key = KeyPair::from_pem(key_pem)?;
    if peer.kind == kind && peer.key == crate::certificate::sha256_hex(&key.subject_public_key_info()) {
        Ok(())
    } else {
        Err(KeyError::NotOurs(format!(
            "another key ({} of {})",
            peer.kind.as_str(),
            peer.name
        )))
    }
}

fn operational_of(
    requests: &Requests,
    certificate: &str,
    name: &DeviceName,
) -> Result<Operational, KeyError> {
    let peer = Peer::of_pem(certificate)?;
    check_owner(&peer, Kind::Operational, &requests.operational_key)?;
    if peer.name != *name {
        return Err(KeyError::NotOurs(peer.name.to_string()));
    }
    Ok(Operational {
        pem: format!("{}{certificate}", requests.operational_key),
        peer,
    })
}

fn holds(trust: &TrustBundle, authority: [u8; 32]) -> bool {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    trust.roots.iter().any(|pem| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .is_ok_and(|der| <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&der)) == authority)
    })
}

fn enrolled(dir: &Path) -> Result<Option<Enrolled>, KeyError> {
    let Some(certificate) = read(dir, "device.pem")? else {
        return Ok(None);
    };
    let damaged = |name: &str| KeyError::Damaged { path: dir.join(name) };
    let peer = Peer::of_pem(&certificate).map_err(|_| damaged("device.pem"))?;
    let bundle = read(dir, "bundle.json")?.ok_or_else(|| damaged("bundle.json"))?;
    let bundle: Signed = serde_json::from_str(&bundle).map_err(|_| damaged("bundle.json"))?;
    let trust = TrustBundle::first(&bundle).map_err(|_| damaged("bundle.json"))?;
    // A damaged one is renewed; it must not stand in the way.
    let operational = read(dir, "operational.pem")?.and_then(|pem| {
        KeyPair::from_pem(&pem).ok()?;
        let peer = Peer::of_pem(&pem).ok()?;
        Some(Operational { pem, peer })
    });
    Ok(Some(Enrolled {
        certificate,
        peer,
        operational,
        trust,
    }))
}

pub(crate) fn make_private(dir: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let disk = |source| KeyError::Disk {
        what: "write",
        path: dir.to_owned(),
        source,
    };
    kit::disk::create_dir_all(dir).map_err(disk)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(disk)
}

fn read(dir: &Path, name: &str) -> Result<Option<String>, KeyError> {
    let path = dir.join(name);
    match kit::disk::read_if_there(&path) {
        // What is no text is as damaged as what does not parse; the caller says so.
        Ok(data) => Ok(data.map(|data| String::from_utf8_lossy(&data).into_owned())),
        Err(source) => Err(KeyError::Disk {
            what: "read",
            path,
            source,
        }),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), KeyError> {
    let path = dir.join(name);
    kit::disk::replace_mode(&path, text.as_bytes(), 0o600).map_err(|source| KeyError::Disk {
        what: "write",
        path,
        source,
    })
}
