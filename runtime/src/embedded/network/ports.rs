//! Ports of the device: what a pod asks for, and who has it already.

use model::{PodRun, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::{fmt, fs};

/// A port of the device that leads to a port of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Address of the device that it listens at; all, 127.0.0.1 among them, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    /// Port on the device.
    pub host_port: u16,
    /// See [`Protocol`].
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
}

/// A `hostIP` that is no IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "hostIP {text:?} of port {port} is not an IPv4 address: give one of the device, or leave it out for all"
)]
pub struct BadHostIp {
    text: String,
    port: u16,
}

impl HostPort {
    /// The host ports that a pod's containers declare. A pod on the device's own network needs none.
    pub fn of_pod(pod: &PodRun) -> Result<Vec<Self>, BadHostIp> {
        let declared = pod.containers.iter().flat_map(|c| &c.ports);
        let mut ports = Vec::new();
        for port in declared.filter(|_| !pod.host_network) {
            let Some(host_port) = port.host_port else { continue };
            let host_ip = match port.host_ip.as_deref() {
                None | Some("" | "0.0.0.0") => None,
                Some(text) => Some(text.parse().map_err(|_| BadHostIp {
                    text: text.to_owned(),
                    port: host_port,
                })?),
            };
            ports.push(Self {
                host_ip,
                host_port,
                protocol: port.protocol,
                container_port: port.container_port,
            });
        }
        Ok(ports)
    }

    /// Whether both cannot be had at once.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        self.host_port == other.host_port
            && self.protocol == other.protocol
            && (self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.host_ip {
            write!(f, "{address}:")?;
        }
        write!(f, "{}/{}", self.host_port, word(self.protocol))
    }
}

/// nftables' and people's word for a protocol.
pub(super) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Who on the device itself listens at this port, as far as can be told; `None` where nobody does.
///
/// Asks in the calling thread's network namespace, by trying to bind.
pub(super) fn listener(port: &HostPort) -> Option<String> {
    let (kind, transport) = match port.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(transport)).ok()?;
    if port.protocol == Protocol::Tcp {
        // Connections that are only waiting out their time are no listeners.
        sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    }
    let address = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
    match bind(&socket, &SocketAddrV4::new(address, port.host_port)) {
        Err(rustix::io::Errno::ADDRINUSE) => Some(owner(port).unwrap_or_else(|| "a process".to_owned())),
        // Free, or not ours to judge (an address that the device does not have yet).
        _ => None,
    }
}

/// Name and process id of the socket's owner.
fn owner(port: &HostPort) -> Option<String> {
    let inodes: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|family| {
            fs::read_to_string(format!("/proc/thread-self/net/{}{family}", word(port.protocol))).ok()
        })
        .flat_map(|table| socket_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let mut processes = fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|process| {
        // `self` and other entries are no processes of their own.
        let id: u32 = process.file_name().to_str()?.parse().ok()?;
        let sockets = fs::read_dir(process.path().join("fd")).ok()?;
        let holds = sockets.flatten().any(|fd| {
            fs::read_link(fd.path())
                .is_ok_and(|target| inodes.iter().any(|i| target.as_os_str() == i.as_str()))
        });
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| format!("process {id} ({})", name.trim()))
    })
}

/// Inodes of the sockets bound to a port, from the text of `/proc/net/{tcp,udp}{,6}` (proc_net_tcp(5)).
fn socket_inodes(table: &str, port: &HostPort) -> Vec<String> {
    const LISTEN: &str = "0A";
    let ending = format!(":{:04X}", port.host_port);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let bound = fields.get(1)?.ends_with(&ending);
            let waits = port.protocol == Protocol::Udp || *fields.get(3)? == LISTEN;
            (bound && waits).then(|| fields.get(9).map(ToString::to_string))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn port(host_port: u16, protocol: Protocol) -> HostPort {
        HostPort {
            host_ip: None,
            host_port,
            protocol,
            container_port: 80,
        }
    }

    #[test]
    fn a_listener_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = port(tcp.local_addr().unwrap().port(), Protocol::Tcp);
        let name = listener(&taken).unwrap();
        assert!(name.contains(&std::process::id().to_string()), "{name}");
        drop(tcp);
        assert_eq!(listener(&taken), None);

        let udp = UdpSocket::bind("[::]:0").unwrap();
        let taken = port(udp.local_addr().unwrap().port(), Protocol::Udp);
        assert!(
            listener(&taken)
                .unwrap()
                .contains(&std::process::id().to_string())
        );
    }

    #[test]
    fn ports_clash_where_their_addresses_meet() {
        let all = port(80, Protocol::Tcp);
        let one = HostPort {
            host_ip: Some(Ipv4Addr::LOCALHOST),
            ..all.clone()
        };
        let other = HostPort {
            host_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
            ..all.clone()
        };
        assert!(all.clashes(&one) && one.clashes(&all));
        assert!(!one.clashes(&other));
        assert!(!all.clashes(&port(80, Protocol::Udp)));
    }
}
