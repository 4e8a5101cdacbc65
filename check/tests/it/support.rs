//! A small repository without a fault, and ways to spoil it.

use check::{DeviceClass, Options, Report, check};
use model::Tree;
use std::fmt::Write as _;

/// Files of a repository that passes, for two Raspberry Pis and a cluster of Kubernetes.
pub const GOOD: &str = include_str!("good.txt");

/// `//- path` lines in front of files.
pub fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for part in text.split("//- ").skip(1) {
        let (path, data) = part.split_once('\n').unwrap_or((part, ""));
        tree.write(path.trim(), data.to_owned());
    }
    tree
}

pub fn options() -> Options<'static> {
    let class = |name: &str, memory: u64| DeviceClass {
        name: name.to_owned(),
        folder: "clusters/pi".to_owned(),
        architecture: Some("arm64".to_owned()),
        limits: plan::Limits {
            cpu_milli: 3500,
            memory,
            seccomp: true,
        },
    };
    Options {
        classes: vec![class("raspberry-pi-4", 3 << 30), class("raspberry-pi-5", 7 << 30)],
        ..Options::default()
    }
}

/// The findings as a person reads them, without excerpts.
pub fn told(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(
            text,
            "{}: {}: {} [{}]",
            finding.place, finding.severity, finding.message, finding.rule
        );
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  = {remedy}");
        }
        for related in &finding.related {
            let _ = writeln!(text, "  = {}: {}", related.place, related.message);
        }
        let _ = writeln!(text, "  in {}", finding.clusters.join(", "));
    }
    text
}

pub fn checked(text: &str) -> String {
    told(&check(&tree(text), &options()))
}

/// The good repository with one text replaced by another.
#[track_caller]
pub fn spoilt(old: &str, new: &str) -> String {
    assert_eq!(GOOD.matches(old).count(), 1, "{old:?} should be there once");
    GOOD.replace(old, new)
}
