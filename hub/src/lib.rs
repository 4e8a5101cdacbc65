//! The cloud side: what the fleet said, who may join it, and how people see it.
//!
//! Takes: devices' sessions and people's requests, on one TLS listener.
//! Gives: enrolment and certificates, [`store`] (what was received, kept before it is acknowledged), signed intents,
//! an OCI registry, telemetry that can be asked by SQL, the JSON API,
//! and [`dashboard`] (pages for people).
//! Never: reaches into a device; a device runs what Git says, and the hub only listens and states intent.
//!
//! A device is known by its certificate alone, a person by a bearer token; nothing else in a request is believed.

mod api;
mod authority;
mod caller;
mod config;
pub mod dashboard;
mod enrol;
mod file;
mod forward;
mod history;
mod ingest;
mod logs;
mod pages;
mod problem;
mod registry;
mod rollouts;
mod server;
mod session;
mod sessions;
pub mod store;

pub use crate::history::HistoryConfig;
pub use config::HubConfig;
pub use file::{FileConfig, FileConfigError};
pub use forward::{BadForwarder, ForwarderConfig, ForwarderKind};

use crate::history::History;
use blobs::Registry;
use caller::Quiet;
use identity::tls::{HubTls, TlsError};
use identity::{Authority, AuthorityError, PersonToken};
use jiff::Timestamp;
use kit::Tasks;
use sessions::Sessions;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use store::{Role, Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Its state.
    #[error("open the hub's state")]
    Store(#[from] StoreError),
    /// Its authority.
    #[error("open the hub's authority")]
    Authority(#[from] AuthorityError),
    /// Its TLS configuration.
    #[error("make the hub's TLS configuration")]
    Tls(#[from] TlsError),
    /// Its images.
    #[error("open the hub's registry")]
    Registry(#[from] blobs::StoreError),
    /// Its telemetry.
    #[error("open the folder of telemetry")]
    History(#[source] std::io::Error),
    /// Its forwarders.
    #[error(transparent)]
    Forwarder(#[from] BadForwarder),
    /// Its address.
    #[error("listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What all routes share.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    store: Store,
    authority: RwLock<Authority>,
    tls: HubTls,
    sessions: Sessions,
    registry: Registry,
    history: History,
    board: forward::Board,
    openings: Arc<Semaphore>,
    quiet: Quiet,
    tasks: Tasks,
}

/// A hub that listens and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    hub: Arc<Hub>,
    listener: TcpListener,
    address: SocketAddr,
    admin_token: Option<String>,
}

impl Hub {
    /// Opens the state and binds the listener. The first start makes the authority and a token for `admin`.
    ///
    /// # Errors
    /// See [`HubError`].
    pub async fn build(config: HubConfig) -> Result<Bound, HubError> {
        ForwarderConfig::check_all(&config.forwarders)?;
        let options = store::Options {
            clock: config.clock.clone(),
            heartbeat: config.heartbeat,
            missed: config.missed,
            check: history::check,
            ..store::Options::default()
        };
        let store = Store::open_with(&config.data, options)?;
        // Records wait for a forwarder from before the first of them comes.
        let cursors = config.forwarders.iter();
        let cursors = cursors.map(|forwarder| (forwarder.name.clone(), forwarder.streams()));
        store.set_forwarders(cursors.collect()).await?;
        let authority = Authority::open(&config.data.join("ca"), &config.domain, config.clock.clone())?;
        let tls = HubTls::new(&authority, &config.all_names())?;
        let registry = registry::open(&config.data.join("blobs"))?;
        let history = History::open(&config.data).map_err(HubError::History)?;
        let admin_token = if store.has_people().await? && !config.reset_admin {
            None
        } else {
            let token = PersonToken::generate().reveal();
            store
                .set_person("admin", &token, Role::Admin, None, "hub")
                .await?;
            Some(token)
        };
        let listen = |source| HubError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let hub = Arc::new(Self {
            store,
            authority: RwLock::new(authority),
            tls,
            sessions: Sessions::default(),
            registry,
            history,
            board: forward::Board::default(),
            openings: Arc::new(Semaphore::new(config.openings)),
            quiet: Quiet::default(),
            tasks: Tasks::new(),
            config,
        });
        Ok(Bound {
            hub,
            listener,
            address,
            admin_token,
        })
    }

    /// What the hub knows.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its images: what is published here can be pulled by every device.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The hub's settings.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// The issuing authority's certificate (PEM): whom people's tools are to trust.
    pub fn ca(&self) -> String {
        self.with_authority(|authority| authority.certificate().to_owned())
    }

    /// Moves the authority on: one step of a roll-over, see [`Authority`]. Open sessions are told at once.
    ///
    /// # Errors
    /// See [`AuthorityError`] and [`TlsError`].
    pub fn roll_over(
        &self,
        step: impl FnOnce(&mut Authority) -> Result<(), AuthorityError>,
    ) -> Result<(), HubError> {
        {
            let mut authority = self.authority.write().unwrap_or_else(PoisonError::into_inner);
            step(&mut authority)?;
            self.tls.refresh(&authority, &self.config.all_names())?;
        }
        // A session that opens again gets the new bundle in its welcome.
        self.sessions.bye_all("the hub's authority has changed", 1);
        Ok(())
    }

    fn with_authority<T>(&self, look: impl FnOnce(&Authority) -> T) -> T {
        look(&self.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    fn quiet(&self) -> &Quiet {
        &self.quiet
    }
}

impl Bound {
    /// Where the hub listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token of `admin`: at the first start and where a new one was asked for; kept nowhere but with who reads it
    /// here.
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref()
    }

    /// The hub itself.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Answers until `stop` ends, then says goodbye to sessions and waits for what is under way.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        server::run(self.hub, self.listener, stop).await;
    }
}
