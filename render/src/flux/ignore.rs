//! `.sourceignore`: which files of a repository Flux does not take.

use crate::error::Result;
use model::Tree;

/// What Flux leaves out by default: version control, media and archives, files of build services.
const DEFAULT: &str = "\
.git/
.gitignore
.gitmodules
.gitattributes
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
**/.goreleaser.yml
**/.sops.yaml
**/.flux.yaml
";

const FILE: &str = ".sourceignore";

/// One line of an ignore file.
struct Rule {
    /// The folder that the file is in, with a slash behind it; empty for the root.
    base: String,
    pattern: String,
    negated: bool,
    folders_only: bool,
    /// The pattern has a slash: it is matched against the whole path, not against a name.
    anchored: bool,
}

/// The tree as Flux takes it.
pub(super) fn without_ignored(tree: &Tree) -> Result<Tree> {
    let mut rules: Vec<Rule> = DEFAULT.lines().filter_map(|line| rule(line, "")).collect();
    for (path, _) in tree.iter() {
        let Some(base) = path.strip_suffix(FILE) else {
            continue;
        };
        if !(base.is_empty() || base.ends_with('/')) {
            continue;
        }
        if let Some(Ok(text)) = tree.read(path).map(|data| std::str::from_utf8(data)) {
            rules.extend(text.lines().filter_map(|line| rule(line, base)));
        }
    }
    let mut kept = Tree::default();
    for (path, entry) in tree.iter() {
        if !is_ignored(path, &rules) {
            kept.insert(path, entry.clone());
        }
    }
    Ok(kept)
}

fn rule(line: &str, base: &str) -> Option<Rule> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (negated, pattern) = match line.strip_prefix('!') {
        Some(pattern) => (true, pattern),
        None => (false, line.strip_prefix('\\').unwrap_or(line)),
    };
    let (folders_only, pattern) = match pattern.strip_suffix('/') {
        Some(pattern) => (true, pattern),
        None => (false, pattern),
    };
    Some(Rule {
        base: base.to_owned(),
        pattern: pattern.strip_prefix('/').unwrap_or(pattern).to_owned(),
        negated,
        folders_only,
        anchored: pattern.contains('/'),
    })
}

/// The last rule that matches a file or a folder above it decides, from the outermost folder in.
fn is_ignored(path: &str, rules: &[Rule]) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| (at, true));
    for (end, is_folder) in ends.chain([(path.len(), false)]) {
        let part = &path[..end];
        let last = rules.iter().rev().find(|rule| rule.matches(part, is_folder));
        if last.is_some_and(|rule| !rule.negated) {
            return true;
        }
    }
    false
}

impl Rule {
    fn matches(&self, path: &str, is_folder: bool) -> bool {
        if self.folders_only && !is_folder {
            return false;
        }
        let Some(relative) = path.strip_prefix(self.base.as_str()) else {
            return false;
        };
        if self.anchored {
            return glob(&self.pattern, relative, false);
        }
        let name = relative.rsplit('/').next().unwrap_or(relative);
        glob(&self.pattern, name, false)
    }
}

/// Shell patterns: `*` (not over a slash unless `slashes`), `**`, `?`, `[...]`, backslash.
pub(super) fn glob(pattern: &str, text: &str, slashes: bool) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Reachable places in the pattern after each character: linear in both, no backtracking.
    let mut places = close(&pattern, vec![0]);
    for c in text {
        let mut next = Vec::new();
        for at in places {
            step(&pattern, at, c, slashes, &mut next);
        }
        places = close(&pattern, next);
        if places.is_empty() {
            return false;
        }
    }
    places.contains(&pattern.len())
}

/// Adds the places that need no character: a star may stand for nothing.
fn close(pattern: &[char], mut places: Vec<usize>) -> Vec<usize> {
    let mut at = 0;
    while at < places.len() {
        let place = places[at];
        let mut add = |place: usize| {
            if !places.contains(&place) {
                places.push(place);
            }
        };
        match pattern.get(place..) {
            Some(['*', '*', '/', ..]) => {
                add(place + 3);
                add(place + 2);
            }
            Some(['*', '*', ..]) => add(place + 2),
            Some(['*', ..]) => add(place + 1),
            _ => {}
        }
        at += 1;
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn step(pattern: &[char], at: usize, c: char, slashes: bool, next: &mut Vec<usize>) {
    match pattern.get(at..) {
        Some(['*', '*', ..]) => next.push(at),
        Some(['*', ..]) if slashes || c != '/' => next.push(at),
        Some(['?', ..]) if slashes || c != '/' => next.push(at + 1),
        Some(['[', rest @ ..]) => {
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                if c == '[' {
                    next.push(at + 1);
                }
                return;
            };
            if class(&rest[..end], c) {
                next.push(at + end + 2);
            }
        }
        Some(['\\', escaped, ..]) if *escaped == c => next.push(at + 2),
        Some([plain, ..]) if *plain == c && !matches!(plain, '*' | '?' | '\\') => next.push(at + 1),
        _ => {}
    }
}

fn class(inside: &[char], c: char) -> bool {
    let (negated, inside) = match inside {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, inside),
    };
    let mut found = false;
    let mut at = 0;
    while at < inside.len() {
        match inside.get(at..) {
            Some([from, '-', to, ..]) => {
                found |= (*from..=*to).contains(&c);
                at += 3;
            }
            _ => {
                found |= inside[at] == c;
                at += 1;
            }
        }
    }
    found != negated
}
