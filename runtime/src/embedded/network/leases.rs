//! Who has which address, in a file before it is given out.
//!
//! Takes: names of pods and Services. Gives: addresses that stay the same over restarts of the agent, and mostly
//! over those of the device. Never: gives one address to two.
//!
//! The file is not synced. What must not be forgotten are addresses of running pods; a power cut ends these, so that
//! a file it spoils is of no use any more, and each pod starts without a wait for the disk.

use super::cidr::Cidr;
use super::ports::HostPort;
use super::{NetworkError, ServiceId};
use model::PodId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What one pod holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub pod: PodId,
    pub address: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HostPort>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceLease {
    service: ServiceId,
    address: Ipv4Addr,
}

/// The file's form. Lists rather than maps: JSON's keys are text, these are pairs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnDisk {
    version: u32,
    pod_cidr: Cidr,
    service_cidr: Cidr,
    next: u64,
    pods: Vec<Lease>,
    services: Vec<ServiceLease>,
}

const VERSION: u32 = 1;

/// The leases in memory; every change goes to the file first.
#[derive(Debug, Clone)]
pub struct Leases {
    file: PathBuf,
    pod_cidr: Cidr,
    service_cidr: Cidr,
    /// Where the search for a free pod address goes on, so that an address rests after its pod is gone.
    next: u64,
    pods: BTreeMap<PodId, Lease>,
    services: BTreeMap<ServiceId, Ipv4Addr>,
}

impl Leases {
    /// Reads the leases below `dir`. Those of other ranges are dropped: nothing of them can be kept. A file that a
    /// power cut spoiled is dropped, too, unless pods are `running`: then it was something else.
    pub fn open(dir: &Path, pod_cidr: Cidr, service_cidr: Cidr, running: bool) -> Result<Self, NetworkError> {
        let file = dir.join("leases.json");
        let read = |source| NetworkError::State {
            path: file.clone(),
            source,
        };
        kit::disk::create_dir_all(dir).map_err(read)?;
        let mut leases = Self {
            file: file.clone(),
            pod_cidr,
            service_cidr,
            next: 2,
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        if let Some(text) = kit::disk::read_if_there(&file).map_err(read)? {
            match serde_json::from_slice(&text) {
                Ok(held) => leases.take_over(held),
                Err(source) if running => return Err(NetworkError::Leases { path: file, source }),
                Err(source) => {
                    tracing::warn!(error = %source, "address leases spoiled; addresses are given anew")
                }
            }
        }
        Ok(leases)
    }

    fn take_over(&mut self, held: OnDisk) {
        if held.version != VERSION || held.pod_cidr != self.pod_cidr || held.service_cidr != self.service_cidr
        {
            tracing::warn!(pods = %held.pod_cidr, services = %held.service_cidr, "leases of other ranges dropped");
            return;
        }
        self.next = held.next;
        self.pods = held.pods.into_iter().map(|l| (l.pod.clone(), l)).collect();
        self.services = held
            .services
            .into_iter()
            .map(|s| (s.service, s.address))
            .collect();
    }

    /// The device's own address on the pod network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.pod_cidr.at(1)
    }

    /// All pods' leases.
    pub fn pods(&self) -> impl Iterator<Item = &Lease> {
        self.pods.values()
    }

    /// The lease of `pod`.
    pub fn pod(&self, pod: &PodId) -> Option<&Lease> {
        self.pods.get(pod)
    }

    /// The virtual address of `service`.
    pub fn service(&self, service: &ServiceId) -> Option<Ipv4Addr> {
        self.services.get(service).copied()
    }

    /// Gives `pod` an address, the one it has where it has one, and notes its ports.
    pub fn give(&mut self, pod: &PodId, ports: &[HostPort]) -> Result<Ipv4Addr, NetworkError> {
        let held = self.pods.get(pod);
        if let Some(lease) = held
            && lease.ports == ports
        {
            return Ok(lease.address);
        }
        let mut next = self.next;
        let address = match held {
            Some(lease) => lease.address,
            None => self.free_address(&mut next)?,
        };
        self.commit(|leases| {
            leases.next = next;
            let lease = Lease {
                pod: pod.clone(),
                address,
                ports: ports.to_vec(),
            };
            leases.pods.insert(pod.clone(), lease);
        })?;
        Ok(address)
    }

    /// Takes back what `pod` holds.
    pub fn take_back(&mut self, pod: &PodId) -> Result<Option<Lease>, NetworkError> {
        let lease = self.pods.get(pod).cloned();
        if lease.is_some() {
            self.commit(|leases| {
                leases.pods.remove(pod);
            })?;
        }
        Ok(lease)
    }

    /// Gives each of `wanted` a virtual address and takes back those of all others.
    pub fn give_services(&mut self, wanted: &BTreeSet<ServiceId>) -> Result<(), NetworkError> {
        let mut services: BTreeMap<ServiceId, Ipv4Addr> = self
            .services
            .iter()
            .filter(|(service, _)| wanted.contains(service))
            .map(|(service, address)| (service.clone(), *address))
            .collect();
        let mut taken: BTreeSet<Ipv4Addr> = services.values().copied().collect();
        for service in wanted {
            if services.contains_key(service) {
                continue;
            }
            let address = self.free_service_address(service, &taken)?;
            taken.insert(address);
            services.insert(service.clone(), address);
        }
        if services == self.services {
            return Ok(());
        }
        self.commit(|leases| leases.services = services)
    }

