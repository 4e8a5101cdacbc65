//! `leeward spool` against a spool that a process holds open, and one that rotted.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use spool::{Class, Durability, NOTICES, Options, Spool, Stream};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

struct Device {
    state: TempDir,
    spool: Spool,
    events: Stream,
}

impl Device {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 128 << 10,
            block_bytes: 8 << 10,
            compression: None,
            ..Options::default()
        };
        let (spool, _) = Spool::open(&state.path().join("spool"), options).unwrap();
        let events = spool
            .stream("events", Durability::Strict, Class::Critical)
            .unwrap();
        events.attach("hub").unwrap();
        Self { state, spool, events }
    }

    fn append(&self, payload: &[u8]) -> u64 {
        self.events.append(payload, None).unwrap().wait().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        command(self.state.path(), args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[args, &["-o", "json"]].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn command(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
    command.arg("spool").args(args).arg("--state").arg(state);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_device_is_looked_into_from_outside() {
    let device = Device::new();
    for number in 1..=30 {
        device.append(format!(r#"{{"number":{number}}}"#).as_bytes());
    }
    device.append(&[0xff, 0x00]);
    device.events.ack("hub", 10).unwrap();
    device.spool.flush().wait().unwrap();

    // ls: the account, as files say it.
    let listed = device.json(&["ls"]);
    let account = &listed[0]["sinks"]["hub"]["account"];
    assert_eq!(listed[0]["name"], "events");
    assert_eq!(
        (&account["appended"], &account["acked"], &account["resident"]),
        (&31.into(), &10.into(), &21.into())
    );
    assert!(listed[0]["sinks"]["hub"]["waitingBytes"].as_u64() > Some(200));
    let table = text(&device.run(&[]).stdout);
    assert!(table.starts_with("STREAM") && table.contains("strict"), "{table}");
    assert!(text(&device.run(&["-o", "wide"]).stdout).contains("BALANCE"));

    // inspect: segments, then blocks.
    let listing = device.json(&["inspect"]);
    let segment = listing["logs"][0]["segments"][0]["id"].to_string();
    assert_eq!(listing["logs"][0]["segments"][1]["streams"]["events"][1], 31);
    let blocks = text(&device.run(&["inspect", "critical", &segment]).stdout);
    assert!(
        blocks.contains("whole") && blocks.contains("events 1-1"),
        "{blocks}"
    );
    let none = device.run(&["inspect", "critical", "99"]);
    assert_eq!(none.status.code(), Some(5), "{}", text(&none.stderr));

    // tail: decoded, in each form.
    let tail = text(&device.run(&["tail", "events", "-n", "2"]).stdout);
    let lines: Vec<&str> = tail.lines().collect();
    assert!(
        lines[0].ends_with(r#"{"number":30}"#) && lines[1].ends_with("(2 of binary data)"),
        "{tail}"
    );
    let unknown = device.run(&["tail", "nothing"]);
    assert_eq!(unknown.status.code(), Some(5));
    assert!(
        text(&unknown.stderr).contains("there are events"),
        "{}",
        text(&unknown.stderr)
    );

    // export: a range to standard output, all into a file.
    let out = text(
        &device
            .run(&["export", "events", "--from", "29", "--to", "31"])
            .stdout,
    );
    let rows: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["seq"], &rows[0]["json"]["number"]),
        (&29.into(), &29.into())
    );
    assert_eq!(
        (&rows[2]["base64"], &rows[2]["epoch"]),
        (&"/wA=".into(), &device.spool.epoch().into())
    );
    let visit = device.state.path().join("visit");
    let out = device.run(&["export", "events", "--dir", visit.to_str().unwrap()]);
    assert!(text(&out.stderr).contains("21 records"), "{}", text(&out.stderr));
    let names: Vec<_> = std::fs::read_dir(&visit)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let name = format!("events-{}-11-31.jsonl", device.spool.epoch());
    assert_eq!(names, [name.as_str()]);

    // verify: nothing is wrong.
    let sound = device.run(&["verify"]);
    assert!(sound.status.success() && text(&sound.stdout).contains("sound"));
}

#[test]
fn a_followed_stream_shows_what_is_written_later() {
    let device = Device::new();
    device.append(b"first");
    let mut tail = command(device.state.path(), &["tail", "events", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("first"));
    device.append(b"second");
    device.append(b"third");
    assert!(lines.next().unwrap().unwrap().ends_with("second"));
    assert!(lines.next().unwrap().unwrap().ends_with("third"));
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn verify_names_what_rotted_and_fails() {
    let device = Device::new();
    for _ in 0..40 {
        device.append(&[7; 6000]);
    }
    device.spool.flush().wait().unwrap();
    let listing = device.json(&["inspect"]);
    let segment = &listing["logs"][0]["segments"][0];
    let file = segment["file"].as_str().unwrap();
    let path = device.state.path().join("spool").join(file);
    let rot = OpenOptions::new().write(true).open(path).unwrap();
    rot.write_all_at(b"rot", 5000).unwrap();

    let out = device.run(&["verify"]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stdout);
    assert!(
        said.contains("damaged: log critical, segment 1, offset 0"),
        "{said}"
    );
    assert!(said.contains("lost: events 1 to 1"), "{said}");
    assert!(
        text(&out.stderr).contains("1 damaged blocks, 1 records lost"),
        "{}",
        text(&out.stderr)
    );
    // The owner finds it as well, counts it, and tells.
    assert_eq!(device.events.read(0, 1).unwrap()[0].seq, 2);
    assert_eq!(device.events.account("hub").lost, 1);
    device.spool.flush().wait().unwrap();
    let notices = text(&device.run(&["tail", NOTICES]).stdout);
    assert!(notices.contains(r#""what":"lost""#), "{notices}");
}

#[test]
fn where_there_is_no_spool_it_says_so() {
    let nowhere = tempfile::tempdir().unwrap();
    let out = command(nowhere.path(), &["verify"]).output().unwrap();
    assert_eq!(out.status.code(), Some(5));
    assert!(text(&out.stderr).contains("no spool at"), "{}", text(&out.stderr));
}
