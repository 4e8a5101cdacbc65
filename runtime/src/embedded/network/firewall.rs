//! nftables: one table of our own, changed in whole transactions by `nft -f -`.
//!
//! Verdict maps lead from an address and port to a chain; so one more pod or Service is one more element and
//! chain, and no rule that others pass is ever rewritten. Maps to chains, not NAT maps: those need nft 0.9.4,
//! and JetPack 5 (Ubuntu 20.04) has 0.9.3.

use super::cidr::Cidr;
use super::ports::{HostPort, word};
use super::{NetworkError, ServiceId};
use model::Protocol;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The table's fixed facts.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// Name of the bridge, and of the table.
    pub bridge: String,
    /// Addresses of pods.
    pub pods: Cidr,
    /// Virtual addresses of Services.
    pub services: Cidr,
}

/// One port of a Service, resolved to addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    /// Whose port it is.
    pub service: ServiceId,
    /// The virtual address.
    pub address: Ipv4Addr,
    /// Port at that address.
    pub port: u16,
    /// Port on the device.
    pub node_port: Option<u16>,
    /// See [`Protocol`].
    pub protocol: Protocol,
    /// A client stays with its pod.
    pub client_affinity: bool,
    /// Address and port of each ready pod; never empty.
    pub endpoints: Vec<(Ipv4Addr, u16)>,
}

impl Front {
    fn chain(&self) -> String {
        let Self { service, port, .. } = self;
        format!("service/{service}/{}/{port}", word(self.protocol))
    }
}

/// A pod's port of the device, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The device's side.
    pub port: HostPort,
    /// The pod's address.
    pub pod: Ipv4Addr,
}

impl Forwarded {
    fn chain(&self) -> String {
        let address = self.port.host_ip.map_or("all".to_owned(), |ip| ip.to_string());
        format!(
            "port/{address}/{}/{}",
            word(self.port.protocol),
            self.port.host_port
        )
    }

    /// `map` and its element, without the verdict.
    fn element(&self) -> (&'static str, String) {
        let rest = format!("{} . {}", word(self.port.protocol), self.port.host_port);
        match self.port.host_ip {
            Some(address) => ("address-ports", format!("{address} . {rest}")),
            None => ("device-ports", rest),
        }
    }
}

impl Firewall {
    /// Makes the table where it is absent. A table that is there keeps its Services and ports: pods outlive the
    /// agent, and so must the way to them.
    pub fn ensure(&self) -> Result<(), NetworkError> {
        let kept = format!("{}{}", self.skeleton(), self.rules());
        match run(&kept) {
            // Another version's table may have other types under these names.
            Err(NetworkError::Nft { .. }) => run(&format!("{}{kept}", self.removal())),
            done => done,
        }
    }

