//! How a registry is reached.

use super::{Credentials, RegistryError};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long to try.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Wait after the first failure; doubles.
    pub first_wait: Duration,
    /// The longest wait, also where a registry asks for more.
    pub longest_wait: Duration,
    /// Failures in a row, without a byte in between, after which a transfer gives up. What came is kept.
    pub failures: u32,
    /// For a connection to come about.
    pub connect: Duration,
    /// For the next byte to come.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            failures: 5,
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

/// The places where one registry's content is to be had.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Tried in order: mirrors first, the registry itself last. Pushes go to the last.
    pub endpoints: Vec<Endpoint>,
}

impl RegistryConfig {
    /// A registry with one place.
    pub fn at(endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint],
        }
    }

    /// `https` at the host's own name.
    pub(super) fn default_for(host: &str) -> Self {
        // The registry of Docker's hub does not live at the name that references carry.
        let host = if host == "docker.io" {
            "registry-1.docker.io"
        } else {
            host
        };
        Self::at(Endpoint::new(&format!("https://{host}")))
    }
}

/// One place: a registry or a mirror of it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Base URL; `/v2/` follows it.
    pub url: String,
    /// Whether `http` is allowed here, which anyone on the way can read and change.
    pub plain_http: bool,
    /// How the connection is secured.
    pub tls: Tls,
    /// Who we are, unless a pull brings its own credentials.
    pub credentials: Option<Credentials>,
}

impl Endpoint {
    /// `https` with the system's roots, anonymous.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            plain_http: false,
            tls: Tls::System,
            credentials: None,
        }
    }

    /// Allows `http`.
    pub fn plain(url: &str) -> Self {
        Self {
            plain_http: true,
            ..Self::new(url)
        }
    }
}

/// Whom to trust, and whether to show a certificate.
#[derive(Debug, Clone)]
pub enum Tls {
    /// The system's root certificates.
    System,
    /// The system's and these (DER).
    Roots(Vec<CertificateDer<'static>>),
    /// A configuration made elsewhere, with a client certificate for example.
    Config(Arc<ClientConfig>),
}

impl Tls {
    fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let extra = match self {
            Self::Config(config) => return Ok(ClientConfig::clone(config)),
            Self::System => [].as_slice(),
            Self::Roots(extra) => extra,
        };
        // Read once: a device has hundreds of them. One without any can still use its own registry.
        static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
        let system = SYSTEM.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        });
        let mut roots = system.clone();
        for root in extra {
            roots.add(root.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

/// A registry, ready to be asked.
#[derive(Debug)]
pub(super) struct Host {
    pub places: Vec<Arc<Place>>,
}

#[derive(Debug)]
pub(super) struct Place {
    pub base: Url,
    pub client: reqwest::Client,
    pub credentials: Option<Credentials>,
    pub plain_http: bool,
}

impl Host {
    pub fn new(name: &str, config: RegistryConfig, patience: &Patience) -> Result<Self, RegistryError> {
        let places: Result<Vec<_>, _> = config
            .endpoints
            .into_iter()
            .map(|endpoint| Place::new(name, endpoint, patience).map(Arc::new))
            .collect();
        let places = places?;
        if places.is_empty() {
            return Err(RegistryError::Config {
                registry: name.to_owned(),
                why: "it has no endpoint".to_owned(),
            });
        }
        Ok(Self { places })
    }
}

impl Place {
    fn new(registry: &str, endpoint: Endpoint, patience: &Patience) -> Result<Self, RegistryError> {
        let bad = |why: String| RegistryError::Config {
            registry: registry.to_owned(),
            why,
        };
        let base = Url::parse(&endpoint.url).map_err(|err| bad(format!("URL {:?}: {err}", endpoint.url)))?;
        match base.scheme() {
            "https" => {}
            "http" if endpoint.plain_http => {}
            "http" => {
                return Err(bad(format!(
                    "{base} is not encrypted; use https, or allow plain http for it explicitly"
                )));
            }
            other => return Err(bad(format!("scheme {other:?} of {base} is not https"))),
        }
        let tls = endpoint
            .tls
            .client_config()
            .map_err(|err| bad(format!("TLS: {err}")))?;
        let plain_http = endpoint.plain_http;
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.url().scheme() == "http" && !plain_http {
                attempt.error("redirected from https to http")
            } else if attempt.previous().len() > 5 {
                attempt.error("redirected more than five times")
            } else {
                attempt.follow()
            }
        });
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("leeward/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience.connect)
            .read_timeout(patience.silence)
            .redirect(redirects)
            // A device asks rarely; open connections would only cost memory and keep-alives.
            .pool_idle_timeout(Duration::from_secs(20))
            .build()
            .map_err(|err| bad(kit::chain(&err)))?;
        Ok(Self {
            base,
            client,
            credentials: endpoint.credentials,
            plain_http,
        })
    }

    /// The URL of `rest` below `/v2/` here.
    pub fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let text = format!("{}/v2/{rest}", self.base.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|err| RegistryError::Config {
            registry: self.base.to_string(),
            why: format!("URL {text:?}: {err}"),
        })
    }
}
