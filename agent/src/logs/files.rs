//! Log files that the configuration names: followed as containers' are.

use super::followed::{Collectors, Followed};
use super::{PERIOD, Sourced};
use crate::journal::Journal;
use model::Severity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use telemetry::logs::{Collector, Rules, Source};

/// In front of a file's name where the spool keeps places.
pub(super) const PLACES: &str = "file:";
/// Files that are followed at once; each is held open.
const MOST_FILES: usize = 512;

/// Files of one kind.
#[derive(Debug, Clone)]
pub struct FileLogs {
    /// Whose they are: `service.name`.
    pub name: String,
    /// Which, as globs.
    pub paths: Vec<glob::Pattern>,
    /// Which not.
    pub exclude: Vec<glob::Pattern>,
    /// How they are read.
    pub rules: Rules,
    /// More attributes of their entries.
    pub attributes: BTreeMap<String, String>,
}

/// Follows all files that are named.
#[derive(Debug)]
pub(super) struct Files {
    kinds: Arc<[FileLogs]>,
    events: Journal,
    followed: Followed<(usize, PathBuf)>,
    /// It was told that there are too many.
    told: bool,
}

impl Files {
    pub(super) fn new(kinds: Vec<FileLogs>, sourced: Sourced) -> Self {
        Self {
            kinds: kinds.into(),
            events: sourced.events,
            followed: Followed::new(sourced.clock, sourced.intake),
            told: false,
        }
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        loop {
            self.round().await;
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn round(&mut self) {
        let kinds = Arc::clone(&self.kinds);
        let too_many = self.followed.round(move |collectors| {
            let listed = list(&kinds);
            let too_many = begin(&kinds, &listed, collectors);
            (listed, too_many)
        });
        if too_many.await == Some(true) && !std::mem::replace(&mut self.told, true) {
            let what = format!(
                "the configuration names more than {MOST_FILES} log files: the further ones are not read; name fewer in logs.files"
            );
            self.events
                .note(Severity::Warning, "TooManyLogFiles", "device", what, None)
                .await;
        }
    }
}

/// Follows those that are new from now on. Says whether there are more than may be followed.
fn begin(
    kinds: &[FileLogs],
    listed: &BTreeSet<(usize, PathBuf)>,
    collectors: &mut Collectors<(usize, PathBuf)>,
) -> bool {
    for key in listed {
        if collectors.contains_key(key) {
            continue;
        }
        if collectors.len() >= MOST_FILES {
            return true;
        }
        let (kind, path) = key;
        let source = Source {
            path: path.clone(),
            attributes: attributes(&kinds[*kind], path),
        };
        collectors.insert(key.clone(), Collector::new(source, kinds[*kind].rules.clone()));
    }
    false
}

/// What is there, each file once: for the first kind that names it. A file that rotation has made of another one is
/// read with that one.
fn list(kinds: &[FileLogs]) -> BTreeSet<(usize, PathBuf)> {
    let mut found: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (number, kind) in kinds.iter().enumerate() {
        for pattern in &kind.paths {
            let paths = glob::glob(pattern.as_str()).into_iter().flatten().flatten();
            for path in paths.filter(|path| !kind.exclude.iter().any(|not| not.matches_path(path))) {
                if found.len() <= 8 * MOST_FILES && path.is_file() {
                    found.entry(path).or_insert(number);
                }
            }
        }
    }
    let live: BTreeSet<PathBuf> = found.keys().cloned().collect();
    found.retain(|path, _| !is_rotation(path, &live));
    found.into_iter().map(|(path, number)| (number, path)).collect()
}

/// Whether it is `x.log.1`, `x.log-20260101` or the like beside `x.log`, or is compressed.
fn is_rotation(path: &Path, others: &BTreeSet<PathBuf>) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return true;
    };
    telemetry::logs::is_compressed(name)
        || name
            .match_indices(['.', '-'])
            .filter(|(at, _)| *at > 0)
            .any(|(at, _)| others.contains(&path.with_file_name(&name[..at])))
}

fn attributes(kind: &FileLogs, path: &Path) -> Vec<(String, String)> {
    let file = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut all = vec![
        ("leeward.source".to_owned(), "file".to_owned()),
        ("service.name".to_owned(), kind.name.clone()),
        ("log.file.name".to_owned(), file),
        ("log.file.path".to_owned(), path.display().to_string()),
    ];
    all.extend(kind.attributes.clone());
    all
}
