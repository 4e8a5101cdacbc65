//! A pod's volumes as folders, and where they appear in its containers.

use super::protocol::Handover;
use super::rootfs::open_inside;
use model::{FileEntry, HostPathType, Mount, Volume, VolumeSource};
use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Where the volumes of a pod lie.
#[derive(Debug)]
pub(crate) struct Volumes<'a> {
    /// In memory, gone with the shim.
    pub(crate) run: &'a Path,
    /// On disk, gone with the pod.
    pub(crate) disk: &'a Path,
    /// On disk, outlives the pod.
    pub(crate) claims: &'a Path,
    pub(crate) fs_group: Option<u32>,
}

impl Volumes<'_> {
    /// Makes all of a pod's volumes.
    pub(crate) fn prepare(&self, volumes: &[Volume]) -> Result<(), String> {
        for volume in volumes {
            self.prepare_one(volume)
                .map_err(|why| format!("volume {:?}: {why}", volume.name))?;
        }
        Ok(())
    }

    fn prepare_one(&self, volume: &Volume) -> Result<(), String> {
        let dir = self.source(volume)?;
        let text = |err: io::Error| format!("{}: {err}", dir.display());
        match &volume.source {
            VolumeSource::EmptyDir {
                memory: true,
                size_limit,
            } => {
                fs::create_dir_all(&dir).map_err(text)?;
                let size = size_limit.map_or_else(String::new, |bytes| format!(",size={bytes}"));
                let options = format!("mode=0777{size}");
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, Some(options.as_str()))
                    .map_err(|err| text(err.into()))?;
                self.open_to_group(&dir).map_err(text)
            }
            VolumeSource::EmptyDir { memory: false, .. } | VolumeSource::Claim { .. } => {
                if !dir.exists() {
                    fs::create_dir_all(&dir).map_err(text)?;
                    fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(text)?;
                }
                self.open_to_group(&dir).map_err(text)
            }
            VolumeSource::HostPath { path, kind } => check_host_path(Path::new(path), *kind),
            VolumeSource::Files { files, .. } => self.write_files(&dir, files),
        }
    }

    /// Replaces the files of those volumes that hold files.
    pub(crate) fn refresh(&self, volumes: &[Volume]) -> Result<(), String> {
        for volume in volumes {
            if let VolumeSource::Files { files, .. } = &volume.source {
                let dir = self.source(volume)?;
                self.write_files(&dir, files)
                    .map_err(|why| format!("volume {:?}: {why}", volume.name))?;
            }
        }
        Ok(())
    }

    /// The folder (for a host path perhaps another kind of file) behind a volume.
    pub(crate) fn source(&self, volume: &Volume) -> Result<PathBuf, String> {
        component(&volume.name)?;
        Ok(match &volume.source {
            VolumeSource::EmptyDir { memory: false, .. } => self.disk.join("v").join(&volume.name),
            VolumeSource::EmptyDir { .. } | VolumeSource::Files { .. } => {
                self.run.join("v").join(&volume.name)
            }
            VolumeSource::HostPath { path, .. } => PathBuf::from(path),
            VolumeSource::Claim { claim } => {
                component(&claim.namespace)?;
                component(&claim.name)?;
                self.claims.join(&claim.namespace).join(&claim.name)
            }
        })
    }

    /// `fsGroup`: the folder belongs to the group, and what is made in it will.
    fn open_to_group(&self, dir: &Path) -> io::Result<()> {
        let Some(group) = self.fs_group else {
            return Ok(());
        };
        std::os::unix::fs::chown(dir, None, Some(group))?;
        fs::set_permissions(dir, Permissions::from_mode(0o2777))
    }

    /// Writes the files beside the present ones and switches over in one step, as kubelet does: `..data` is a
    /// link to the folder of the moment, and each name a link through it.
    fn write_files(&self, dir: &Path, files: &BTreeMap<String, FileEntry>) -> Result<(), String> {
        for path in files.keys() {
            if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(format!("{path:?} is no relative path of a file"));
            }
        }
        self.switch_files(dir, files)
            .map_err(|err| format!("{}: {err}", dir.display()))
    }

    fn switch_files(&self, dir: &Path, files: &BTreeMap<String, FileEntry>) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        let old = fs::read_link(dir.join("..data")).ok();
        let next = (0..)
            .map(|number| format!("..{number}"))
            .find(|name| !dir.join(name).exists())
            .ok_or(io::ErrorKind::AlreadyExists)?;
        for (path, file) in files {
            let target = dir.join(&next).join(path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&target, &file.data)?;
            let mut mode = file.mode & 0o777;
            if let Some(group) = self.fs_group {
                std::os::unix::fs::chown(&target, None, Some(group))?;
                mode |= (mode & 0o400) >> 3;
            }
            fs::set_permissions(&target, Permissions::from_mode(mode))?;
        }
        fs::create_dir_all(dir.join(&next))?;
        let fresh = dir.join("..data_tmp");
        kit::disk::remove_if_there(&fresh)?;
        symlink(&next, &fresh)?;
        kit::disk::swap(&fresh, &dir.join("..data"))?;
        let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
        for name in &names {
            let link = dir.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link)?;
            }
        }
        for entry in fs::read_dir(dir)?.flatten() {
            let name = entry.file_name();
            let stale = name
                .to_str()
                .is_none_or(|name| !name.starts_with("..") && !names.contains(name));
            if stale {
                fs::remove_file(entry.path())?;
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(dir.join(old))?;
        }
        Ok(())
    }

    /// A mount's source, made ready: what a `subPath` leads to is pinned by a bind mount at `pin`, so that the
    /// container cannot exchange a folder for a link between check and use.
    pub(crate) fn mount_source(&self, volume: &Volume, at: &Mount, pin: &Path) -> Result<PathBuf, String> {
        let source = self.source(volume)?;
        let Some(sub) = at.sub_path.as_deref().filter(|sub| !sub.is_empty()) else {
            return Ok(source);
        };
        if sub.starts_with('/') || sub.split('/').any(|part| part == "..") {
            return Err(format!("subPath {sub:?} must be relative and without '..'"));
        }
        let make = !matches!(volume.source, VolumeSource::Files { .. });
        let opened = open_sub(&source, sub, make).map_err(|err| format!("subPath {sub:?}: {err}"))?;
        self.pin(&opened, pin)
            .map_err(|err| format!("subPath {sub:?}: {err}"))?;
        Ok(pin.to_owned())
    }

    fn pin(&self, opened: &OwnedFd, pin: &Path) -> io::Result<()> {
        let is_dir = rustix::fs::fstat(opened)?.st_mode & 0o170_000 == 0o040_000;
        if let Some(parent) = pin.parent() {
            fs::create_dir_all(parent)?;
        }
        if is_dir {
            fs::create_dir_all(pin)?;
        } else {
            fs::write(pin, [])?;
        }
        let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
        Ok(mount(
            Some(source.as_str()),
            pin,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )?)
    }
}