    /// Whether the table is there with the rules that lead to Services and ports.
    pub fn is_whole(&self) -> Result<bool, NetworkError> {
        let output = program("nft")
            .args(["list", "table", "ip", &self.bridge])
            .output()
            .map_err(|source| NetworkError::NoNft { source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rules = [
            "jump dispatch",
            "vmap @services",
            "vmap @node-ports",
            "@hairpin masquerade",
        ];
        Ok(output.status.success() && rules.iter().all(|rule| text.contains(rule)))
    }

    /// Replaces everything at once by these ports and Services.
    pub fn rebuild(&self, ports: &[Forwarded], fronts: &[Front]) -> Result<(), NetworkError> {
        let mut text = format!("{}{}{}", self.removal(), self.skeleton(), self.rules());
        for port in ports {
            self.add_port(&mut text, port);
        }
        self.add_fronts(&mut text, fronts);
        run(&text)
    }

    /// Opens ports of the device towards a pod.
    pub fn open_ports(&self, ports: &[Forwarded]) -> Result<(), NetworkError> {
        let mut text = String::new();
        for port in ports {
            self.add_port(&mut text, port);
        }
        run(&text)
    }

    /// Closes ports that were opened before.
    pub fn close_ports(&self, ports: &[Forwarded]) -> Result<(), NetworkError> {
        let table = &self.bridge;
        let mut text = String::new();
        for port in ports {
            let (map, key) = port.element();
            let chain = port.chain();
            // Added first, so that one that is gone already is no error.
            line(&mut text, format_args!("add chain ip {table} {chain}"));
            let verdict = format!("{{ {key} : goto {chain} }}");
            line(&mut text, format_args!("add element ip {table} {map} {verdict}"));
            line(
                &mut text,
                format_args!("delete element ip {table} {map} {{ {key} }}"),
            );
            line(&mut text, format_args!("flush chain ip {table} {chain}"));
            line(&mut text, format_args!("delete chain ip {table} {chain}"));
        }
        run(&text)
    }

    /// Replaces the Services `old` by `new` in one transaction.
    pub fn replace_fronts(&self, old: &[Front], new: &[Front]) -> Result<(), NetworkError> {
        let table = &self.bridge;
        let mut text = String::new();
        for map in ["services", "node-ports"] {
            line(&mut text, format_args!("flush map ip {table} {map}"));
        }
        let chains = || old.iter().map(Front::chain).chain(endpoint_chains(old));
        for verb in ["flush", "delete"] {
            for chain in chains() {
                line(&mut text, format_args!("{verb} chain ip {table} {chain}"));
            }
        }
        self.add_fronts(&mut text, new);
        run(&text)
    }

    /// Removes the table and what was put into others' chains.
    pub fn remove(&self) -> Result<(), NetworkError> {
        run(&self.removal())
    }

    fn removal(&self) -> String {
        let table = &self.bridge;
        format!("add table ip {table}\ndelete table ip {table}\n")
    }

    fn skeleton(&self) -> String {
        let table = &self.bridge;
        format!(
            "\
add table ip {table}
add map ip {table} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map ip {table} node-ports {{ type inet_proto . inet_service : verdict; }}
add map ip {table} device-ports {{ type inet_proto . inet_service : verdict; }}
add map ip {table} address-ports {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add set ip {table} hairpin {{ type ipv4_addr . ipv4_addr; }}
add chain ip {table} guard {{ type filter hook prerouting priority -300; policy accept; }}
add chain ip {table} prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain ip {table} output-nat {{ type nat hook output priority -100; policy accept; }}
add chain ip {table} dispatch
add chain ip {table} postrouting {{ type nat hook postrouting priority 100; policy accept; }}
add chain ip {table} forward {{ type filter hook forward priority 0; policy accept; }}
add chain ip {table} output {{ type filter hook output priority 0; policy accept; }}
add chain ip {table} unserved
"
        )
    }

    fn rules(&self) -> String {
        let Self {
            bridge: table,
            pods,
            services,
        } = self;
        let mut text = String::new();
        let rules: &[(&str, &[String])] = &[
            (
                "guard",
                &[
                    // route_localnet lets the device's loopback be forwarded to pods; never the other way round.
                    format!("iifname \"{table}\" ip daddr 127.0.0.0/8 drop"),
                    format!("iifname \"{table}\" ip saddr != {pods} drop"),
                ],
            ),
            ("prerouting", &["jump dispatch".to_owned()]),
            ("output-nat", &["jump dispatch".to_owned()]),
            (
                "dispatch",
                &[
                    "ip daddr . meta l4proto . th dport vmap @services".to_owned(),
                    "fib daddr type != local return".to_owned(),
                    "ip daddr . meta l4proto . th dport vmap @address-ports".to_owned(),
                    "meta l4proto . th dport vmap @device-ports".to_owned(),
                    "meta l4proto . th dport vmap @node-ports".to_owned(),
                ],
            ),
            (
                "postrouting",
                &[
                    // A pod that reaches itself by a Service would get packets from its own address.
                    "ip saddr . ip daddr @hairpin masquerade".to_owned(),
                    format!("ip saddr 127.0.0.0/8 oifname \"{table}\" masquerade"),
                    format!(
                        "ip saddr {pods} ip daddr != {pods} oifname != {{ \"{table}\", \"lo\" }} masquerade"
                    ),
                ],
            ),
            ("forward", &[format!("ip daddr {services} goto unserved")]),
            (
                "output",
                &[
                    format!("ip daddr {services} goto unserved"),
                    // Pods reach one another through the device; they need not be told of a shorter way.
                    format!("oifname \"{table}\" icmp type redirect drop"),
                ],
            ),
            // What is still addressed to a Service here has no ready pod: say so at once.
            (
                "unserved",
                &[
                    "meta l4proto tcp reject with tcp reset".to_owned(),
                    "reject".to_owned(),
                ],
            ),
        ];
        for (chain, rules) in rules {
            line(&mut text, format_args!("flush chain ip {table} {chain}"));
            for rule in *rules {
                line(&mut text, format_args!("add rule ip {table} {chain} {rule}"));
            }
        }
        text
    }

    fn add_port(&self, text: &mut String, port: &Forwarded) {
        let table = &self.bridge;
        let chain = port.chain();
        let (map, key) = port.element();
        line(text, format_args!("add chain ip {table} {chain}"));
        line(text, format_args!("flush chain ip {table} {chain}"));
        self.add_destination(
            text,
            &chain,
            port.port.protocol,
            port.pod,
            port.port.container_port,
        );
        line(
            text,
            format_args!("add element ip {table} {map} {{ {key} : goto {chain} }}"),
        );
        self.add_hairpin(text, port.pod);
    }

    fn add_fronts(&self, text: &mut String, fronts: &[Front]) {
        let table = &self.bridge;
        let endpoints: BTreeSet<_> = fronts
            .iter()
            .flat_map(|front| front.endpoints.iter().map(|e| (front.protocol, *e)))
            .collect();
        for (protocol, (address, port)) in endpoints {
            let chain = endpoint_chain(protocol, address, port);
            line(text, format_args!("add chain ip {table} {chain}"));
            self.add_destination(text, &chain, protocol, address, port);
            self.add_hairpin(text, address);
        }
        for front in fronts {
            let (chain, protocol, port) = (front.chain(), word(front.protocol), front.port);
            line(text, format_args!("add chain ip {table} {chain}"));
            line(
                text,
                format_args!("add rule ip {table} {chain} {}", spread(front)),
            );
            let key = format!("{} . {protocol} . {port}", front.address);
            line(
                text,
                format_args!("add element ip {table} services {{ {key} : goto {chain} }}"),
            );
            if let Some(node_port) = front.node_port {
                let key = format!("{protocol} . {node_port}");
                line(
                    text,
                    format_args!("add element ip {table} node-ports {{ {key} : goto {chain} }}"),
                );
            }
        }
    }

    fn add_destination(
        &self,
        text: &mut String,
        chain: &str,
        protocol: Protocol,
        address: Ipv4Addr,
        port: u16,
    ) {
        let (table, protocol) = (&self.bridge, word(protocol));
        line(
            text,
            format_args!("add rule ip {table} {chain} meta l4proto {protocol} dnat to {address}:{port}"),
        );
    }

    fn add_hairpin(&self, text: &mut String, pod: Ipv4Addr) {
        let table = &self.bridge;
        line(
            text,
            format_args!("add element ip {table} hairpin {{ {pod} . {pod} }}"),
        );
    }
}

/// The statement that picks an endpoint for a new connection.
fn spread(front: &Front) -> String {
    let chain = |(address, port): &(Ipv4Addr, u16)| endpoint_chain(front.protocol, *address, *port);
    if let [only] = front.endpoints.as_slice() {
        return format!("goto {}", chain(only));
    }
    let choices: Vec<String> = front
        .endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| format!("{number} : goto {}", chain(endpoint)))
        .collect();
    // By the client's address there is nothing to remember and nothing to lose; a client moves only when the number
    // of pods changes.
    let by = if front.client_affinity {
        "jhash ip saddr"
    } else {
        "numgen random"
    };
    // The seed is any number; without it the kernel picks another one at each change.
    let seed = if front.client_affinity {
        " seed 0x6c7765"
    } else {
        ""
    };
    format!(
        "{by} mod {}{seed} vmap {{ {} }}",
        choices.len(),
        choices.join(", ")
    )
}

fn endpoint_chain(protocol: Protocol, address: Ipv4Addr, port: u16) -> String {
    format!("endpoint/{}/{address}/{port}", word(protocol))
}

fn endpoint_chains(fronts: &[Front]) -> BTreeSet<String> {
    fronts
        .iter()
        .flat_map(|front| {
            front
                .endpoints
                .iter()
                .map(|(address, port)| endpoint_chain(front.protocol, *address, *port))
        })
        .collect()
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .and_then(|()| text.write_char('\n'))
        .expect("text in memory takes all");
}

/// Runs one transaction; all of it holds, or nothing.
pub(super) fn run(transaction: &str) -> Result<(), NetworkError> {
    if transaction.is_empty() {
        return Ok(());
    }
    let mut child = program("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| NetworkError::NoNft { source })?;
    let mut input = child.stdin.take().expect("its input is a pipe");
    // A program that ends early says why on its error output; that is read below.
    let sent = input.write_all(transaction.as_bytes());
    drop(input);
    let output = child
        .wait_with_output()
        .map_err(|source| NetworkError::NoNft { source })?;
    if output.status.success() && sent.is_ok() {
        return Ok(());
    }
    tracing::debug!(transaction, "nft refused");
    Err(NetworkError::Nft {
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// A system program, also where the agent's `PATH` leaves out the folders for administrators.
pub(super) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
