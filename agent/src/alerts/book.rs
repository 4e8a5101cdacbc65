//! The rules of the generation that runs, with what is known of each, on disk.

use model::Object;
use rules::{Alert, Fault, Group, Memory, State, Store};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file below the state folder.
const FILE: &str = "alerts.json";

/// A group of an object, its memories in order of its rules, and when it is evaluated next.
#[derive(Debug)]
pub(super) struct Entry {
    /// `namespace/name` of the object.
    pub object: String,
    pub group: Group,
    pub memories: Vec<Memory>,
    /// Milliseconds since boot.
    pub due: i64,
}

/// All rules.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    pub entries: Vec<Entry>,
    /// What is not evaluated, with its object.
    pub faults: Vec<String>,
    /// Of rules that are not read yet.
    kept: Vec<Kept>,
}

/// A rule's memory as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    object: String,
    group: String,
    rule: String,
    #[serde(flatten)]
    memory: Memory,
}

impl Book {
    /// Reads what an earlier process knew. A file that cannot be read is told, and nothing was known.
    pub fn open(state: &Path) -> Self {
        let path = state.join(FILE);
        let read = kit::disk::read_if_there(&path);
        let kept = read.and_then(|data| match data {
            None => Ok(Vec::new()),
            Some(data) => serde_json::from_slice(&data).map_err(io::Error::other),
        });
        let kept = kept.unwrap_or_else(|err| {
            tracing::error!(path = %path.display(), %err, "the state of alerts cannot be read; they begin anew");
            Vec::new()
        });
        Self {
            path,
            entries: Vec::new(),
            faults: Vec::new(),
            kept,
        }
    }

    /// Alerts that fired when the earlier process ended.
    pub fn firing_before(&self) -> Vec<Alert> {
        let alerts = self.kept.iter().flat_map(|kept| &kept.memory.alerts);
        alerts
            .filter(|alert| alert.state == State::Firing)
            .cloned()
            .collect()
    }

    /// Takes up the rules of a generation. Rules that are still there keep their alerts; what comes back are those that
    /// fired of rules that are gone.
    pub fn follow(&mut self, objects: &[Object], store: &mut Store, now: i64, boot: i64) -> Vec<Alert> {
        let mut kept = std::mem::take(&mut self.kept);
        for entry in self.entries.drain(..) {
            kept.extend(entry.kept());
        }
        self.faults.clear();
        let is_rules =
            |object: &&Object| (object.group(), object.kind()) == ("monitoring.coreos.com", "PrometheusRule");
        for object in objects.iter().filter(is_rules) {
            let name = format!("{}/{}", object.namespace(), object.name());
            let (groups, faults) = rules::read(object.value());
            let told = |fault: Fault| format!("PrometheusRule {name}: {fault}: this rule is not evaluated");
            self.faults.extend(faults.into_iter().map(told));
            for group in groups {
                let memories = group.rules.iter().map(|rule| {
                    let same = |kept: &Kept| {
                        (&kept.object, &kept.group, &kept.rule) == (&name, &group.name, &rule.name)
                    };
                    let at = kept.iter().position(same);
                    at.map(|at| kept.remove(at).memory).unwrap_or_default()
                });
                self.entries.push(Entry {
                    object: name.clone(),
                    memories: memories.collect(),
                    group,
                    due: boot,
                });
            }
        }
        let exprs = self
            .entries
            .iter()
            .flat_map(|entry| &entry.group.rules)
            .map(|rule| &rule.expr);
        store.follow(exprs, now);
        let left = kept.into_iter().flat_map(|kept| kept.memory.alerts);
        left.filter(|alert| alert.state == State::Firing).collect()
    }

    /// Wall time was set: what is counted from a moment is counted from as long ago as before.
    pub fn shift(&mut self, by: i64) {
        let memories = self.entries.iter_mut().flat_map(|entry| &mut entry.memories);
        for alert in memories.flat_map(|memory| &mut memory.alerts) {
            alert.active_since += by;
            for time in [&mut alert.firing_since, &mut alert.kept_since]
                .into_iter()
                .flatten()
            {
                *time += by;
            }
        }
    }

    /// Writes all alerts down.
    pub fn keep(&self) {
        let kept: Vec<Kept> = self.entries.iter().flat_map(Entry::kept).collect();
        // Serialising plain data to memory cannot fail.
        let data = serde_json::to_vec(&kept).unwrap_or_default();
        if let Err(err) = kit::disk::replace(&self.path, &data) {
            tracing::error!(path = %self.path.display(), %err, "the state of alerts cannot be written");
        }
    }
}

impl Entry {
    fn kept(&self) -> Vec<Kept> {
        let rules = self.group.rules.iter().zip(&self.memories);
        rules
            .filter(|(_, memory)| !memory.alerts.is_empty())
            .map(|(rule, memory)| Kept {
                object: self.object.clone(),
                group: self.group.name.clone(),
                rule: rule.name.clone(),
                memory: memory.clone(),
            })
            .collect()
    }
}
