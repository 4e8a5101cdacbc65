//! A layer's folder while it grows.
//!
//! Nobody else writes here while we do, so that plain paths are safe once each of their folders was seen to be a real
//! folder inside: [`LayerTree::real`] is the only way from a name in the archive to a path on disk.

use super::archive::{Entry, Kind};
use super::error::At as _;
use super::lower::{Below, is_whiteout, look};
use super::{OverlayMarks, Ownership, UnpackError, UnpackOptions};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown, symlink,
};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

pub(super) struct LayerTree<'a> {
    root: &'a Path,
    lower: &'a [PathBuf],
    options: &'a UnpackOptions,
    /// Paths below the root that are real folders.
    folders: HashSet<PathBuf>,
    /// Folders get their mode and time last: filling them would need and change both.
    later: Vec<(PathBuf, u32, SystemTime)>,
}

impl<'a> LayerTree<'a> {
    pub fn new(root: &'a Path, lower: &'a [PathBuf], options: &'a UnpackOptions) -> Self {
        Self {
            root,
            lower,
            options,
            folders: HashSet::new(),
            later: vec![(PathBuf::new(), 0o755, SystemTime::UNIX_EPOCH)],
        }
    }

    /// Makes what one entry says.
    pub fn apply(&mut self, entry: &mut Entry<'_>) -> Result<(), UnpackError> {
        let names = names(&entry.path).map_err(|why| entry.hostile(why))?;
        let Some((name, folders)) = names.split_last() else {
            return self.root_entry(entry);
        };
        let folder = self.real(folders, true).map_err(|why| why.of(entry))?;
        if name.as_bytes() == OPAQUE {
            return self.make_opaque(&folder);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&folder, hidden, entry);
        }
        let path = folder.join(name);
        match entry.kind.clone() {
            Kind::Folder => return self.folder(path, entry),
            Kind::Hardlink(to) => return self.hardlink(&path, &to, entry),
            _ => self.clear(&path)?,
        }
        let at = self.root.join(&path);
        match &entry.kind {
            Kind::File => write_file(&at, entry)?,
            Kind::Symlink(to) => symlink(to, &at).at("link", &at)?,
            Kind::Fifo => node(&at, FileType::Fifo, 0, 0)?,
            Kind::Device { block, major, minor } => {
                let kind = if *block {
                    FileType::BlockDevice
                } else {
                    FileType::CharacterDevice
                };
                node(&at, kind, *major, *minor)?;
            }
            Kind::Folder | Kind::Hardlink(_) => {}
        }
        self.own(&at, entry.uid, entry.gid)?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            // After the owner, since a change of owner clears set-user-id and capabilities.
            fs::set_permissions(&at, Permissions::from_mode(entry.mode)).at("set the mode of", &at)?;
            self.attributes(&at, entry)?;
        }
        set_modified(&at, entry.modified)
    }

    /// Gives folders their final modes and times.
    pub fn finish(self) -> Result<(), UnpackError> {
        for (path, mode, modified) in self.later.iter().rev() {
            let at = self.root.join(path);
            // A later entry may have put something else here.
            if !self.folders.contains(path) && !path.as_os_str().is_empty() {
                continue;
            }
            fs::set_permissions(&at, Permissions::from_mode(*mode)).at("set the mode of", &at)?;
            set_modified(&at, *modified)?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry<'_>) -> Result<(), UnpackError> {
        if entry.kind != Kind::Folder {
            return Err(entry.hostile("the root must be a folder"));
        }
        self.own(self.root, entry.uid, entry.gid)?;
        self.attributes(self.root, entry)?;
        self.later.insert(0, (PathBuf::new(), entry.mode, entry.modified));
        self.later.remove(1);
        Ok(())
    }

    fn folder(&mut self, path: PathBuf, entry: &Entry<'_>) -> Result<(), UnpackError> {
        let at = self.root.join(&path);
        match lstat(&at)? {
            Some(meta) if meta.is_dir() => {}
            Some(meta) => {
                self.clear(&path)?;
                make_folder(&at)?;
                if is_whiteout(&meta) {
                    self.make_opaque(&path)?;
                }
            }
            None => make_folder(&at)?,
        }
        self.own(&at, entry.uid, entry.gid)?;
        self.attributes(&at, entry)?;
        self.later.push((path.clone(), entry.mode, entry.modified));
        self.folders.insert(path);
        Ok(())
    }

    fn hardlink(&mut self, path: &Path, to: &Path, entry: &Entry<'_>) -> Result<(), UnpackError> {
        let names = names(to).map_err(|why| entry.hostile(why))?;
        let Some((name, folders)) = names.split_last() else {
            return Err(entry.hostile("it links to the root"));
        };
        let target = self.real(folders, false).map_err(|why| why.of(entry))?.join(name);
        let (from, at) = (self.root.join(&target), self.root.join(path));
        match lstat(&from)? {
            None => {
                return Err(entry.hostile(format!(
                    "it links to {}, which is not in this layer",
                    to.display()
                )));
            }
            Some(meta) if meta.is_dir() || is_whiteout(&meta) => {
                return Err(entry.hostile(format!("it links to {}, which is no file", to.display())));
            }
            Some(_) if target == path => return Ok(()),
            Some(_) => {}
        }
        self.clear(path)?;
        fs::hard_link(&from, &at).at("link", &at)
    }

    fn whiteout(&mut self, folder: &Path, hidden: &[u8], entry: &Entry<'_>) -> Result<(), UnpackError> {
        if hidden.starts_with(WHITEOUT) {
            // Other names of this form are aufs's own and mean nothing here.
            return Ok(());
        }
        if hidden.is_empty() || matches!(hidden, b"." | b"..") {
            return Err(entry.hostile("it removes no name"));
        }
        let path = folder.join(OsStr::from_bytes(hidden));
        let at = self.root.join(&path);
        match lstat(&at)? {
            // A whiteout speaks of the layers below only; what this layer itself brings stays.
            Some(meta) if meta.is_dir() => self.make_opaque(&path),
            Some(_) => Ok(()),
            None => node(&at, FileType::CharacterDevice, 0, 0),
        }
    }

    fn make_opaque(&self, folder: &Path) -> Result<(), UnpackError> {
        let at = self.root.join(folder);
        let name = match self.options.marks {
            OverlayMarks::Trusted => "trusted.overlay.opaque",
            OverlayMarks::User => "user.overlay.opaque",
        };
        rustix::fs::lsetxattr(&at, name, b"y", XattrFlags::empty()).at("mark as opaque", &at)
    }

    /// Removes what is at `path`, folders with all in them.
    fn clear(&mut self, path: &Path) -> Result<(), UnpackError> {
        let at = self.root.join(path);
        match lstat(&at)? {
            None => Ok(()),
            Some(meta) if meta.is_dir() => {
                self.folders.retain(|folder| !folder.starts_with(path));
                fs::remove_dir_all(&at).at("replace", &at)
            }
            Some(_) => fs::remove_file(&at).at("replace", &at),
        }
    }

    /// The path of a folder with every link followed, inside only. Missing folders are made where `create` is set.
    fn real(&mut self, names: &[OsString], create: bool) -> Result<PathBuf, Refusal> {
        let direct: PathBuf = names.iter().collect();
        if self.folders.contains(&direct) {
            return Ok(direct);
        }
        let mut real = PathBuf::new();
        let mut ahead: VecDeque<OsString> = names.iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if !real.pop() {
                    return Err(Refusal::Escapes);
                }
                continue;
            }
            let path = real.join(&name);
            if self.folders.contains(&path) {
                real = path;
                continue;
            }
            let at = self.root.join(&path);
            let target = match lstat(&at)? {
                Some(meta) if meta.is_dir() => None,
                Some(meta) if meta.is_symlink() => {
                    let target = fs::read_link(&at).at("read the link", &at)?;
                    // No tool writes through its own link; one that tries means the machine's folder, not the layer's.
                    if target.is_absolute() {
                        return Err(Refusal::Escapes);
                    }
                    Some(target)
                }
                Some(meta) if is_whiteout(&meta) && create => {
                    fs::remove_file(&at).at("replace", &at)?;
                    self.implied_folder(&path, None)?;
                    self.make_opaque(&path)?;
                    None
                }
                Some(_) => return Err(Refusal::NoFolder(path)),
                None => match look(self.lower, &path) {
                    Below::Symlink(target) => Some(target),
                    _ if !create => return Err(Refusal::Missing(path)),
                    Below::Folder(meta) => self.implied_folder(&path, Some(&meta)).map(|()| None)?,
                    Below::Nothing => self.implied_folder(&path, None).map(|()| None)?,
                },
            };
            let Some(target) = target else {
                self.folders.insert(path.clone());
                real = path;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Refusal::Loop);
            }
            for part in target.components().rev() {
                match part {
                    Component::Normal(name) => ahead.push_front(name.to_owned()),
                    Component::ParentDir => ahead.push_front("..".into()),
                    // A link of a layer below is read as the container will read it: from the image's root.
                    Component::RootDir => real = PathBuf::new(),
                    Component::CurDir | Component::Prefix(_) => {}
                }
            }
        }
        Ok(real)
    }

    /// A folder that the layer passes through without describing it: as it is below, or plain.
    fn implied_folder(&mut self, path: &Path, below: Option<&Metadata>) -> Result<(), UnpackError> {
        let at = self.root.join(path);
        make_folder(&at)?;
        let (mode, modified) = match below {
            None => (0o755, SystemTime::UNIX_EPOCH),
            Some(meta) => {
                self.own(&at, meta.uid(), meta.gid())?;
                (
                    meta.mode() & 0o7777,
                    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                )
            }
        };
        self.later.push((path.to_owned(), mode, modified));
        Ok(())
    }

    fn own(&self, at: &Path, uid: u32, gid: u32) -> Result<(), UnpackError> {
        match self.options.ownership {
            Ownership::Squash => Ok(()),
            Ownership::Keep => lchown(at, Some(uid), Some(gid)).at("set the owner of", at),
        }
    }

    /// File capabilities, access lists and users' own; never overlayfs's, which could uncover what is hidden.
    fn attributes(&self, at: &Path, entry: &Entry<'_>) -> Result<(), UnpackError> {
        for (name, value) in &entry.attributes {
            let wanted = match name.split_once('.') {
                Some(("user", rest)) => !rest.starts_with("overlay."),
                Some(("security", rest)) => rest == "capability",
                Some(("system", rest)) => rest.starts_with("posix_acl_"),
                _ => false,
            };
            if !wanted {
                tracing::debug!(path = %at.display(), name, "attribute left out");
                continue;
            }
            match rustix::fs::lsetxattr(at, name.as_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                // Not every file system has them, and not everyone may set them.
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    tracing::warn!(path = %at.display(), name, "the file system has no such attributes");
                }
                Err(rustix::io::Errno::PERM) if self.options.ownership == Ownership::Squash => {
                    tracing::warn!(path = %at.display(), name, "attribute left out: only root may set it");
                }
                Err(err) => return Err(err).at("set an attribute of", at),
            }
        }
        Ok(())
    }
}

