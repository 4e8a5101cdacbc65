//! Asking the node's resolvers, and knowing when there is no use in asking.

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one resolver is waited for.
const ONE_TRY: Duration = Duration::from_secs(1);
/// How long all tries may take. Clients wait five seconds (resolv.conf(5)); they shall get an answer.
const ALL_TRIES: Duration = Duration::from_millis(2500);
/// How often the resolvers' file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bounds of the pause before a silent resolver is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// Largest datagram that crosses any link whole (DNS flag day 2020).
pub const SAFE_PAYLOAD: u16 = 1232;

/// The resolvers of the node, with what is known of their health.
#[derive(Debug)]
pub struct Upstreams {
    fixed: bool,
    file: PathBuf,
    own: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<SocketAddr>,
    health: HashMap<SocketAddr, Health>,
    looked: Option<Instant>,
    modified: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Health {
    failures: u32,
    ask_again: Option<Instant>,
}

impl Upstreams {
    /// Asks `servers`, or those of `/etc/resolv.conf`; never `own`, which is where questions come from.
    pub fn new(servers: Option<Vec<SocketAddr>>, own: IpAddr) -> Self {
        Self {
            fixed: servers.is_some(),
            file: PathBuf::from("/etc/resolv.conf"),
            own,
            state: Mutex::new(State {
                servers: servers.unwrap_or_default(),
                ..State::default()
            }),
        }
    }

    /// The first useful answer; `None` where there is none to be had now. Takes [`ALL_TRIES`] at most, and no
    /// time at all while every resolver is known to be silent.
    pub async fn ask(&self, query: &Query, dnssec: bool) -> Option<Message> {
        timeout(ALL_TRIES, self.try_each(query, dnssec))
            .await
            .ok()
            .flatten()
    }

    async fn try_each(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let mut last = None;
        // Twice, as a datagram may be lost on the way.
        for _ in 0..2 {
            for server in self.usable(Instant::now()) {
                let asked = timeout(ONE_TRY, exchange(server, query, dnssec)).await;
                let Ok(Ok(answer)) = asked else {
                    self.judge(server, false);
                    continue;
                };
                self.judge(server, true);
                let code = answer.metadata.response_code;
                if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
                    return Some(answer);
                }
                last = Some(answer);
            }
        }
        last
    }

    /// Resolvers worth asking. One that was silent is asked again after its pause, by one client only.
    fn usable(&self, now: Instant) -> Vec<SocketAddr> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.fixed {
            self.look(&mut state, now);
        }
        let State { servers, health, .. } = &mut *state;
        let due = |server: &&SocketAddr| match health.get_mut(server) {
            Some(Health {
                ask_again: Some(at), ..
            }) if *at > now => false,
            Some(Health {
                ask_again: Some(at), ..
            }) => {
                *at = now + PAUSE.1;
                true
            }
            _ => true,
        };
        servers.iter().filter(due).copied().collect()
    }

    fn judge(&self, server: SocketAddr, answered: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            state.health.remove(&server);
            return;
        }
        let health = state.health.entry(server).or_default();
        health.failures += 1;
        // One lost datagram is no silence.
        if let Some(more) = health.failures.checked_sub(2) {
            let pause = PAUSE.0.saturating_mul(1 << more.min(8)).min(PAUSE.1);
            health.ask_again = Some(Instant::now() + pause);
        }
    }

    fn look(&self, state: &mut State, now: Instant) {
        if state.looked.is_some_and(|at| now.duration_since(at) < LOOK) {
            return;
        }
        state.looked = Some(now);
        let modified = fs::metadata(&self.file).and_then(|m| m.modified()).ok();
        if modified.is_none() || modified != state.modified {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            state.servers = name_servers(&text, self.own);
            // A new file mostly means a new link: forget who was silent on the old one.
            state.health.clear();
            state.modified = modified;
        }
    }
}

/// The resolvers that a resolv.conf(5) names.
fn name_servers(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok())?
        })
        .filter(|address| *address != own)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

async fn exchange(server: SocketAddr, query: &Query, dnssec: bool) -> io::Result<Message> {
    let mut request = Message::query();
    request.metadata.recursion_desired = true;
    request.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(SAFE_PAYLOAD).set_dnssec_ok(dnssec);
    request.set_edns(edns);
    let bytes = request.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(server, &request, &bytes).await?;
    if answer.metadata.truncation {
        return by_tcp(server, &request, &bytes).await;
    }
    Ok(answer)
}

async fn by_udp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    // A socket, and so a port, of its own for each question: one more thing for a forger to guess.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = read_answer(&buffer[..length], request) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    read_answer(&buffer, request).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An answer to this very question, or nothing.
fn read_answer(bytes: &[u8], request: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == request.metadata.id && answer.queries == request.queries;
    same.then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_libc_reads_them() {
        let text = "# comment\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver 10.46.0.1\nnameserver what\n";
        let own = IpAddr::from([10, 46, 0, 1]);
        let found: Vec<String> = name_servers(text, own)
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn a_silent_resolver_is_left_alone_for_a_while_and_tried_by_one() {
        let server = SocketAddr::from(([192, 0, 2, 1], 53));
        let upstreams = Upstreams::new(Some(vec![server]), Ipv4Addr::LOCALHOST.into());
        let now = Instant::now();
        assert_eq!(upstreams.usable(now), [server]);
        upstreams.judge(server, false);
        assert_eq!(upstreams.usable(now), [server], "given up after one loss");
        upstreams.judge(server, false);
        assert!(upstreams.usable(now).is_empty());
        let later = now + Duration::from_secs(60);
        assert_eq!(upstreams.usable(later), [server]);
        assert!(upstreams.usable(later).is_empty(), "asked by two");
        upstreams.judge(server, true);
        assert_eq!(upstreams.usable(now), [server]);
    }
}
