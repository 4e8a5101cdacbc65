//! A disk that loses power: keeps unsynced writes apart, and on a cut drops, reorders and tears them.

use crate::disk::{Disk, DiskFile};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a drive writes whole or not at all.
const SECTOR: usize = 512;

/// Files as they lie on the platter.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// What the next operations answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// So many writes fail after having written a part.
    pub writes: u32,
    /// So many syncs fail; the pages count as clean afterwards.
    pub syncs: u32,
    /// No new bytes can be reserved.
    pub full: bool,
    /// Every write, sync and creation is refused.
    pub read_only: bool,
}

#[derive(Debug, Default)]
struct World {
    life: u64,
    files: BTreeMap<PathBuf, FileState>,
    faults: Faults,
    unreadable: BTreeMap<PathBuf, (u64, u64)>,
    written: u64,
    syncs: u64,
}

#[derive(Debug, Default, Clone)]
struct FileState {
    durable: Vec<u8>,
    visible: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
    /// Written, but a sync of them failed: no later sync brings them down.
    limbo: Vec<(u64, Vec<u8>)>,
    named: bool,
}

/// One power-on of the disk; after [`SimDisk::cut`] every use of it fails.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    world: Arc<Mutex<World>>,
    life: u64,
    /// Syncs wait while it is closed.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl SimDisk {
    pub(crate) fn new() -> Self {
        Self::of(Image::new())
    }

    pub(crate) fn of(image: Image) -> Self {
        let mut world = World::default();
        for (path, bytes) in image {
            let state = FileState {
                visible: bytes.clone(),
                durable: bytes,
                named: true,
                ..FileState::default()
            };
            world.files.insert(path, state);
        }
        Self {
            world: Arc::new(Mutex::new(world)),
            life: 0,
            gate: Arc::default(),
        }
    }

    /// Makes every sync wait, or lets them through again.
    pub(crate) fn hold_syncs(&self, hold: bool) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        self.gate.1.notify_all();
    }

    fn pass_gate(&self) {
        let held = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.1.wait_while(held, |held| *held));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.lock();
        if world.life != self.life {
            return Err(io::Error::other("no power"));
        }
        Ok(world)
    }

    /// Cuts the power; sectors of unsynced writes arrive or not, in any order. Names not synced may be lost.
    pub(crate) fn cut(&self, seed: u64) -> SimDisk {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = self.lock();
        world.life += 1;
        let mut lost = Vec::new();
        // A cut may also find all written, or nothing.
        let share: f64 = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
        for (path, file) in &mut world.files {
            for (offset, data) in file.limbo.drain(..).chain(file.pending.drain(..)) {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    if rng.random_bool(share) {
                        put(&mut file.durable, offset + (index * SECTOR) as u64, sector);
                    }
                }
            }
            file.visible.clone_from(&file.durable);
            if !file.named && rng.random_bool(0.5) {
                lost.push(path.clone());
            }
            file.named = true;
        }
        for path in lost {
            world.files.remove(&path);
        }
        SimDisk {
            world: self.world.clone(),
            life: world.life,
            gate: Arc::default(),
        }
    }

    /// What would be on the platter after a cut that loses all that is unsynced.
    pub(crate) fn durable(&self) -> Image {
        let world = self.lock();
        world
            .files
            .iter()
            .filter(|(_, file)| file.named)
            .map(|(path, file)| (path.clone(), file.durable.clone()))
            .collect()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Reads of these bytes of a file fail.
    pub(crate) fn make_unreadable(&self, path: &Path, from: u64, to: u64) {
        self.lock().unreadable.insert(path.to_owned(), (from, to));
    }

    /// Bytes written and syncs so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let world = self.lock();
        (world.written, world.syncs)
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let from = usize::try_from(offset).unwrap();
    let to = from + data.len();
    if bytes.len() < to {
        bytes.resize(to, 0);
    }
    bytes[from..to].copy_from_slice(data);
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn erofs() -> io::Error {
    io::Error::from_raw_os_error(30)
}

fn enospc() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Disk for SimDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        self.alive().map(|_| ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.alive()?;
        Ok(world
            .files
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.alive()?;
        if !world.files.contains_key(path) {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            if world.faults.read_only {
                return Err(erofs());
            }
            world.files.insert(path.to_owned(), FileState::default());
        }
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, false)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.alive()?;
        if world.faults.read_only {
            return Err(erofs());
        }
        for (path, file) in &mut world.files {
            if path.parent() == Some(dir) {
                file.named = true;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut FileState, &mut Faults) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.alive()?;
        let mut faults = world.faults;
        let file = world.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let result = act(file, &mut faults);
        world.faults = faults;
        result
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.alive()?;
        if let Some((from, to)) = world.unreadable.get(&self.path)
            && offset < *to
            && offset + buffer.len() as u64 > *from
        {
            return Err(eio());
        }
        let file = world.files.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap().min(file.visible.len());
        let count = buffer.len().min(file.visible.len() - from);
        buffer[..count].copy_from_slice(&file.visible[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.with(|file, faults| {
            if faults.read_only {
                return Err(erofs());
            }
            let failing = faults.writes > 0;
            faults.writes = faults.writes.saturating_sub(1);
            let data = if failing { &data[..data.len() / 2] } else { data };
            put(&mut file.visible, offset, data);
            // What is written again is no longer what the failed sync left behind.
            file.limbo
                .retain(|(at, held)| *at >= offset + data.len() as u64 || *at + held.len() as u64 <= offset);
            file.pending.push((offset, data.to_vec()));
            if failing { Err(eio()) } else { Ok(()) }
        })?;
        self.disk.lock().written += data.len() as u64;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.pass_gate();
        self.with(|file, faults| {
            if faults.read_only {
                return Err(erofs());
            }
            if faults.syncs > 0 {
                faults.syncs -= 1;
                for (offset, data) in file.pending.drain(..) {
                    let sectors = data.chunks(SECTOR).enumerate();
                    file.limbo.extend(
                        sectors.map(|(index, sector)| (offset + (index * SECTOR) as u64, sector.to_vec())),
                    );
                }
                return Err(eio());
            }
            for (offset, data) in file.pending.drain(..) {
                put(&mut file.durable, offset, &data);
            }
            Ok(())
        })?;
        self.disk.lock().syncs += 1;
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|file, faults| {
            if faults.read_only {
                return Err(erofs());
            }
            if faults.full {
                return Err(enospc());
            }
            let len = usize::try_from(len).unwrap();
            if file.visible.len() < len {
                file.visible.resize(len, 0);
            }
            if file.durable.len() < len {
                file.durable.resize(len, 0);
            }
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|file, _| Ok(file.visible.len() as u64))
    }

    fn try_lock(&self) -> io::Result<bool> {
        // The tests of the lock itself run on the real file system.
        self.disk.alive().map(|_| true)
    }
}
