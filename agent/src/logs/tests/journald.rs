//! Journals made by systemd's own `systemd-journal-remote`, read by systemd's own `journalctl`.

use super::{Rig, have, rules};
use crate::logs::journald::{JournalConfig, Journald, PLACES};
use jiff::{SignedDuration, Timestamp};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio_util::task::AbortOnDropHandle;

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A folder of journal files.
struct Journals {
    dir: PathBuf,
    written: u64,
}

impl Journals {
    fn new(rig: &Rig) -> Option<Self> {
        let dir = rig.path("journal");
        std::fs::create_dir(&dir).unwrap();
        (have(REMOTE) && have("journalctl")).then_some(Self { dir, written: 0 })
    }

    /// Writes entries of two units in turn into the file of this name.
    fn write(&mut self, file: &str, entries: u64) {
        let mut export = Vec::new();
        for _ in 0..entries {
            let number = self.written;
            self.written += 1;
            let time = Timestamp::now().as_microsecond();
            write!(
                export,
                "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={ID}\n_MACHINE_ID={ID}\n\
                 PRIORITY={}\n_SYSTEMD_UNIT={}.service\n",
                1000 + number,
                3 + number % 4,
                if number.is_multiple_of(2) { "even" } else { "odd" },
            )
            .unwrap();
            if number % 5 == 4 {
                let message = format!("line {number}\nand\0bytes");
                export.extend_from_slice(b"MESSAGE\n");
                export.extend_from_slice(&(message.len() as u64).to_le_bytes());
                export.extend_from_slice(message.as_bytes());
                export.push(b'\n');
            } else {
                writeln!(export, "MESSAGE=line {number}").unwrap();
            }
            export.push(b'\n');
        }
        let mut child = Command::new(REMOTE)
            .arg("-o")
            .arg(self.dir.join(file))
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&export).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

fn read(rig: &Rig, dir: &Path, units: &[&str]) -> AbortOnDropHandle<()> {
    let config = JournalConfig {
        units: units.iter().map(|unit| (*unit).to_owned()).collect(),
        priority: None,
        backlog: SignedDuration::from_hours(1),
        directory: Some(dir.to_owned()),
    };
    let journald = Journald::new(config, &rules(), rig.sourced(PLACES));
    AbortOnDropHandle::new(tokio::spawn(journald.run()))
}

fn expected(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers
        .map(|number| match number % 5 {
            4 => format!("line {number}\nand\0bytes"),
            _ => format!("line {number}"),
        })
        .collect()
}

#[tokio::test]
async fn every_entry_comes_once_through_kills_cut_links_and_another_journal() {
    let mut rig = Rig::new();
    let Some(mut journals) = Journals::new(&rig) else {
        return;
    };
    journals.write("a.journal", 6);
    let mut reading = read(&rig, &journals.dir, &[]);
    rig.until(6).await;
    // What is written meanwhile is followed.
    journals.write("a.journal", 3);
    rig.until(9).await;

    // The link is cut, the agent killed with entries in its memory; it reads them again.
    rig.link = false;
    journals.write("a.journal", 4);
    let read_to = |rig: &Rig, number| rig.spool.positions().values().any(|at| *at >= number);
    while !read_to(&rig, 13) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(reading);
    rig.crash();
    reading = read(&rig, &journals.dir, &[]);
    rig.link = true;
    rig.until(13).await;
    assert_eq!(rig.bodies(), expected(0..13));

    // The journal is replaced while nobody looks.
    drop(reading);
    std::fs::remove_file(journals.dir.join("a.journal")).unwrap();
    journals.write("b.journal", 5);
    reading = read(&rig, &journals.dir, &[]);
    rig.until(18).await;
    let told = rig.told("JournalReplaced").await;
    assert!(told.contains("read from its beginning"), "{told}");
    drop(reading);

    // And again with both there: what was read of the one does not come again.
    journals.write("c.journal", 2);
    reading = read(&rig, &journals.dir, &[]);
    rig.until(20).await;
    journals.write("c.journal", 1);
    rig.until(21).await;
    drop(reading);
    assert_eq!(rig.bodies(), expected(0..21));

    let line = &rig.lines[4];
    assert_eq!(line.severity, "ERROR");
    for (name, value) in [
        ("leeward.source", "journald"),
        ("systemd.unit", "even.service"),
        ("service.name", "even"),
    ] {
        assert_eq!(line.attributes[name], value, "{line:?}");
    }
}

#[tokio::test]
async fn units_are_chosen() {
    let mut rig = Rig::new();
    let Some(mut journals) = Journals::new(&rig) else {
        return;
    };
    journals.write("a.journal", 8);
    let _reading = read(&rig, &journals.dir, &["odd.service"]);
    rig.until(4).await;
    journals.write("a.journal", 2);
    rig.until(5).await;
    assert_eq!(rig.bodies(), expected([1, 3, 5, 7, 9].into_iter()));
}

#[tokio::test]
async fn what_was_vacuumed_is_told() {
    let mut rig = Rig::new();
    let Some(mut journals) = Journals::new(&rig) else {
        return;
    };
    journals.write("a.journal", 3);
    let reading = read(&rig, &journals.dir, &[]);
    rig.until(3).await;
    drop(reading);
    // Entries 4 to 6 went with the file that held them; a numbering goes on in the next one.
    journals.write("a.journal", 6);
    let mut header = std::fs::read(journals.dir.join("a.journal")).unwrap();
    // `tail_entry_seqnum`, and behind it `head_entry_seqnum` (systemd's "Journal File Format").
    let pair = [9u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    let at = (0..32).find(|at| header[at * 8..(at + 2) * 8] == pair).unwrap();
    header[(at + 1) * 8..(at + 2) * 8].copy_from_slice(&7u64.to_le_bytes());
    std::fs::write(journals.dir.join("a.journal"), header).unwrap();
    let _reading = read(&rig, &journals.dir, &[]);
    let told = rig.told("JournalVacuumed").await;
    assert!(told.contains("entries 4 to 6 of"), "{told}");
    rig.until(9).await;
}
