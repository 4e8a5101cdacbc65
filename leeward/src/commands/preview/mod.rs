//! `leeward preview`: what a revision would do to the fleet before any device sees it.

mod download;
mod rollout;
mod show;

use super::secret::KeyFiles;
use crate::compare::{Change, ObjectChange, compare};
use crate::exit::Refused;
use crate::fleet::{self, Means, State};
use crate::people::AccessArgs;
use crate::print::note;
use anyhow::{Context as _, Result};
use device::Class;
use download::{Download, Sizes};
use model::{Facts, Platform};
use plan::{Limits, expand};
use rollout::{Effect, Generation, effects};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use wire::api::DeviceSummary;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The revision: a branch, tag or commit; the files as they lie there where absent
    revision: Option<String>,
    /// What runs now, for devices whose own revision is not known: a branch, tag or commit
    #[arg(long, default_value = "HEAD")]
    base: String,
    /// Folder of the repository
    #[arg(short = 'C', long, default_value = ".")]
    repository: PathBuf,
    /// Only devices of these classes
    #[arg(long)]
    class: Vec<String>,
    /// Rate of each device's link, such as 10mbit or 500kbit
    #[arg(long, default_value = "10mbit", value_parser = rate)]
    link: u64,
    /// Ask no hub: one typical device for each class that the repository has a folder for
    #[arg(long)]
    no_hub: bool,
    /// Ask no registry for sizes
    #[arg(long)]
    no_registry: bool,
    /// Registry that is asked in plain HTTP
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
    /// Do not ask the network for other repositories and files: take them as they were the last time
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    keys: KeyFiles,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A table
    #[default]
    Table,
    /// A table, and the changed fields of each object
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Markdown, for a comment in a merge request
    Markdown,
}

/// Bits in a second.
fn rate(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "bit" => 1,
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => return Err("write a number with bit, kbit, mbit or gbit, such as 10mbit".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a whole number, such as 10mbit".to_owned())?;
    match number.checked_mul(scale) {
        Some(rate) if rate > 0 => Ok(rate),
        _ => Err("a link has more than none and less than everything".to_owned()),
    }
}

/// Everything that is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    revision: String,
    base: String,
    /// Whether devices are those that a hub knows.
    from_hub: bool,
    link_bits_per_second: u64,
    devices: Vec<Device>,
}

/// One device, or the typical one of a class.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    class: String,
    folder: String,
    /// What it runs now.
    base: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ObjectChange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workloads: Vec<Effect>,
    download: Download,
    /// Seconds for that on its link.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_seconds: Option<f64>,
    /// Why it would refuse the revision, or why nothing can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Device {
    fn count(&self, change: Change) -> usize {
        self.changes.iter().filter(|held| held.change == change).count()
    }
}

