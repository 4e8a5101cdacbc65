//! Fluentd's forward protocol, version 1: PackedForward with `chunk`, so that a record has passed only when the receiver
//! says that it holds it; gzip and the handshake by shared key where they are asked for.
//!
//! The same records are always the same chunk: a receiver that keeps ids tells a repetition.

use super::client::{PATIENCE, SendError, read, tls};
use super::config::ForwarderConfig;
use super::otlp::{Line, lines};
use super::{Item, Outcome, Unfit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmpv::Value;
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha512};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// As forwarders of Fluentd themselves use it.
pub(super) const PORT: u16 = 24224;
/// Of events that say nothing else.
const TAG: &str = "leeward.logs";
/// Bytes of an answer; it is a small map.
const ANSWER: usize = 64 << 10;
/// Nesting of an answer.
const DEPTH: usize = 8;

/// Events on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    /// What is acknowledged.
    id: String,
    message: Vec<u8>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// A receiver and the connection to it.
pub(super) struct Sender {
    config: ForwarderConfig,
    tls: Arc<rustls::ClientConfig>,
    wire: Option<Box<dyn Wire>>,
}

/// Why there was no acknowledgement.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("connecting to {0}")]
    Connect(String, #[source] io::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the connection")]
    Wire(#[from] io::Error),
    #[error("the receiver closed the connection without an acknowledgement")]
    Closed,
    #[error("the receiver answers what is no MessagePack")]
    Form(#[source] rmpv::decode::Error),
    #[error("the receiver acknowledges {0}, not the chunk that was sent")]
    Other(String),
    #[error(
        "the receiver begins with {0}, not with HELO: it asks for no shared key; leave out sharedKeyFile"
    )]
    NoHelo(String),
    #[error("the receiver does not let us in: {0}")]
    Refused(String),
    #[error("the receiver does not know the shared key either")]
    Impostor,
    #[error(transparent)]
    File(#[from] SendError),
}

impl Sender {
    pub(super) fn new(config: ForwarderConfig) -> Result<Self, SendError> {
        Ok(Self {
            tls: Arc::new(tls(&config)?),
            config,
            wire: None,
        })
    }

    /// Sends and waits for the acknowledgement.
    pub(super) async fn attempt(&mut self, items: &[Item]) -> Outcome {
        let chunk = match encode(items, self.config.tag.as_deref(), self.config.gzip) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Outcome::Done,
            Err(Unfit(why)) => return Outcome::Poison(why),
        };
        let told = tokio::time::timeout(PATIENCE, self.send(&chunk))
            .await
            .unwrap_or(Err(Trouble::Silent));
        match told {
            Ok(()) => Outcome::Done,
            Err(trouble) => {
                // What comes on this connection now may belong to something else.
                self.wire = None;
                Outcome::Later(None::<Duration>, kit::chain(&trouble))
            }
        }
    }

    async fn send(&mut self, chunk: &Chunk) -> Result<(), Trouble> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.connect().await?,
        };
        wire.write_all(&chunk.message).await?;
        wire.flush().await?;
        let answer = next(&mut wire).await?;
        match field(&answer, "ack").and_then(Value::as_str) {
            Some(id) if id == chunk.id => {
                self.wire = Some(wire);
                Ok(())
            }
            _ => Err(Trouble::Other(answer.to_string())),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, Trouble> {
        let url = &self.config.url;
        // Both were checked when the configuration was read.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let address = (host, url.port().unwrap_or(PORT));
        let failed = |err| Trouble::Connect(format!("{host}:{}", address.1), err);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true)?;
        let mut wire: Box<dyn Wire> = if url.scheme() == "tls" {
            let name = ServerName::try_from(host.to_owned()).map_err(|err| failed(io::Error::other(err)))?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            Box::new(connector.connect(name, stream).await.map_err(failed)?)
        } else {
            Box::new(stream)
        };
        if let Some(path) = &self.config.shared_key_file {
            let key = read(path)?;
            let password = self.config.password_file.as_ref().map(read).transpose()?;
            let user = self.config.username.as_deref().unwrap_or_default();
            shake_hands(&mut wire, &key, user, &password.unwrap_or_default()).await?;
        }
        Ok(wire)
    }
}

