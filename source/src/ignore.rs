//! Which files of a tree are read: the source's `include`, and `.sourceignore` as Flux reads it.

use gix::bstr::BStr;
use gix::glob::pattern::Case;
use gix::ignore::search::Ignore;
use gix::ignore::{Search, search};
use std::path::{Path, PathBuf};

/// Git's own files, which no source has.
const GIT: &str = "\
.git/
.gitignore
.gitmodules
.gitattributes
";

/// Flux leaves these out of every artifact whose source has no `ignore`; `!pattern` in `.sourceignore` brings them back.
const DEFAULTS: &str = "\
*.jpg
*.jpeg
*.gif
*.png
*.wmv
*.flv
*.tar.gz
*.zip
.github/
.circleci/
.travis.yml
.gitlab-ci.yml
appveyor.yml
.drone.yml
cloudbuild.yaml
codeship-services.yml
codeship-steps.yml
/.goreleaser.yml
/.sops.yaml
/.flux.yaml
";

/// The name of the file that holds patterns, in any folder.
pub(crate) const FILE: &str = ".sourceignore";

/// Ignore patterns, those of deeper folders last.
pub(crate) struct Patterns {
    search: Search,
    /// The source's own, which count before all others.
    own: Search,
}

impl Patterns {
    /// With a source's own patterns, which take the place of Flux's defaults and overrule `.sourceignore`.
    pub(crate) fn new(ignore: Option<&str>) -> Self {
        let mut patterns = Self {
            search: Search::default(),
            own: Search::default(),
        };
        patterns.add("", GIT.as_bytes());
        match ignore {
            None => patterns.add("", DEFAULTS.as_bytes()),
            Some(text) => add(&mut patterns.own, "", text.as_bytes()),
        }
        patterns
    }

    /// Adds the `.sourceignore` of `folder`; folders have to come before what lies below them.
    pub(crate) fn add(&mut self, folder: &str, text: &[u8]) {
        add(&mut self.search, folder, text);
    }

    /// Whether the file at `path` is left out.
    ///
    /// The last pattern wins that matches the file or any folder above it, as go-git has it; Git itself would
    /// never look below an excluded folder again.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        verdict(&self.own, path)
            .or_else(|| verdict(&self.search, path))
            .unwrap_or(false)
    }
}

fn add(search: &mut Search, folder: &str, text: &[u8]) {
    // The paths are names for the matcher, which takes its base from them; nothing is opened.
    let root = PathBuf::from("/");
    let file = root.join(folder).join(FILE);
    search
        .add_patterns_buffer(text, file, Some(&root), Ignore::default())
        .expect("reading patterns from memory does no I/O");
}

/// Whether a file is left out, where any pattern matches it or a folder above it.
fn verdict(search: &Search, path: &str) -> Option<bool> {
    let ends = path
        .match_indices('/')
        .map(|(at, _)| (at, true))
        .chain([(path.len(), false)]);
    ends.filter_map(|(end, folder)| last_match(search, &path[..end], folder))
        .max_by_key(|&(rank, _)| rank)
        .map(|(_, excluded)| excluded)
}

fn last_match(search: &Search, path: &str, folder: bool) -> Option<((usize, usize), bool)> {
    let base = path.rfind('/').map(|at| at + 1);
    search
        .patterns
        .iter()
        .enumerate()
        .rev()
        .find_map(|(list, patterns)| {
            search::pattern_matching_relative_path(
                patterns,
                <&BStr>::from(path),
                base,
                Some(folder),
                Case::Sensitive,
            )
            .map(|found| ((list, found.sequence_number), !found.pattern.is_negative()))
        })
}

/// The folders and files to read; all where empty.
pub(crate) struct Include(Vec<String>);

impl Include {
    pub(crate) fn new(paths: &[String]) -> Self {
        let clean = |path: &String| {
            let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
            parts.collect::<Vec<_>>().join("/")
        };
        let paths: Vec<_> = paths.iter().map(clean).collect();
        // The root among them is everything.
        Self(if paths.iter().any(String::is_empty) {
            vec![]
        } else {
            paths
        })
    }

    /// Whether the file at `path` is wanted.
    pub(crate) fn file(&self, path: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| Path::new(path).starts_with(wanted))
    }

    /// Whether anything below the folder at `path` may be wanted.
    pub(crate) fn folder(&self, path: &str) -> bool {
        self.file(path) || self.0.iter().any(|wanted| Path::new(wanted).starts_with(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_a_file_or_its_folder_wins() {
        let mut patterns = Patterns::new(None);
        patterns.add(
            "",
            b"# all but deploy\n/*\n!/deploy\ndocs/\n!/deploy/docs/keep.md\n",
        );
        patterns.add("deploy/a", b"secret.yaml\n/local/\n");
        for (path, out) in [
            ("README.md", true),
            ("src/main.rs", true),
            ("deploy/x.yaml", false),
            ("deploy/logo.png", false),
            ("deploy/docs/x.md", true),
            ("deploy/docs/keep.md", false),
            ("deploy/a/secret.yaml", true),
            ("deploy/a/b/secret.yaml", true),
            ("deploy/secret.yaml", false),
            ("deploy/a/local/x.yaml", true),
            ("deploy/a/b/local/x.yaml", false),
        ] {
            assert_eq!(patterns.excludes(path), out, "{path}");
        }
    }

    #[test]
    fn flux_defaults_are_left_out_and_can_be_brought_back() {
        let mut patterns = Patterns::new(None);
        for path in [
            ".github/workflows/ci.yaml",
            "apps/logo.png",
            ".sops.yaml",
            ".gitignore",
        ] {
            assert!(patterns.excludes(path), "{path}");
        }
        assert!(!patterns.excludes("apps/.sops.yaml"));
        patterns.add("", b"!*.png\n");
        assert!(!patterns.excludes("apps/logo.png"));
    }

    #[test]
    fn a_sources_own_patterns_replace_the_defaults_and_overrule_the_files() {
        let mut patterns = Patterns::new(Some("*.md\n!/keep.txt\n"));
        patterns.add("", b"*.txt\n!README.md\n");
        for (path, out) in [
            ("logo.png", false),
            (".gitignore", true),
            ("README.md", true),
            ("a.txt", true),
            ("keep.txt", false),
        ] {
            assert_eq!(patterns.excludes(path), out, "{path}");
        }
    }

    #[test]
    fn include_takes_whole_names() {
        let include = Include::new(&["apps/edge/".to_owned(), "./README.md".to_owned()]);
        assert!(include.file("apps/edge/x") && include.file("README.md") && include.folder("apps"));
        assert!(!include.file("apps/edge-2/x") && !include.folder("clusters"));
        assert!(Include::new(&[]).file("x") && Include::new(&["/".to_owned()]).file("x"));
    }
}