    /// Forgets everything, the file too.
    pub fn remove(&mut self) -> Result<(), NetworkError> {
        self.pods.clear();
        self.services.clear();
        kit::disk::remove_if_there(&self.file).map_err(|source| NetworkError::State {
            path: self.file.clone(),
            source,
        })
    }

    fn free_address(&self, next: &mut u64) -> Result<Ipv4Addr, NetworkError> {
        let taken: BTreeSet<Ipv4Addr> = self.pods.values().map(|l| l.address).collect();
        let size = self.pod_cidr.size();
        for step in 0..size {
            let index = (*next + step) % size;
            let address = self.pod_cidr.at(index);
            // The first is the network's own name, the second is ours, the last is the broadcast.
            if index >= 2 && index != size - 1 && !taken.contains(&address) {
                *next = index + 1;
                return Ok(address);
            }
        }
        Err(NetworkError::NoAddressLeft {
            range: self.pod_cidr,
            held: self.pods.len(),
        })
    }

    /// The first try follows from the name, so that a lost state folder gives back the same address.
    fn free_service_address(
        &self,
        service: &ServiceId,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<Ipv4Addr, NetworkError> {
        let digest = model::Digest::of(service.to_string().as_bytes()).hex();
        let start = u64::from_str_radix(&digest[..12], 16).expect("a digest is hexadecimal");
        let size = self.service_cidr.size();
        (0..size)
            .map(|step| (start + step) % size)
            .filter(|index| *index != 0 && *index != size - 1)
            .map(|index| self.service_cidr.at(index))
            .find(|address| !taken.contains(address))
            .ok_or(NetworkError::NoAddressLeft {
                range: self.service_cidr,
                held: taken.len(),
            })
    }

    /// Changes the leases in the file, then in memory: a failed write changes neither.
    fn commit(&mut self, change: impl FnOnce(&mut Self)) -> Result<(), NetworkError> {
        let mut new = self.clone();
        change(&mut new);
        let form = OnDisk {
            version: VERSION,
            pod_cidr: new.pod_cidr,
            service_cidr: new.service_cidr,
            next: new.next,
            pods: new.pods.values().cloned().collect(),
            services: new
                .services
                .iter()
                .map(|(service, address)| ServiceLease {
                    service: service.clone(),
                    address: *address,
                })
                .collect(),
        };
        let text = serde_json::to_vec(&form).expect("plain data always has a JSON form");
        kit::disk::replace_unsynced(&new.file, &text).map_err(|source| NetworkError::State {
            path: new.file.clone(),
            source,
        })?;
        *self = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, pods: &str) -> Leases {
        Leases::open(dir, pods.parse().unwrap(), "10.47.0.0/24".parse().unwrap(), false).unwrap()
    }

    fn pod(name: &str) -> PodId {
        PodId {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[test]
    fn an_address_is_kept_over_a_restart_and_rests_after_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let mut leases = open(dir.path(), "10.46.0.0/29");
        let a = leases.give(&pod("a"), &[]).unwrap();
        let b = leases.give(&pod("b"), &[]).unwrap();
        assert_ne!(a, b);
        leases.take_back(&pod("a")).unwrap();

        let mut leases = open(dir.path(), "10.46.0.0/29");
        assert_eq!(leases.give(&pod("b"), &[]).unwrap(), b);
        let c = leases.give(&pod("c"), &[]).unwrap();
        assert!(c != a && c != b, "{c} was just freed");
    }

    #[test]
    fn a_full_range_is_an_error_and_gives_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut leases = open(dir.path(), "10.46.0.0/29");
        let given: BTreeSet<_> = (0..5)
            .map(|i| leases.give(&pod(&i.to_string()), &[]).unwrap())
            .collect();
        assert_eq!(given.len(), 5);
        assert!(!given.contains(&leases.gateway()));
        let err = leases.give(&pod("one-more"), &[]).unwrap_err().to_string();
        assert!(err.contains("10.46.0.0/29"), "{err}");
        leases.take_back(&pod("3")).unwrap();
        assert!(given.contains(&leases.give(&pod("one-more"), &[]).unwrap()));
    }

    #[test]
    fn a_spoiled_file_is_dropped_only_where_no_pod_runs() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "10.46.0.0/24").give(&pod("a"), &[]).unwrap();
        let file = dir.path().join("leases.json");
        let whole = std::fs::read(&file).unwrap();
        let ranges = ("10.46.0.0/24".parse().unwrap(), "10.47.0.0/24".parse().unwrap());
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(open(dir.path(), "10.46.0.0/24").pods().count(), 0);
            let err = Leases::open(dir.path(), ranges.0, ranges.1, true)
                .unwrap_err()
                .to_string();
            assert!(err.contains("leases.json"), "{err}");
        }
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(open(dir.path(), "10.46.0.0/24").pods().count(), 1);
    }

    #[test]
    fn a_services_address_follows_from_its_name() {
        let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wanted: BTreeSet<ServiceId> = (0..100)
            .map(|i| ServiceId {
                namespace: "default".into(),
                name: format!("s{i}"),
            })
            .collect();
        let mut one = open(dirs.0.path(), "10.46.0.0/24");
        one.give_services(&wanted).unwrap();
        let mut other = open(dirs.1.path(), "10.46.0.0/24");
        other.give_services(&wanted).unwrap();
        assert_eq!(one.services, other.services);
        assert_eq!(one.services.values().collect::<BTreeSet<_>>().len(), 100);
    }
}
