//! rustls configurations: TLS 1.3 only, on ring.
//!
//! A device verifies its hub by authority and by the fixed name [`HUB_NAME`], not by the address that it dialled: a hub
//! may move without a new certificate, and an address proves nothing that the authority does not prove.

use crate::authority::{Authority, AuthorityError};
use crate::time::TimeKeeper;
use jiff::Timestamp;
use kit::Clock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The name in every hub's certificate (`.internal` is reserved for private use).
pub const HUB_NAME: &str = "hub.leeward.internal";

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or no key, in a PEM text.
    #[error("{0} does not parse as PEM")]
    Pem(&'static str),
    /// rustls' own words.
    #[error("TLS configuration")]
    Rustls(#[from] rustls::Error),
    /// rustls' own words on a set of authorities.
    #[error("TLS configuration")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The hub's own certificate.
    #[error("TLS configuration")]
    Authority(#[from] AuthorityError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn root_store(roots: &[String]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for pem in roots {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            store.add(certificate.map_err(|_| TlsError::Pem("authority"))?)?;
        }
    }
    if store.is_empty() {
        Err(TlsError::Pem("authority"))
    } else {
        Ok(store)
    }
}

/// Whom to accept as the hub.
#[derive(Debug)]
enum Anchor {
    /// Any of these authorities.
    Roots(RootCertStore),
    /// The authority with this fingerprint, which the hub must send along.
    Pinned([u8; 32]),
}

/// Whether an expired certificate is overlooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Matters,
    /// Only to ask for the time, whose signature is what is believed then.
    Overlooked,
}

/// Verifies a hub at the best known time.
#[derive(Debug)]
struct HubVerifier {
    anchor: Anchor,
    expiry: Expiry,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for HubVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (not_before, not_after) = validity(end_entity)?;
        let at = match self.expiry {
            // Our authority signed this certificate, so the true time is not before it was issued: a clock that says
            // otherwise is wrong, and is no reason to lock the device out.
            Expiry::Matters => now.as_secs().max(not_before),
            Expiry::Overlooked => now.as_secs().clamp(not_before, not_after),
        };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match &self.anchor {
            Anchor::Roots(roots) => {
                verify_server_cert_signed_by_trust_anchor(
                    &certificate,
                    roots,
                    intermediates,
                    at,
                    algorithms,
                )?;
            }
            Anchor::Pinned(fingerprint) => {
                let found = intermediates.iter().find(|der| {
                    let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(der).into();
                    hash == *fingerprint
                });
                let Some(authority) = found else {
                    return Err(CertificateError::UnknownIssuer.into());
                };
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone().into_owned())?;
                verify_server_cert_signed_by_trust_anchor(
                    &certificate,
                    &roots,
                    intermediates,
                    at,
                    algorithms,
                )?;
            }
        }
        let name = ServerName::try_from(HUB_NAME).expect("the constant is a DNS name");
        verify_server_name(&certificate, &name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), rustls::Error> {
    let bad = || rustls::Error::from(CertificateError::BadEncoding);
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| bad())?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).map_err(|_| bad());
    Ok((
        seconds(parsed.validity().not_before)?,
        seconds(parsed.validity().not_after)?,
    ))
}

/// Lets rustls ask the keeper for the time.
#[derive(Debug)]
struct Keeper(Arc<TimeKeeper>);

/// Lets rustls ask the hub's clock for the time.
#[derive(Debug)]
struct HubClock(Arc<dyn Clock>);

impl rustls::time_provider::TimeProvider for Keeper {
    fn current_time(&self) -> Option<UnixTime> {
        unix(self.0.now())
    }
}

impl rustls::time_provider::TimeProvider for HubClock {
    fn current_time(&self) -> Option<UnixTime> {
        unix(self.0.now())
    }
}

fn unix(time: Timestamp) -> Option<UnixTime> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// What a device shows: certificate chain and key, both PEM.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) certificate: &'a str,
    pub(crate) key: &'a str,
}

fn device(
    anchor: Anchor,
    expiry: Expiry,
    time: &Arc<TimeKeeper>,
    shown: Option<Shown<'_>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = HubVerifier {
        anchor,
        expiry,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Keeper(time.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| TlsError::Pem("certificate"))?;
            let key =
                PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).map_err(|_| TlsError::Pem("key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Tickets save a device little, and would let a session outlive the certificate that opened it.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// For the first connection: trusts the authority of the token, shows nothing.
pub(crate) fn enrolling(authority: [u8; 32], time: &Arc<TimeKeeper>) -> Result<Arc<ClientConfig>, TlsError> {
    device(Anchor::Pinned(authority), Expiry::Matters, time, None)
}

/// For a device that is known: trusts the bundle, shows a certificate.
pub(crate) fn known(
    roots: &[String],
    time: &Arc<TimeKeeper>,
    shown: Shown<'_>,
) -> Result<Arc<ClientConfig>, TlsError> {
    device(
        Anchor::Roots(root_store(roots)?),
        Expiry::Matters,
        time,
        Some(shown),
    )
}

/// To ask for the time: overlooks expiry, shows nothing.
pub(crate) fn asking_time(roots: &[String], time: &Arc<TimeKeeper>) -> Result<Arc<ClientConfig>, TlsError> {
    device(Anchor::Roots(root_store(roots)?), Expiry::Overlooked, time, None)
}

/// For people: trusts the authority in `ca` (PEM) and checks the name that was dialled, at the machine's time.
///
/// # Errors
/// [`TlsError::Pem`].
pub fn person(ca: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let roots = Arc::new(root_store(&[ca.to_owned()])?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The hub's side: one configuration at a time, exchanged whole when certificate or authorities change.
#[derive(Debug)]
pub struct HubTls(RwLock<Arc<ServerConfig>>);

impl HubTls {
    /// Makes the first one. A client certificate is asked for and verified where it is shown; that a route needs one is
    /// the route's business.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(authority: &Authority, names: &[String]) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(server(authority, names)?)))
    }

    /// The present one, for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a new one with a new certificate: regularly, and after each step of a roll-over.
    ///
    /// # Errors
    /// See [`TlsError`]; the old one stays then.
    pub fn refresh(&self, authority: &Authority, names: &[String]) -> Result<(), TlsError> {
        let fresh = server(authority, names)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn server(authority: &Authority, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let roots = Arc::new(root_store(&authority.roots())?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (chain, key) = authority.server(names)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(HubClock(authority.clock())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A ticket would let a device in after its certificate expired.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
