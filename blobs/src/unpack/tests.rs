use super::*;
use proptest::prelude::*;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use tar::EntryType;

/// One raw entry: names and links as they are, whatever the `tar` crate thinks of them.
struct Raw<'a> {
    path: &'a str,
    kind: EntryType,
    link: &'a str,
    data: &'a [u8],
    pax: &'a [(&'a str, &'a [u8])],
}

impl<'a> Raw<'a> {
    fn new(path: &'a str, kind: EntryType) -> Self {
        Self {
            path,
            kind,
            link: "",
            data: b"",
            pax: &[],
        }
    }
}

fn file<'a>(path: &'a str, data: &'a [u8]) -> Raw<'a> {
    Raw {
        data,
        ..Raw::new(path, EntryType::Regular)
    }
}

fn folder(path: &str) -> Raw<'_> {
    Raw::new(path, EntryType::Directory)
}

fn symlink<'a>(path: &'a str, link: &'a str) -> Raw<'a> {
    Raw {
        link,
        ..Raw::new(path, EntryType::Symlink)
    }
}

fn hardlink<'a>(path: &'a str, link: &'a str) -> Raw<'a> {
    Raw {
        link,
        ..Raw::new(path, EntryType::Link)
    }
}

fn archive(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        if !entry.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in entry.pax {
                let body = key.len() + value.len() + 3;
                // The length counts its own digits.
                let length = (1..9)
                    .map(|digits| body + digits)
                    .find(|all| all.to_string().len() == all - body);
                records.extend(format!("{} {key}=", length.unwrap()).bytes());
                records.extend(*value);
                records.push(b'\n');
            }
            block(
                &mut bytes,
                "pax",
                EntryType::XHeader,
                "",
                &records,
                records.len() as u64,
            );
        }
        let size = entry.data.len() as u64;
        block(&mut bytes, entry.path, entry.kind, entry.link, entry.data, size);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn block(bytes: &mut Vec<u8>, path: &str, kind: EntryType, link: &str, data: &[u8], size: u64) {
    let mut header = tar::Header::new_ustar();
    let held = header.as_old_mut();
    held.name[..path.len()].copy_from_slice(path.as_bytes());
    held.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_size(size);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder with a bystander that no layer may touch.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), b"untouched").unwrap();
        Self { dir }
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn options() -> UnpackOptions {
        UnpackOptions {
            keep_free: 0,
            ..UnpackOptions::for_this_process()
        }
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        unpack(
            bytes,
            bytes.len() as u64,
            None,
            &self.layer(),
            &[],
            &Self::options(),
        )
    }

    /// Nothing is left but the bystander, as it was.
    fn check_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["outside"]);
        assert_eq!(fs::read(self.dir.path().join("outside")).unwrap(), b"untouched");
    }
}

