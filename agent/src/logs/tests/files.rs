//! Files by their names in the configuration, through rotation, kills and a cut link.

use super::{Rig, rules};
use crate::logs::files::{FileLogs, Files, PLACES};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use telemetry::logs::{Rules, Together};
use tokio_util::task::AbortOnDropHandle;

fn append(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn follow(rig: &Rig) -> AbortOnDropHandle<()> {
    let glob = |name: &str| glob::Pattern::new(rig.path(name).to_str().unwrap()).unwrap();
    let app = FileLogs {
        name: "app".to_owned(),
        paths: vec![glob("logs/*.log*"), glob("logs/**/deep.log")],
        exclude: vec![glob::Pattern::new("*secret*").unwrap()],
        rules: Rules {
            together: Together::Start(regex::bytes::Regex::new(r"^(line|\{|level=)").unwrap()),
            ..rules()
        },
        attributes: [("team".to_owned(), "vision".to_owned())].into(),
    };
    let files = Files::new(vec![app], rig.sourced(PLACES));
    AbortOnDropHandle::new(tokio::spawn(files.run()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_comes_once_through_rotation_kills_and_a_cut_link() {
    let mut rig = Rig::new();
    let log = rig.path("logs/a.log");
    append(&log, "line 0\n");
    append(&rig.path("logs/secret.log"), "line that stays\n");
    append(&rig.path("logs/old.log.gz"), "line of another form\n");
    let mut following = follow(&rig);
    rig.until(1).await;
    let mut written = 1;
    for round in 0..3 {
        rig.link = round % 2 == 0;
        append(&log, &format!("line {written}\n  and more\n"));
        for number in (1..4).rev() {
            let name = |number: i32| rig.path(&format!("logs/a.log.{number}"));
            let _ = kit::disk::swap(&name(number), &name(number + 1));
        }
        kit::disk::swap(&log, &rig.path("logs/a.log.1")).unwrap();
        append(&log, &format!("line {}\n", written + 1));
        written += 2;
        if rig.link {
            rig.until(written).await;
        }
        drop(following);
        rig.crash();
        following = follow(&rig);
    }
    rig.until(written).await;
    let want: Vec<String> = (0..written)
        .map(|number| match number % 2 {
            1 => format!("line {number}\n  and more"),
            _ => format!("line {number}"),
        })
        .collect();
    assert_eq!(rig.bodies(), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_are_read_and_attributes_added() {
    let mut rig = Rig::new();
    append(
        &rig.path("logs/x/y/deep.log"),
        concat!(
            "{\"level\":\"error\",\"msg\":\"no camera\",\"ts\":1764000001.5,\"id\":7}\n",
            "level=warn msg=\"slow disk\" ms=1200\n",
            "line token Bearer abcdefgh12345\n",
        ),
    );
    let _following = follow(&rig);
    rig.until(3).await;
    let found: Vec<_> = rig
        .lines
        .iter()
        .map(|line| (line.body.as_str(), line.severity.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("no camera", "ERROR"),
            ("slow disk", "WARN"),
            ("line token Bearer [redacted]", "")
        ]
    );
    let attributes = &rig.lines[0].attributes;
    for (name, value) in [
        ("leeward.source", "file"),
        ("service.name", "app"),
        ("team", "vision"),
        ("log.file.name", "deep.log"),
        ("id", "7"),
    ] {
        assert_eq!(attributes[name], value, "{attributes:?}");
    }
}
