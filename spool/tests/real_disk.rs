//! A real file system that is full, and one that turns read-only: a small ext4 image on a loop device.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use spool::{AppendError, Class, Durability, Inspection, Options, PerClass, Spool, Stream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A mounted image; unmounted when dropped.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn new(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(u64::from(mib) << 20)
            .unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let small = Small { dir };
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", image.to_str().unwrap()]).and_then(|()| {
            run(
                "mount",
                &[
                    "-o",
                    "loop",
                    image.to_str().unwrap(),
                    small.path().to_str().unwrap(),
                ],
            )
        });
        match made {
            Ok(()) => Some(small),
            Err(why) => {
                eprintln!("SKIPPED: no loop mount here: {why}");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = run("umount", &[self.path().to_str().unwrap()]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|err| format!("{program}: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn open(dir: &Path) -> (Spool, Stream) {
    let budget = 64 << 20;
    let options = Options {
        segment_bytes: 1 << 20,
        compression: None,
        budget: PerClass {
            critical: budget,
            normal: budget,
            bulk: budget,
        },
        ..Options::default()
    };
    let (spool, recovered) = Spool::open(dir, options).unwrap();
    assert!(recovered.lost.is_empty(), "{recovered:?}");
    let stream = spool
        .stream("audit", Durability::Strict, Class::Critical)
        .unwrap();
    (spool, stream)
}

fn append(stream: &Stream) -> Result<u64, AppendError> {
    stream.append(&[5; 30_000], None)?.wait()
}

fn append_in_time(stream: &Stream) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match append(stream) {
            Ok(seq) => return seq,
            Err(err) => assert!(Instant::now() < deadline, "{err}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn count(stream: &Stream) -> u64 {
    let mut after = 0;
    let mut count = 0;
    loop {
        let records = stream.read(after, 1 << 20).unwrap();
        let Some(last) = records.last() else { return count };
        after = last.seq;
        count += records.len() as u64;
    }
}

#[test]
fn root_a_full_file_system_pushes_back_and_is_gone_on_with_when_space_returns() {
    let Some(small) = Small::new(32) else { return };
    let (spool, stream) = open(&small.path().join("spool"));
    let metrics = spool.stream("metrics", Durability::Sampled, Class::Bulk).unwrap();
    append(&stream).unwrap();
    // All but a few segments are taken by somebody else.
    let filler = small.path().join("filler");
    let mut taken = 1;
    std::fs::write(&filler, vec![1; 20 << 20]).unwrap();
    let refused = loop {
        match append(&stream) {
            Ok(_) => taken += 1,
            Err(err) => break err,
        }
    };
    assert!(
        matches!(
            refused,
            AppendError::Full {
                class: Class::Critical,
                ..
            }
        ),
        "{refused}"
    );
    assert!(taken > 30);
    assert_eq!(count(&stream), taken);
    for number in 0..100_u8 {
        metrics.append(&[number; 100], None).unwrap().wait().unwrap();
    }
    assert_eq!(count(&metrics), 100);
    std::fs::remove_file(&filler).unwrap();
    append_in_time(&stream);
    spool.flush().wait().unwrap();
    assert_eq!(metrics.memory_bytes(), 0);
    let account = stream.account("hub");
    assert!(account.balanced() && account.appended == taken + 1, "{account:?}");
    drop((spool, stream, metrics));
    let view = Inspection::open(&small.path().join("spool")).unwrap();
    assert!(view.verify().unwrap().is_sound());
    let (_spool, stream) = open(&small.path().join("spool"));
    assert_eq!(count(&stream), taken + 1);
}

#[test]
fn root_a_file_system_that_turns_read_only_is_reported_and_gone_on_with() {
    let Some(small) = Small::new(32) else { return };
    let (spool, stream) = open(&small.path().join("spool"));
    for _ in 0..5 {
        append(&stream).unwrap();
    }
    let mount = small.path();
    // What a failing card causes; a plain remount is refused while files are open for writing.
    let device = run("mount", &["-o", "remount,ro,abort", mount.to_str().unwrap()]);
    if let Err(why) = device {
        eprintln!("SKIPPED: the file system cannot be made read-only: {why}");
        return;
    }
    let err = append(&stream).unwrap_err();
    assert!(matches!(err, AppendError::Disk { .. }), "{err}");
    // What is there can still be read.
    assert_eq!(count(&stream), 5);
    assert!(stream.account("hub").balanced());
    drop((spool, stream));
    // After a repair, as at the next boot, it goes on.
    run("umount", &[mount.to_str().unwrap()]).unwrap();
    let image = small.dir.path().join("image");
    let _ = run("e2fsck", &["-p", "-f", image.to_str().unwrap()]);
    run(
        "mount",
        &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()],
    )
    .unwrap();
    let (_spool, stream) = open(&mount.join("spool"));
    assert_eq!(count(&stream), 5);
    append_in_time(&stream);
    assert!(stream.account("hub").balanced());
}