/// F19: refused with words that name the entry, and nothing is left behind.
#[track_caller]
fn refused(entries: &[Raw<'_>], words: &[&str]) {
    let place = Place::new();
    let text = kit::chain(&place.unpack(&archive(entries)).unwrap_err());
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    place.check_untouched();
}

#[test]
fn ways_out_of_the_layer_are_refused() {
    refused(&[file("../outside", b"x")], &["\"../outside\"", "leads upwards"]);
    refused(&[file("a/../../outside", b"x")], &["leads upwards"]);
    refused(&[folder("..")], &["leads upwards"]);
    // Through a link of its own.
    refused(
        &[symlink("a", ".."), file("a/outside", b"x")],
        &["\"a/outside\"", "out of the layer"],
    );
    refused(
        &[symlink("a", "../../.."), folder("a/etc/new")],
        &["out of the layer"],
    );
    refused(&[symlink("a", "/tmp"), file("a/x", b"x")], &["out of the layer"]);
    refused(
        &[symlink("a", "b"), symlink("b", ".."), file("a/outside", b"x")],
        &["out of the layer"],
    );
    refused(
        &[symlink("a", "b"), symlink("b", "a"), file("a/x", b"x")],
        &["never end"],
    );
    refused(
        &[folder("d"), symlink("d/a", "../.."), file("d/a/outside", b"x")],
        &["out of the layer"],
    );
    // Whiteouts and hard links the same way.
    refused(
        &[symlink("a", ".."), file("a/.wh.outside", b"")],
        &["out of the layer"],
    );
    refused(
        &[symlink("a", ".."), file("a/.wh..wh..opq", b"")],
        &["out of the layer"],
    );
    refused(&[hardlink("a", "../outside")], &["\"a\"", "leads upwards"]);
    refused(
        &[symlink("l", ".."), hardlink("a", "l/outside")],
        &["out of the layer"],
    );
    refused(&[hardlink("a", "missing")], &["not in this layer"]);
    refused(&[folder("d"), hardlink("a", "d")], &["no file"]);
    refused(&[hardlink("a", "/")], &["links to the root"]);
    let long = [("path", b"../outside".as_slice())];
    let by_pax = Raw {
        pax: &long,
        ..file("harmless", b"x")
    };
    refused(&[by_pax], &["leads upwards"]);
}

#[test]
fn what_no_image_may_hold_is_refused() {
    refused(&[Raw::new("null", EntryType::Char)], &["\"null\"", "device node"]);
    refused(&[Raw::new("sda", EntryType::Block)], &["device node"]);
    refused(&[file("x", b"1"), file("x/y", b"2")], &["\"x/y\"", "no folder"]);
    refused(&[file(".wh.", b"")], &["removes no name"]);
    refused(&[file(".wh...", b"")], &["removes no name"]);
    refused(&[symlink("s", "")], &["no target"]);
    refused(&[Raw::new("s", EntryType::GNUSparse)], &["not supported"]);
    refused(&[symlink("/", "x")], &["root must be a folder"]);
    for pax in [
        ("size", b"99".as_slice()),
        ("uid", b"x"),
        ("GNU.sparse.major", b"1"),
        ("path", b"a\0b"),
    ] {
        let entry = Raw {
            pax: &[pax],
            ..file("x", b"1")
        };
        let place = Place::new();
        let err = place.unpack(&archive(&[entry])).unwrap_err();
        assert!(matches!(err, UnpackError::Hostile { .. }), "{pax:?}: {err}");
        place.check_untouched();
    }
}

#[test]
fn bombs_are_refused_at_their_bounds() {
    // A gigabyte of zeros in a megabyte: more than any honest layer shrinks.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = Vec::new();
    block(&mut header, "zeros", EntryType::Regular, "", b"", 1 << 30);
    bomb.write_all(&header).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..400 {
        bomb.write_all(&zeros).unwrap();
    }
    let place = Place::new();
    let err = place.unpack(&bomb.finish().unwrap()).unwrap_err();
    assert!(matches!(err, UnpackError::TooLarge { .. }), "{err}");
    place.check_untouched();

    let options = UnpackOptions {
        max_entries: 100,
        ..Place::options()
    };
    let names: Vec<_> = (0..101).map(|number| number.to_string()).collect();
    let many: Vec<_> = names.iter().map(|name| file(name, b"")).collect();
    let bytes = archive(&many);
    let err = unpack(
        bytes.as_slice(),
        bytes.len() as u64,
        None,
        &place.layer(),
        &[],
        &options,
    )
    .unwrap_err();
    assert!(matches!(err, UnpackError::TooManyEntries { limit: 100 }), "{err}");
    place.check_untouched();

    // A name as long as a film.
    let long = vec![b'a'; 2 << 20];
    let name = Raw {
        data: &long,
        ..Raw::new("long", EntryType::GNULongName)
    };
    refused(&[name], &["1048576 bytes"]);
    let options = UnpackOptions {
        keep_free: u64::MAX / 2,
        ..Place::options()
    };
    let bytes = archive(&[file("x", b"1")]);
    let err = unpack(bytes.as_slice(), 1024, None, &place.layer(), &[], &options).unwrap_err();
    assert!(err.is_full(), "{err}");
    place.check_untouched();
}

#[test]
fn an_archive_cut_anywhere_leaves_nothing() {
    let plain = archive(&[folder("d"), file("d/x", &[7; 600]), symlink("l", "d/x")]);
    let diff_id = Digest::of(&plain);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for whole in [gzip.finish().unwrap(), zstd, plain] {
        let place = Place::new();
        let step = (whole.len() / 200).max(1);
        for end in (0..whole.len()).step_by(step) {
            let cut = &whole[..end];
            let result = unpack(cut, 4096, Some(&diff_id), &place.layer(), &[], &Place::options());
            assert!(result.is_err(), "{end} of {} bytes", whole.len());
            place.check_untouched();
        }
        let mut more = whole.clone();
        more.extend(b"more");
        let result = unpack(
            more.as_slice(),
            4096,
            Some(&diff_id),
            &place.layer(),
            &[],
            &Place::options(),
        );
        assert!(result.is_err());
        place.check_untouched();
        unpack(
            whole.as_slice(),
            4096,
            Some(&diff_id),
            &place.layer(),
            &[],
            &Place::options(),
        )
        .unwrap();
    }
}

/// As tools write them that let others read a single file of a layer.
#[test]
fn layers_in_several_frames_are_read_to_their_end() {
    let plain = archive(&[folder("d"), file("d/x", &[7; 6000])]);
    let (one, two) = plain.split_at(3000);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    // A frame that decoders skip: its magic, its length, its content.
    let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"index"].concat();
    for bytes in [
        [gzip(one), gzip(two)].concat(),
        [zstd(one), zstd(two), skipped].concat(),
    ] {
        let place = Place::new();
        let diff_id = Digest::of(&plain);
        unpack(
            bytes.as_slice(),
            10_000,
            Some(&diff_id),
            &place.layer(),
            &[],
            &Place::options(),
        )
        .unwrap();
        assert_eq!(fs::read(place.layer().join("d/x")).unwrap(), [7; 6000]);
    }
}

