//! A receiver of syslog, for what cannot write to a file or to the journal.
//!
//! No syslog sender is ever answered, so that it cannot send again: what has come is in memory for half a second, then
//! with the hub, or on disk where that is away.

use super::{PERIOD, Sourced};
use crate::journal::Journal;
use kit::Clock;
use model::Severity;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use telemetry::logs::syslog::{Frames, MOST_MESSAGE, parse};
use telemetry::logs::{Entry, Packer, Rules, Said};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Of sources without places.
pub(super) const PLACES: &str = "syslog:";
/// Messages between the sockets and the spool.
const SLOTS: usize = 2048;
/// How long an entry may wait for others: a kill costs as much.
const WAIT: Duration = Duration::from_millis(500);
/// Senders on one TCP address.
const CONNECTIONS: usize = 128;
/// One that has said nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(3600);
/// After an address could not be had.
const REST: Duration = Duration::from_secs(30);

/// Where messages are received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// One message per datagram.
    Udp(SocketAddr),
    /// RFC 6587.
    Tcp(SocketAddr),
    /// A datagram socket as `/dev/log` is, for everybody on the device.
    Unix(PathBuf),
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "UDP {address}"),
            Self::Tcp(address) => write!(f, "TCP {address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where messages go.
#[derive(Debug, Clone)]
struct Inbox {
    entries: mpsc::Sender<Entry>,
    clock: Arc<dyn Clock>,
    /// Datagrams that found no room.
    lost: Arc<AtomicU64>,
}

impl Inbox {
    /// A datagram is taken or lost: nobody can be asked to wait.
    fn datagram(&self, bytes: &[u8], from: Option<SocketAddr>) {
        let entry = parse(bytes, from.map(|from| from.ip()), self.clock.now());
        if self.entries.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Receives syslog.
#[derive(Debug)]
pub(super) struct Syslog {
    addresses: Vec<SyslogAddress>,
    sourced: Sourced,
    packer: Packer,
}

impl Syslog {
    pub(super) fn new(addresses: Vec<SyslogAddress>, rules: Rules, sourced: Sourced) -> Self {
        let attributes = vec![("leeward.source".to_owned(), "syslog".to_owned())];
        let rules = Rules {
            wait: rules.wait.min(WAIT),
            ..rules
        };
        Self {
            addresses,
            packer: Packer::new(attributes, &rules),
            sourced,
        }
    }

    /// Until `stop`; what has come by then is given to the spool.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (entries, mut come) = mpsc::channel(SLOTS);
        let inbox = Inbox {
            entries,
            clock: Arc::clone(&self.sourced.clock),
            lost: Arc::default(),
        };
        let mut listening = JoinSet::new();
        for address in self.addresses.clone() {
            listening.spawn(listen(address, inbox.clone(), self.sourced.events.clone()));
        }
        let mut tick = tokio::time::interval(WAIT.min(PERIOD));
        loop {
            let mut batches = Vec::new();
            let (now, since_boot) = (self.sourced.clock.now(), self.sourced.clock.since_boot());
            let over = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    listening.abort_all();
                    come.close();
                    while let Some(entry) = come.recv().await {
                        self.packer.add(entry, false, now, since_boot, &mut batches);
                    }
                    batches.extend(self.packer.close(now));
                    true
                }
                Some(entry) = come.recv() => {
                    self.packer.add(entry, false, now, since_boot, &mut batches);
                    false
                }
                _ = tick.tick() => {
                    let lost = inbox.lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        self.packer.add(told(lost), true, now, since_boot, &mut batches);
                    }
                    batches.extend(self.packer.due(now, since_boot));
                    self.sourced.intake.secure();
                    false
                }
            };
            if self.sourced.intake.take(batches).await.is_err() {
                tracing::warn!("syslog messages were lost: the spool takes nothing");
            }
            if over {
                return;
            }
        }
    }
}

/// What there was no room for is an entry itself.
fn told(lost: u64) -> Entry {
    let mut said = Said {
        level: Some(telemetry::logs::Level::Warn),
        ..Said::default()
    };
    said.fields.insert("leeward.dropped".to_owned(), lost.into());
    Entry {
        time: None,
        stream: None,
        text: format!("{lost} messages dropped: they came faster than they could be taken").into_bytes(),
        said,
        file: String::new(),
        upto: 0,
    }
}

/// Listens for ever; an address that cannot be had now is tried again, and told of once.
async fn listen(address: SyslogAddress, inbox: Inbox, events: Journal) {
    let mut told = String::new();
    loop {
        let Err(err) = receive(&address, &inbox).await;
        let why = format!("syslog is not received on {address}: {err}");
        if why != told {
            events
                .note(
                    Severity::Warning,
                    "SyslogNotReceived",
                    "device",
                    why.clone(),
                    None,
                )
                .await;
        }
        told = why;
        tokio::time::sleep(REST).await;
    }
}

async fn receive(address: &SyslogAddress, inbox: &Inbox) -> io::Result<std::convert::Infallible> {
    match address {
        SyslogAddress::Udp(address) => {
            let socket = UdpSocket::bind(address).await?;
            let mut buffer = vec![0; MOST_MESSAGE];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await?;
                inbox.datagram(&buffer[..length], Some(from));
            }
        }
        SyslogAddress::Unix(path) => {
            let socket = bind(path)?;
            let mut buffer = vec![0; MOST_MESSAGE];
            loop {
                let length = socket.recv(&mut buffer).await?;
                inbox.datagram(&buffer[..length], None);
            }
        }
        SyslogAddress::Tcp(address) => accept(TcpListener::bind(address).await?, inbox).await,
    }
}

/// A socket that everybody on the device may write to, in place of one that a killed agent left.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            let other = std::os::unix::net::UnixDatagram::unbound()?;
            if other.connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another program receives there",
                ));
            }
            kit::disk::remove_if_there(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something else; name another path",
            ));
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

async fn accept(listener: TcpListener, inbox: &Inbox) -> io::Result<std::convert::Infallible> {
    let mut senders = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Too many at once: the connection is dropped, which its owner sees.
                Ok(_) if senders.len() >= CONNECTIONS => {}
                Ok((stream, from)) => {
                    senders.spawn(converse(stream, from, inbox.clone()));
                }
                Err(err) => {
                    tracing::warn!(%err, "a syslog sender");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(_) = senders.join_next() => {}
        }
    }
}

/// Takes what one sender says; it waits while the spool is full.
async fn converse(mut stream: TcpStream, from: SocketAddr, inbox: Inbox) {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
            Ok(Ok(read)) => read,
            // Broken off, or silent for long.
            Ok(Err(_)) | Err(_) => 0,
        };
        let mut entries = Vec::new();
        let mut give = |message: &[u8]| entries.push(parse(message, Some(from.ip()), inbox.clock.now()));
        if read == 0 {
            frames.end(&mut give);
        } else {
            frames.take(&buffer[..read], &mut give);
        }
        for entry in entries {
            if inbox.entries.send(entry).await.is_err() {
                return;
            }
        }
        if read == 0 {
            return;
        }
    }
}
