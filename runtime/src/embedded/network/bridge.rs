//! The bridge that all pods hang on.

use super::cidr::Cidr;
use super::leases::Leases;
use super::netlink::Netlink;
use super::{NetworkConfig, NetworkError, failed};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Whether a bridge of this name is there and has pods.
pub fn has_ports(name: &str, netlink: &mut Netlink) -> Result<bool, NetworkError> {
    let links = netlink.links().map_err(failed("list links"))?;
    let bridge = links.iter().find(|link| link.name == name).map(|link| link.index);
    Ok(bridge.is_some() && links.iter().any(|link| link.controller == bridge))
}

/// A range that the device's own network uses would cut it off. A network that moved into a range of ours later
/// is only told: the pods must start all the same.
pub fn refuse_overlap(
    config: &NetworkConfig,
    leases: &Leases,
    netlink: &mut Netlink,
) -> Result<(), NetworkError> {
    let own = netlink
        .link(&config.bridge)
        .map_err(failed("look for the bridge"))?
        .map(|link| link.index);
    let assigned = netlink.addresses().map_err(failed("list addresses"))?;
    for held in assigned.iter().filter(|held| Some(held.link) != own) {
        let network = Cidr::around(held.address, held.prefix);
        for range in [config.pod_cidr, config.service_cidr] {
            if !range.overlaps(network) {
                continue;
            }
            let err = NetworkError::RangeInUse {
                range,
                address: held.address,
                prefix: held.prefix,
            };
            if leases.pods().next().is_none() {
                return Err(err);
            }
            tracing::warn!(error = %err, "addresses may be out of reach");
        }
    }
    Ok(())
}

/// Makes the bridge, its address, the route to Services and the kernel's settings; what is there already stays.
pub fn ensure_bridge(
    config: &NetworkConfig,
    gateway: Ipv4Addr,
    netlink: &mut Netlink,
) -> Result<u32, NetworkError> {
    let name = &config.bridge;
    let mut make = || -> io::Result<u32> {
        let bridge = match netlink.link(name)? {
            Some(link) => link,
            None => {
                netlink.add_bridge(name, gateway)?;
                netlink.link(name)?.ok_or(io::ErrorKind::NotFound)?
            }
        };
        netlink.add_address(bridge.index, gateway, config.pod_cidr.prefix())?;
        netlink.set_up(bridge.index)?;
        // Without a route the device itself could not reach a Service while it has no default route.
        netlink.add_route(config.service_cidr, bridge.index, None)?;
        Ok(bridge.index)
    };
    let index = make().map_err(failed(format!("make bridge {name}")))?;
    let settings = PathBuf::from("/proc/sys/net/ipv4");
    set(&settings.join("ip_forward"))?;
    // Lets 127.0.0.1:hostPort reach a pod; the table's guard keeps pods from the device's loopback.
    set(&settings.join("conf").join(name).join("route_localnet"))?;
    Ok(index)
}

/// Turns a kernel setting of the calling thread's network namespace on.
fn set(path: &Path) -> Result<(), NetworkError> {
    let wrong = |source| NetworkError::Setting {
        path: path.to_owned(),
        source,
    };
    // Written only where needed: a read-only /proc/sys may be set up right.
    if fs::read_to_string(path).map_err(wrong)?.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1").map_err(wrong)
}
