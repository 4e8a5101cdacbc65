//! `leeward init DIR`: a Git repository for a fleet, with the folders, applications and bootstrap files to start from.

use super::scaffold::FILES;
use anyhow::{Context as _, bail};
use kit::disk;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stands in the scaffold where the repository's own address belongs.
const PLACEHOLDER_URL: &str = "https://git.example.com/fleet.git";

/// Make a Git repository for a fleet.
///
/// The repository holds a folder per kind of cluster or device, example applications that run at once, and what
/// puts Leeward or Flux on machines. It is an ordinary repository: nothing in it depends on this program.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Folder to make; one that is there must be empty.
    pub dir: PathBuf,
    /// Address that devices will fetch the repository from.
    #[arg(long, value_name = "URL", default_value = PLACEHOLDER_URL)]
    pub url: String,
    /// Write the files only, without a Git repository around them.
    #[arg(long)]
    pub no_git: bool,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Number of files.
    pub files: usize,
    /// Id of the first commit.
    pub commit: Option<String>,
}

impl Init {
    /// Writes the repository. On an error nothing is left behind.
    pub fn run(&self) -> anyhow::Result<Made> {
        if !self.no_git {
            git_is_there()?;
        }
        if self.url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            bail!(
                "--url {:?} holds a space or control character, which no address has",
                self.url
            );
        }
        let mut guard = claim(&self.dir)?;
        for (path, text) in FILES {
            let file = self.dir.join(path);
            let folder = file.parent().unwrap_or(&self.dir);
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            let text = text.replace(PLACEHOLDER_URL, &self.url);
            disk::replace(&file, text.as_bytes())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let commit = if self.no_git {
            None
        } else {
            Some(commit(&self.dir)?)
        };
        guard.keep = true;
        Ok(Made {
            files: FILES.len(),
            commit,
        })
    }
}

/// Takes away what was written, unless told to keep it.
struct Guard<'a> {
    dir: &'a Path,
    made_dir: bool,
    keep: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // The folder was absent or empty, so that all in it is ours. It stays itself where it was there before: a
        // shell may stand in it. The error that led here is the one to report, not one of cleaning up.
        for entry in fs::read_dir(self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
        if self.made_dir {
            let _ = fs::remove_dir(self.dir);
        }
    }
}

fn claim(dir: &Path) -> anyhow::Result<Guard<'_>> {
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!(
                    "{} is not empty: `leeward init` starts a new repository; name a folder that is empty or not there yet",
                    dir.display()
                );
            }
            Ok(Guard {
                dir,
                made_dir: false,
                keep: false,
            })
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            disk::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            Ok(Guard {
                dir,
                made_dir: true,
                keep: false,
            })
        }
        Err(err) => Err(err).with_context(|| format!("cannot use {} as a folder", dir.display())),
    }
}

fn git_is_there() -> anyhow::Result<()> {
    match Command::new("git").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!(
            "git is not installed, and `leeward init` makes a Git repository: install git, or give --no-git to write the files only"
        ),
    }
}

/// `git init` and the first commit, by the user if Git knows one.
fn commit(dir: &Path) -> anyhow::Result<String> {
    git(dir, &["init", "--quiet", "--initial-branch=main"])?;
    git(dir, &["add", "--all"])?;
    let known = git(dir, &["config", "user.email"]).is_ok_and(|email| !email.is_empty());
    let nobody = [
        "-c",
        "user.name=leeward init",
        "-c",
        "user.email=leeward@localhost",
    ];
    let identity: &[&str] = if known { &[] } else { &nobody };
    let message = "Start the fleet: clusters, applications, infrastructure, bootstrap";
    git(dir, &[identity, &["commit", "--quiet", "-m", message]].concat())?;
    git(dir, &["rev-parse", "HEAD"])
}

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    // Set by Git itself when this runs in a hook, they would lead to another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    let output = command
        .args(args)
        .current_dir(dir)
        .output()
        .context("git does not start")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`git {}` failed in {}: {}",
            args.join(" "),
            dir.display(),
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn init(dir: &Path) -> Init {
        Init {
            dir: dir.to_owned(),
            url: PLACEHOLDER_URL.to_owned(),
            no_git: false,
        }
    }

    fn files_below(dir: &Path, into: &mut BTreeSet<String>, root: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, into, root);
            } else {
                into.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_scaffold_is_in_the_binary() {
        let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("scaffold");
        let mut there = BTreeSet::new();
        files_below(&root, &mut there, &root);
        let listed: BTreeSet<_> = FILES
            .iter()
            .map(|(path, _)| match *path {
                ".gitignore" => "gitignore".to_owned(),
                ".sourceignore" => "sourceignore".to_owned(),
                path => path.to_owned(),
            })
            .collect();
        assert_eq!(there, listed);
    }

    #[test]
    fn the_repository_has_the_layout_and_one_clean_commit() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/fleet");
        let made = Init {
            url: "ssh://git@git.example.org/edge.git".to_owned(),
            ..init(&dir)
        }
        .run()
        .unwrap();
        assert_eq!(made.commit.unwrap().len(), 40);
        for folder in [
            "clusters/dev",
            "clusters/cloud",
            "clusters/edge-jetson",
            "clusters/edge-pi",
            "apps/base",
            "apps/cloud",
            "apps/edge",
            "infrastructure/monitoring",
            "infrastructure/networking",
            "infrastructure/storage",
            "bootstrap/ansible",
            "bootstrap/flux",
        ] {
            assert!(dir.join(folder).is_dir(), "{folder}");
        }
        assert_eq!(git(&dir, &["status", "--porcelain"]).unwrap(), "");
        assert_eq!(git(&dir, &["rev-list", "--count", "main"]).unwrap(), "1");
        assert_eq!(git(&dir, &["ls-files"]).unwrap().lines().count(), made.files);
        let sync = fs::read_to_string(dir.join("bootstrap/flux/base/sync.yaml")).unwrap();
        assert!(sync.contains("url: ssh://git@git.example.org/edge.git"), "{sync}");
    }

    #[test]
    fn a_folder_with_anything_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "x").unwrap();
        let err = init(dir.path()).run().unwrap_err().to_string();
        assert!(err.contains("is not empty"), "{err}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let err = init(&dir.path().join("mine")).run().unwrap_err().to_string();
        assert!(err.contains("cannot use"), "{err}");
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("fleet");
        let err = Init {
            url: "two words".to_owned(),
            ..init(&target)
        }
        .run()
        .unwrap_err();
        assert!(err.to_string().contains("--url"), "{err}");
        assert!(!target.exists());
        let half = |dir: &Path| {
            let _guard = claim(dir).unwrap();
            fs::create_dir_all(dir.join("apps/base")).unwrap();
            fs::write(dir.join("half"), "x").unwrap();
        };
        half(&target);
        assert!(!target.exists());
        half(dir.path());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "the user's own folder stays"
        );
    }
}