/// Why a folder on an entry's way is no way.
enum Refusal {
    Escapes,
    Loop,
    NoFolder(PathBuf),
    Missing(PathBuf),
    Disk(UnpackError),
}

impl From<UnpackError> for Refusal {
    fn from(err: UnpackError) -> Self {
        Self::Disk(err)
    }
}

impl Refusal {
    fn of(self, entry: &Entry<'_>) -> UnpackError {
        let why = match self {
            Self::Disk(err) => return err,
            Self::Escapes => "a link on its way leads out of the layer".to_owned(),
            Self::Loop => "the links on its way never end".to_owned(),
            Self::NoFolder(path) => format!("{} on its way is no folder", path.display()),
            Self::Missing(path) => format!("it links into {}, which is not in this layer", path.display()),
        };
        entry.hostile(why)
    }
}

/// The parts of a name in the archive, which may start at `/` or `./` but never lead upwards.
fn names(path: &Path) -> Result<Vec<OsString>, &'static str> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err("its name holds a zero byte");
    }
    if bytes.is_empty() {
        return Err("it has no name");
    }
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => return Err("its name leads upwards"),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn lstat(at: &Path) -> Result<Option<Metadata>, UnpackError> {
    match fs::symlink_metadata(at) {
        Ok(meta) => Ok(Some(meta)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).at("look at", at),
    }
}

fn make_folder(at: &Path) -> Result<(), UnpackError> {
    // Ours alone until the end, whatever its own mode will be.
    DirBuilder::new().mode(0o700).create(at).at("make folder", at)
}

fn write_file(at: &Path, entry: &mut Entry<'_>) -> Result<(), UnpackError> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(at)
        .at("create", at)?;
    let mut buf = [0; 64 * 1024];
    loop {
        // Told apart, since one is the layer's fault and the other the disk's.
        let got = entry.content.read(&mut buf).map_err(UnpackError::Archive)?;
        if got == 0 {
            return Ok(());
        }
        io::Write::write_all(&mut file, &buf[..got]).at("write", at)?;
    }
}

fn node(at: &Path, kind: FileType, major: u32, minor: u32) -> Result<(), UnpackError> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, at, kind, Mode::from_raw_mode(0o600), device).at("make the node", at)
}

fn set_modified(at: &Path, modified: SystemTime) -> Result<(), UnpackError> {
    let since = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let time = Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(0),
        tv_nsec: since.subsec_nanos().into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", at)
}
