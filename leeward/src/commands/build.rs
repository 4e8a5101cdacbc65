//! `leeward build` and `leeward plan`: rendering without a device.

use super::secret::KeyFiles;
use crate::exit::Refused;
use crate::files::{self, Disk};
use crate::print::{Output, note, one, out, pieces};

use anyhow::{Context as _, Result};
use device::Class;
use jiff::Timestamp;
use model::{ClassName, Facts, Revision};
use plan::{Limits, Run, Wanted, expand};
use render::{BuildOptions, LoadRestrictor, Repository};
use serde::Serialize;
use source::Ask;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Folder with a kustomization, or the address of one in a repository (https://host/org/repo//path?ref=v1)
    #[arg(default_value = ".")]
    path: String,
    /// Do not ask the network: take other repositories and files as they were the last time
    #[arg(long)]
    offline: bool,
    /// Which files a kustomization may read beside those of its own folder
    #[arg(long, value_enum, default_value_t)]
    load_restrictor: Restrictor,
    /// Print what Flux applies for the folder: its Kustomization objects resolved, secrets decrypted
    #[arg(long)]
    flux: bool,
    /// Variables for postBuild, NAME=VALUE (with --flux)
    #[arg(long = "var", value_parser = variable, requires = "flux")]
    vars: Vec<(String, String)>,
    #[command(flatten)]
    keys: KeyFiles,
}

/// kustomize's own words.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Restrictor {
    /// None
    #[default]
    #[value(name = "LoadRestrictionsRootOnly")]
    RootOnly,
    /// All
    #[value(name = "LoadRestrictionsNone")]
    None,
}

impl BuildArgs {
    pub fn run(self) -> Result<()> {
        if self.flux {
            return self.run_flux();
        }
        let remotes = agent::Remotes::of_user(self.ask(), Vec::new());
        let options = BuildOptions {
            load_restrictor: match self.load_restrictor {
                Restrictor::RootOnly => LoadRestrictor::RootOnly,
                Restrictor::None => LoadRestrictor::None,
            },
            remotes: &remotes,
        };
        let path = match Repository::parse(&self.path) {
            Some(_) => self.path,
            None => Disk::path_of(Path::new(&self.path))?,
        };
        let build = render::build(&Disk, &path, &options);
        remotes
            .notes()
            .iter()
            .for_each(|remark| note(&format!("# Warning: {remark}")));
        let build = build?;
        build
            .warnings
            .iter()
            .for_each(|warning| note(&format!("# Warning: {warning}")));
        pieces(build.into_documents())
    }

    fn ask(&self) -> Ask {
        if self.offline { Ask::Never } else { Ask::Now }
    }

    /// The folder lies in a repository, whose other folders its Kustomization objects name.
    fn run_flux(self) -> Result<()> {
        let folder = Path::new(&self.path)
            .canonicalize()
            .with_context(|| self.path.clone())?;
        let remotes = agent::Remotes::of_user(self.ask(), files::cloned_from(&folder));
        let root = folder
            .ancestors()
            .find(|dir| dir.join(".git").exists())
            .unwrap_or(&folder);
        let path = folder.strip_prefix(root)?.to_string_lossy().into_owned();
        let given = render::Given {
            vars: &self.vars.into_iter().collect(),
            keys: &self.keys.keys()?,
            remotes: &remotes,
        };
        let desired = render::render_for(&files::whole(root)?, &work_tree(), &path, &given)?;
        remotes
            .notes()
            .iter()
            .for_each(|remark| note(&format!("# Warning: {remark}")));
        desired
            .warnings
            .iter()
            .for_each(|warning| note(&format!("# Warning: {warning}")));
        out(&render::to_yaml(&desired.objects))
    }
}

