//! The pod network of one device.
//!
//! Takes: pods' network namespaces, their host ports, Services with their ready pods.
//! Gives: an address for each pod, a virtual address and a name for each Service, ports on the device, DNS.
//! All of it needs neither a default route nor a resolver, and outlives the agent: addresses are in a file before
//! they are given, links and nftables live in the kernel. Everything happens in the network namespace that the
//! agent was started in.
//! Never: makes or keeps a pod's namespace, decides what runs, or touches another's nftables table (a rule that
//! lets pods' packets pass goes into iptables' `FORWARD` and `INPUT` only where these would drop them).

mod bridge;
mod cidr;
mod dns;
mod error;
mod firewall;
mod foreign;
mod leases;
mod netlink;
pub mod netns;
mod nfnetlink;
mod ports;
mod services;
mod upkeep;

pub use cidr::{BadCidr, Cidr};
pub use error::NetworkError;
pub use ports::{BadHostIp, HostPort};
pub use services::{PodAddress, ServiceId};

use dns::Zone;
use firewall::{Firewall, Forwarded, Front};
use leases::{Lease, Leases};
use model::{PodId, ServiceRun};
use netlink::Netlink;
use nfnetlink::Netfilter;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How the network is laid out.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Name of the bridge, and of the nftables table.
    pub bridge: String,
    /// Addresses of pods; the first is the device's own on the bridge.
    pub pod_cidr: Cidr,
    /// Virtual addresses of Services.
    pub service_cidr: Cidr,
    /// Folder for the address leases.
    pub state_dir: PathBuf,
    /// Resolvers for names outside the cluster; those of `/etc/resolv.conf`, as they change, where absent.
    pub dns: Option<Vec<SocketAddr>>,
    /// Suffix of all cluster names, without dots at its ends.
    pub cluster_domain: String,
}

impl NetworkConfig {
    /// The ranges and names used where nobody says otherwise. They stay clear of those of K3s, podman and Docker,
    /// which may run on the same device.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            bridge: "leeward0".into(),
            pod_cidr: Cidr::around(Ipv4Addr::new(10, 46, 0, 0), 16),
            service_cidr: Cidr::around(Ipv4Addr::new(10, 47, 0, 0), 16),
            state_dir: state_dir.into(),
            dns: None,
            cluster_domain: "cluster.local".into(),
        }
    }

    fn check(&self) -> Result<(), NetworkError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &self.bridge;
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 15 || !name.chars().all(plain)
        {
            return Err(NetworkError::BridgeName(name.clone()));
        }
        // Names of Services and ports stand in front of it, and 253 is the most in all (RFC 1035).
        let short = self.cluster_domain.len() <= 64;
        if !short || !self.cluster_domain.split('.').all(services::is_label) {
            return Err(NetworkError::ClusterDomain(self.cluster_domain.clone()));
        }
        let ranges = |problem| NetworkError::Ranges {
            pods: self.pod_cidr,
            services: self.service_cidr,
            problem,
        };
        if self.pod_cidr.overlaps(self.service_cidr) {
            return Err(ranges("they overlap: choose two that do not"));
        }
        let usable = 8..=29;
        if !usable.contains(&self.pod_cidr.prefix()) || !usable.contains(&self.service_cidr.prefix()) {
            return Err(ranges("prefixes must be between 8 and 29"));
        }
        Ok(())
    }
}

/// Interface name in every pod.
const POD_INTERFACE: &str = "eth0";

/// The pod network; cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NetworkConfig,
    gateway: Ipv4Addr,
    firewall: Firewall,
    state: Mutex<State>,
    zone: Arc<RwLock<Zone>>,
    /// Held by the one that answers DNS.
    answering: tokio::sync::Mutex<()>,
}

/// What changes; one change at a time.
#[derive(Debug)]
struct State {
    leases: Leases,
    netlink: Netlink,
    netfilter: Netfilter,
    bridge: u32,
    /// What the table holds for Services; unknown until the first publication of this process.
    published: Option<Vec<Front>>,
    /// The generation of the rules in which all of ours were last seen.
    seen: Option<u32>,
}

