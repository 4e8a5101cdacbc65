//! `leeward check`: what is wrong with a repository, before it is pushed.

mod images;
mod sarif;
mod text;

use super::secret::KeyFiles;
use crate::exit::Refused;
use crate::files;
use crate::people::AccessArgs;
use crate::print::{note, out};
use ::check::{DeviceClass, KubernetesVersion, Options, Report, Severity};
use anyhow::Result;
use clap::ValueEnum;
use device::Class;
use model::{ClassName, Facts};
use plan::Limits;
use serde::Serialize;
use source::Ask;
use std::path::PathBuf;
use std::time::Instant;

const AFTER: &str = "Exit codes:
  0  nothing is wrong (warnings and notes are allowed, with --strict notes only)
  1  failed, as when the folder cannot be read
  2  the command line is wrong
  3  something is wrong, or there is nothing to check

A comment `# leeward:ignore RULE` silences a rule for the field on its line (or on the next one, where it stands alone) and
for all that is in it; in front of an object's first line for the whole object. `leeward check --rules` lists the rules.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct CheckArgs {
    /// Repository
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Version of the clusters that run Kubernetes, 1.25 to 1.37
    #[arg(long, default_value_t, value_name = "VERSION")]
    kubernetes_version: KubernetesVersion,
    /// Folder that devices of a class render, where it is not the class's own; may be given several times
    #[arg(long = "class", value_name = "CLASS=FOLDER", value_parser = class_folder)]
    classes: Vec<(ClassName, String)>,
    /// Ask nobody: images' architectures are not checked, and bases elsewhere are those fetched before
    #[arg(long)]
    offline: bool,
    /// Registry to talk plain HTTP to
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
    /// Fail for warnings, too
    #[arg(long)]
    strict: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    keys: KeyFiles,
    /// List the rules and end
    #[arg(long)]
    rules: bool,
}

/// Who reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// People
    #[default]
    Text,
    /// Scripts
    Json,
    /// Code scanning, as SARIF 2.1.0
    Sarif,
}

fn class_folder(text: &str) -> Result<(ClassName, String), String> {
    let (class, folder) = text.split_once('=').ok_or("write CLASS=FOLDER")?;
    let class = class.parse().map_err(|err: model::BadName| err.to_string())?;
    Ok((
        class,
        folder.trim_start_matches("./").trim_matches('/').to_owned(),
    ))
}

/// `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    findings: &'a [::check::Finding],
    summary: Summary,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    errors: usize,
    warnings: usize,
    notes: usize,
    clusters: Vec<String>,
    folders: Vec<String>,
    objects: usize,
    kubernetes_version: String,
    /// Images that were not looked at, and why.
    images_not_checked: Vec<String>,
    seconds: f64,
}

impl CheckArgs {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        if self.rules {
            return out(&text::rules());
        }
        let started = Instant::now();
        let tree = files::whole(&self.dir)?;
        let ask = if self.offline { Ask::Never } else { Ask::Now };
        let remotes = agent::Remotes::of_user(ask, files::cloned_from(&self.dir));
        let keys = self.keys.keys()?;
        let options = Options {
            kubernetes: self.kubernetes_version,
            classes: self.device_classes()?,
            keys: Some(&keys),
            remotes: Some(&remotes),
        };
        let mut report = ::check::check(&tree, &options);
        remotes
            .notes()
            .iter()
            .for_each(|remark| note(&format!("warning: {remark}")));
        if report.clusters.is_empty() && report.folders.is_empty() {
            return Err(Refused(format!(
                "there is nothing to check in {}: neither a folder clusters/NAME nor a kustomization; \
                 name the repository's root",
                self.dir.display()
            ))
            .into());
        }
        let images_not_checked = images::ask(&mut report, &access, self.offline, &self.plain_http).await?;
        let summary = Summary {
            errors: report.count(Severity::Error),
            warnings: report.count(Severity::Warning),
            notes: report.count(Severity::Note),
            clusters: report.clusters.clone(),
            folders: report.folders.clone(),
            objects: report.objects,
            kubernetes_version: self.kubernetes_version.to_string(),
            images_not_checked,
            seconds: started.elapsed().as_secs_f64(),
        };
        self.tell(&report, &summary)
    }

    fn tell(&self, report: &Report, summary: &Summary) -> Result<()> {
        match self.output {
            Form::Text => out(&text::findings(&report.findings))?,
            Form::Json => {
                let json = Json {
                    findings: &report.findings,
                    summary: summary.clone(),
                };
                out(&(serde_json::to_string_pretty(&json)? + "\n"))?;
            }
            Form::Sarif => out(&(serde_json::to_string_pretty(&sarif::log(report))? + "\n"))?,
        }
        for what in &summary.images_not_checked {
            note(&format!("not looked at: {what}"));
        }
        let line = text::summary(summary);
        let failed = summary.errors > 0 || self.strict && summary.warnings > 0;
        if failed {
            return Err(Refused(line).into());
        }
        note(&line);
        Ok(())
    }

    /// All classes, each with the folder that its devices render.
    fn device_classes(&self) -> Result<Vec<DeviceClass>> {
        for (name, _) in &self.classes {
            Class::find(name).map_err(|err| Refused(err.to_string()))?;
        }
        let of = |class: &Class| {
            let given: Vec<String> = self
                .classes
                .iter()
                .filter(|(name, _)| *name == class.name)
                .map(|(_, folder)| folder.clone())
                .collect();
            let folders = if given.is_empty() {
                vec![class.folder.clone()]
            } else {
                given
            };
            let limits = limits(class);
            let name = class.name.to_string();
            let architecture = class.architecture.clone();
            folders.into_iter().map(move |folder| DeviceClass {
                name: name.clone(),
                folder,
                architecture: architecture.clone(),
                limits,
            })
        };
        Ok(Class::all().iter().flat_map(of).collect())
    }
}

/// What a full-sized machine of the class gives to workloads; what is not known bounds nothing.
fn limits(class: &Class) -> Limits {
    let whole = Facts {
        cpus: class.cpu_milli.unwrap_or(0) as f64 / 1000.0,
        memory_total: class.memory.unwrap_or(0),
        ..Facts::default()
    };
    let given = class.allocatable(&whole);
    Limits {
        cpu_milli: class.cpu_milli.map_or(u64::MAX, |_| given.cpu_milli),
        memory: class.memory.map_or(u64::MAX, |_| given.memory),
        seccomp: true,
    }
}
