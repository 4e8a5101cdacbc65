//! A receiver over HTTP that keeps what it takes, and answers as it is told.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How one request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Not taken; with `Retry-After` where given.
    Status(u16, Option<&'static str>),
    /// Taken, with this answer.
    Body(u16, String),
    /// Taken, and the answer is lost.
    TakeAndHangUp,
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Taken {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Taken>,
    script: VecDeque<Answer>,
    refused: Option<String>,
    largest: Option<usize>,
    away: bool,
}

pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let of_task = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let state = of_task.clone();
                tokio::spawn(async move {
                    // A sender that goes away is no fault of the receiver.
                    let _ = serve(tcp, &state).await;
                });
            }
        });
        Self { address, state, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests are answered so; then everything is taken.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().script = answers.into_iter().collect();
    }

    /// Whatever holds this text, as a whole line, is refused with 400.
    pub fn refuse(&self, text: &str) {
        self.state.lock().unwrap().refused = Some(format!("\"{text}\""));
    }

    /// Requests with more lines are answered with 413.
    pub fn largest(&self, lines: usize) {
        self.state.lock().unwrap().largest = Some(lines);
    }

    /// Everything is answered with 503.
    pub fn away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }
}

impl State {
    fn answer(&mut self, request: Taken) -> Option<(u16, Option<&'static str>, String)> {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let lines = text.matches("[\"").count();
        if self.away {
            return Some((503, None, "away".into()));
        }
        match self.script.pop_front() {
            Some(Answer::Status(status, after)) => return Some((status, after, "not now".into())),
            Some(Answer::Body(status, body)) => {
                self.taken.push(request);
                return Some((status, None, body));
            }
            Some(Answer::TakeAndHangUp) => {
                self.taken.push(request);
                return None;
            }
            None => {}
        }
        if self.largest.is_some_and(|largest| lines > largest) {
            return Some((413, None, "too large".into()));
        }
        if self
            .refused
            .as_ref()
            .is_some_and(|refused| text.contains(refused))
        {
            return Some((400, None, "refused: no such line".into()));
        }
        self.taken.push(request);
        Some((200, None, String::new()))
    }
}

async fn serve(tcp: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut stream = BufReader::new(tcp);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let taken = Taken { path, headers, body };
        let answer = state.lock().unwrap().answer(taken);
        let Some((status, after, text)) = answer else {
            return Ok(());
        };
        let after = after.map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{after}\r\n{text}",
            text.len()
        );
        stream.get_mut().write_all(head.as_bytes()).await?;
    }
}