fn work_tree() -> Revision {
    Revision {
        reference: "work tree".to_owned(),
        commit: "0".repeat(40),
        summary: String::new(),
        author: String::new(),
        committed_at: Timestamp::now(),
    }
}

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Repository
    #[arg(default_value = ".")]
    repository: PathBuf,
    /// Hardware class of the device
    #[arg(long, default_value = "generic")]
    class: ClassName,
    /// Folder of the repository that is the device's; the class's own where absent
    #[arg(long)]
    path: Option<String>,
    /// Variables for postBuild, NAME=VALUE
    #[arg(long = "var", value_parser = variable)]
    vars: Vec<(String, String)>,
    #[command(flatten)]
    keys: KeyFiles,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .ok_or_else(|| "write NAME=VALUE".to_owned())
}

#[derive(Debug, Serialize)]
struct Planned {
    generation: String,
    workloads: Vec<Line>,
    services: Vec<String>,
    images: Vec<String>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    workload: String,
    pods: String,
    images: Vec<String>,
}

impl PlanArgs {
    pub fn run(self) -> Result<()> {
        let class = Class::find(&self.class).map_err(|err| Refused(err.to_string()))?;
        let path = self.path.unwrap_or_else(|| class.folder.clone());
        let tree = files::whole(&self.repository)?;
        let mut vars = BTreeMap::from([
            ("DEVICE".to_owned(), "preview".to_owned()),
            ("CLASS".to_owned(), self.class.to_string()),
            (
                "ARCH".to_owned(),
                class
                    .architecture
                    .clone()
                    .unwrap_or_else(|| model::Platform::host().architecture),
            ),
        ]);
        vars.extend(self.vars);
        let desired = render::render_for(
            &tree,
            &work_tree(),
            &path,
            &render::Given {
                vars: &vars,
                keys: &self.keys.keys()?,
                remotes: &agent::Remotes::of_user(Ask::Now, files::cloned_from(&self.repository)),
            },
        )?;
        // A machine that is exactly as its class says.
        let whole = Facts {
            cpus: class.cpu_milli.unwrap_or(1000) as f64 / 1000.0,
            memory_total: class.memory.unwrap_or(1 << 30),
            ..Facts::default()
        };
        let given = class.allocatable(&whole);
        let limits = Limits {
            cpu_milli: given.cpu_milli,
            memory: given.memory,
            seccomp: true,
        };
        let wanted = expand(&desired, &limits).map_err(|refusals| {
            let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            Refused(format!(
                "{path} cannot run on {}:\n  {}",
                self.class,
                told.join("\n  ")
            ))
        })?;
        desired
            .warnings
            .iter()
            .for_each(|warning| note(&format!("warning: {warning}")));
        let planned = planned(&wanted);
        one(self.output, &planned, || told(&path, &self.class, &planned))
    }
}

fn planned(wanted: &Wanted) -> Planned {
    let line = |workload: &plan::Workload| Line {
        workload: workload.key.to_string(),
        pods: match workload.run {
            Run::Once => "1 pod".to_owned(),
            Run::Replicas { count, rolling } => {
                format!(
                    "{count} pods, surge {}, unavailable {}",
                    rolling.surge, rolling.unavailable
                )
            }
            Run::ToCompletion { completions, .. } => format!("until {completions} succeeded"),
        },
        images: workload
            .template
            .containers
            .iter()
            .map(|container| container.image.to_string())
            .collect(),
    };
    Planned {
        generation: wanted.generation.to_string(),
        workloads: wanted.workloads.iter().map(line).collect(),
        services: wanted
            .services
            .iter()
            .map(|s| format!("{}/{}", s.namespace, s.name))
            .collect(),
        images: wanted
            .images()
            .into_iter()
            .map(|wanted| wanted.image.to_string())
            .collect(),
        notes: wanted.notes.clone(),
    }
}

fn told(path: &str, class: &ClassName, planned: &Planned) -> String {
    let mut text = format!("{path} on {class}: generation {}\n", planned.generation);
    for line in &planned.workloads {
        text.push_str(&format!(
            "  {}  {}  {}\n",
            line.workload,
            line.pods,
            line.images.join(", ")
        ));
    }
    for service in &planned.services {
        text.push_str(&format!("  Service/{service}\n"));
    }
    for remark in &planned.notes {
        text.push_str(&format!("  note: {remark}\n"));
    }
    text
}
