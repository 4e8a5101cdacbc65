//! The embedded engine with all that it stands on: keys, registries, images, pod network.

use crate::config::{Config, Registry};
use crate::flow::{Agent, Seams, Task};
use crate::orders::ENGINE;
use crate::traces::Door;
use anyhow::{Context as _, Result};
use blobs::{
    Credentials, Endpoint, Images, Patience, Quota, Registries, RegistryConfig, Store, Tls, UnpackOptions,
};
use device::{Class, FactsReader};
use identity::DeviceKeys;
use kit::{Clock, SystemClock};
use plan::Limits;
use runtime::embedded::network::{Network, NetworkConfig};
use runtime::embedded::{Embedded, EmbeddedConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Images that nothing used for this long are removed when space is wanted anyway, once an hour at most.
const IMAGE_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs a device with the embedded engine until `stop` resolves. Needs no network to start what it last ran.
///
/// # Errors
/// Where the state cannot be opened or the configuration names what cannot be.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    kit::disk::create_dir_all(&config.state).with_context(|| config.state.display().to_string())?;
    let class = Class::find(&config.class)?;
    let facts = FactsReader::new(&config.sysroot, &config.state).read(clock.since_boot());
    let allocatable = class.allocatable(&facts);
    let keys =
        DeviceKeys::open(&config.state.join("identity"), Arc::clone(&clock)).context("the device's keys")?;
    let keys = Arc::new(Mutex::new(keys));
    let registries = Registries::new(Patience::default());
    for registry in config.registries.iter().filter(|registry| !registry.hub) {
        registries.configure(&registry.host, foreign(registry)?)?;
    }
    let store = Store::open(&config.state.join("blobs"), Quota::default()).context("the blob store")?;
    let images = Images::open(
        &config.state.join("images"),
        store,
        registries.clone(),
        UnpackOptions::for_this_process(),
    )
    .context("the images")?;
    let network_config = network_config(&config)?;
    let pods = network_config.pod_cidr;
    let network = Network::open(network_config).context("the pod network")?;
    let door = Door {
        address: network.gateway(),
        pods,
    };
    if config.cgroup == runtime::NO_CGROUPS {
        tracing::warn!("cgroup: none; the CPU and memory limits of containers are not held");
    }
    let mut engine_config = EmbeddedConfig::new(config.state.join(ENGINE), config.cgroup.clone());
    if config.hub.is_some() && config.traces.collect {
        engine_config.otlp = config.traces.ports.first().copied();
    }
    let engine = Embedded::open(engine_config, Arc::new(images.clone()), Some(network)).await?;

    let (renewed, renewals) = watch::channel(0);
    let hub_registries = HubRegistries::of(&config, registries, Arc::clone(&keys));
    let seams = Seams {
        engine: Arc::new(engine),
        clock,
        keys,
        limits: Limits {
            cpu_milli: allocatable.cpu_milli,
            memory: allocatable.memory,
            seccomp: true,
        },
        path: config.path.clone().unwrap_or_else(|| class.folder.clone()),
        renewed,
        door: Some(door),
        beside: vec![
            Task::new("registries", hub_registries.follow(renewals)),
            Task::new("collect", collect(images)),
        ],
    };
    Agent::build(config, seams)?.run(stop).await;
    Ok(())
}

fn network_config(config: &Config) -> Result<NetworkConfig> {
    let mut network = NetworkConfig::new(config.state.join("network"));
    if let Some(cidr) = &config.pod_cidr {
        network.pod_cidr = cidr.parse().context("network.podCIDR")?;
    }
    if let Some(cidr) = &config.service_cidr {
        network.service_cidr = cidr.parse().context("network.serviceCIDR")?;
    }
    if let Some(bridge) = &config.bridge {
        network.bridge = bridge.clone();
    }
    Ok(network)
}

fn foreign(registry: &Registry) -> Result<RegistryConfig> {
    let url = registry
        .url
        .clone()
        .unwrap_or_else(|| format!("https://{}", registry.host));
    let mut endpoint = if url.starts_with("http://") {
        Endpoint::plain(&url)
    } else {
        Endpoint::new(&url)
    };
    if let Some(pem) = &registry.ca {
        let roots = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("the CA file of registry {}", registry.host))?;
        endpoint.tls = Tls::Roots(roots);
    }
    endpoint.credentials = registry
        .login
        .clone()
        .map(|(user, password)| Credentials::Basic { user, password });
    Ok(RegistryConfig::at(endpoint))
}

/// The hub's registry is reached with the device's certificate, which comes with enrolment and changes with renewal.
struct HubRegistries {
    hosts: Vec<(String, String)>,
    registries: Registries,
    keys: Arc<Mutex<DeviceKeys>>,
}

impl HubRegistries {
    fn of(config: &Config, registries: Registries, keys: Arc<Mutex<DeviceKeys>>) -> Self {
        let hub = config
            .hub
            .as_ref()
            .map(|hub| format!("https://{}", hub.address))
            .unwrap_or_default();
        let url = |registry: &Registry| registry.url.clone().unwrap_or_else(|| hub.clone());
        let hosts = config
            .registries
            .iter()
            .filter(|r| r.hub)
            .map(|registry| (registry.host.clone(), url(registry)))
            .collect();
        Self {
            hosts,
            registries,
            keys,
        }
    }

    async fn follow(self, mut renewals: watch::Receiver<u64>) {
        loop {
            self.configure();
            if renewals.changed().await.is_err() {
                // The uplink has gone; the certificate will not change any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn configure(&self) {
        let tls = self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .session_tls();
        // Before enrolment there is nothing to show, and pulls fail with the registry's own words.
        let Ok(tls) = tls else { return };
        for (host, url) in &self.hosts {
            let mut endpoint = Endpoint::new(url);
            endpoint.tls = Tls::Config(Arc::clone(&tls));
            if let Err(err) = self.registries.configure(host, RegistryConfig::at(endpoint)) {
                tracing::error!(host, err = kit::chain(&err), "the hub's registry cannot be used");
            }
        }
    }
}

async fn collect(images: Images) {
    loop {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let images = images.clone();
        match tokio::task::spawn_blocking(move || images.collect(IMAGE_GRACE)).await {
            Ok(Ok(collected)) => tracing::debug!(?collected, "images collected"),
            Ok(Err(err)) => tracing::warn!(err = kit::chain(&err), "images cannot be collected"),
            Err(_) => return,
        }
    }
}