/// Opens `sub` below `root` without leaving it; missing folders are made where `make`.
fn open_sub(root: &Path, sub: &str, make: bool) -> io::Result<OwnedFd> {
    let found = open_inside(root, sub, OFlags::PATH);
    if !make || !matches!(&found, Err(err) if err.kind() == io::ErrorKind::NotFound) {
        return found;
    }
    let mut done = String::new();
    for part in sub.split('/').filter(|part| !matches!(*part, "" | ".")) {
        let parent = open_inside(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            // The process's umask is no business of a volume.
            Ok(()) => rustix::fs::chmodat(&parent, part, Mode::from_raw_mode(0o777), AtFlags::empty())?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        }
        done = format!("{done}/{part}");
    }
    open_inside(root, sub, OFlags::PATH)
}

fn component(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        return Err(format!("{name:?} is no name of a folder"));
    }
    Ok(())
}

/// `hostPath.type`.
fn check_host_path(path: &Path, kind: HostPathType) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err(format!("hostPath {shown} must be absolute and without '..'"));
    }
    let made = |err: io::Error| format!("hostPath {shown} cannot be made: {err}");
    match kind {
        HostPathType::DirectoryOrCreate if !path.exists() => fs::create_dir_all(path).map_err(made)?,
        HostPathType::FileOrCreate if !path.exists() => fs::write(path, []).map_err(made)?,
        // As Docker did and kubelet still does.
        HostPathType::Any if !path.exists() => fs::create_dir_all(path).map_err(made)?,
        _ => {}
    }
    let found = fs::metadata(path)
        .map_err(|err| format!("hostPath {shown}: {err}"))?
        .file_type();
    let (right, wanted) = match kind {
        HostPathType::Any => (true, ""),
        HostPathType::Directory | HostPathType::DirectoryOrCreate => (found.is_dir(), "a folder"),
        HostPathType::File | HostPathType::FileOrCreate => (found.is_file(), "a file"),
        HostPathType::Socket => (found.is_socket(), "a socket"),
        HostPathType::CharDevice => (found.is_char_device(), "a character device"),
        HostPathType::BlockDevice => (found.is_block_device(), "a block device"),
    };
    if right {
        Ok(())
    } else {
        Err(format!("hostPath {shown} is not {wanted}, as its type asks for"))
    }
}

