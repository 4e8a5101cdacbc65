//! `git upload-pack` over pipes: on another machine through the host's `ssh`, or on this one for `file` addresses.
//!
//! Both programs start with an empty environment. Nothing of the device's user reaches them: no ssh agent, no
//! ssh or Git configuration, no prompt. Only where a person runs a command of their own, ssh is theirs.

use super::{TICK, Wire};
use crate::SourceError;
use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Kept of what a program says on its standard error; the rest is read and dropped.
const MOST_STDERR: usize = 8 << 10;

/// The far side of an ssh address.
pub(super) struct Server<'s> {
    pub user: Option<&'s str>,
    pub host: &'s str,
    pub port: Option<u16>,
    pub path: &'s str,
}

pub(super) fn ssh<'a>(
    wire: &'a Wire<'a>,
    server: &Server<'_>,
    key: &Path,
    known_hosts: &Path,
) -> Result<Connection<Output<'a>, Input>, SourceError> {
    // ssh itself would only say that it found no key that fits.
    for (path, what) in [(key, "deploy key"), (known_hosts, "known_hosts")] {
        std::fs::File::open(path).map_err(|err| SourceError::Authentication {
            url: wire.url.clone(),
            why: format!("the {what} {} cannot be read: {err}", path.display()),
        })?;
    }
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-T"]);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "ControlMaster=no",
        "ControlPath=none",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
        "LogLevel=ERROR",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
        "SendEnv=GIT_PROTOCOL",
    ] {
        command.args(["-o", option]);
    }
    let connect = wire.limits.connect.as_secs().max(1);
    command.args(["-o", &format!("ConnectTimeout={connect}")]);
    command.args([
        "-o",
        &format!("UserKnownHostsFile={}", quoted(wire, known_hosts)?),
    ]);
    command.args(["-o", &format!("IdentityFile={}", quoted(wire, key)?)]);
    if let Some(port) = server.port {
        command.args(["-p", &port.to_string()]);
    }
    if let Some(user) = server.user {
        command.args(["-l", user]);
    }
    command.args(["--", server.host, &upload_pack(server)]);
    let missing = ("ssh", "openssh-client");
    clean(&mut command);
    start(wire, command, missing, server.path, Some(known_hosts.to_owned()))
}

/// The far side gives this line to a shell or to git-shell; the path is one quoted word in it.
fn upload_pack(server: &Server<'_>) -> String {
    format!("git-upload-pack '{}'", server.path.replace('\'', "'\\''"))
}

/// ssh as the user has set it up, started as Git starts it.
pub(super) fn user_ssh<'a>(
    wire: &'a Wire<'a>,
    server: &Server<'_>,
) -> Result<Connection<Output<'a>, Input>, SourceError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut command = match (set("GIT_SSH_COMMAND"), set("GIT_SSH")) {
        // The user's own line, which Git gives to a shell, too. What follows are arguments to it.
        (Some(line), _) => {
            let mut command = Command::new("sh");
            let mut script = line;
            script.push(" \"$@\"");
            command.arg("-c").arg(script).arg("ssh");
            command
        }
        (None, Some(program)) => Command::new(program),
        (None, None) => Command::new("ssh"),
    };
    if let Some(port) = server.port {
        command.args(["-p", &port.to_string()]);
    }
    let host = match server.user {
        Some(user) => format!("{user}@{}", server.host),
        None => server.host.to_owned(),
    };
    command.args([&host, &upload_pack(server)]);
    start(wire, command, ("ssh", "openssh-client"), server.path, None)
}

pub(super) fn file<'a>(
    wire: &'a Wire<'a>,
    path: &Path,
) -> Result<Connection<Output<'a>, Input>, SourceError> {
    let mut command = Command::new("git");
    // The owner of a folder named in the device's own configuration does not matter; a stick has any.
    command
        .args(["-c", "safe.directory=*", "upload-pack", "--"])
        .arg(path);
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent");
    clean(&mut command);
    start(wire, command, ("git", "git"), &path.to_string_lossy(), None)
}

/// A path as the value of an ssh option, where `%` and `"` have a meaning.
fn quoted(wire: &Wire<'_>, path: &Path) -> Result<String, SourceError> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).unwrap_or("\"");
    if text.contains(['"', '\\', '$', '\n']) {
        return Err(SourceError::Authentication {
            url: wire.url.clone(),
            why: format!(
                "the path {} holds a character that ssh cannot be given",
                path.display()
            ),
        });
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// Leaves the program nothing of this one's environment but what was set for it, and where programs are.
fn clean(command: &mut Command) {
    let set: Vec<_> = command
        .get_envs()
        .map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned)))
        .collect();
    command.env_clear();
    command.envs(set.into_iter().filter_map(|(name, value)| Some((name, value?))));
    command.env(
        "PATH",
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
    );
}

