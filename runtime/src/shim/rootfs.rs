//! A container's root file system: an overlay of its image's layers, and what the image says of users.

use super::protocol::LocalImage;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Folders of one container.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    /// In memory: mount point and the links to the layers.
    pub(crate) run: &'a Path,
    /// On disk: what the container writes.
    pub(crate) disk: &'a Path,
}

impl Overlay<'_> {
    /// Names the image's layers by short links: the kernel takes one page of mount options, and 50 full paths
    /// are more.
    pub(crate) fn link(&self, image: &LocalImage) -> io::Result<()> {
        fs::create_dir_all(self.run.join("rootfs"))?;
        let links = self.run.join("l");
        remove_dir(&links)?;
        fs::create_dir(&links)?;
        for (number, layer) in image.layers.iter().rev().enumerate() {
            symlink(layer, links.join(number.to_string()))?;
        }
        symlink(self.disk, links.join("d"))
    }

    /// Mounts a fresh overlay at `run/rootfs`; what an earlier run of the container wrote is gone.
    ///
    /// The calling process must have no other threads, as its working folder changes for a moment.
    pub(crate) fn mount(&self) -> io::Result<()> {
        self.unmount();
        for dir in ["upper", "work"] {
            let dir = self.disk.join(dir);
            remove_dir(&dir)?;
            fs::create_dir_all(&dir)?;
        }
        let links = self.run.join("l");
        let layers = fs::read_dir(&links)?.count().saturating_sub(1);
        let lower: Vec<String> = (0..layers).map(|number| number.to_string()).collect();
        let options = format!("lowerdir={},upperdir=d/upper,workdir=d/work", lower.join(":"));
        let before = std::env::current_dir()?;
        std::env::set_current_dir(&links)?;
        let target = self.run.join("rootfs");
        let done = mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        );
        std::env::set_current_dir(before)?;
        done.map_err(|err| {
            let err = io::Error::from(err);
            io::Error::new(
                err.kind(),
                format!("mounting an overlay of {layers} layers: {err}"),
            )
        })
    }

    /// Takes the overlay away; one that is absent is no error.
    pub(crate) fn unmount(&self) {
        let _ = umount2(&self.run.join("rootfs"), MntFlags::MNT_DETACH);
    }
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Opens a path below `root`, with every link on the way read as the container would.
pub(crate) fn open_inside(root: &Path, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let root = File::open(root)?;
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(
        &root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?)
}

fn read_inside(root: &Path, path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = open_inside(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        // A file of a container is not trusted to have an end.
        let _ = File::from(file).take(4 << 20).read_to_string(&mut text);
    }
    text
}

/// User, group and supplementary groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// Resolves the image's `User` (`user`, `user:group`, numbers or names) by the container's own
/// `/etc/passwd` and `/etc/group` (image-spec, "config").
pub(crate) fn ids(root: &Path, image_user: &str, uid: Option<u32>, gid: Option<u32>) -> Result<Ids, String> {
    let passwd = read_inside(root, "/etc/passwd");
    let group = read_inside(root, "/etc/group");
    resolve(&passwd, &group, image_user, uid, gid)
}

fn resolve(
    passwd: &str,
    group: &str,
    image_user: &str,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<Ids, String> {
    let (user, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    let (user, image_group) = match uid {
        // A user given by the pod makes the image's group meaningless.
        Some(uid) => (uid.to_string(), None),
        None if user.is_empty() => ("0".to_owned(), image_group),
        None => (user.to_owned(), image_group),
    };
    let rows = || {
        passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|row| row.len() >= 6)
    };
    let row = match user.parse::<u32>() {
        Ok(uid) => rows().find(|row| row[2].parse() == Ok(uid)),
        Err(_) => rows().find(|row| row[0] == user),
    };
    let uid = match (user.parse::<u32>(), &row) {
        (Ok(uid), _) => uid,
        (Err(_), Some(row)) => row[2]
            .parse()
            .map_err(|_| format!("/etc/passwd has no number for user {user:?}"))?,
        (Err(_), None) => {
            return Err(format!(
                "the image's user {user:?} is not in its /etc/passwd; set securityContext.runAsUser"
            ));
        }
    };
    let group_rows = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|row| row.len() >= 4)
    };
    let own_group = || row.as_ref().and_then(|row| row[3].parse().ok()).unwrap_or(0);
    let gid = match (gid, image_group) {
        (Some(gid), _) => gid,
        (None, None) => own_group(),
        (None, Some(name)) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => group_rows()
                .find(|row| row[0] == name)
                .and_then(|row| row[2].parse().ok())
                .ok_or_else(|| {
                    format!(
                        "the image's group {name:?} is not in its /etc/group; set securityContext.runAsGroup"
                    )
                })?,
        },
    };
    let name = row.as_ref().map(|row| row[0]);
    let groups = group_rows()
        .filter(|row| name.is_some_and(|name| row[3].split(',').any(|member| member == name)))
        .filter_map(|row| row[2].parse().ok())
        .filter(|group| *group != gid)
        .collect();
    Ok(Ids {
        uid,
        gid,
        groups,
        home: row.map(|row| row[5].to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nvideo:x:44:web,other\n";

    #[track_caller]
    fn check(user: &str, uid: Option<u32>, gid: Option<u32>, want: (u32, u32, &[u32])) {
        let ids = resolve(PASSWD, GROUP, user, uid, gid).unwrap();
        assert_eq!((ids.uid, ids.gid, ids.groups.as_slice()), want);
    }

    #[test]
    fn users_are_found_as_the_image_means_them() {
        check("", None, None, (0, 0, &[]));
        check("web", None, None, (33, 34, &[44]));
        check("33", None, None, (33, 34, &[44]));
        check("web:video", None, None, (33, 44, &[]));
        check("web:7", None, None, (33, 7, &[44]));
        check("web", Some(1000), None, (1000, 0, &[]));
        check("web", None, Some(5), (33, 5, &[44]));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let refusal = resolve(PASSWD, GROUP, "nobody", None, None).unwrap_err();
        assert!(
            refusal.contains("\"nobody\"") && refusal.contains("runAsUser"),
            "{refusal}"
        );
    }

    #[test]
    fn a_link_in_the_image_does_not_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("secret"), "out").unwrap();
        symlink("../../secret", dir.path().join("root/etc/passwd")).unwrap();
        assert_eq!(read_inside(&dir.path().join("root"), "/etc/passwd"), "");
    }
}
