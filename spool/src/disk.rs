//! The seam to the disk: files written at offsets, synced by hand.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// What the spool asks of a file system.
///
/// Nothing written is promised to survive a power cut until [`DiskFile::sync`] (bytes) and [`Disk::sync_dir`]
/// (names) have returned without error.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Makes a folder and its parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing, making it if `create`.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads as many bytes as there are, up to the buffer's length.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes written bytes durable. After an error nothing written since the last success may be trusted.
    fn sync(&self) -> io::Result<()>;
    /// Reserves room, so that writes within `len` cannot run out of it, and makes the length durable.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Takes the lock that one process holds at a time; the kernel gives it back when the process ends. May wait a
    /// moment for one that just did.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        kit::disk::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        kit::disk::sync_dir(dir)
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            // Some file systems cannot reserve; zeros written once do the same.
            Err(rustix::io::Errno::OPNOTSUPP) => self.fill(len)?,
            Err(err) => return Err(err.into()),
        }
        self.0.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn try_lock(&self) -> io::Result<bool> {
        kit::disk::lock(&self.0)
    }
}

impl RealFile {
    fn fill(&self, len: u64) -> io::Result<()> {
        let zeros = [0_u8; 65_536];
        let mut at = self.size()?;
        while at < len {
            let count = zeros.len().min(usize::try_from(len - at).unwrap_or(zeros.len()));
            self.write_at(&zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }
}
