//! The cluster's own names, by Kubernetes' DNS specification 1.1.0 (`dns-based service discovery`).

use super::super::ServiceId;
use super::super::cidr::Cidr;
use hickory_proto::rr::rdata::{A, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use model::{PodId, Protocol};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Seconds that others may keep our answers. Pods move; the way to us is short.
const TTL: u32 = 5;

/// What is known of one Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneService {
    /// The virtual address; none where headless.
    pub address: Option<Ipv4Addr>,
    /// Host name and address of each ready pod.
    pub pods: Vec<(String, Ipv4Addr)>,
    /// Its ports that have a name.
    pub ports: Vec<NamedPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// See [`Protocol`].
    pub protocol: Protocol,
    /// Port of the Service.
    pub port: u16,
    /// Address and port of each ready pod.
    pub targets: Vec<(Ipv4Addr, u16)>,
}

/// What the zone says to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Records for the answer section, then for the additional one.
    Records(Vec<Record>, Vec<Record>),
    /// The name is there, the type is not.
    NoData,
    /// No such name.
    NoName,
    /// Another's name.
    NotOurs,
}

/// All cluster names of the device.
#[derive(Debug)]
pub struct Zone {
    domain: Vec<String>,
    pod_cidr: Cidr,
    service_cidr: Cidr,
    services: BTreeMap<ServiceId, ZoneService>,
    pods: BTreeMap<Ipv4Addr, PodId>,
    /// The device's own.
    gateway: Ipv4Addr,
}

/// What the device itself serves to pods has a name as a Service would: a real one of that name goes before it.
const OWN: (&str, &str) = ("otlp", "leeward");

impl Zone {
    /// A zone with no name in it.
    pub fn new(domain: &str, pod_cidr: Cidr, service_cidr: Cidr, gateway: Ipv4Addr) -> Self {
        Self {
            domain: domain.split('.').map(str::to_owned).collect(),
            pod_cidr,
            service_cidr,
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            gateway,
        }
    }

    /// Replaces all Services.
    pub fn set_services(&mut self, services: BTreeMap<ServiceId, ZoneService>) {
        self.services = services;
    }

    /// Replaces all pods.
    pub fn set_pods(&mut self, pods: impl Iterator<Item = (Ipv4Addr, PodId)>) {
        self.pods = pods.collect();
    }

    /// The zone's start of authority, for answers that say no.
    pub fn authority(&self) -> Record {
        let server = self.name(&["ns", "dns"]);
        let mail = self.name(&["hostmaster"]);
        let soa = SOA::new(server, mail, 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.name(&[]), TTL, RData::SOA(soa))
    }

