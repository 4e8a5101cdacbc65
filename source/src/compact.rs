//! Writing the store anew with nothing but what is kept.
//!
//! Each fetch leaves a small pack and old commits are never asked for again, so that now and then the objects of
//! the kept commits are copied into one pack of an empty repository, which then takes the old one's place.

use crate::SourceError;
use crate::error::disk;
use crate::repository::Store;
use gix::ObjectId;
use gix::objs::{Kind, tree::EntryKind};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write};
use std::sync::atomic::AtomicBool;

/// Copies the files of `commits`, without their history, from one store into another that is empty.
pub(crate) fn copy(from: &Store, to: &Store, commits: &[ObjectId]) -> Result<(), SourceError> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for commit in commits {
        collect(from, *commit, &mut seen, &mut found).map_err(|err| SourceError::Damaged {
            commit: commit.to_string(),
            why: err.to_string(),
        })?;
    }
    let folder = to.repo.git_dir().join("objects").join("pack");
    let write = || -> io::Result<()> {
        let file = tempfile(&folder)?;
        let mut pack = PackWriter {
            file: BufWriter::new(&file),
            hash: gix::hash::hasher(gix::hash::Kind::Sha1),
        };
        pack.write(b"PACK\0\0\0\x02")?;
        pack.write(
            &u32::try_from(found.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        )?;
        for id in &found {
            let object = from.repo.find_object(*id).map_err(io::Error::other)?;
            pack.object(object.kind, &object.data)?;
        }
        pack.finish()?;
        (&file).rewind()?;
        index(BufReader::new(&file), &folder)
    };
    write().map_err(disk("write", &folder))
}

/// A commit, its folders and its files; a store may lack what the history of a shallow commit names.
fn collect(
    from: &Store,
    id: ObjectId,
    seen: &mut HashSet<ObjectId>,
    found: &mut Vec<ObjectId>,
) -> gix::Result<()> {
    if !seen.insert(id) {
        return Ok(());
    }
    found.push(id);
    let object = from.repo.find_object(id)?;
    match object.kind {
        Kind::Commit => collect(from, object.try_to_commit_ref()?.tree(), seen, found)?,
        Kind::Tree => {
            for entry in &object.try_into_tree()?.decode()?.entries {
                match entry.mode.kind() {
                    EntryKind::Tree => collect(from, entry.oid.to_owned(), seen, found)?,
                    EntryKind::Commit => {}
                    // A blob names nothing; it is not read twice.
                    _ if seen.insert(entry.oid.to_owned()) => found.push(entry.oid.to_owned()),
                    _ => {}
                }
            }
        }
        Kind::Blob | Kind::Tag => {}
    }
    Ok(())
}

/// A file without a name: it is gone when it is closed.
fn tempfile(folder: &std::path::Path) -> io::Result<File> {
    let path = folder.join("compact.tmp");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn index(mut pack: impl io::BufRead, folder: &std::path::Path) -> io::Result<()> {
    let options = gix::odb::pack::bundle::write::Options {
        thread_limit: Some(1),
        iteration_mode: gix::odb::pack::data::input::Mode::Verify,
        ..Default::default()
    };
    let outcome = gix::odb::pack::Bundle::write_to_directory(
        &mut pack,
        Some(folder),
        &mut gix::progress::Discard,
        &AtomicBool::new(false),
        None::<gix::objs::find::Never>,
        gix::hash::Kind::Sha1,
        options,
    );
    let outcome = outcome.map_err(io::Error::other)?;
    outcome.keep_path.map_or(Ok(()), std::fs::remove_file)
}

/// Git's pack format, version 2 (gitformat-pack), without deltas.
struct PackWriter<W: Write> {
    file: W,
    hash: gix::hash::Hasher,
}

impl<W: Write> PackWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.hash.update(data);
        self.file.write_all(data)
    }

    fn object(&mut self, kind: Kind, data: &[u8]) -> io::Result<()> {
        let number: u8 = match kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        let mut size = data.len();
        // Four bits of the size beside the kind, then seven at a time, lowest first.
        let mut byte = number << 4 | (size & 0xf) as u8;
        size >>= 4;
        while size > 0 {
            self.write(&[byte | 0x80])?;
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        self.write(&[byte])?;
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(data)?;
        self.write(&packed.finish()?)
    }

    fn finish(mut self) -> io::Result<()> {
        let digest = self.hash.try_finalize().map_err(io::Error::other)?;
        self.file.write_all(digest.as_slice())?;
        self.file.flush()
    }
}