#[test]
fn content_that_the_configuration_does_not_name_is_refused() {
    let place = Place::new();
    let bytes = archive(&[file("x", b"1")]);
    let wrong = Digest::of(b"other");
    let err = unpack(
        bytes.as_slice(),
        2048,
        Some(&wrong),
        &place.layer(),
        &[],
        &Place::options(),
    )
    .unwrap_err();
    assert!(matches!(err, UnpackError::WrongDiffId { .. }), "{err}");
    place.check_untouched();
}

fn may_do_all() -> bool {
    let root = rustix::process::geteuid().is_root();
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

#[test]
fn root_whiteouts_and_attributes_become_overlayfs_and_nothing_else_does() {
    if !may_do_all() {
        return;
    }
    let place = Place::new();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let attributes: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.note", b"two\nlines=\0"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
    ];
    let entries = [
        Raw {
            pax: attributes,
            ..file("bin", b"x")
        },
        file("gone/.wh.old", b""),
        file("gone/.wh..wh..opq", b""),
        folder("both"),
        file("both/new", b"n"),
        file(".wh.both", b""),
        file(".wh.again", b""),
        file("again/in", b"i"),
        file("stays", b"s"),
        file(".wh.stays", b""),
        Raw {
            pax: &[("mtime", b"1234.5"), ("uid", b"70000"), ("gid", b"70001")],
            ..file("owned", b"o")
        },
        Raw::new("pipe", EntryType::Fifo),
    ];
    place.unpack(&archive(&entries)).unwrap();
    let at = |path: &str| place.layer().join(path);
    let attribute = |path: &str, name: &str| {
        let mut value = [0; 64];
        let got = rustix::fs::lgetxattr(at(path), name, &mut value).ok()?;
        Some(value[..got].to_vec())
    };
    assert_eq!(
        attribute("bin", "security.capability").as_deref(),
        Some(capability.as_slice())
    );
    assert_eq!(attribute("bin", "trusted.overlay.redirect"), None);
    assert_eq!(attribute("bin", "user.overlay.opaque"), None);
    let whiteout = fs::symlink_metadata(at("gone/old")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    for opaque in ["gone", "both", "again"] {
        assert_eq!(
            attribute(opaque, "trusted.overlay.opaque").as_deref(),
            Some(b"y".as_slice()),
            "{opaque}"
        );
    }
    assert_eq!(fs::read(at("again/in")).unwrap(), b"i");
    assert_eq!(fs::read(at("stays")).unwrap(), b"s");
    let owned = fs::metadata(at("owned")).unwrap();
    assert_eq!(
        (owned.uid(), owned.gid(), owned.mtime(), owned.mtime_nsec()),
        (70_000, 70_001, 1234, 500_000_000)
    );
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let entries = [
        folder("was-folder"),
        file("was-folder/x", b"1"),
        file("was-folder", b"file now"),
        file("was-file", b"1"),
        folder("was-file"),
        file("was-file/y", b"y"),
        symlink("was-link", "/etc"),
        file("was-link", b"file now"),
        file("one", b"1"),
        hardlink("two", "one"),
        hardlink("two", "two"),
    ];
    place.unpack(&archive(&entries)).unwrap();
    let read = |path: &str| fs::read(place.layer().join(path)).unwrap();
    assert_eq!(read("was-folder"), b"file now");
    assert_eq!(read("was-file/y"), b"y");
    assert_eq!(read("was-link"), b"file now");
    assert_eq!(read("two"), b"1");
    assert_eq!(
        fs::metadata(place.layer().join("was-file")).unwrap().mtime(),
        1_600_000_000
    );
}

#[test]
fn a_link_of_a_layer_below_is_followed_as_the_container_follows_it() {
    let place = Place::new();
    let below = place.dir.path().join("below");
    let bytes = archive(&[
        folder("usr"),
        folder("usr/lib"),
        symlink("lib", "/usr/lib"),
        symlink("up", "../../.."),
    ]);
    unpack(bytes.as_slice(), 4096, None, &below, &[], &Place::options()).unwrap();
    let above = |entry: Raw<'_>| {
        let bytes = archive(&[entry]);
        unpack(
            bytes.as_slice(),
            4096,
            None,
            &place.layer(),
            std::slice::from_ref(&below),
            &Place::options(),
        )
    };
    above(file("lib/new", b"n")).unwrap();
    assert_eq!(fs::read(place.layer().join("usr/lib/new")).unwrap(), b"n");
    assert!(!place.layer().join("lib").exists());
    fs::remove_dir_all(place.layer()).unwrap();
    let err = above(file("up/outside", b"n")).unwrap_err();
    assert!(err.to_string().contains("out of the layer"), "{err}");
    assert_eq!(fs::read(place.dir.path().join("outside")).unwrap(), b"untouched");
}

