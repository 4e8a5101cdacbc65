//! For people at the device, with the hub out of reach: a Unix socket that root may use.
//!
//! One JSON line in ([`Ask`]), one JSON line out ([`Answer`]); for logs the output follows.

use crate::converge::{Command, Request};
use crate::orders;
use crate::report::Reported;
use crate::uplink::{Link, SINK};
use model::Status;
use runtime::Engine;
use serde::{Deserialize, Serialize};
use spool::{Snapshot, Spool, Stream};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use wire::frame::LogAsk;

/// Name of the socket below the state folder.
pub const SOCKET: &str = "agent.sock";
/// A question is one short line.
const LONGEST_ASK: u64 = 64 * 1024;
/// One who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "ask")]
pub enum Ask {
    /// How the device is.
    Status,
    /// Look at the source now.
    Sync,
    /// Take no new generation.
    Pause,
    /// Take them again.
    Resume,
    /// Where every record of the spool is.
    Spool,
    /// Output of a container.
    Logs(LogAsk),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum Answer {
    /// The newest status, and why there is no link where there is none.
    Status {
        /// Absent in the first moments.
        status: Option<Box<Status>>,
        /// Absent while the link is up, or where there is no hub.
        link_down: Option<String>,
    },
    /// Where every record of the spool is, stream by stream.
    Spool {
        /// Epoch of the numbering.
        epoch: u64,
        /// In order of their urgency.
        streams: Vec<StreamAccount>,
        /// All figures of the spool.
        figures: Box<Snapshot>,
    },
    /// Done; for logs, the output follows.
    Done,
    /// Not done.
    Refused {
        /// Why.
        why: String,
    },
}

/// The account of one stream towards the hub: `appended = acked + dropped + setAside + lost + resident`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamAccount {
    /// Name of the stream.
    pub stream: String,
    /// Records appended.
    pub appended: u64,
    /// Stored by the hub, as it said.
    pub acked: u64,
    /// Given up by policy.
    pub dropped: u64,
    /// Refused by the hub for good.
    pub set_aside: u64,
    /// Unreadable.
    pub lost: u64,
    /// Still here.
    pub resident: u64,
}

impl StreamAccount {
    fn of(stream: &Stream) -> Self {
        let account = stream.account(SINK);
        Self {
            stream: stream.name().to_owned(),
            appended: account.appended,
            acked: account.acked,
            dropped: account.dropped_total(),
            set_aside: account.set_aside,
            lost: account.lost,
            resident: account.resident,
        }
    }
}

/// What answering needs.
#[derive(Debug)]
pub struct Desk<E> {
    /// For logs.
    pub engine: Arc<E>,
    /// Newest status.
    pub status: watch::Receiver<Option<Reported>>,
    /// How the link is.
    pub link: watch::Receiver<Link>,
    /// Wakes the source.
    pub look: Arc<Notify>,
    /// Leads to the loop.
    pub requests: mpsc::Sender<Request>,
    /// For its figures.
    pub spool: Spool,
    /// The streams that the hub is to have.
    pub streams: Vec<Stream>,
}

impl<E> Clone for Desk<E> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            status: self.status.clone(),
            link: self.link.clone(),
            look: Arc::clone(&self.look),
            requests: self.requests.clone(),
            spool: self.spool.clone(),
            streams: self.streams.clone(),
        }
    }
}

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or not for us.
    #[error("no agent answers at {path}; is it running, and are you root?", path = .path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the agent at {path} did not answer", path = .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An agent of another version, perhaps.
    #[error("the answer of the agent at {path} is not understood", path = .path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Asks the agent whose state is in `state`. What follows the answer (output, for logs) is left to be read.
///
/// # Errors
/// [`AskError`]. A refusal is an answer.
pub async fn ask(state: &Path, ask: &Ask) -> Result<(Answer, BufReader<UnixStream>), AskError> {
    let path = state.join(SOCKET);
    let no_agent = |source| AskError::NoAgent {
        path: path.clone(),
        source,
    };
    let broken = |source| AskError::Broken {
        path: path.clone(),
        source,
    };
    let mut stream = UnixStream::connect(&path).await.map_err(no_agent)?;
    stream.write_all(&question(ask)).await.map_err(broken)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.map_err(broken)?;
    Ok((answer_in(&path, &line)?, stream))
}

