use super::*;
use crate::Quota;

fn store(dir: &Path) -> Store {
    let quota = Quota {
        keep_free: 0,
        ..Quota::default()
    };
    Store::open(&dir.join("store"), quota).unwrap()
}

fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
    }
}

/// A 64-bit program with nothing but headers.
fn program(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    if let Some(loader) = loader {
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut header = vec![0; 56];
        header[..4].copy_from_slice(&PT_INTERP_BYTES);
        header[8..16].copy_from_slice(&120_u64.to_le_bytes());
        header[32..40].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
        elf.extend(header);
        elf.extend(loader.as_bytes());
        elf.push(0);
    }
    elf
}

const PT_INTERP_BYTES: [u8; 4] = 3_u32.to_le_bytes();

fn build(architecture: &str, files: &[(&str, Source)]) -> ImageBuild {
    ImageBuild {
        platform: platform(architecture),
        files: files
            .iter()
            .map(|(path, source)| ImageFile {
                path: (*path).to_owned(),
                source: source.clone(),
                mode: None,
            })
            .collect(),
        config: ImageConfig {
            entrypoint: vec!["/app".to_owned()],
            ..ImageConfig::default()
        },
        allow_dynamic: false,
    }
}

#[test]
fn the_same_files_give_the_same_image_in_any_order() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = one.path().join("www");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b"), "b").unwrap();
    fs::write(folder.join("a"), "a").unwrap();
    let files = [
        ("/app", Source::Bytes(program(62, None))),
        ("/srv/www", Source::Path(folder.clone())),
        ("/srv/link", Source::Symlink("www/a".to_owned())),
    ];
    let first = build("amd64", &files).build(&store(one.path())).unwrap();
    // Another order, other times, another place.
    fs::write(folder.join("a"), "a").unwrap();
    let reversed: Vec<_> = files.into_iter().rev().collect();
    let second = build("amd64", &reversed).build(&store(two.path())).unwrap();
    assert_eq!(first, second);
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
}

#[test]
fn a_program_that_cannot_run_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let check = |architecture: &str, program: Vec<u8>, words: &[&str]| {
        let result = build(architecture, &[("app", Source::Bytes(program))]).build(&store);
        let text = kit::chain(&result.unwrap_err());
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    check("arm64", program(62, None), &["/app", "amd64", "linux/arm64"]);
    check(
        "amd64",
        program(62, Some("/lib64/ld-linux-x86-64.so.2")),
        &["/app", "ld-linux-x86-64.so.2", "statically"],
    );
    check("amd64", program(999, None), &["machine 999"]);
    check(
        "amd64",
        b"\x7fELF\x02\x01short".to_vec(),
        &["broken", "ends early"],
    );
    let mut far = program(62, Some("/lib/ld"));
    far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    check("amd64", far, &["broken"]);
}

#[test]
fn a_loader_in_the_image_or_permission_lets_a_dynamic_program_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let app = ("/app", Source::Bytes(program(183, Some("/lib/ld.so"))));
    let with = build(
        "arm64",
        &[app.clone(), ("/lib/ld.so", Source::Bytes(program(183, None)))],
    );
    assert_eq!(with.build(&store).unwrap().warnings.len(), 1);
    let mut without = build("arm64", &[app]);
    without.allow_dynamic = true;
    assert!(without.build(&store).unwrap().warnings[0].contains("/lib/ld.so"));
}

#[test]
fn an_image_that_cannot_start_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let check = |files: &[(&str, Source)], word: &str| {
        let text = build("amd64", files).build(&store).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    };
    let text = Source::Bytes(b"text".to_vec());
    check(&[("/other", text.clone())], "does not hold");
    check(&[("/app", text.clone())], "mode 755");
    check(&[("/app", text.clone()), ("app", text.clone())], "twice");
    check(&[("/app", text.clone()), ("/app/sub", text.clone())], "twice");
    check(&[("/../app", text.clone())], "without '..'");
    check(
        &[("/app", Source::Path("/nonexistent/file".into()))],
        "/nonexistent/file",
    );
}

#[test]
fn the_machine_that_runs_this_test_is_recognised() {
    let elf = Elf::read(&mut File::open("/proc/self/exe").unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(elf.architecture(), Some(Platform::host().architecture.as_str()));
    assert!(elf.loader.is_some_and(|loader| Path::new(&loader).exists()));
    assert_eq!(Elf::read(&mut io::Cursor::new(b"#!/bin/sh")).unwrap(), None);
}

#[test]
fn an_index_and_a_layout_hold_every_platform() {
    let dir = tempfile::tempdir().unwrap();
    let held = store(dir.path());
    let one = build("amd64", &[("/app", Source::Bytes(program(62, None)))])
        .build(&held)
        .unwrap();
    let two = build("arm64", &[("/app", Source::Bytes(program(183, None)))])
        .build(&held)
        .unwrap();
    assert!(matches!(
        index(&held, &[one.clone(), one.clone()]),
        Err(BuildError::SamePlatform { .. })
    ));
    let top = index(&held, &[two.clone(), one.clone()]).unwrap();
    assert_eq!(top, index(&held, &[one, two]).unwrap());
    let layout = dir.path().join("layout");
    export_layout(&held, &top, &layout, "v1").unwrap();
    export_layout(&held, &top, &layout, "v1").unwrap();

    let other = tempfile::tempdir().unwrap();
    let other = store(other.path());
    let back = import_layout(&other, &layout, Some("v1")).unwrap();
    assert_eq!(back.digest, top.digest);
    assert_eq!(other.list().len(), held.list().len());
    assert!(matches!(
        import_layout(&other, &layout, Some("v2")),
        Err(BuildError::Layout { .. })
    ));
}
