//! The agent's end of the connection to a shim.

use super::Inner;
use crate::shim::protocol::{Report, Request, ShimState};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

/// Whoever waits for an answer, in the order of asking.
type Asked = VecDeque<oneshot::Sender<Result<(), String>>>;

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    asked: Arc<Mutex<Asked>>,
    told: watch::Receiver<Told>,
}

/// What has come from the shim so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) ready: bool,
    pub(super) state: Option<ShimState>,
    /// The connection has ended, and with it the shim.
    pub(super) over: bool,
}

impl Link {
    /// Connects to the shim of the pod in `dir`.
    pub(super) async fn connect(dir: &Path) -> io::Result<UnixStream> {
        // An open folder makes for a name that is short enough, wherever the root lies.
        let folder = crate::shim::open_dir(dir)?;
        UnixStream::connect(crate::shim::short_path(&folder)).await
    }

    /// Takes over a connection; what the shim of the pod in `dir` tells goes into the table as well.
    pub(super) fn new(inner: &Arc<Inner>, dir: &Path, stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (tell, told) = watch::channel(Told::default());
        let link = Self {
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            asked: Arc::default(),
            told,
        };
        let (inner, dir, listening) = (Arc::downgrade(inner), dir.to_owned(), link.clone());
        tokio::spawn(async move {
            let ended = listening.listen(reader, &tell, |state| {
                let Some(inner) = inner.upgrade() else {
                    return false;
                };
                inner.told(&dir, state, &listening);
                true
            });
            ended.await;
            listening
                .asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
            tell.send_modify(|told| told.over = true);
            if let Some(inner) = inner.upgrade() {
                inner.lost(&dir).await;
            }
        });
        link
    }

    /// Reads reports until the connection ends or `take` wants no more.
    async fn listen(
        &self,
        reader: OwnedReadHalf,
        tell: &watch::Sender<Told>,
        take: impl Fn(&ShimState) -> bool,
    ) {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let report = match serde_json::from_str(&line) {
                Ok(report) => report,
                Err(error) => {
                    tracing::warn!(%error, "a shim's report is not understood");
                    continue;
                }
            };
            match report {
                Report::Ready => tell.send_modify(|told| told.ready = true),
                Report::State(state) => {
                    if !take(&state) {
                        return;
                    }
                    tell.send_modify(|told| told.state = Some(*state));
                }
                Report::Done => self.answer(Ok(())),
                Report::Failed(why) => self.answer(Err(why)),
            }
        }
    }

    fn answer(&self, answer: Result<(), String>) {
        let asked = self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if let Some(asked) = asked {
            // Whoever asked may have stopped waiting.
            let _ = asked.send(answer);
        }
    }

    /// Sends a request that has no answer of its own.
    pub(super) async fn send(&self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.writer.lock().await.write_all(&line).await
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(answer);
        self.send(request).await.map_err(|err| err.to_string())?;
        answered.await.map_err(|_| "the shim has ended".to_owned())?
    }

    /// The state last told.
    pub(super) fn state(&self) -> Option<ShimState> {
        self.told.borrow().state.clone()
    }

    /// Waits until what has been told is right or the shim has ended; says which.
    pub(super) async fn until(&self, right: impl Fn(&Told) -> bool) -> bool {
        let mut told = self.told.clone();
        match told.wait_for(|told| right(told) || told.over).await {
            Ok(told) => right(&told),
            Err(_) => false,
        }
    }
}