/// [`ask`] for callers without an async runtime, with a bound on the wait.
///
/// # Errors
/// [`AskError`].
pub fn ask_blocking(state: &Path, ask: &Ask, patience: Duration) -> Result<Answer, AskError> {
    use std::io::{BufRead as _, Write as _};
    let path = state.join(SOCKET);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(|source| AskError::NoAgent {
        path: path.clone(),
        source,
    })?;
    let mut line = String::new();
    let asked = stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.write_all(&question(ask)))
        .and_then(|()| io::BufReader::new(stream).read_line(&mut line));
    asked.map_err(|source| AskError::Broken {
        path: path.clone(),
        source,
    })?;
    answer_in(&path, &line)
}

fn question(ask: &Ask) -> Vec<u8> {
    // Serialising plain data to memory cannot fail.
    let mut line = serde_json::to_vec(ask).unwrap_or_default();
    line.push(b'\n');
    line
}

fn answer_in(path: &Path, line: &str) -> Result<Answer, AskError> {
    serde_json::from_str(line).map_err(|source| AskError::NotUnderstood {
        path: path.to_owned(),
        source,
    })
}

/// Binds the socket, in place of one that a killed agent left.
///
/// # Errors
/// Where the state folder does not allow it.
pub fn bind(state: &Path) -> io::Result<UnixListener> {
    let path = state.join(SOCKET);
    kit::disk::remove_if_there(&path)?;
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for ever.
pub async fn serve<E: Engine>(listener: Arc<UnixListener>, desk: Desk<E>) {
    let mut asking = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if asking.len() < 16 => {
                    let desk = desk.clone();
                    asking.spawn(async move {
                        // Whoever hangs up in the middle has their answer already.
                        let _ = answer(stream, desk).await;
                    });
                }
                // Too many at once: the connection is dropped, which its owner sees.
                Ok(_) => {}
                Err(err) => {
                    tracing::warn!(%err, "the local socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(_) = asking.join_next() => {}
        }
    }
}

async fn answer<E: Engine>(stream: UnixStream, desk: Desk<E>) -> io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    let (input, mut output) = stream.into_split();
    let mut line = String::new();
    let mut input = BufReader::new(input.take(LONGEST_ASK));
    tokio::time::timeout(PATIENCE, input.read_line(&mut line))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let answer = match serde_json::from_str::<Ask>(&line) {
        Err(err) => Answer::Refused {
            why: format!("not a question: {err}"),
        },
        Ok(Ask::Status) => {
            let status = desk
                .status
                .borrow()
                .as_ref()
                .map(|reported| Box::new(reported.status.clone()));
            let link_down = match &*desk.link.borrow() {
                Link::Up => None,
                Link::Down(why) => Some(why.clone()),
            };
            Answer::Status { status, link_down }
        }
        Ok(Ask::Sync) => {
            desk.look.notify_one();
            Answer::Done
        }
        Ok(Ask::Spool) => Answer::Spool {
            epoch: desk.spool.epoch(),
            streams: desk.streams.iter().map(StreamAccount::of).collect(),
            figures: Box::new(desk.spool.snapshot()),
        },
        Ok(Ask::Pause) => command(&desk, Command::Pause).await,
        Ok(Ask::Resume) => command(&desk, Command::Resume).await,
        Ok(Ask::Logs(ask)) => match orders::open_logs(&*desk.engine, ask).await {
            Err(why) => Answer::Refused { why },
            Ok(mut lines) => {
                say(&mut output, &Answer::Done).await?;
                while let Some(data) = lines.recv().await {
                    output.write_all(&data).await?;
                }
                return Ok(());
            }
        },
    };
    say(&mut output, &answer).await
}

async fn command<E>(desk: &Desk<E>, command: Command) -> Answer {
    let (reply, done) = oneshot::channel();
    let sent = desk.requests.try_send((command, reply));
    match (sent, done.await) {
        (Ok(()), Ok(Ok(()))) => Answer::Done,
        (Ok(()), Ok(Err(why))) => Answer::Refused { why },
        _ => Answer::Refused {
            why: "the agent is busy; try again".to_owned(),
        },
    }
}

async fn say(output: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    output.write_all(&line).await
}
