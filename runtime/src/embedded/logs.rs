//! Reading containers' logs from where their shims write them.

use super::Inner;
use crate::shim::log::files_of;
use crate::shim::protocol::LOGS;
use crate::{EngineError, LogFile, LogQuery};
use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use model::cri;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a followed log is looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Begins to read; the lines come through the receiver.
pub(super) fn open(inner: &Arc<Inner>, query: &LogQuery) -> Result<mpsc::Receiver<Bytes>, EngineError> {
    let table = inner.table();
    let pod = table
        .pods
        .get(&query.pod)
        .ok_or_else(|| EngineError::NotFound(format!("pod {}", query.pod)))?;
    let containers = &pod.state.pod.containers;
    let wanted = match &query.container {
        Some(name) => containers
            .iter()
            .find(|c| c.name == *name)
            .ok_or_else(|| EngineError::NotFound(format!("container {name} of pod {}", query.pod)))?,
        None => match &containers[pod.state.init_containers.min(containers.len())..] {
            [only] => only,
            several => {
                let names: Vec<&str> = several.iter().map(|c| c.name.as_str()).collect();
                return Err(EngineError::Refused {
                    pod: query.pod.clone(),
                    container: None,
                    what: "it has several containers, each with a log".to_owned(),
                    remedy: format!("name one of {}", names.join(", ")),
                });
            }
        },
    };
    let run = match (query.previous, wanted.restarts) {
        (false, run) => run,
        (true, 0) => {
            return Err(EngineError::NotFound(format!(
                "an earlier run of container {}",
                wanted.name
            )));
        }
        (true, run) => run - 1,
    };
    let reading = Reading {
        inner: Arc::downgrade(inner),
        dir: pod.dir.clone(),
        folder: pod.dir.join(LOGS).join(&wanted.name),
        container: wanted.name.clone(),
        query: query.clone(),
        run,
    };
    drop(table);
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(reading.send_all(sender));
    Ok(receiver)
}

/// The logs of all containers' present runs, and of the ones before.
pub(super) fn files(inner: &Inner) -> Vec<LogFile> {
    let table = inner.table();
    let mut files = Vec::new();
    for (id, pod) in &table.pods {
        for container in &pod.state.pod.containers {
            let folder = pod.dir.join(LOGS).join(&container.name);
            // A run's log is kept until the next but one begins.
            for run in container.restarts.saturating_sub(1)..=container.restarts {
                files.push(LogFile {
                    pod: id.clone(),
                    owner: pod.state.pod.owner.clone(),
                    container: container.name.clone(),
                    run,
                    path: folder.join(format!("{run}.log")),
                });
            }
        }
    }
    files
}

/// A log on its way.
#[derive(Debug)]
struct Reading {
    inner: Weak<Inner>,
    dir: PathBuf,
    folder: PathBuf,
    container: String,
    query: LogQuery,
    run: u32,
}

