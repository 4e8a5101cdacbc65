//! What a hub needs to know before it starts.

use crate::forward::ForwarderConfig;
use crate::history::HistoryConfig;
use jiff::SignedDuration;
use kit::{Clock, SystemClock};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a hub; [`HubConfig::new`] gives the usual ones.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Where devices and people connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of all state: `hub.db`, `ca/`, `blobs/`, `history/`.
    pub data: PathBuf,
    /// Trust domain in every certificate; fixed at the first start.
    pub domain: String,
    /// Names and addresses by which people's tools reach the hub; this machine's own are added.
    pub names: Vec<String>,
    /// Makes a new token for `admin` although there is one: the old one was lost.
    pub reset_admin: bool,
    /// How often a session is pinged.
    pub heartbeat: Duration,
    /// Heartbeats of silence after which a session is closed and the device's health is unknown.
    pub missed: u32,
    /// Life of operational certificates.
    pub operational_life: SignedDuration,
    /// Connections at the same time; more are closed as they come.
    pub connections: usize,
    /// TLS handshakes at the same time; others wait for a place.
    pub handshakes: usize,
    /// Sessions being opened at the same time; others are told to come back.
    pub openings: usize,
    /// What is kept of telemetry.
    pub history: HistoryConfig,
    /// Where telemetry is sent onward.
    pub forwarders: Vec<ForwarderConfig>,
    /// The hub's time.
    pub clock: Arc<dyn Clock>,
}

impl HubConfig {
    /// The usual settings.
    pub fn new(listen: SocketAddr, data: PathBuf) -> Self {
        Self {
            listen,
            data,
            domain: "leeward".into(),
            names: Vec::new(),
            reset_admin: false,
            heartbeat: Duration::from_secs(15),
            missed: 3,
            operational_life: identity::OPERATIONAL_LIFE,
            connections: 100_000,
            handshakes: 1024,
            openings: 256,
            history: HistoryConfig::default(),
            forwarders: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// All names that the hub's certificate holds.
    pub(crate) fn all_names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(host.trim().to_owned());
        }
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(self.names.iter().cloned());
        names.sort();
        names.dedup();
        // A host may carry a name that no certificate can.
        names.retain(|name| {
            !name.is_empty() && rustls::pki_types::ServerName::try_from(name.as_str()).is_ok()
        });
        names
    }
}
