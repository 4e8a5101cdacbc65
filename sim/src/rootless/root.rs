//! The file system of a world without root: the machine's, but for what the kernel shows of namespaces.
//!
//! Mounts that a user namespace inherits cannot be taken away one by one, and control groups among them would be seen
//! by everything that reads the table of mounts. So a new root is put together from the old one's folders, and the old
//! one is let go as a whole.

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};
use std::fs;
use std::path::Path;

/// Folders that are made anew.
const OWN: [&str; 3] = ["proc", "sys", "run"];
/// Where the new root is put together: a folder that every machine has and that is not taken over.
const PLACE: &str = "/sys";

/// Makes the new root, and goes there. The process must be the first of its process namespace.
pub(super) fn make() -> Result<()> {
    let place = Path::new(PLACE);
    // Nothing that is mounted here is to be seen outside.
    attach(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    fresh("tmpfs", place)?;
    take_over(Path::new("/"), place, &OWN)?;
    for name in OWN {
        fs::create_dir(place.join(name))?;
    }
    // A user's own folder may be in there; names of network namespaces are ours.
    take_over(Path::new("/run"), &place.join("run"), &["netns"])?;
    // The kernel gives new ones only to those who see the old ones.
    fresh("proc", &place.join("proc"))?;
    fresh("sysfs", &place.join("sys"))?;
    // `ip -n` lets go of /sys before it mounts another, so that one more must be there to be seen.
    let spare = place.join("run/sysfs");
    fs::create_dir(&spare)?;
    fresh("sysfs", &spare)?;
    // Whoever looks for control groups finds that there are none.
    fresh("tmpfs", &place.join("sys/fs/cgroup"))?;
    chdir(place)?;
    pivot_root(".", ".").context("cannot change to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let the old root go")?;
    Ok(chdir("/")?)
}

/// Each folder and link of `from` is seen in `to` as well.
fn take_over(from: &Path, to: &Path, except: &[&str]) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        if except.iter().any(|except| name == *except) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            attach(Some(&source), &target, None, flags)?;
        }
    }
    Ok(())
}

/// A new file system of this kind.
fn fresh(kind: &str, target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach(Some(Path::new(kind)), target, Some(kind), flags)
}

fn attach(source: Option<&Path>, target: &Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(source, target, kind, flags, None::<&str>).with_context(|| {
        let what = kind.or(source.and_then(Path::to_str)).unwrap_or("nothing");
        format!(
            "cannot mount {what} at {} in namespaces of this user's own",
            target.display()
        )
    })
}
