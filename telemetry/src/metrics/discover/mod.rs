//! Which targets there are: from pods' annotations, monitors' objects and Prometheus' own configuration.
//!
//! Pure: the objects that are wanted and the pods that run in, targets and warnings out. What is not supported is
//! left out with a warning that names the object and the field; nothing is guessed.

mod candidate;
mod config;
mod monitors;
mod pods;
#[cfg(test)]
mod tests;

use super::target::Target;
use candidate::Defaults;
use model::{Object, PodObserved};
use std::time::Duration;

pub use config::{BadScrapeConfig, ScrapeConfig, scrape_configs};

/// Label of a ConfigMap whose texts are Prometheus configurations with `scrape_configs`.
pub const CONFIG_LABEL: &str = "leeward.dev/scrape-configs";

/// What discovery works on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Desired objects.
    pub objects: &'a [Object],
    /// Pods as the engine sees them.
    pub pods: &'a [PodObserved],
    /// The device's name.
    pub node: &'a str,
    /// From the agent's configuration.
    pub configs: &'a [ScrapeConfig],
    /// Where a target says no other.
    pub interval: Duration,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What is to be scraped, each once.
    pub targets: Vec<Target>,
    /// What cannot be, and why.
    pub warnings: Vec<String>,
}

/// All targets of the device.
pub fn discover(inputs: &Inputs<'_>) -> Found {
    let mut found = Found::default();
    let defaults = Defaults {
        interval: inputs.interval,
    };
    let pods = pods::all(inputs);
    for pod in &pods {
        pods::annotated(pod, defaults, &mut found);
    }
    for object in inputs.objects {
        match (object.group(), object.kind()) {
            ("monitoring.coreos.com", "PodMonitor") => monitors::pods(object, &pods, defaults, &mut found),
            ("monitoring.coreos.com", "ServiceMonitor") => {
                monitors::services(object, inputs.objects, &pods, defaults, &mut found);
            }
            ("", "ConfigMap") if object.label(CONFIG_LABEL) == Some("true") => {
                config::config_map(object, &pods, defaults, &mut found);
            }
            _ => {}
        }
    }
    for config in inputs.configs {
        config.targets(&pods, defaults, &mut found);
    }
    // Two monitors may find the same target with the same labels.
    found.targets.sort_by_key(Target::key);
    found.targets.dedup_by_key(|target| target.key());
    found
}