impl Reading {
    async fn send_all(mut self, sender: mpsc::Sender<Bytes>) {
        let mut lines = Lines::new(&self.query);
        let mut cursor = Cursor::new(self.path());
        let follow = self.query.follow && !self.query.previous;
        let mut first = true;
        loop {
            // Looked at before the read, so that nothing written before the end is missed.
            let (run, over) = self.now();
            let Ok(mut chunks) = cursor.read(&mut lines) else {
                return;
            };
            if first {
                chunks = lines.tail(chunks);
            }
            first = false;
            for chunk in chunks {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
            if !follow || over {
                return;
            }
            if run > self.run {
                self.run = run;
                cursor = Cursor::new(self.path());
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => return,
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.run))
    }

    /// The container's present run, and whether no more will be written.
    fn now(&self) -> (u32, bool) {
        let Some(inner) = self.inner.upgrade() else {
            return (self.run, true);
        };
        let table = inner.table();
        match table.pods.get(&self.query.pod).filter(|pod| pod.dir == self.dir) {
            Some(pod) => {
                let seen = pod.state.pod.containers.iter().find(|c| c.name == self.container);
                (seen.map_or(self.run, |c| c.restarts), pod.state.ended)
            }
            None => (self.run, true),
        }
    }
}

/// A place in a log that may be rotated under its reader.
#[derive(Debug)]
struct Cursor {
    path: PathBuf,
    /// The file being read: its inode and how far.
    at: Option<(u64, u64)>,
    /// The file itself: what is written just before the pod is removed can still be read.
    held: Option<File>,
}

impl Cursor {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            at: None,
            held: None,
        }
    }

    /// Reads all whole lines that are new, through rotated files.
    fn read(&mut self, lines: &mut Lines) -> io::Result<Vec<Bytes>> {
        let mut files: Vec<File> = self.held.take().into_iter().collect();
        for path in files_of(&self.path) {
            match File::open(&path) {
                Ok(file) => files.push(file),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        let inodes: Vec<u64> = files
            .iter()
            .map(|file| Ok(file.metadata()?.ino()))
            .collect::<io::Result<_>>()?;
        // The file held may be among the others once more, or older than all of them.
        let held = self.at.map(|(inode, _)| inode);
        let first = inodes.iter().rposition(|inode| Some(*inode) == held);
        let mut chunks = Vec::new();
        for (number, (mut file, inode)) in files.into_iter().zip(inodes).enumerate() {
            if first.is_some_and(|first| number < first) {
                continue;
            }
            let from = self
                .at
                .filter(|(held, _)| *held == inode)
                .map_or(0, |(_, from)| from);
            file.seek(SeekFrom::Start(from))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let whole = text
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            chunks.extend(
                text[..whole]
                    .split_inclusive(|byte| *byte == b'\n')
                    .filter_map(|line| lines.take(line)),
            );
            self.at = Some((inode, from + whole as u64));
            self.held = Some(file);
        }
        Ok(chunks)
    }
}

/// Turns CRI lines into what was asked for.
#[derive(Debug)]
struct Lines {
    since: Option<Timestamp>,
    tail: Option<usize>,
    timestamps: bool,
    /// Parts of a line that has not ended.
    held: BytesMut,
}

impl Lines {
    fn new(query: &LogQuery) -> Self {
        Self {
            since: query.since,
            tail: query.tail,
            timestamps: query.timestamps,
            held: BytesMut::new(),
        }
    }

    fn take(&mut self, line: &[u8]) -> Option<Bytes> {
        let parsed = cri::parse(line.strip_suffix(b"\n").unwrap_or(line))?;
        if let Some(since) = self.since
            && parsed.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return None;
        }
        if self.timestamps && self.held.is_empty() {
            self.held.put_slice(parsed.time.as_bytes());
            self.held.put_u8(b' ');
        }
        self.held.put_slice(parsed.text);
        if parsed.partial {
            return None;
        }
        self.held.put_u8(b'\n');
        Some(self.held.split().freeze())
    }

    fn tail(&self, chunks: Vec<Bytes>) -> Vec<Bytes> {
        match self.tail {
            Some(tail) if chunks.len() > tail => {
                let mut chunks = VecDeque::from(chunks);
                chunks.drain(..chunks.len() - tail);
                chunks.into()
            }
            _ => chunks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::log::LogFile;
    use model::PodId;
    use model::cri::{Stream, format_line};
    use std::path::Path;

    fn query() -> LogQuery {
        LogQuery::of(PodId {
            namespace: "d".to_owned(),
            name: "a".to_owned(),
        })
    }

    fn text(chunks: Vec<Bytes>) -> String {
        chunks
            .iter()
            .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
            .collect()
    }

    #[test]
    fn rotation_under_a_reader_loses_and_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path: &Path = &dir.path().join("0.log");
        let mut log = LogFile::new(path.to_owned(), 150, 4);
        let (mut cursor, mut lines) = (Cursor::new(path.to_owned()), Lines::new(&query()));
        let (mut seen, mut want) = (String::new(), String::new());
        for number in 0..40 {
            let mut line = Vec::new();
            format_line(
                &mut line,
                Timestamp::UNIX_EPOCH,
                Stream::Out,
                'F',
                format!("line {number}").as_bytes(),
            );
            log.append(&line, 1);
            want += &format!("line {number}\n");
            if number % 3 == 0 {
                seen += &text(cursor.read(&mut lines).unwrap());
            }
        }
        seen += &text(cursor.read(&mut lines).unwrap());
        assert_eq!(seen, want);
    }

    #[test]
    fn parts_become_one_line_and_times_are_shown_once() {
        let mut wanted = query();
        wanted.timestamps = true;
        let mut lines = Lines::new(&wanted);
        assert_eq!(
            lines.take(b"2026-01-01T00:00:00.000000000Z stdout P one \n"),
            None
        );
        let whole = lines
            .take(b"2026-01-01T00:00:00.000000001Z stdout F two\n")
            .unwrap();
        assert_eq!(whole, "2026-01-01T00:00:00.000000000Z one two\n");
    }
}
