use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

fn open(dir: &Path) -> Store {
    let quota = Quota {
        keep_free: 0,
        ..Quota::default()
    };
    Store::open(dir, quota).unwrap()
}

/// Bytes that differ everywhere, the same at each call.
fn bytes(len: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_blob_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put(b"hello").unwrap();
    assert_eq!(store.read(&digest, 10).unwrap().unwrap(), b"hello");
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    assert!(matches!(
        writer.commit(Some(&digest)),
        Err(StoreError::Corrupt { .. })
    ));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.list(), [(digest, 5)]);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(
        Store::open(dir.path(), Quota::default()),
        Err(StoreError::InUse { .. })
    ));
    drop(store);
    open(dir.path());
}

#[test]
fn leftovers_of_a_power_cut_are_cleaned_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let good = open(dir.path()).put(b"good").unwrap();
    let blobs = dir.path().join("blobs/sha256");
    // A name whose data never arrived, a stranger, a half-written temporary file, a half-written pin.
    fs::write(blobs.join(Digest::of(b"lost").hex()), b"").unwrap();
    fs::write(blobs.join("not-a-digest"), b"x").unwrap();
    fs::write(dir.path().join("tmp/7"), b"half").unwrap();
    fs::write(dir.path().join("pins/abc.json.tmp"), b"{").unwrap();
    let store = open(dir.path());
    assert_eq!(store.list(), [(good, 4)]);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("pins")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("bad")).unwrap().count(), 2);
}

#[test]
fn a_blob_damaged_on_disk_counts_as_absent_and_can_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let data = bytes(300_000);
    let digest = store.put(&data).unwrap();
    for at in [0, 150_000, 299_999] {
        let file = File::options()
            .write(true)
            .open(store.path(&digest).unwrap())
            .unwrap();
        file.write_all_at(&[data[at] ^ 1], at as u64).unwrap();
        let mut reader = store.open_blob(&digest).unwrap().unwrap();
        let mut got = Vec::new();
        let err = reader.read_to_end(&mut got).unwrap_err();
        assert_eq!(err.kind(), std::io::ErrorKind::InvalidData);
        assert!(
            got.len() < data.len(),
            "the last bytes of a bad blob were handed out"
        );
        assert!(!store.has(&digest));
        assert!(dir.path().join("bad").join(digest.hex()).exists());
        store.put(&data).unwrap();
        assert!(store.verify(&digest).unwrap());
    }
}

#[test]
fn a_shortened_blob_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put(&bytes(5000)).unwrap();
    let file = File::options()
        .write(true)
        .open(store.path(&digest).unwrap())
        .unwrap();
    file.set_len(100).unwrap();
    assert_eq!(store.read(&digest, 10_000).unwrap(), None);
    assert!(!store.has(&digest));
}

#[test]
fn pins_keep_a_manifest_and_what_it_names_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = store.put(b"layer").unwrap();
    let config = store.put(b"{}").unwrap();
    let manifest = serde_json::json!({"schemaVersion": 2,
        "config": {"mediaType": "c", "digest": config, "size": 2},
        "layers": [{"mediaType": "l", "digest": layer, "size": 5}]});
    let manifest = store.put(manifest.to_string().as_bytes()).unwrap();
    let index = serde_json::json!({"schemaVersion": 2,
        "manifests": [{"mediaType": "m", "digest": manifest, "size": 2}]});
    let index = store.put(index.to_string().as_bytes()).unwrap();
    let stray = store.put(b"stray").unwrap();
    store.pin("engine", &index, Keep::Whole).unwrap();
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.pins("engine"), [(index, Keep::Whole)]);
    let collected = store.collect(Duration::ZERO).unwrap();
    assert_eq!(collected, Collected { blobs: 1, bytes: 5 });
    assert!(!store.has(&stray));
    assert!(
        [layer, config, manifest, index]
            .iter()
            .all(|digest| store.has(digest))
    );
    store.set_pins("engine", [(manifest, Keep::Alone)]).unwrap();
    store.collect(Duration::ZERO).unwrap();
    assert_eq!(store.list().len(), 1);
    store.unpin("engine", &manifest).unwrap();
    assert!(store.owners().is_empty());
}

/// F5: a damaged pin file neither stops the start nor lets go of what it kept.
#[test]
fn nothing_is_collected_while_pins_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let kept = store.put(b"kept").unwrap();
    store.pin("engine", &kept, Keep::Alone).unwrap();
    store.pin("other", &Digest::of(b"absent"), Keep::Alone).unwrap();
    let file = dir
        .path()
        .join("pins")
        .join(format!("{}.json", Digest::of(b"engine").hex()));
    let whole = fs::read(&file).unwrap();
    drop(store);
    for end in 0..whole.len() {
        fs::write(&file, &whole[..end]).unwrap();
        let store = open(dir.path());
        assert!(!store.knows_its_pins());
        assert_eq!(store.pins("other").len(), 1);
        assert_eq!(store.collect(Duration::ZERO).unwrap().blobs, 0);
        assert!(store.has(&kept), "{end} bytes of the pins");
    }
    let store = open(dir.path());
    store.set_pins("engine", []).unwrap();
    assert!(store.knows_its_pins());
    assert_eq!(store.collect(Duration::ZERO).unwrap().blobs, 1);
}