/// HELO, PING, PONG.
async fn shake_hands(wire: &mut Box<dyn Wire>, key: &str, user: &str, password: &str) -> Result<(), Trouble> {
    let helo = next(wire).await?;
    let options = match helo.as_array().map(Vec::as_slice) {
        Some([word, options]) if word.as_str() == Some("HELO") => options,
        _ => return Err(Trouble::NoHelo(helo.to_string())),
    };
    let bytes = |name: &str| match field(options, name) {
        Some(Value::Binary(bytes)) => bytes.clone(),
        Some(Value::String(text)) => text.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    let (nonce, auth) = (bytes("nonce"), bytes("auth"));
    let salt: [u8; 16] = rand::random();
    let name = "leeward-hub";
    let proof = if auth.is_empty() {
        String::new()
    } else {
        digest([&auth[..], user.as_bytes(), password.as_bytes()])
    };
    let ping = Value::Array(vec![
        "PING".into(),
        name.into(),
        Value::Binary(salt.to_vec()),
        digest([&salt[..], name.as_bytes(), &nonce, key.as_bytes()]).into(),
        user.into(),
        proof.into(),
    ]);
    wire.write_all(&packed(&ping)).await?;
    wire.flush().await?;
    let pong = next(wire).await?;
    match pong.as_array().map(Vec::as_slice) {
        Some([_, Value::Boolean(true), _, server, theirs]) => {
            let server = server.as_str().unwrap_or_default();
            let ours = digest([&salt[..], server.as_bytes(), &nonce, key.as_bytes()]);
            (theirs.as_str() == Some(ours.as_str()))
                .then_some(())
                .ok_or(Trouble::Impostor)
        }
        Some([_, _, why, ..]) => Err(Trouble::Refused(why.to_string())),
        _ => Err(Trouble::Refused(pong.to_string())),
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha512::new();
    parts.into_iter().for_each(|part| hash.update(part));
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The next value that the receiver says.
async fn next(wire: &mut Box<dyn Wire>) -> Result<Value, Trouble> {
    let mut held = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = wire.read(&mut piece).await?;
        if read == 0 {
            return Err(Trouble::Closed);
        }
        held.extend_from_slice(&piece[..read]);
        let mut rest = held.as_slice();
        match rmpv::decode::read_value_with_max_depth(&mut rest, DEPTH) {
            Ok(value) => return Ok(value),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof && held.len() < ANSWER => {}
            Err(err) => return Err(Trouble::Form(err)),
        }
    }
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let pairs = map.as_map()?;
    pairs
        .iter()
        .find_map(|(key, value)| (key.as_str() == Some(name)).then_some(value))
}

fn packed(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = rmpv::encode::write_value(&mut bytes, value);
    bytes
}

fn encode(items: &[Item], tag: Option<&str>, gzip: bool) -> Result<Option<Chunk>, Unfit> {
    let (mut entries, mut size) = (Vec::new(), 0_u64);
    for item in items {
        for (number, line) in lines(item)?.into_iter().enumerate() {
            entries.extend(packed(&event(item, number, line)));
            size += 1;
        }
    }
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        return Ok(None);
    };
    if size == 0 {
        return Ok(None);
    }
    // Numbers of the hub's own, which mean the same records for ever.
    let id = [first.record.id.to_be_bytes(), last.record.id.to_be_bytes()].concat();
    let id = BASE64.encode(id);
    let mut options = vec![("size".into(), size.into()), ("chunk".into(), id.as_str().into())];
    if gzip {
        entries = compressed(&entries).map_err(|err| Unfit(err.to_string()))?;
        options.push(("compressed".into(), "gzip".into()));
    }
    let message = Value::Array(vec![
        tag.unwrap_or(TAG).into(),
        Value::Binary(entries),
        Value::Map(options),
    ]);
    Ok(Some(Chunk {
        id,
        message: packed(&message),
    }))
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// `[EventTime, record]`
fn event(item: &Item, number: usize, line: Line) -> Value {
    let (seconds, nanos) = (line.time / 1_000_000_000, line.time % 1_000_000_000);
    // Until the year 2106; below 2^32.
    let time = [
        u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes(),
        (nanos as u32).to_be_bytes(),
    ];
    let mut record: Vec<(Value, Value)> = vec![("message".into(), line.body.into())];
    let sequence = format!("{}.{}.{number}", item.record.ordinal, item.record.sequence);
    for (name, value) in [
        ("level", line.severity),
        ("trace_id", line.trace_id),
        ("span_id", line.span_id),
        ("leeward.sequence", sequence),
    ] {
        if !value.is_empty() {
            record.push((name.into(), value.into()));
        }
    }
    for (name, value) in item.place.iter() {
        record.push((name.as_str().into(), value.as_str().into()));
    }
    for (name, value) in line.attributes {
        let known = record.iter().any(|(key, _)| key.as_str() == Some(name.as_str()));
        let name = if known { format!("attributes.{name}") } else { name };
        record.push((name.into(), value.into()));
    }
    Value::Array(vec![Value::Ext(0, time.concat()), Value::Map(record)])
}