impl Network {
    /// Makes the bridge and the table, or takes over those of an earlier process with all that hangs on them.
    ///
    /// Blocks for some ten milliseconds; call it at start, in the network namespace that the pods' shall join.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        config.check()?;
        let mut netlink = Netlink::open().map_err(failed("open rtnetlink"))?;
        let running = bridge::has_ports(&config.bridge, &mut netlink)?;
        let leases = Leases::open(&config.state_dir, config.pod_cidr, config.service_cidr, running)?;
        let gateway = leases.gateway();
        let netfilter = Netfilter::open().map_err(failed("open netfilter's netlink"))?;
        bridge::refuse_overlap(&config, &leases, &mut netlink)?;
        let bridge = bridge::ensure_bridge(&config, gateway, &mut netlink)?;
        let firewall = Firewall {
            bridge: config.bridge.clone(),
            pods: config.pod_cidr,
            services: config.service_cidr,
        };
        firewall.ensure()?;
        foreign::let_pass(&config.bridge);
        let mut zone = Zone::new(
            &config.cluster_domain,
            config.pod_cidr,
            config.service_cidr,
            gateway,
        );
        zone.set_pods(leases.pods().map(|l| (l.address, l.pod.clone())));
        let state = State {
            leases,
            netlink,
            netfilter,
            bridge,
            published: None,
            seen: None,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                gateway,
                firewall,
                state: Mutex::new(state),
                zone: Arc::new(RwLock::new(zone)),
                answering: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// The device's address on the pod network: gateway and resolver of all pods, and the address to publish
    /// for pods on the device's own network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    /// Gives `pod` its address and joins its network namespace, at `netns`, to the bridge; opens its host ports.
    ///
    /// The same pod again gets the same address; where its link is as it should be, nothing is changed.
    pub async fn attach(
        &self,
        pod: &PodId,
        netns: &Path,
        ports: &[HostPort],
    ) -> Result<Ipv4Addr, NetworkError> {
        let (pod, netns, ports) = (pod.clone(), netns.to_owned(), ports.to_vec());
        self.blocking(move |inner| inner.attach(&pod, &netns, &ports))
            .await
    }

    /// Takes back all that `pod` was given. A pod that has nothing is no error; its namespace may be gone.
    pub async fn detach(&self, pod: &PodId) -> Result<(), NetworkError> {
        let pod = pod.clone();
        self.blocking(move |inner| inner.detach(&mut inner.lock(), &pod))
            .await
    }

    /// Detaches every pod that is not among `pods`: what an earlier process left behind.
    pub async fn retain(&self, pods: &BTreeSet<PodId>) -> Result<(), NetworkError> {
        let pods = pods.clone();
        self.blocking(move |inner| inner.retain(&pods)).await
    }

    /// Makes these the device's Services: virtual addresses, node ports and names. The same again costs nothing.
    ///
    /// `addresses` names the pods that may stand behind them. A Service that cannot be published as it stands is
    /// left out and told in the error; it must not keep the others' endpoints from moving on.
    pub async fn publish(
        &self,
        services: &[ServiceRun],
        addresses: &BTreeMap<PodId, PodAddress>,
    ) -> Result<(), NetworkError> {
        let (services, addresses) = (services.to_vec(), addresses.clone());
        self.blocking(move |inner| inner.publish(&services, &addresses))
            .await
    }

    /// The virtual address of a Service, once published.
    pub fn service_address(&self, service: &ServiceId) -> Option<Ipv4Addr> {
        self.inner.lock().leases.service(service)
    }

    /// `/etc/resolv.conf` for the containers of a pod in `namespace` (resolv.conf(5)).
    pub fn resolv_conf(&self, namespace: &str) -> String {
        let Inner { config, gateway, .. } = &*self.inner;
        let domain = &config.cluster_domain;
        format!(
            "search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {gateway}\noptions ndots:5\n"
        )
    }

    /// Answers DNS on the gateway's address, UDP and TCP port 53. Ends only when it cannot listen; run it in a
    /// task that starts it again, as it holds nothing but a cache. A second one waits for the first to be dropped.
    pub fn serve_dns(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = self.inner.clone();
        async move {
            let _only = inner.answering.lock().await;
            let listen = SocketAddr::from((inner.gateway, 53));
            let upstreams = dns::Upstreams::new(inner.config.dns.clone(), listen.ip());
            dns::serve(listen, inner.zone.clone(), upstreams).await;
        }
    }

    /// Puts back what others took away: a firewall's reload often flushes every table (`nft flush ruleset`), and
    /// Docker sets its policies when it starts. Looks every few seconds, at the cost of one small question to the
    /// kernel while nothing changes. Never ends; run it in a task.
    pub fn keep_up(&self) -> impl Future<Output = ()> + Send + 'static {
        let network = self.clone();
        async move {
            let first = tokio::time::Instant::now() + upkeep::INTERVAL;
            let mut tick = tokio::time::interval_at(first, upkeep::INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Err(err) = network.blocking(Inner::put_back).await {
                    tracing::warn!(error = kit::chain(&err), "the pod network is not as it should be");
                }
            }
        }
    }

    /// Removes the bridge, all links to pods, the table and the leases. `ip_forward` stays on: by now another
    /// program may count on it.
    pub async fn clean_up(&self) -> Result<(), NetworkError> {
        self.blocking(|inner| inner.clean_up()).await
    }

