//! A preview as tables, JSON, YAML or Markdown.

use super::rollout::{Downtime, Effect, What};
use super::{Device, Form, Preview};
use crate::compare::{Change, told};
use crate::print::{Output, Table, lay_out, one, out};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(super) fn print(form: Form, preview: &Preview) -> Result<()> {
    match form {
        Form::Json => one(Output::Json, preview, String::new),
        Form::Yaml => one(Output::Yaml, preview, String::new),
        Form::Table => out(&text(preview, false)),
        Form::Wide => out(&text(preview, true)),
        Form::Markdown => out(&markdown(preview)),
    }
}

const HEAD: &[&str] = &[
    "DEVICE",
    "CLASS",
    "RUNS NOW",
    "ADDED",
    "CHANGED",
    "REMOVED",
    "RESTARTED",
    "DOWNLOAD",
    "TIME",
    "DOWNTIME",
];

fn row(device: &Device) -> Vec<String> {
    if device.problem.is_some() {
        let mut row = vec![
            device.device.clone().unwrap_or_else(|| "(each)".to_owned()),
            device.class.clone(),
            device.base.clone(),
        ];
        row.resize(HEAD.len() - 1, "-".to_owned());
        row.push("REFUSED".to_owned());
        return row;
    }
    let restarted = device
        .workloads
        .iter()
        .filter(|effect| effect.what == What::Restarted)
        .count();
    vec![
        device.device.clone().unwrap_or_else(|| "(each)".to_owned()),
        device.class.clone(),
        device.base.clone(),
        device.count(Change::Added).to_string(),
        device.count(Change::Changed).to_string(),
        device.count(Change::Removed).to_string(),
        restarted.to_string(),
        device.download.bytes.map_or_else(|| "unknown".to_owned(), size),
        device.transfer_seconds.map_or_else(|| "unknown".to_owned(), time),
        downtime(&device.workloads),
    ]
}

/// The longest of the workloads' own.
fn downtime(effects: &[Effect]) -> String {
    let all = effects.iter().filter_map(|effect| effect.downtime);
    let worst = all.reduce(|a, b| Downtime {
        least: a.least.max(b.least),
        most: a.most.max(b.most),
    });
    worst.map_or_else(|| "none".to_owned(), range)
}

fn range(downtime: Downtime) -> String {
    format!("{}-{}s", downtime.least, downtime.most)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "0s".to_owned(),
        ..1.0 => "<1s".to_owned(),
        ..120.0 => format!("{seconds:.0}s"),
        _ => format!("{:.0}m", seconds / 60.0),
    }
}

/// Devices with the same fate, told once: the class, and how many.
fn groups(preview: &Preview) -> Vec<(String, &Device)> {
    let mut groups: BTreeMap<String, (Vec<&Device>, &Device)> = BTreeMap::new();
    for device in &preview.devices {
        let fate = serde_json::json!([
            device.class,
            device.base,
            device.changes,
            device.workloads,
            device.download,
            device.problem
        ]);
        let group = groups
            .entry(format!("{} {fate}", device.class))
            .or_insert((vec![], device));
        group.0.push(device);
    }
    groups
        .into_values()
        .map(|(devices, first)| {
            let names: Vec<&str> = devices
                .iter()
                .filter_map(|device| device.device.as_deref())
                .collect();
            let title = match names.as_slice() {
                [] => format!("{} ({})", first.class, first.folder),
                names if names.len() <= 5 => {
                    format!("{} ({}): {}", first.class, first.folder, names.join(", "))
                }
                names => format!("{} ({}): {} devices", first.class, first.folder, names.len()),
            };
            (title, first)
        })
        .collect()
}

fn effect_text(effect: &Effect) -> String {
    let mut text = format!("{} {}: {}", effect.workload, effect.what.word(), effect.because);
    if let Some(downtime) = effect.downtime {
        let _ = write!(text, "; down for {}", range(downtime));
    }
    text
}

fn text(preview: &Preview, wide: bool) -> String {
    let table = Table {
        head: HEAD,
        wide: 0,
        rows: preview.devices.iter().map(row).collect(),
    };
    let mut text = format!("{} over {}\n", preview.revision, preview.base);
    text.push_str(&lay_out(&table, HEAD.len()));
    for (title, device) in groups(preview) {
        let _ = writeln!(text, "\n{title}");
        if let Some(problem) = &device.problem {
            let _ = writeln!(text, "  REFUSED: {problem}");
            continue;
        }
        if device.changes.is_empty() {
            text.push_str("  nothing changes\n");
        }
        let changes: Vec<_> = device
            .changes
            .iter()
            .cloned()
            .map(|mut change| {
                if !wide {
                    change.fields.clear();
                }
                change
            })
            .collect();
        text.push_str(&told(&changes, "  "));
        for effect in &device.workloads {
            let _ = writeln!(text, "  * {}", effect_text(effect));
        }
        for image in &device.download.images {
            let _ = writeln!(text, "  image {image}");
        }
        if let Some(why) = &device.download.unknown {
            let _ = writeln!(text, "  size unknown: {why}");
        }
    }
    let _ = writeln!(
        text,
        "\nTIME is for a link of {} kbit/s (--link).",
        preview.link_bits_per_second / 1000
    );
    text
}

fn markdown(preview: &Preview) -> String {
    let mut text = format!(
        "### What `{}` would do to the fleet\n\nCompared with `{}`; links of {} kbit/s.\n\n",
        preview.revision,
        preview.base,
        preview.link_bits_per_second / 1000
    );
    let line = |cells: &[String]| {
        format!(
            "| {} |\n",
            cells
                .iter()
                .map(|cell| escape(cell))
                .collect::<Vec<_>>()
                .join(" | ")
        )
    };
    let head: Vec<String> = HEAD
        .iter()
        .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
        .collect();
    text.push_str(&line(&head));
    text.push_str(&line(&vec!["---".to_owned(); HEAD.len()]));
    preview
        .devices
        .iter()
        .for_each(|device| text.push_str(&line(&row(device))));
    for (title, device) in groups(preview) {
        let _ = writeln!(text, "\n<details><summary>{}</summary>\n", html(&title));
        match &device.problem {
            Some(problem) => {
                let _ = writeln!(text, "**Refused:** {}", escape(problem));
            }
            None => {
                device.workloads.iter().for_each(|effect| {
                    let _ = writeln!(text, "- {}", escape(&effect_text(effect)));
                });
                if !device.changes.is_empty() {
                    // A fence longer than any in the texts.
                    let _ = writeln!(text, "\n``````diff\n{}``````", told(&device.changes, ""));
                }
            }
        }
        text.push_str("\n</details>\n");
    }
    text
}

fn escape(text: &str) -> String {
    html(text).replace('|', "\\|").replace('\n', " ")
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