/// Names that meet each other, and some that lead away.
fn name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "..",
        ".",
        ".wh.a",
        ".wh.b",
        ".wh..wh..opq",
        "outside",
    ]);
    let start = prop::sample::select(vec!["", "/", "./", "../"]);
    (start, prop::collection::vec(part, 1..4))
        .prop_map(|(start, parts)| format!("{start}{}", parts.join("/")))
}

fn kind() -> impl Strategy<Value = EntryType> {
    prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever an archive says, nothing outside its folder changes, and a refused one leaves nothing.
    #[test]
    fn no_archive_reaches_out(entries in prop::collection::vec((name(), kind(), name()), 1..12)) {
        let place = Place::new();
        let raw: Vec<_> = entries
            .iter()
            .map(|(path, kind, link)| Raw { link, ..Raw::new(path, *kind) })
            .collect();
        if place.unpack(&archive(&raw)).is_ok() {
            fs::remove_dir_all(place.layer()).unwrap();
        }
        place.check_untouched();
    }

    /// Bytes changed at random are refused or harmless, and never make us panic.
    #[test]
    fn no_damage_makes_us_panic(changes in prop::collection::vec((0..4096_usize, any::<u8>()), 1..20)) {
        let place = Place::new();
        let pax: &[(&str, &[u8])] = &[("path", b"d/long"), ("SCHILY.xattr.user.a", b"b")];
        let mut bytes = archive(&[folder("d"), Raw { pax, ..file("x", b"data") }, symlink("l", "d")]);
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        if place.unpack(&bytes).is_ok() {
            fs::remove_dir_all(place.layer()).unwrap();
        }
        place.check_untouched();
    }
}