/// The volume group that a pod asks for.
pub(crate) fn fs_group(handover: &Handover) -> Option<u32> {
    handover
        .run
        .init_containers
        .iter()
        .chain(&handover.run.containers)
        .find_map(|c| c.security.fs_group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn files(list: &[(&str, &str)]) -> Vec<Volume> {
        let entry = |data: &str| FileEntry {
            data: Bytes::from(data.to_owned()),
            mode: 0o640,
        };
        let files = list
            .iter()
            .map(|(path, data)| ((*path).to_owned(), entry(data)))
            .collect();
        vec![Volume {
            name: "conf".to_owned(),
            source: VolumeSource::Files { files, secret: false },
        }]
    }

    fn at(dir: &Path) -> Volumes<'_> {
        Volumes {
            run: dir,
            disk: dir,
            claims: dir,
            fs_group: None,
        }
    }

    #[test]
    fn files_switch_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, conf) = (at(dir.path()), dir.path().join("v/conf"));
        volumes.prepare(&files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_to_string(conf.join("sub/b")).unwrap(), "2");
        let held = fs::File::open(conf.join("..data/a")).unwrap();
        volumes.refresh(&files(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!(fs::read_to_string(conf.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(conf.join("c")).unwrap(), "4");
        assert!(!conf.join("sub").exists() && fs::symlink_metadata(conf.join("sub")).is_err());
        assert_eq!(
            io::read_to_string(held).unwrap(),
            "1",
            "an open file is not changed under its reader"
        );
        let mode = fs::metadata(conf.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let left = fs::read_dir(&conf).unwrap().count();
        assert_eq!(left, 4, "..data, its folder, a and c");
    }

    #[test]
    fn paths_that_leave_a_volume_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a//b", ""] {
            assert!(at(dir.path()).prepare(&files(&[(bad, "1")])).is_err(), "{bad:?}");
        }
        let claim = model::PodId {
            namespace: "..".to_owned(),
            name: "x".to_owned(),
        };
        let volume = Volume {
            name: "c".to_owned(),
            source: VolumeSource::Claim { claim },
        };
        assert!(at(dir.path()).prepare(&[volume]).is_err());
    }

    #[test]
    fn a_sub_path_is_made_inside_and_never_followed_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        open_sub(&root, "a/b", true).unwrap();
        assert!(root.join("a/b").is_dir());
        symlink("/etc", root.join("out")).unwrap();
        assert!(
            open_sub(&root, "out/passwd", true).is_err(),
            "/etc of the volume, which is not there"
        );
        assert!(!root.join("etc").exists() || root.join("etc").is_dir());
    }

    #[test]
    fn a_host_path_is_what_its_type_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        check_host_path(&file, HostPathType::FileOrCreate).unwrap();
        assert!(
            check_host_path(&file, HostPathType::Directory)
                .unwrap_err()
                .contains("is not a folder")
        );
        assert!(check_host_path(&dir.path().join("absent"), HostPathType::File).is_err());
        check_host_path(Path::new("/dev/null"), HostPathType::CharDevice).unwrap();
        assert!(check_host_path(Path::new("relative"), HostPathType::Any).is_err());
    }
}
