//! The machine's figures as a page in Prometheus' text format, under the names that node_exporter gives them, so that
//! its dashboards and alerts fit. What it has no name for begins with `leeward_`.

mod board;
mod containers;
mod kernel;
mod page;
mod process;
mod storage;

use crate::patient::{Patient, Question};
use crate::root::Root;
use rustix::fs::StatVfs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use containers::ContainerMetrics;
pub use page::Page;
pub use process::process;

/// How long each sensor, and each file system, is waited for.
const EACH: Duration = Duration::from_millis(100);

/// Reads the machine again and again.
#[derive(Debug)]
pub struct HostMetrics {
    root: Root,
    /// Mounts below are the product's own.
    state: PathBuf,
    files: Patient<String>,
    mounts: Patient<StatVfs>,
}

impl HostMetrics {
    /// Reads below `sysroot`; file systems mounted below `state` are left out.
    pub fn new(sysroot: &Path, state: &Path) -> Self {
        Self {
            root: Root::new(sysroot),
            state: state.to_owned(),
            files: Patient::new(EACH),
            mounts: Patient::new(EACH),
        }
    }

    /// The page now. Blocks: for reading, and a tenth of a second for each thing that begins to hang.
    pub fn text(&mut self) -> String {
        let mut page = Page::default();
        kernel::write(&self.root, &mut page);
        storage::disks(&self.root, &mut page);
        self.file_systems(&mut page);
        self.sensors(&mut page);
        // A few of them.
        let hanging = (self.files.hanging() + self.mounts.hanging()) as f64;
        let help = "Sensors and file systems that do not answer.";
        page.one("leeward_sensors_hanging", "gauge", help, Some(hanging));
        page.text()
    }

    /// Small files that may hang; each with its text.
    fn read(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> BTreeMap<PathBuf, String> {
        let questions = paths.into_iter().map(|path| {
            let target = path.clone();
            let question: Question<String> = Box::new(move || crate::root::text(&target));
            (path, question)
        });
        self.files.ask(questions.collect()).into_iter().collect()
    }
}

/// The number that a text is.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