    /// Answers one question.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Said {
        let labels: Vec<String> = name
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        if let Some(address) = reverse(&labels) {
            return self.pointer(name, kind, address);
        }
        let Some(inner) = labels.len().checked_sub(self.domain.len()) else {
            return Said::NotOurs;
        };
        if labels[inner..] != self.domain {
            return Said::NotOurs;
        }
        let inner: Vec<&str> = labels[..inner].iter().map(String::as_str).collect();
        let found = match inner.as_slice() {
            // Names that only lead to others.
            [] | ["svc" | "pod"] => Some(Vec::new()),
            [namespace, "svc" | "pod"] => self.knows(namespace).then(Vec::new),
            [pod, namespace, "pod"] => self.pod(pod, namespace),
            [service, namespace, "svc"] => self.service(service, namespace),
            [port, protocol, service, namespace, "svc"] if port.starts_with('_') => {
                return self.port(name, kind, port, protocol, &[service, namespace]);
            }
            [pod, service, namespace, "svc"] => self.pod_of_service(pod, service, namespace),
            _ => None,
        };
        match found {
            None => Said::NoName,
            Some(addresses) if kind == RecordType::A && !addresses.is_empty() => {
                let records = addresses.into_iter().map(|address| a(name.clone(), address));
                Said::Records(records.collect(), Vec::new())
            }
            Some(_) => Said::NoData,
        }
    }

    fn knows(&self, namespace: &str) -> bool {
        namespace == OWN.1
            || self.services.keys().any(|id| id.namespace == namespace)
            || self.pods.values().any(|pod| pod.namespace == namespace)
    }

    fn find(&self, service: &str, namespace: &str) -> Option<&ZoneService> {
        self.services.get(&ServiceId {
            namespace: namespace.to_owned(),
            name: service.to_owned(),
        })
    }

    fn service(&self, service: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let Some(entry) = self.find(service, namespace) else {
            return ((service, namespace) == OWN).then(|| vec![self.gateway]);
        };
        Some(match entry.address {
            Some(address) => vec![address],
            None => entry.pods.iter().map(|(_, address)| *address).collect(),
        })
    }

    /// `<hostname or dashed address>.<service>.<namespace>.svc`, one pod behind a Service.
    fn pod_of_service(&self, pod: &str, service: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let entry = self.find(service, namespace)?;
        let mut matching = entry.pods.iter().filter(|(hostname, address)| {
            (entry.address.is_none() && hostname == pod) || dashed(*address) == pod
        });
        matching.next().map(|(_, address)| vec![*address])
    }

    /// `<dashed address>.<namespace>.pod`.
    fn pod(&self, pod: &str, namespace: &str) -> Option<Vec<Ipv4Addr>> {
        let address: Ipv4Addr = pod.replace('-', ".").parse().ok()?;
        let owner = self.pods.get(&address)?;
        (owner.namespace == namespace).then(|| vec![address])
    }

    /// `_<port>._<protocol>.<service>.<namespace>.svc` (RFC 2782).
    fn port(&self, name: &Name, kind: RecordType, port: &str, protocol: &str, service: &[&str; 2]) -> Said {
        let protocol = match protocol {
            "_tcp" => Protocol::Tcp,
            "_udp" => Protocol::Udp,
            _ => return Said::NoName,
        };
        let Some(entry) = self.find(service[0], service[1]) else {
            return Said::NoName;
        };
        let wanted = port.strip_prefix('_');
        let mut named = entry.ports.iter().filter(|port| port.protocol == protocol);
        let Some(found) = named.find(|port| wanted == Some(&port.name)) else {
            return Said::NoName;
        };
        if kind != RecordType::SRV {
            return Said::NoData;
        }
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut add = |target: Name, port: u16, address: Ipv4Addr| {
            let srv = SRV::new(0, 100, port, target.clone());
            answers.push(Record::from_rdata(name.clone(), TTL, RData::SRV(srv)));
            additionals.push(a(target, address));
        };
        let [service, namespace] = *service;
        match entry.address {
            Some(address) => add(self.name(&[service, namespace, "svc"]), found.port, address),
            None => {
                for (address, port) in &found.targets {
                    let target = self.name(&[&dashed(*address), service, namespace, "svc"]);
                    add(target, *port, *address);
                }
            }
        }
        if answers.is_empty() {
            Said::NoData
        } else {
            Said::Records(answers, additionals)
        }
    }

    /// Who has an address of ours.
    fn pointer(&self, name: &Name, kind: RecordType, address: Ipv4Addr) -> Said {
        let target = if self.service_cidr.contains(address) {
            let found = self.services.iter().find(|(_, s)| s.address == Some(address));
            found.map(|(id, _)| self.name(&[&id.name, &id.namespace, "svc"]))
        } else if self.pod_cidr.contains(address) {
            let found = self.pods.get(&address);
            found.map(|pod| self.name(&[&dashed(address), &pod.namespace, "pod"]))
        } else {
            return Said::NotOurs;
        };
        match target {
            None => Said::NoName,
            Some(target) if kind == RecordType::PTR => {
                let record = Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
                Said::Records(vec![record], Vec::new())
            }
            Some(_) => Said::NoData,
        }
    }

    /// `labels` below the cluster's domain. All of them are labels that were checked or asked for.
    fn name(&self, labels: &[&str]) -> Name {
        let domain = self.domain.iter().map(String::as_str);
        let all = labels.iter().copied().chain(domain);
        let mut name =
            Name::from_labels(all.map(str::as_bytes)).expect("checked labels, shorter than 255 in all");
        name.set_fqdn(true);
        name
    }
}

