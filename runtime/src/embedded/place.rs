//! Pods' places on the network.

use super::network::{HostPort, Network, PodAddress};
use crate::EngineError;
use crate::shim::protocol::Place;
use model::{PodId, PodRun, ServiceRun};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::task::AbortHandle;

/// A resolver that could not listen tries again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Gives places and takes them back. Without a network pods have a namespace with nothing in it, or the device's own.
#[derive(Debug)]
pub(super) struct Places {
    network: Option<Network>,
    resolver: Option<AbortHandle>,
    otlp: Option<u16>,
}

impl Places {
    /// Answers DNS and looks after the network from now on, as long as this lives. Pods are told that OTLP is taken at
    /// that port.
    pub(super) fn new(network: Option<Network>, otlp: Option<u16>) -> Self {
        let resolver = network.clone().map(|network| {
            let serve = async move {
                let resolve = async {
                    loop {
                        network.serve_dns().await;
                        tracing::warn!("the resolver of the pod network ended; starting it again");
                        tokio::time::sleep(AGAIN).await;
                    }
                };
                tokio::join!(resolve, network.keep_up())
            };
            tokio::spawn(serve).abort_handle()
        });
        Self {
            network,
            resolver,
            otlp,
        }
    }

    pub(super) async fn attach(&self, run: &PodRun, netns: &Path) -> Result<Place, EngineError> {
        let Some(network) = &self.network else {
            let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            return Ok(Place {
                ip: None,
                host_ip: None,
                resolv_conf,
                otlp: None,
            });
        };
        let gateway = network.gateway();
        let ip = if run.host_network {
            gateway
        } else {
            let ports = HostPort::of_pod(run).map_err(|err| EngineError::Refused {
                pod: run.id.clone(),
                container: None,
                what: err.to_string(),
                remedy: "change the port".to_owned(),
            })?;
            network.attach(&run.id, netns, &ports).await.map_err(failed)?
        };
        Ok(Place {
            ip: Some(IpAddr::V4(ip)),
            host_ip: Some(IpAddr::V4(gateway)),
            resolv_conf: network.resolv_conf(&run.id.namespace),
            // The address, since a pod on the device's own network has the device's resolver.
            otlp: self.otlp.map(|port| format!("http://{gateway}:{port}")),
        })
    }

    pub(super) async fn detach(&self, pod: &PodId) -> Result<(), EngineError> {
        match &self.network {
            Some(network) => network.detach(pod).await.map_err(failed),
            None => Ok(()),
        }
    }

    pub(super) async fn retain(&self, pods: &BTreeSet<PodId>) -> Result<(), EngineError> {
        match &self.network {
            Some(network) => network.retain(pods).await.map_err(failed),
            None => Ok(()),
        }
    }

    pub(super) async fn publish(
        &self,
        services: &[ServiceRun],
        addresses: &BTreeMap<PodId, PodAddress>,
    ) -> Result<(), EngineError> {
        match &self.network {
            Some(network) => network.publish(services, addresses).await.map_err(failed),
            None if services.is_empty() => Ok(()),
            None => Err(EngineError::Network(
                "this engine has none; Services cannot be published".to_owned(),
            )),
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if let Some(resolver) = &self.resolver {
            resolver.abort();
        }
    }
}

fn failed(err: super::network::NetworkError) -> EngineError {
    EngineError::Network(kit::chain(&err))
}