#[test]
fn room_is_made_of_what_nobody_needs_and_refused_before_writing() {
    let dir = tempfile::tempdir().unwrap();
    let quota = Quota {
        max_bytes: 1000,
        keep_free: 0,
    };
    let store = Store::open(dir.path(), quota).unwrap();
    let first = store.put(&bytes(300)).unwrap();
    let second = store.put(&bytes(301)).unwrap();
    let third = store.put(&bytes(302)).unwrap();
    store.pin("me", &second, Keep::Alone).unwrap();
    store.read(&first, 1000).unwrap(); // now the third is the least recently used
    let fourth = store.put(&bytes(303)).unwrap();
    assert!(store.has(&first) && store.has(&second) && store.has(&fourth));
    assert!(!store.has(&third));

    let lease = store.lease([first]);
    let err = store.reserve(600).unwrap_err();
    assert!(err.is_full(), "{err}");
    assert!(store.has(&first), "leased");
    drop(lease);
    let room = store.reserve(600).unwrap();
    assert!(store.reserve(200).is_err(), "promised to another already");
    drop(room);
    store.reserve(600).unwrap();
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let quota = Quota {
        max_bytes: u64::MAX,
        keep_free: u64::MAX / 2,
    };
    let store = Store::open(dir.path(), quota).unwrap();
    let err = store.put(b"x").unwrap_err();
    assert!(err.to_string().contains("free space on the disk"), "{err}");
    assert!(store.list().is_empty());
}

/// Downloads `data` in pieces, and drops the partial after each of `cuts` bytes.
fn download(store: &Store, digest: &Digest, data: &[u8], upto: u64) {
    let mut partial = store.partial(digest, data.len() as u64).unwrap();
    let at = usize::try_from(partial.at()).unwrap();
    let to = usize::try_from(upto).unwrap().max(at);
    for piece in data[at..to].chunks(70_000) {
        partial.append(piece).unwrap();
    }
    if partial.left() == 0 {
        partial.finish().unwrap();
    }
}

#[test]
fn a_download_goes_on_from_its_last_whole_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(3 * CHUNK_BYTES + 1000);
    let digest = Digest::of(&data);
    let ends = [
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        3 * CHUNK_BYTES,
        3 * CHUNK_BYTES + 999,
    ];
    for end in ends {
        let store = open(dir.path());
        download(&store, &digest, &data, end);
        drop(store);
        let store = open(dir.path());
        let partial = store.partial(&digest, data.len() as u64).unwrap();
        assert!(end - partial.at() < CHUNK_BYTES, "{end}: {}", partial.at());
    }
    let store = open(dir.path());
    download(&store, &digest, &data, data.len() as u64);
    assert!(store.verify(&digest).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

/// Layers of one image arrive side by side: each asks for room while others become whole.
#[test]
fn room_is_counted_while_downloads_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let others = std::thread::spawn({
        let store = store.clone();
        move || {
            for number in 0..300_u32 {
                let data = number.to_le_bytes();
                download(&store, &Digest::of(&data), &data, 4);
            }
        }
    });
    while !others.is_finished() {
        store.used().unwrap();
    }
    others.join().unwrap();
    assert_eq!(store.used().unwrap(), 300 * 4);
}

/// F5 and F12: whatever a power cut does to the last writes, the download ends with the right bytes, and at most the
/// damaged chunk and what follows is fetched again.
#[test]
fn a_torn_download_is_cut_back_to_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(2 * CHUNK_BYTES + 5000);
    let digest = Digest::of(&data);
    let file = dir.path().join("partial").join(digest.hex());
    let sums = file.with_extension("sums");
    let chunk = CHUNK_BYTES;
    type Damage<'a> = (&'a dyn Fn(), u64);
    let cut = |path: &Path, len: u64| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(len)
            .unwrap();
    };
    let flip = |path: &Path, at: u64| {
        let file = File::options().write(true).read(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    };
    let damages: &[Damage] = &[
        (&|| cut(&file, 2 * chunk - 1), chunk),  // the last chunk lost its tail
        (&|| cut(&sums, 33), chunk),             // its sum was torn
        (&|| cut(&sums, 0), 0),                  // no sum arrived
        (&|| cut(&file, 0), 0),                  // no byte arrived
        (&|| flip(&file, 2 * chunk - 1), chunk), // the last chunk holds other bytes
        (&|| flip(&file, 0), 0),                 // the first does
        (&|| flip(&sums, 40), chunk),            // a sum does
        (&|| flip(&file, 2 * chunk + 10), 2 * chunk), // behind the last sum
        (&|| fs::remove_file(&sums).unwrap(), 0),
    ];
    for (number, (damage, resumes_at)) in damages.iter().enumerate() {
        let store = open(dir.path());
        download(&store, &digest, &data, 2 * chunk + 4000);
        drop(store);
        damage();
        let store = open(dir.path());
        let partial = store.partial(&digest, data.len() as u64).unwrap();
        assert_eq!(partial.at(), *resumes_at, "damage {number}");
        drop(partial);
        download(&store, &digest, &data, data.len() as u64);
        assert!(store.verify(&digest).unwrap(), "damage {number}");
        store.remove(&digest).unwrap();
    }
}

#[test]
fn a_download_with_other_bytes_or_too_many_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = Digest::of(b"right");
    let mut partial = store.partial(&digest, 5).unwrap();
    assert!(matches!(store.partial(&digest, 5), Err(StoreError::Busy { .. })));
    assert!(matches!(
        partial.append(b"too long"),
        Err(StoreError::WrongSize { .. })
    ));
    partial.append(b"wrong").unwrap();
    assert!(matches!(partial.finish(), Err(StoreError::Corrupt { .. })));
    assert!(!store.has(&digest));
    let mut partial = store.partial(&digest, 5).unwrap();
    assert_eq!(partial.at(), 0);
    partial.append(b"right").unwrap();
    partial.finish().unwrap();
    assert!(store.has(&digest));
}
