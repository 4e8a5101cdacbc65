//! A folder in which anything may lie: opening, reading and verifying never panic, and never refuse because of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use proptest::prelude::*;
use spool::{Class, Durability, Inspection, Options, PerClass, Spool};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

fn options() -> Options {
    let budget = 512 << 10;
    Options {
        segment_bytes: 64 << 10,
        block_bytes: 6 << 10,
        budget: PerClass {
            critical: budget,
            normal: budget,
            bulk: budget,
        },
        linger: PerClass {
            critical: Duration::ZERO,
            normal: Duration::ZERO,
            bulk: Duration::ZERO,
        },
        ..Options::default()
    }
}

/// A spool with records in all classes, one of them acknowledged in part.
fn filled(dir: &Path) {
    let (spool, _) = Spool::open(dir, options()).unwrap();
    for class in Class::ALL {
        let stream = spool.stream(class.name(), Durability::Strict, class).unwrap();
        stream.attach("hub").unwrap();
        for number in 0..20_u8 {
            stream.append(&[number; 3000], None).unwrap().wait().unwrap();
        }
        stream.ack("hub", 3).unwrap();
    }
}

/// A copy of one that was filled once: syncs are what takes time here.
fn copied() -> tempfile::TempDir {
    static FILLED: OnceLock<tempfile::TempDir> = OnceLock::new();
    let from = FILLED.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        dir
    });
    let dir = tempfile::tempdir().unwrap();
    for class in Class::ALL {
        std::fs::create_dir(dir.path().join(class.name())).unwrap();
    }
    for file in files(from.path()) {
        std::fs::copy(&file, dir.path().join(file.strip_prefix(from.path()).unwrap())).unwrap();
    }
    dir
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = vec![dir.join("state.0"), dir.join("state.1")];
    for class in Class::ALL {
        let folder = std::fs::read_dir(dir.join(class.name())).unwrap();
        files.extend(folder.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_lies_there_is_read_as_far_as_it_goes(
        wounds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..200)), 1..8),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
        swap in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let dir = copied();
        let files = files(dir.path());
        for (file, at, bytes) in wounds {
            let path = &files[file.index(files.len())];
            let mut held = std::fs::read(path).unwrap();
            let at = at.index(held.len());
            let end = (at + bytes.len()).min(held.len());
            held[at..end].copy_from_slice(&bytes[..end - at]);
            std::fs::write(path, held).unwrap();
        }
        if let Some((file, at)) = cut {
            let path = &files[file.index(files.len())];
            let mut held = std::fs::read(path).unwrap();
            held.truncate(at.index(held.len() + 1));
            std::fs::write(path, held).unwrap();
        }
        if let Some((a, b)) = swap {
            let (a, b) = (&files[a.index(files.len())], &files[b.index(files.len())]);
            let (one, other) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
            std::fs::write(a, other).unwrap();
            std::fs::write(b, one).unwrap();
        }
        let view = Inspection::open_with(dir.path(), options()).unwrap();
        let verdict = view.verify().unwrap();
        prop_assert!(verdict.unbalanced.is_empty(), "{verdict:?}");
        let (spool, _) = Spool::open(dir.path(), options()).unwrap();
        for class in Class::ALL {
            // A stream whose every trace is gone is a new one.
            let stream = spool.stream(class.name(), Durability::Strict, class).unwrap();
            let mut after = 0;
            loop {
                let records = stream.read(after, 10_000).unwrap();
                let Some(last) = records.last() else { break };
                after = last.seq;
                for record in records {
                    // What comes back is what was written, or new; never rubbish.
                    prop_assert!(record.payload.len() == 3000 && record.payload.iter().all(|byte| *byte == record.payload[0]));
                }
            }
            let account = stream.account("hub");
            prop_assert!(account.balanced(), "{account:?}");
            let new = stream.append(&[7; 3000], None).unwrap().wait().unwrap();
            prop_assert!(new > after);
        }
    }
}