fn a(name: Name, address: Ipv4Addr) -> Record {
    Record::from_rdata(name, TTL, RData::A(A(address)))
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// The address that a name below `in-addr.arpa` stands for (RFC 1035 section 3.5).
fn reverse(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new(
            "cluster.local",
            "10.46.0.0/16".parse().unwrap(),
            "10.47.0.0/16".parse().unwrap(),
            Ipv4Addr::new(10, 46, 0, 1),
        );
        let pod = |last| Ipv4Addr::new(10, 46, 0, last);
        let id = |name: &str| ServiceId {
            namespace: "shop".into(),
            name: name.into(),
        };
        let pods = vec![("db-0".to_owned(), pod(2)), ("db-1".to_owned(), pod(3))];
        let ports = vec![NamedPort {
            name: "sql".into(),
            protocol: Protocol::Tcp,
            port: 5432,
            targets: vec![(pod(2), 15432), (pod(3), 15432)],
        }];
        zone.set_services(BTreeMap::from([
            (
                id("web"),
                ZoneService {
                    address: Some(Ipv4Addr::new(10, 47, 1, 1)),
                    pods: pods.clone(),
                    ports: ports.clone(),
                },
            ),
            (
                id("db"),
                ZoneService {
                    address: None,
                    pods,
                    ports,
                },
            ),
            (id("empty"), ZoneService::default()),
        ]));
        let pod_id = PodId {
            namespace: "shop".into(),
            name: "db-0".into(),
        };
        zone.set_pods([(pod(2), pod_id)].into_iter());
        zone
    }

    fn ask(name: &str, kind: RecordType) -> String {
        match zone().answer(&Name::from_ascii(name).unwrap(), kind) {
            Said::Records(answers, additionals) => {
                let texts = answers.iter().chain(&additionals).map(|r| r.data.to_string());
                texts.collect::<Vec<_>>().join(", ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn services_answer_by_kubernetes_specification() {
        use RecordType::{A, AAAA, PTR, SRV};
        for (name, kind, want) in [
            ("web.shop.svc.cluster.local.", A, "10.47.1.1"),
            ("WEB.Shop.svc.cluster.LOCAL.", A, "10.47.1.1"),
            ("web.shop.svc.cluster.local.", AAAA, "NoData"),
            ("db.shop.svc.cluster.local.", A, "10.46.0.2, 10.46.0.3"),
            ("db-1.db.shop.svc.cluster.local.", A, "10.46.0.3"),
            ("10-46-0-3.db.shop.svc.cluster.local.", A, "10.46.0.3"),
            ("10-46-0-2.shop.pod.cluster.local.", A, "10.46.0.2"),
            ("10-46-0-2.other.pod.cluster.local.", A, "NoName"),
            ("empty.shop.svc.cluster.local.", A, "NoData"),
            ("none.shop.svc.cluster.local.", A, "NoName"),
            ("web.other.svc.cluster.local.", A, "NoName"),
            ("shop.svc.cluster.local.", A, "NoData"),
            ("otlp.leeward.svc.cluster.local.", A, "10.46.0.1"),
            ("otlp.leeward.svc.cluster.local.", AAAA, "NoData"),
            ("leeward.svc.cluster.local.", A, "NoData"),
            ("other.leeward.svc.cluster.local.", A, "NoName"),
            ("otlp.shop.svc.cluster.local.", A, "NoName"),
            ("example.com.cluster.local.", A, "NoName"),
            ("example.com.", A, "NotOurs"),
            ("local.", A, "NotOurs"),
            (
                "_sql._tcp.web.shop.svc.cluster.local.",
                SRV,
                "0 100 5432 web.shop.svc.cluster.local., 10.47.1.1",
            ),
            (
                "_sql._tcp.db.shop.svc.cluster.local.",
                SRV,
                "0 100 15432 10-46-0-2.db.shop.svc.cluster.local., \
                 0 100 15432 10-46-0-3.db.shop.svc.cluster.local., 10.46.0.2, 10.46.0.3",
            ),
            ("_sql._udp.db.shop.svc.cluster.local.", SRV, "NoName"),
            ("1.1.47.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
            (
                "2.0.46.10.in-addr.arpa.",
                PTR,
                "10-46-0-2.shop.pod.cluster.local.",
            ),
            ("9.0.46.10.in-addr.arpa.", PTR, "NoName"),
            ("1.2.0.192.in-addr.arpa.", PTR, "NotOurs"),
        ] {
            assert_eq!(ask(name, kind), want, "{name} {kind}");
        }
    }
}
