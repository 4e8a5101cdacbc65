//! 1 KiB records with 256 in flight over a local socket: into the spool, and into NATS JetStream if it is installed.

use spool::Stream;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Answer, IN_FLIGHT, SMALL, SMALL_COUNT, noise};

/// Records per second into a spool behind a socket: each answered once it is durable.
pub fn into_spool(stream: &Stream) -> Answer<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, stream).expect("the bench's own server"));
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut answers = BufReader::new(socket.try_clone()?);
        let mut out = BufWriter::new(socket);
        let data = noise(SMALL, 7);
        pump(
            SMALL_COUNT,
            &mut out,
            |out| Ok(out.write_all(&data)?),
            || {
                let mut answer = [0; 8];
                answers.read_exact(&mut answer)?;
                Ok(())
            },
        )
    })
}

/// Takes records of a fixed size and answers each with its number.
fn serve(listener: &TcpListener, stream: &Stream) -> Answer<()> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(64 << 10, socket.try_clone()?);
    let (waiting, pending) = mpsc::sync_channel::<spool::Pending>(IN_FLIGHT);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut out = BufWriter::new(socket);
            while let Ok(first) = pending.recv() {
                // What became durable together is answered together.
                for answer in std::iter::once(first).chain(pending.try_iter()) {
                    let Ok(seq) = answer.wait() else { return };
                    if seq.is_multiple_of(1000) && stream.ack("hub", seq).is_err() {
                        return;
                    }
                    if out.write_all(&seq.to_le_bytes()).is_err() {
                        return;
                    }
                }
                if out.flush().is_err() {
                    return;
                }
            }
        });
        let mut record = vec![0; SMALL];
        for _ in 0..SMALL_COUNT {
            input.read_exact(&mut record)?;
            waiting.send(stream.append(&record, None)?)?;
        }
        drop(waiting);
        Ok(())
    })
}

/// Keeps 256 requests in flight; per second.
fn pump(
    count: usize,
    out: &mut BufWriter<TcpStream>,
    mut send: impl FnMut(&mut BufWriter<TcpStream>) -> Answer<()>,
    mut answer: impl FnMut() -> Answer<()>,
) -> Answer<f64> {
    let started = Instant::now();
    let mut sent = 0;
    for answered in 0..count {
        if sent - answered <= IN_FLIGHT / 2 || sent == answered {
            while sent < count && sent - answered < IN_FLIGHT {
                send(out)?;
                sent += 1;
            }
            out.flush()?;
        }
        answer()?;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// A JetStream server of our own, ended when dropped.
pub struct JetStream {
    server: Child,
    port: u16,
    rounds: u32,
    /// As it names itself.
    pub version: String,
}

impl Drop for JetStream {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl JetStream {
    /// Starts one with its default settings, or with a sync per message; `None` where it is not installed, or too old
    /// for that.
    pub fn start(dir: &Path, always: bool) -> Answer<Option<Self>> {
        let program = std::env::var_os("LEEWARD_NATS").unwrap_or_else(|| "nats-server".into());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let store = dir.join(if always { "jetstream-always" } else { "jetstream" });
        let sync = if always { "sync_interval: always" } else { "" };
        let config = dir.join(format!("nats-{port}.conf"));
        std::fs::write(
            &config,
            format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {store:?}\n {sync} }}\n"),
        )?;
        let Ok(named) = Command::new(&program).arg("--version").output() else {
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&named.stdout)
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        let server = Command::new(&program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut own = Self {
            server,
            port,
            rounds: 0,
            version,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if own.server.try_wait()?.is_some() {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err("nats-server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(own))
    }

    /// Messages per second, of `count`, into a new file-backed stream, each acknowledged.
    pub fn measure(&mut self, count: usize) -> Answer<f64> {
        self.rounds += 1;
        let name = format!("BENCH{}", self.rounds);
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut input = BufReader::with_capacity(64 << 10, socket.try_clone()?);
        let mut out = BufWriter::new(socket);
        let mut line = String::new();
        input.read_line(&mut line)?;
        let config = format!(
            r#"{{"name":"{name}","subjects":["{name}"],"storage":"file","num_replicas":1,"retention":"limits","discard":"old","max_msgs":-1,"max_bytes":-1,"max_age":0}}"#
        );
        write!(
            out,
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB _INBOX.b 1\r\n"
        )?;
        write!(
            out,
            "PUB $JS.API.STREAM.CREATE.{name} _INBOX.b {}\r\n{config}\r\n",
            config.len()
        )?;
        out.flush()?;
        let created = message(&mut input, &mut out)?;
        if created.contains("\"error\"") {
            return Err(created.into());
        }
        let mut request = format!("PUB {name} _INBOX.b {SMALL}\r\n").into_bytes();
        request.extend(noise(SMALL, 8));
        request.extend(b"\r\n");
        let mut pings = out.get_ref().try_clone()?;
        pump(
            count,
            &mut out,
            |out| Ok(out.write_all(&request)?),
            || {
                let answer = message(&mut input, &mut pings)?;
                if answer.contains("\"error\"") {
                    return Err(answer.into());
                }
                Ok(())
            },
        )
    }
}

/// The next message's payload; answers pings on the way.
fn message(input: &mut BufReader<TcpStream>, out: &mut impl std::io::Write) -> Answer<String> {
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Err("nats-server closed the connection".into());
        }
        if line.starts_with("PING") {
            out.write_all(b"PONG\r\n")?;
            out.flush()?;
        } else if line.starts_with("MSG") {
            let len: usize = line.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
            let mut payload = vec![0; len + 2];
            input.read_exact(&mut payload)?;
            payload.truncate(len);
            return Ok(String::from_utf8(payload)?);
        } else if line.starts_with("-ERR") {
            return Err(line.trim_end().to_owned().into());
        }
    }
}
