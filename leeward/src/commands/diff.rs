//! `leeward diff`: what two revisions render to, beside one another.

use super::secret::KeyFiles;
use crate::compare::{Change, ObjectChange, compare, told};
use crate::exit::{Differs, Refused};
use crate::fleet::{self, Means};
use crate::print::{Output, note, one};
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first revision: a branch, tag or commit
    #[arg(default_value = "HEAD")]
    from: String,
    /// The second one; the files as they lie there where absent
    to: Option<String>,
    /// Folder of the repository
    #[arg(short = 'C', long, default_value = ".")]
    repository: PathBuf,
    /// Only these folders, or those below them
    #[arg(long)]
    path: Vec<String>,
    /// Do not ask the network: take other repositories and files as they were the last time
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    keys: KeyFiles,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Difference {
    from: String,
    to: String,
    clusters: Vec<Cluster>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    cluster: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ObjectChange>,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let repository = fleet::repository(&self.repository)?;
        let from = fleet::committed(&repository, &self.from)?;
        let to = match &self.to {
            Some(text) => fleet::committed(&repository, text)?,
            None => fleet::work_tree(repository.path())?,
        };
        let means = Means::new(self.keys.keys()?, self.offline, &repository);
        let mut clusters = Vec::new();
        for cluster in fleet::chosen(&self.path, [&from, &to])? {
            let vars = fleet::typical(&cluster);
            let rendered = fleet::render(&from, &cluster, &vars, &means)
                .and_then(|old| Ok((old, fleet::render(&to, &cluster, &vars, &means)?)));
            let (changes, problem) = match rendered {
                Ok((old, new)) => (compare(&old.objects, &new.objects), None),
                Err(err) => (vec![], Some(format!("{err:#}"))),
            };
            clusters.push(Cluster {
                cluster,
                changes,
                problem,
            });
        }
        means
            .remotes
            .notes()
            .iter()
            .for_each(|remark| note(&format!("warning: {remark}")));
        let difference = Difference {
            from: from.label(),
            to: to.label(),
            clusters,
        };
        one(self.output, &difference, || text(&difference))?;
        let problems: Vec<&str> = difference
            .clusters
            .iter()
            .filter_map(|c| c.problem.as_deref())
            .collect();
        if !problems.is_empty() {
            return Err(Refused(format!("not everything renders:\n  {}", problems.join("\n  "))).into());
        }
        if difference
            .clusters
            .iter()
            .any(|cluster| !cluster.changes.is_empty())
        {
            return Err(Differs.into());
        }
        Ok(())
    }
}

fn text(difference: &Difference) -> String {
    let mut text = format!("{} -> {}\n", difference.from, difference.to);
    for cluster in &difference.clusters {
        let count = |what| {
            cluster
                .changes
                .iter()
                .filter(|change| change.change == what)
                .count()
        };
        let summary = match (&cluster.problem, cluster.changes.is_empty()) {
            (Some(_), _) => "does not render".to_owned(),
            (None, true) => "the same".to_owned(),
            (None, false) => format!(
                "{} added, {} changed, {} removed",
                count(Change::Added),
                count(Change::Changed),
                count(Change::Removed)
            ),
        };
        text.push_str(&format!("{}: {summary}\n", cluster.cluster));
        text.push_str(&told(&cluster.changes, "  "));
    }
    text
}