    /// Runs blocking work off the async workers. Threads of the pool share the process's network namespace.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only while the whole runtime is being torn down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zone(&self) -> std::sync::RwLockWriteGuard<'_, Zone> {
        self.zone.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, pod: &PodId, netns: &Path, ports: &[HostPort]) -> Result<Ipv4Addr, NetworkError> {
        let bad_netns = |source| NetworkError::Netns {
            pod: pod.clone(),
            path: netns.to_owned(),
            source,
        };
        let mut state = self.lock();
        let before = state.leases.pod(pod).cloned();
        self.refuse_taken_ports(&state, pod, ports, before.as_ref())?;
        let namespace = File::open(netns).map_err(bad_netns)?;
        let mut inside = netns::enter(&namespace, Netlink::open)
            .and_then(|opened| opened)
            .map_err(bad_netns)?;
        let address = state.leases.give(pod, ports)?;
        let done = self
            .join(&mut state, &mut inside, &namespace, pod, address)
            .and_then(|()| self.forward(before.as_ref(), address, ports));
        if let Err(err) = done {
            if before.is_none()
                && let Err(left) = self.detach(&mut state, pod)
            {
                tracing::warn!(%pod, error = kit::chain(&left), "not cleaned up after a failed attach");
            }
            return Err(err);
        }
        self.zone()
            .set_pods(state.leases.pods().map(|l| (l.address, l.pod.clone())));
        self.forget_stray_flows(&mut state, ports, Some(address));
        Ok(address)
    }

    /// Brings the link up, from the bridge to the pod's default route.
    fn join(
        &self,
        state: &mut State,
        inside: &mut Netlink,
        namespace: &File,
        pod: &PodId,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let name = link_name(address);
        let what = format!("join pod {pod} to bridge {}", self.config.bridge);
        let mut make = || -> io::Result<()> {
            if let Some(old) = state.netlink.link(&name)? {
                if old.controller == Some(state.bridge) && has_address(inside, address)? {
                    return Ok(());
                }
                state.netlink.remove_link(old.index)?;
            }
            state
                .netlink
                .add_veth(&name, state.bridge, POD_INTERFACE, address, namespace)?;
            let outer = state.netlink.link(&name)?.ok_or(io::ErrorKind::NotFound)?;
            state.netlink.set_hairpin(outer.index)?;
            if let Some(loopback) = inside.link("lo")? {
                inside.set_up(loopback.index)?;
            }
            let inner = inside.link(POD_INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
            // A network of one address: everything, other pods included, goes by the device. So answers to a
            // Service's endpoint come back through the rules that translated them, with or without br_netfilter.
            inside.add_address(inner.index, address, 32)?;
            inside.set_up(inner.index)?;
            inside.add_route(Cidr::around(self.gateway, 32), inner.index, None)?;
            let everywhere = Cidr::around(Ipv4Addr::UNSPECIFIED, 0);
            inside.add_route(everywhere, inner.index, Some(self.gateway))
        };
        make().map_err(failed(what))
    }

    fn forward(
        &self,
        before: Option<&Lease>,
        address: Ipv4Addr,
        ports: &[HostPort],
    ) -> Result<(), NetworkError> {
        if let Some(old) = before.filter(|old| old.ports != ports) {
            self.firewall.close_ports(&forwarded(old))?;
        }
        let open: Vec<Forwarded> = ports
            .iter()
            .map(|port| Forwarded {
                port: port.clone(),
                pod: address,
            })
            .collect();
        self.firewall.open_ports(&open)
    }

    fn refuse_taken_ports(
        &self,
        state: &State,
        pod: &PodId,
        ports: &[HostPort],
        before: Option<&Lease>,
    ) -> Result<(), NetworkError> {
        for port in ports {
            for lease in state.leases.pods().filter(|lease| lease.pod != *pod) {
                if lease.ports.iter().any(|held| held.clashes(port)) {
                    return Err(NetworkError::PortOfPod {
                        pod: pod.clone(),
                        port: port.to_string(),
                        holder: lease.pod.clone(),
                    });
                }
            }
            let fronts = state.published.iter().flatten();
            if let Some(front) = fronts
                .filter(|f| f.protocol == port.protocol)
                .find(|f| f.node_port == Some(port.host_port))
            {
                return Err(NetworkError::PortOfService {
                    pod: pod.clone(),
                    port: port.to_string(),
                    holder: front.service.clone(),
                });
            }
            if before.is_some_and(|lease| lease.ports.contains(port)) {
                continue;
            }
            if let Some(holder) = ports::listener(port) {
                return Err(NetworkError::PortOfDevice {
                    pod: pod.clone(),
                    port: port.to_string(),
                    holder,
                });
            }
        }
        Ok(())
    }

    fn detach(&self, state: &mut State, pod: &PodId) -> Result<(), NetworkError> {
        let Some(lease) = state.leases.pod(pod).cloned() else {
            return Ok(());
        };
        self.firewall.close_ports(&forwarded(&lease))?;
        let name = link_name(lease.address);
        state
            .netlink
            .link(&name)
            .and_then(|link| link.map_or(Ok(()), |link| state.netlink.remove_link(link.index)))
            .map_err(failed(format!("remove link {name} of pod {pod}")))?;
        state.leases.take_back(pod)?;
        self.forget_stray_flows(state, &lease.ports, None);
        self.zone()
            .set_pods(state.leases.pods().map(|l| (l.address, l.pod.clone())));
        Ok(())
    }

    fn retain(&self, pods: &BTreeSet<PodId>) -> Result<(), NetworkError> {
        let mut state = self.lock();
        let gone: Vec<PodId> = state
            .leases
            .pods()
            .map(|lease| lease.pod.clone())
            .filter(|pod| !pods.contains(pod))
            .collect();
        for pod in gone {
            self.detach(&mut state, &pod)?;
        }
        let known: BTreeSet<String> = state.leases.pods().map(|l| link_name(l.address)).collect();
        self.remove_links(&mut state, |name| !known.contains(name))
    }

    fn publish(
        &self,
        services: &[ServiceRun],
        addresses: &BTreeMap<PodId, PodAddress>,
    ) -> Result<(), NetworkError> {
        let mut state = self.lock();
        let mut refused = Vec::new();
        let services = services::named_well(services, &mut refused);
        let virtual_ones = services
            .iter()
            .filter(|service| !service.headless)
            .map(ServiceId::of);
        state.leases.give_services(&virtual_ones.collect())?;
        let mut fronts = services::resolve(&services, addresses, &state.leases);
        services::refuse_node_ports(&mut fronts, &state, &mut refused);
        match &state.published {
            Some(old) if *old == fronts => {}
            Some(old) => self.firewall.replace_fronts(old, &fronts)?,
            None => {
                let ports: Vec<Forwarded> = state.leases.pods().flat_map(forwarded).collect();
                self.firewall.rebuild(&ports, &fronts)?;
            }
        }
        self.forget_moved_flows(&mut state, &fronts);
        state.published = Some(fronts);
        self.zone()
            .set_services(services::zone_entries(&services, addresses, &state.leases));
        if refused.is_empty() {
            Ok(())
        } else {
            Err(NetworkError::ServicesRefused(refused))
        }
    }

    fn clean_up(&self) -> Result<(), NetworkError> {
        let mut state = self.lock();
        self.firewall.remove()?;
        foreign::no_longer(&self.config.bridge);
        self.remove_links(&mut state, |_| true)?;
        let bridge = state.bridge;
        state
            .netlink
            .remove_link(bridge)
            .map_err(failed(format!("remove bridge {}", self.config.bridge)))?;
        state.published = None;
        state.leases.remove()
    }

    /// Removes those ports of our bridge that `choose` picks by name.
    fn remove_links(&self, state: &mut State, choose: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let links = state.netlink.links().map_err(failed("list links"))?;
        for link in links {
            if link.controller == Some(state.bridge) && choose(&link.name) {
                state
                    .netlink
                    .remove_link(link.index)
                    .map_err(failed(format!("remove link {}", link.name)))?;
            }
        }
        Ok(())
    }
}

