//! Flows that the kernel remembers too long, and rules that others removed.

use super::firewall::{Forwarded, Front};
use super::nfnetlink::Flow;
use super::ports::HostPort;
use super::{Inner, NetworkError, State, foreign, forwarded};
use model::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often the rules are looked after.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Pods' addresses and ports behind one port of a Service.
type Endpoints = BTreeSet<(Ipv4Addr, u16)>;

impl Inner {
    /// Datagrams have no connection that ends: as long as a client goes on sending, the kernel sends them where the
    /// first one went. So whenever a port's destination changes, flows to the old one are forgotten; else a sender
    /// that was there before its pod would never reach it.
    pub(super) fn forget_stray_flows(&self, state: &mut State, ports: &[HostPort], pod: Option<Ipv4Addr>) {
        let ports: Vec<&HostPort> = ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
            .collect();
        if ports.is_empty() {
            return;
        }
        let local = self.own_addresses(state);
        self.forget(state, |flow| {
            let (address, number) = flow.asked;
            let ours = ports.iter().any(|port| {
                port.host_port == number && port.host_ip.map_or(local.contains(&address), |ip| ip == address)
            });
            ours && Some(flow.answers.0) != pod
        });
    }

    /// The same for Services: flows to pods that are no longer behind the port they asked for. Flows to those that
    /// still are go on.
    pub(super) fn forget_moved_flows(&self, state: &mut State, new: &[Front]) {
        let udp = |front: &&Front| front.protocol == Protocol::Udp;
        let old = state.published.as_deref().unwrap_or_default();
        if old.iter().filter(udp).eq(new.iter().filter(udp)) {
            return;
        }
        let mut at: BTreeMap<(Ipv4Addr, u16), Endpoints> = BTreeMap::new();
        let mut at_node: BTreeMap<u16, Endpoints> = BTreeMap::new();
        // Ports that are no longer there lead to nobody.
        for front in old.iter().filter(udp) {
            at.entry((front.address, front.port)).or_default();
            front.node_port.map(|port| at_node.entry(port).or_default());
        }
        for front in new.iter().filter(udp) {
            let endpoints = front.endpoints.iter().copied();
            at.entry((front.address, front.port))
                .or_default()
                .extend(endpoints.clone());
            if let Some(port) = front.node_port {
                at_node.entry(port).or_default().extend(endpoints);
            }
        }
        let local = self.own_addresses(state);
        self.forget(state, |flow| {
            let by_node = || {
                at_node
                    .get(&flow.asked.1)
                    .filter(|_| local.contains(&flow.asked.0))
            };
            let endpoints = at.get(&flow.asked).or_else(by_node);
            endpoints.is_some_and(|endpoints| !endpoints.contains(&flow.answers))
        });
    }

    /// Rebuilds the table where it is not whole, and lets pods' packets pass others' firewalls. Costs next to
    /// nothing while the rules of the whole namespace are as they were.
    pub(super) fn put_back(&self) -> Result<(), NetworkError> {
        let mut state = self.lock();
        // A kernel that does not tell is looked at every time.
        let generation = state.netfilter.generation().ok();
        if generation.is_some() && generation == state.seen {
            return Ok(());
        }
        if !self.firewall.is_whole()? {
            tracing::warn!(
                table = self.config.bridge,
                "another program removed the pods' rules; putting them back"
            );
            let ports: Vec<Forwarded> = state.leases.pods().flat_map(forwarded).collect();
            self.firewall
                .rebuild(&ports, state.published.as_deref().unwrap_or_default())?;
        }
        foreign::let_pass(&self.config.bridge);
        // That from before the look: what another program changed meanwhile is seen the next time, as is what was
        // put back just now, once.
        state.seen = generation;
        Ok(())
    }

    fn own_addresses(&self, state: &mut State) -> BTreeSet<Ipv4Addr> {
        let assigned = state.netlink.addresses().unwrap_or_default();
        assigned.into_iter().map(|held| held.address).collect()
    }

    fn forget(&self, state: &mut State, choose: impl Fn(Flow) -> bool) {
        match state.netfilter.forget_flows(choose) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "forgot flows of datagrams to where they no longer belong"),
            Err(err) => {
                tracing::warn!(error = %err, "old flows of datagrams may go on to pods that are gone")
            }
        }
    }
}
