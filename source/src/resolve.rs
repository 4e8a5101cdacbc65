//! From the spec's reference to a commit.

use crate::connection::{Found, Line};
use crate::range::version_of_tag;
use crate::{GitRef, Range, SourceError};
use gix::ObjectId;

/// What is to be fetched.
#[derive(Debug)]
pub(crate) struct Want {
    /// For [`model::Revision::reference`]; empty for a commit.
    pub reference: String,
    /// What the server is asked for; differs from the commit where the reference is an annotated tag.
    pub ask: ObjectId,
    /// The commit.
    pub tip: ObjectId,
}

impl From<Found> for Want {
    fn from(found: Found) -> Self {
        let short = found
            .name
            .strip_prefix("refs/heads/")
            .or_else(|| found.name.strip_prefix("refs/tags/"));
        Self {
            reference: short.unwrap_or(&found.name).to_owned(),
            ask: found.target,
            tip: found.commit,
        }
    }
}

/// What `reference` names now. A commit names itself, and nobody is asked.
pub(crate) fn resolve(reference: &GitRef, line: &mut Line<'_>) -> Result<Want, SourceError> {
    match reference {
        GitRef::Commit(id) => {
            let tip = ObjectId::from_hex(id.as_bytes()).expect("GitSpec::check has seen 40 digits");
            Ok(Want {
                reference: String::new(),
                ask: tip,
                tip,
            })
        }
        GitRef::Semver(range) => newest_in(line, range),
        GitRef::Named(name) => named(line, name),
        GitRef::Branch(name) | GitRef::Tag(name) => {
            let full = reference.full_name().expect("branches and tags have one");
            // The server takes the name for a prefix, and there may be longer ones.
            match line.list(&full)?.into_iter().find(|found| found.name == full) {
                Some(found) => Ok(found.into()),
                None => Err(unknown(line, reference.kind(), name, &full)),
            }
        }
    }
}

/// A word as `git fetch` reads it.
fn named(line: &mut Line<'_>, name: &str) -> Result<Want, SourceError> {
    if name.len() == 40
        && let Ok(tip) = ObjectId::from_hex(name.as_bytes())
    {
        return Ok(Want {
            reference: String::new(),
            ask: tip,
            tip,
        });
    }
    let rules = ["", "refs/", "refs/tags/", "refs/heads/"];
    // All of these begin so, and one listing gives them.
    let candidates: Vec<String> = rules.iter().map(|before| format!("{before}{name}")).collect();
    let there = line.list_all(&candidates)?;
    let found = candidates
        .iter()
        .find_map(|full| there.iter().find(|found| found.name == *full));
    match found {
        Some(found) => Ok(found.clone().into()),
        None => Err(unknown(line, "branch or tag", name, "refs/heads/")),
    }
}

fn newest_in(line: &mut Line<'_>, range: &str) -> Result<Want, SourceError> {
    let wanted: Range = range.parse().expect("GitSpec::check has parsed it");
    let tags = line.list("refs/tags/")?;
    let count = tags.len();
    let version = |found: &Found| version_of_tag(found.name.strip_prefix("refs/tags/")?);
    let mut versions: Vec<_> = tags
        .into_iter()
        .filter_map(|found| Some((version(&found)?, found)))
        .collect();
    // Newest first; build metadata decides between equals, so that the choice does not depend on the server's order.
    versions.sort_by(|a, b| b.0.cmp(&a.0));
    if let Some(at) = versions.iter().position(|(version, _)| wanted.matches(version)) {
        return Ok(versions.swap_remove(at).1.into());
    }
    Err(SourceError::NoVersion {
        url: line.wire.url.clone(),
        range: range.to_owned(),
        tags: count,
        newest: versions
            .iter()
            .take(5)
            .map(|(version, _)| version.to_string())
            .collect(),
    })
}

fn unknown(line: &mut Line<'_>, kind: &'static str, name: &str, full: &str) -> SourceError {
    let folder = if full.starts_with("refs/tags/") {
        "refs/tags/"
    } else {
        "refs/heads/"
    };
    // Only a hint: that it cannot be had is not the error to report.
    let there = line.list(folder).unwrap_or_default();
    let there = there
        .iter()
        .rev()
        .filter_map(|found| found.name.strip_prefix(folder));
    SourceError::UnknownReference {
        url: line.wire.url.clone(),
        kind,
        reference: name.to_owned(),
        there: there.take(10).map(str::to_owned).collect(),
    }
}
