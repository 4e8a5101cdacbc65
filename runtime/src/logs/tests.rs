use super::*;
use crate::LogQuery;
use crate::shim::log::LogFile;
use jiff::{SignedDuration, Timestamp};
use model::PodId;
use model::cri::{Stream, format_line};
use std::path::PathBuf;

struct Rig {
    _dir: tempfile::TempDir,
    path: PathBuf,
    log: LogFile,
    written: i64,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        Self {
            log: LogFile::new(path.clone(), 400, 4),
            _dir: dir,
            path,
            written: 0,
        }
    }

    /// Line n is written at second n.
    fn write(&mut self, lines: i64) {
        for _ in 0..lines {
            let mut text = Vec::new();
            let time = Timestamp::from_second(self.written).unwrap();
            let line = format!("line {}", self.written);
            format_line(&mut text, time, Stream::Out, 'F', line.as_bytes());
            self.log.append(&text, 1);
            self.written += 1;
        }
    }

    fn keep(&self, retention: &Retention) -> Kept {
        keep(
            std::slice::from_ref(&self.path),
            retention,
            Timestamp::now(),
            |_| true,
        )
        .unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(&self, query: &LogQuery) -> String {
        let (mut cursor, mut lines) = (Cursor::new(self.path.clone()), Lines::new(query, "main", 0));
        cursor.begin(&mut lines).unwrap();
        all(&mut cursor, &mut lines)
    }
}

fn all(cursor: &mut Cursor, lines: &mut Lines) -> String {
    let mut text = Vec::new();
    loop {
        let (chunks, more) = cursor.read(lines).unwrap();
        chunks.iter().for_each(|chunk| text.extend_from_slice(chunk));
        if !more {
            return String::from_utf8(text).unwrap();
        }
    }
}

fn query() -> LogQuery {
    LogQuery::of(PodId {
        namespace: "d".to_owned(),
        name: "a".to_owned(),
    })
}

const PLENTY: Retention = Retention {
    per_log: 1 << 30,
    total: 1 << 30,
    age: SignedDuration::from_hours(1),
};

fn numbered(from: i64, to: i64) -> String {
    (from..to).map(|number| format!("line {number}\n")).collect()
}

#[test]
fn rotation_and_compression_under_a_reader_lose_and_repeat_nothing() {
    for every in 1..7 {
        let mut rig = Rig::new();
        let (mut cursor, mut lines) = (Cursor::new(rig.path.clone()), Lines::new(&query(), "main", 0));
        let mut seen = String::new();
        for round in 0..60 {
            rig.write(1 + round % 5);
            if round % every == 0 {
                rig.keep(&PLENTY);
            }
            if round % 7 == 3 {
                seen += &all(&mut cursor, &mut lines);
            }
        }
        seen += &all(&mut cursor, &mut lines);
        assert_eq!(seen, numbered(0, rig.written), "kept every {every}");
        assert_eq!(rig.read(&query()), seen, "from the start, kept every {every}");
    }
}

#[test]
fn the_tail_reaches_into_compressed_files_and_counts_only_what_is_wanted() {
    let mut rig = Rig::new();
    let compressed: u64 = (0..5)
        .map(|_| {
            rig.write(20);
            rig.keep(&PLENTY).compressed
        })
        .sum();
    assert!(
        compressed > 5,
        "more than the shim itself would keep: {compressed}"
    );
    rig.write(2);
    let mut wanted = query();
    for tail in [0, 1, 3, 40, 102, 500] {
        wanted.tail = Some(tail);
        let from = (102 - i64::try_from(tail).unwrap()).max(0);
        assert_eq!(rig.read(&wanted), numbered(from, 102), "tail {tail}");
    }
    wanted.tail = Some(2);
    wanted.grep = Some(Grep::parse("line .*7$").unwrap());
    assert_eq!(rig.read(&wanted), "line 87\nline 97\n");
}