/// The device's end of a pod's link: the address in hexadecimal, as interface names are short.
fn link_name(address: Ipv4Addr) -> String {
    format!("lwp{:08x}", u32::from(address))
}

fn forwarded(lease: &Lease) -> Vec<Forwarded> {
    let to_pod = |port: &HostPort| Forwarded {
        port: port.clone(),
        pod: lease.address,
    };
    lease.ports.iter().map(to_pod).collect()
}

fn has_address(inside: &mut Netlink, address: Ipv4Addr) -> io::Result<bool> {
    Ok(inside.addresses()?.iter().any(|held| held.address == address))
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let what = what.into();
    move |source| NetworkError::Link { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_its_remedy() {
        let good = NetworkConfig::new("/nowhere");
        assert!(good.check().is_ok());
        let refused = |change: fn(&mut NetworkConfig)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check().unwrap_err().to_string()
        };
        for (text, want) in [
            (refused(|c| c.bridge = "much-too-long-name".into()), "1 to 15"),
            (refused(|c| c.bridge = "a\"; drop".into()), "1 to 15"),
            (refused(|c| c.cluster_domain = ".local".into()), "cluster.local"),
            (
                refused(|c| c.cluster_domain = "a.".repeat(40) + "a"),
                "64 characters",
            ),
            (refused(|c| c.service_cidr = c.pod_cidr), "overlap"),
            (
                refused(|c| c.pod_cidr = Cidr::around(Ipv4Addr::LOCALHOST, 32)),
                "between 8 and 29",
            ),
        ] {
            assert!(text.contains(want), "{text}");
        }
    }
}