fn start<'a>(
    wire: &'a Wire<'a>,
    mut command: Command,
    (program, package): (&'static str, &'static str),
    path: &str,
    known_hosts: Option<PathBuf>,
) -> Result<Connection<Output<'a>, Input>, SourceError> {
    command.env("LC_ALL", "C").env("GIT_PROTOCOL", "version=2");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => SourceError::MissingProgram {
            url: wire.url.clone(),
            program,
            package,
        },
        _ => SourceError::Connect {
            url: wire.url.clone(),
            why: format!("{program} does not start: {err}"),
        },
    })?;
    let piped = "the three streams were asked for";
    let stdin = child.stdin.take().expect(piped);
    let stdout = child.stdout.take().expect(piped);
    let stderr = gather(child.stderr.take().expect(piped));
    let output = Output {
        wire,
        child,
        stdout,
        stderr: Some(stderr),
        known_hosts,
    };
    let host = None::<(String, Option<u16>)>;
    Ok(Connection::new(
        output,
        Input(stdin),
        Protocol::V2,
        path,
        host,
        ConnectMode::Process,
        false,
    ))
}

fn gather(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            let room = MOST_STDERR.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..read.min(room)]);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// What goes to the program. One that has ended shows on its output, with the reason.
pub(super) struct Input(ChildStdin);

impl Write for Input {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.write(data) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(data.len()),
            result => result,
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What comes from the program; ends it when dropped.
pub(super) struct Output<'a> {
    wire: &'a Wire<'a>,
    child: Child,
    stdout: ChildStdout,
    stderr: Option<JoinHandle<String>>,
    known_hosts: Option<PathBuf>,
}

impl Read for Output<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let since = Instant::now();
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        loop {
            let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
            match poll(&mut fds, Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => self.wire.check(since)?,
                Ok(_) => break,
                Err(err) => return Err(err.into()),
            }
        }
        match self.stdout.read(buf)? {
            0 if !buf.is_empty() => self.ended(),
            read => {
                self.wire.count(read)?;
                Ok(read)
            }
        }
    }
}

impl Output<'_> {
    /// The program closed its output: fine where it ended well, which gix judges by what it still expected.
    fn ended(&mut self) -> io::Result<usize> {
        let Some(stderr) = self.stderr.take() else {
            return Ok(0);
        };
        let limit = Instant::now() + Duration::from_secs(5);
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                // Its output is closed: there is nothing left that it could do for us.
                None if Instant::now() > limit => {
                    self.child.kill()?;
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // Ends with the program, as nobody else holds the other end.
        let said = stderr.join().unwrap_or_default();
        if status.success() {
            return Ok(0);
        }
        let cause = self.explain(said.trim());
        Err(self.wire.fail(cause))
    }

    fn explain(&self, said: &str) -> SourceError {
        let url = self.wire.url.clone();
        let said_any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let why = said
            .lines()
            .filter(|line| !line.trim_matches('@').trim().is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        let refused = [
            "Permission denied",
            "UNPROTECTED PRIVATE KEY",
            "error in libcrypto",
            "invalid format",
        ];
        let unreachable = [
            "Could not resolve",
            "Connection refused",
            "timed out",
            "No route to host",
            "Network is unreachable",
            "Connection closed by",
            "Connection reset by",
            "kex_exchange_identification",
        ];
        match &self.known_hosts {
            Some(known_hosts)
                if said_any(&["Host key verification failed", "No ED25519 host key is known"]) =>
            {
                SourceError::HostKey {
                    url,
                    known_hosts: known_hosts.clone(),
                    why,
                }
            }
            _ if said_any(&refused) => SourceError::Authentication { url, why },
            _ if self.wire.received() == 0 && said_any(&unreachable) => SourceError::Connect { url, why },
            _ if said_any(&[
                "does not appear to be a git repository",
                "not found",
                "not a git repository",
                "No such file",
            ]) =>
            {
                SourceError::NotFound { url, why }
            }
            _ => SourceError::Cut {
                url,
                received: self.wire.received(),
                why,
            },
        }
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