#[test]
fn times_and_expressions_choose_lines_and_json_says_whose_they_are() {
    let mut rig = Rig::new();
    rig.write(30);
    rig.keep(&PLENTY);
    rig.write(20);
    let mut wanted = query();
    wanted.since = Timestamp::from_second(20).ok();
    wanted.until = Timestamp::from_second(22).ok();
    assert_eq!(rig.read(&wanted), numbered(20, 23));
    wanted.json = true;
    wanted.grep = Some(Grep::parse("(?i)LINE 21").unwrap());
    let line: serde_json::Value = serde_json::from_str(&rig.read(&wanted)).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "time": "1970-01-01T00:00:21.000000000Z", "stream": "stdout", "namespace": "d", "pod": "a",
            "container": "main", "run": 0, "message": "line 21",
        })
    );
    assert!(Grep::parse("(").is_err() && Grep::parse("(a{1000}){1000}").is_err());
}

#[test]
fn what_is_kept_is_bounded_by_bytes_and_by_age() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.write(10);
        rig.keep(&PLENTY);
    }
    let whole = rig.keep(&PLENTY).bytes;
    assert!(rig.names().len() > 10, "{:?}", rig.names());
    let half = Retention {
        per_log: whole / 2,
        ..PLENTY
    };
    let kept = rig.keep(&half);
    assert!(
        kept.bytes <= whole / 2 && kept.bytes > whole / 4,
        "{kept:?} of {whole}"
    );
    let text = rig.read(&query());
    assert!(
        text.ends_with("line 199\n") && !text.contains("line 0\n"),
        "the oldest go first"
    );
    let total = Retention { total: 200, ..PLENTY };
    assert!(rig.keep(&total).bytes <= 200);
    let old = Retention {
        age: SignedDuration::from_secs(-1),
        ..PLENTY
    };
    assert_eq!(rig.keep(&old).bytes, 0);
    assert_eq!(rig.names(), ["0.log"], "what is being written stays");
}

#[test]
fn what_somebody_has_not_read_stays_as_it_is() {
    let mut rig = Rig::new();
    rig.write(40);
    let before = rig.names();
    let kept = keep(&[rig.path.clone()], &PLENTY, Timestamp::now(), |_| false).unwrap();
    assert_eq!((kept.compressed, rig.names()), (0, before));
}

/// A power cut between the steps of putting a file away.
#[test]
fn a_cut_while_compressing_costs_nothing() {
    let mut rig = Rig::new();
    rig.write(40);
    let plain = std::fs::read(rig.path.with_file_name("0.log.1")).unwrap();
    rig.keep(&PLENTY);
    let whole = rig.read(&query());
    let compressed = rig
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".zst"))
        .unwrap();
    let name = |ending: &str| {
        rig.path
            .with_file_name(format!("{}{ending}", compressed.strip_suffix(".zst").unwrap()))
    };
    std::fs::write(name(""), &plain).unwrap();
    std::fs::write(name(".tmp"), &plain[..20]).unwrap();
    assert_eq!(
        rig.read(&query()),
        whole,
        "a file that is there twice is read once"
    );
    rig.keep(&PLENTY);
    assert_eq!(rig.read(&query()), whole);
    assert!(!name("").exists() && !name(".tmp").exists());

    // Others read it, too.
    let out = std::process::Command::new("zstdcat").arg(name(".zst")).output();
    match out {
        Ok(out) => assert_eq!(out.stdout, plain),
        Err(err) if std::env::var_os("CI").is_none() => note(&format!("SKIPPED: zstdcat: {err}")),
        Err(err) => panic!("zstdcat: {err}"),
    }
}

#[expect(clippy::print_stderr, reason = "what was skipped is to be seen")]
fn note(text: &str) {
    eprintln!("{text}");
}

#[test]
fn parts_become_one_line_and_times_are_shown_once() {
    let mut wanted = query();
    wanted.timestamps = true;
    let mut lines = Lines::new(&wanted, "main", 0);
    assert_eq!(lines.take(b"2026-01-01T00:00:00.000000000Z stdout P one "), None);
    let other = lines
        .take(b"2026-01-01T00:00:00.000000000Z stderr F between")
        .unwrap();
    assert_eq!(other, "2026-01-01T00:00:00.000000000Z between\n");
    let whole = lines
        .take(b"2026-01-01T00:00:00.000000001Z stdout F two")
        .unwrap();
    assert_eq!(whole, "2026-01-01T00:00:00.000000000Z one two\n");
}
