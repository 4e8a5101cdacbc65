//! Writes that are whole or absent after a power cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another process may take to let go of a folder: one that was just ended, or its child between fork and exec.
const LET_GO: Duration = Duration::from_secs(2);

/// Takes a folder for this process alone by the file of that path, which is made where there is none. `None` where
/// another process has it and keeps it; blocks for two seconds before it says so.
///
/// # Errors
/// Where the file cannot be made or locked.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    Ok(lock(&file)?.then_some(file))
}

/// [`take`] for a file that is open already; says whether it was free.
///
/// # Errors
/// Where the file system has no locks.
pub fn lock(file: &File) -> io::Result<bool> {
    let end = Instant::now() + LET_GO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(err)) => return Err(err),
        }
    }
}

/// Makes `path` hold exactly `data`: temporary file, sync, rename, sync of the folder.
///
/// After a power cut the file holds the old bytes or the new ones, never a mix.
pub fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    replace_mode(path, data, 0o644)
}

/// [`replace`] with permission bits, set before the first byte is written: for keys.
pub fn replace_mode(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // A leftover of an earlier cut may have other permission bits.
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(data)?;
    file.sync_all()?;
    drop(file);
    rename(&temporary, path)
}

/// [`replace`] without syncs: whole or absent when the process dies, but after a power cut the file may hold old
/// bytes, new ones or none. For what a reboot makes worthless; costs no wait for the disk.
pub fn replace_unsynced(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    fs::write(&temporary, data)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that leaves the sync out, by its name"
    )]
    fs::rename(&temporary, path)
}

/// Renames and syncs the folder, so that the new name survives a power cut. The file must be synced already.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that pairs a rename with its sync"
    )]
    fs::rename(from, to)?;
    sync_dir(parent(to))
}

/// Renames without a sync: other processes see the old file or the new one, but a power cut may undo it. For
/// what need not outlive the boot.
pub fn swap(from: &Path, to: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the name says what it does not promise")]
    fs::rename(from, to)
}

/// Makes a folder and its parents, and syncs each new entry into its parent.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let up = parent(path);
    if up != path {
        create_dir_all(up)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_dir(up),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(err) => Err(err),
    }
}

/// Removes a file; one that is absent is no error.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Reads a file; one that is absent is `None`.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(data) => Ok(Some(data)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Syncs a folder's entries.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(up) if up.as_os_str().is_empty() => Path::new("."),
        Some(up) => up,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_of_an_earlier_cut_does_not_stand_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.tmp"), b"half").unwrap();
        replace_mode(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
    }
}