/// Whom a preview is for.
struct Target {
    name: Option<String>,
    class: &'static Class,
    site: String,
    facts: Facts,
    /// Commit that it runs.
    revision: Option<String>,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let repository = fleet::repository(&self.repository)?;
        let new = match &self.revision {
            Some(text) => fleet::committed(&repository, text)?,
            None => fleet::work_tree(repository.path())?,
        };
        let base = fleet::committed(&repository, &self.base)?;
        let mut bases = BTreeMap::from([(base.revision.commit.clone(), base)]);
        let (targets, from_hub) = self.targets(&access, &new).await?;
        // What each device runs is read once, however many run it.
        let default = bases.keys().next().cloned().unwrap_or_default();
        for commit in targets.iter().filter_map(|target| target.revision.clone()) {
            if !bases.contains_key(&commit)
                && let Ok(state) = fleet::committed(&repository, &commit)
            {
                bases.insert(commit, state);
            }
        }
        let means = Means::new(self.keys.keys()?, self.offline, &repository);
        let mut sizes = Sizes::new(&access, &self.plain_http);
        let mut devices = Vec::new();
        for target in targets {
            let known = target.revision.as_ref().and_then(|commit| bases.get(commit));
            let old = known
                .or_else(|| bases.get(&default))
                .context("a base was read before")?;
            devices.push(self.device(&target, old, &new, &means, &mut sizes).await);
        }
        means
            .remotes
            .notes()
            .iter()
            .for_each(|remark| note(&format!("warning: {remark}")));
        let preview = Preview {
            revision: new.label(),
            base: bases.get(&default).map(State::label).unwrap_or_default(),
            from_hub,
            link_bits_per_second: self.link,
            devices,
        };
        show::print(self.output, &preview)?;
        let refused: Vec<String> = preview
            .devices
            .iter()
            .filter_map(|device| {
                let name = device.device.as_ref().unwrap_or(&device.class);
                Some(format!("{name}: {}", device.problem.as_ref()?))
            })
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(Refused(format!(
            "the revision would not run everywhere:\n  {}",
            refused.join("\n  ")
        ))
        .into())
    }

    /// The devices that the hub knows, or a typical one of each class.
    async fn targets(&self, access: &AccessArgs, new: &State) -> Result<(Vec<Target>, bool)> {
        let wanted = |class: &Class| {
            self.class.is_empty() || self.class.iter().any(|name| *name == class.name.as_str())
        };
        let hub = match self.no_hub || !access.path()?.exists() {
            true => None,
            false => Some(access.client()?),
        };
        let Some(hub) = hub else {
            let classes = Class::all().iter().filter(|class| wanted(class));
            let targets: Vec<Target> = classes
                .filter(|class| new.tree.below(&class.folder).next().is_some())
                .map(typical)
                .collect();
            if targets.is_empty() {
                let folders: Vec<&str> = Class::all().iter().map(|class| class.folder.as_str()).collect();
                let told = format!("the revision has no folder of a class: {}", folders.join(", "));
                return Err(Refused(told).into());
            }
            return Ok((targets, false));
        };
        let devices = hub
            .devices()
            .await
            .context("cannot ask the hub for its devices (--no-hub asks none)")?;
        let targets = devices.into_iter().filter_map(enrolled);
        Ok((targets.filter(|target| wanted(target.class)).collect(), true))
    }

    async fn device(
        &self,
        target: &Target,
        old: &State,
        new: &State,
        means: &Means,
        sizes: &mut Sizes<'_>,
    ) -> Device {
        let folder = target.class.folder.clone();
        let mut device = Device {
            device: target.name.clone(),
            class: target.class.name.to_string(),
            base: old.label(),
            changes: vec![],
            workloads: vec![],
            download: Download::default(),
            transfer_seconds: None,
            problem: None,
            folder,
        };
        let new = match generation(target, new, means) {
            Ok(new) => new,
            Err(err) => {
                device.problem = Some(format!("{err:#}"));
                return device;
            }
        };
        let old = match generation(target, old, means) {
            Ok(old) => old,
            Err(err) => {
                device.problem = Some(format!("what it runs cannot be told: {err:#}"));
                return device;
            }
        };
        device.changes = compare(&old.desired.objects, &new.desired.objects);
        device.workloads = effects(&old, &new);
        device.download = match self.no_registry {
            true => Download::default(),
            false => sizes.download(&old.wanted, &new.wanted, &platform(target)).await,
        };
        let bytes = device.download.bytes;
        device.transfer_seconds = bytes.map(|bytes| bytes as f64 * 8.0 / self.link as f64);
        device
    }
}

fn typical(class: &'static Class) -> Target {
    Target {
        name: None,
        class,
        site: "preview".to_owned(),
        // A machine that is exactly as its class says.
        facts: Facts {
            cpus: class.cpu_milli.unwrap_or(1000) as f64 / 1000.0,
            memory_total: class.memory.unwrap_or(1 << 30),
            ..Facts::default()
        },
        revision: None,
    }
}

fn enrolled(device: DeviceSummary) -> Option<Target> {
    let class = Class::find(&device.class).ok()?;
    let facts = match device.facts.memory_total {
        0 => typical(class).facts,
        _ => device.facts,
    };
    Some(Target {
        name: Some(device.name.to_string()),
        class,
        site: device.site,
        facts,
        revision: device.generation.revision.map(|revision| revision.commit),
    })
}

fn platform(target: &Target) -> Platform {
    Platform {
        architecture: architecture(target),
        ..Platform::host()
    }
}

fn architecture(target: &Target) -> String {
    match &target.class.architecture {
        _ if !target.facts.architecture.is_empty() => target.facts.architecture.clone(),
        Some(architecture) => architecture.clone(),
        None => Platform::host().architecture,
    }
}

/// What a device would run of a revision, or why it would refuse it.
fn generation(target: &Target, state: &State, means: &Means) -> Result<Generation> {
    let class = target.class;
    let name = target.name.as_deref().unwrap_or("preview");
    let vars = fleet::vars(name, class.name.as_str(), &target.site, &architecture(target));
    let desired = fleet::render(state, &class.folder, &vars, means)?;
    let given = class.allocatable(&target.facts);
    let limits = Limits {
        cpu_milli: given.cpu_milli,
        memory: given.memory,
        seccomp: true,
    };
    let wanted = expand(&desired, &limits).map_err(|refusals| {
        let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        Refused(told.join("; "))
    })?;
    Ok(Generation { desired, wanted })
}
