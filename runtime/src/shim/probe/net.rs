//! HTTP and TCP tries without waiting: the caller polls and calls on.

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// A try under way.
#[derive(Debug)]
pub(crate) struct Try {
    stream: TcpStream,
    /// What is still to be sent; empty for a mere connection.
    request: Vec<u8>,
    connected: bool,
    http: bool,
    answer: Vec<u8>,
}

/// How far a try is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Call again when the socket is ready.
    Waiting,
    /// The answer is good.
    Good,
    /// It is not, because of this.
    Bad(String),
}

impl Try {
    /// Begins to connect.
    pub(crate) fn tcp(ip: IpAddr, port: u16) -> io::Result<Self> {
        let address = SocketAddr::new(ip, port);
        let family = if ip.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(Self {
            stream: socket.into(),
            request: Vec::new(),
            connected: false,
            http: false,
            answer: Vec::new(),
        })
    }

    /// Begins an HTTP/1.1 GET.
    pub(crate) fn http(ip: IpAddr, port: u16, path: &str, headers: &[(String, String)]) -> io::Result<Self> {
        let mut this = Self::tcp(ip, port)?;
        this.request = request(ip, port, path, headers).into_bytes();
        this.http = true;
        Ok(this)
    }

    /// What to poll for.
    pub(crate) fn wants(&self) -> PollFlags {
        if self.connected && self.request.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        }
    }

    /// Goes on as far as it can.
    pub(crate) fn go_on(&mut self) -> Progress {
        match self.step() {
            Ok(progress) => progress,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Progress::Waiting,
            Err(err) => Progress::Bad(err.to_string()),
        }
    }

    fn step(&mut self) -> io::Result<Progress> {
        if !self.connected {
            sockopt::socket_error(&self.stream)??;
            self.stream.peer_addr().map_err(|_| io::ErrorKind::WouldBlock)?;
            self.connected = true;
            if !self.http {
                return Ok(Progress::Good);
            }
        }
        while !self.request.is_empty() {
            let sent = self.stream.write(&self.request)?;
            self.request.drain(..sent);
        }
        let mut buffer = [0; 256];
        loop {
            if let Some(status) = status(&self.answer) {
                return Ok(match status {
                    Ok(200..=399) => Progress::Good,
                    Ok(code) => Progress::Bad(format!("HTTP status {code}")),
                    Err(()) => Progress::Bad("the answer is not HTTP".to_owned()),
                });
            }
            match self.stream.read(&mut buffer)? {
                0 => {
                    return Ok(Progress::Bad(
                        "the connection was closed without an answer".to_owned(),
                    ));
                }
                count => self.answer.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

impl AsFd for Try {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// An HTTP/1.1 GET as it is sent.
pub(crate) fn request(ip: IpAddr, port: u16, path: &str, headers: &[(String, String)]) -> String {
    let given = |name: &str| headers.iter().any(|(held, _)| held.eq_ignore_ascii_case(name));
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    if !given("host") {
        request += &format!("Host: {}\r\n", SocketAddr::new(ip, port));
    }
    if !given("user-agent") {
        request += "User-Agent: leeward-probe\r\n";
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    request
}

/// The status code, once its line is there; an error once it cannot come any more.
pub(crate) fn status(answer: &[u8]) -> Option<Result<u16, ()>> {
    let line = match answer.iter().position(|byte| *byte == b'\n') {
        Some(end) => &answer[..end],
        None if answer.len() > 1024 => return Some(Err(())),
        None => return None,
    };
    let code = std::str::from_utf8(line)
        .ok()
        .filter(|line| line.starts_with("HTTP/"))
        .and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    Some(code.ok_or(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, poll};
    use std::net::{Ipv4Addr, TcpListener};

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn finish(mut attempt: Try) -> Progress {
        loop {
            let wants = attempt.wants();
            poll(&mut [PollFd::new(&attempt, wants)], None).unwrap();
            match attempt.go_on() {
                Progress::Waiting => {}
                done => return done,
            }
        }
    }

    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = peer.read(&mut request).unwrap();
            assert!(String::from_utf8_lossy(&request[..length]).contains("GET /ready?x=1 HTTP/1.1\r\n"));
            for piece in answer.as_bytes().chunks(3) {
                // The prober may have seen enough.
                let _ = peer.write_all(piece);
            }
        });
        port
    }

    #[test]
    fn a_status_from_200_to_399_is_good() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 302 Found\r\n\r\n", true),
            ("HTTP/1.1 503 No\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let port = serve(answer);
            let done = finish(Try::http(LOCAL, port, "/ready?x=1", &[]).unwrap());
            assert_eq!(done == Progress::Good, good, "{answer:?}: {done:?}");
        }
    }

    #[test]
    fn a_connection_is_enough_for_tcp_and_a_closed_port_is_not() {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(finish(Try::tcp(LOCAL, port).unwrap()), Progress::Good);
        drop(listener);
        match Try::tcp(LOCAL, port) {
            Ok(attempt) => assert!(matches!(finish(attempt), Progress::Bad(_))),
            Err(err) => assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused),
        }
    }
}
