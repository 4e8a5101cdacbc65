//! Where the user is not root: the world lives in user, mount, network and process namespaces of its own.
//!
//! Three processes of this program: the command that the person types; the *holder*, which stays in the machine's
//! network to carry the hub's port there; and *init*, process 1 of the namespaces, which all others end with. Inside,
//! a command finds itself root and goes on as on a machine of its own. What root alone can have is missing there, and
//! said: see [`gaps`].

mod root;

use crate::process::Process;
use crate::{cgroups, net, world};
use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getgid, getuid};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio::signal::unix::{SignalKind, signal};

/// Where the holder's port is told to commands inside.
const PORT_VARIABLE: &str = "LEEWARD_DEV_PORT";
/// Users and groups besides the first that a namespace gets, as `/etc/subuid` grants them to each user.
const MANY: u32 = 65_536;

/// The namespaces of a world, as its folder remembers them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Namespaces {
    init: Process,
    /// The hub's port, inside and outside.
    port: u16,
}

/// Whether this process is not root, not even in namespaces of its own.
pub fn needed() -> bool {
    !nix::unistd::geteuid().is_root()
}

/// Whether this process is in a user namespace of its own, root only in there.
pub fn inside() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) != Some("4294967295")
}

/// The port that the holder carries, for commands inside.
pub(crate) fn port() -> Option<u16> {
    std::env::var(PORT_VARIABLE).ok()?.parse().ok()
}

/// What cannot be had here that root would have: a line each.
pub(crate) fn gaps() -> Vec<String> {
    let mut gaps = Vec::new();
    if cgroups::absent() {
        for limit in ["CPU", "memory"] {
            gaps.push(format!(
                "no {limit} limits, of devices and of containers: control groups are root's here"
            ));
        }
    }
    gaps.extend(only_root());
    gaps
}

/// Why containers cannot have other users than root, where they cannot.
pub(crate) fn only_root() -> Option<String> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    (inside() && map.lines().count() < 2).then(|| {
        "containers of other users than root: they need `newuidmap` (Debian package uidmap) and a line for you in \
         /etc/subuid and in /etc/subgid, such as YOU:100000:65536"
            .to_owned()
    })
}

/// Runs this very command inside the namespaces of the world in `dir`, which are made where there are none, and gives
/// its exit code. Must be called before this process has a second thread.
///
/// # Errors
/// Where the machine does not let a user have namespaces; says what to change.
pub fn enter(dir: &Path) -> Result<u8> {
    kit::disk::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let namespaces = match find(&dir)? {
        Some(namespaces) => namespaces,
        None => start(&dir)?,
    };
    let program = std::env::current_exe().context("where is this program?")?;
    let here = std::env::current_dir()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM] {
        signals.add(signal);
    }
    signals.thread_block()?;
    // Numbers of processes mean others once /proc is the world's.
    let init = rustix::process::Pid::from_raw(namespaces.init.pid).context("the world's first process")?;
    let init = rustix::process::pidfd_open(init, rustix::process::PidfdFlags::empty())?;
    join(namespaces.init.pid)?;
    // The way here may lead through what is not there inside, such as /run.
    let _ = std::env::set_current_dir(here);
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(PORT_VARIABLE, namespaces.port.to_string())
        .env("PATH", path())
        .spawn()
        .context("cannot start this program again in the world's namespaces")?;
    let code = wait(&mut child, &signals)?;
    if !dir.join(world::LEDGER).exists() {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&init, rustix::process::Signal::KILL);
        // Empty after `down`; where there never was a world, what we put there is removed.
        for file in [FILE, LOG] {
            kit::disk::remove_if_there(&dir.join(file))?;
        }
        let _ = fs::remove_dir(&dir);
    }
    Ok(code)
}

/// Programs of the system's administration, too, which are not on every user's path.
fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Waits for the child; a wish to stop that reaches us is handed on.
fn wait(child: &mut Child, signals: &SigSet) -> Result<u8> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        match signals.wait()? {
            Signal::SIGCHLD => {}
            // It may have ended at this very moment.
            signal => drop(kill(pid, signal)),
        }
    }
}

const FILE: &str = "namespaces.json";
const LOG: &str = "namespaces.log";

fn find(dir: &Path) -> Result<Option<Namespaces>> {
    let path = dir.join(FILE);
    let Some(bytes) = kit::disk::read_if_there(&path)? else {
        return Ok(None);
    };
    let found: Namespaces =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(found.init.alive().then_some(found))
}

/// Enters the namespaces of init; children will be in all of them.
fn join(init: i32) -> Result<()> {
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let open = |(kind, flag): (&str, CloneFlags)| {
        let path = format!("/proc/{init}/ns/{kind}");
        File::open(&path).context(path).map(|file| (file, flag))
    };
    for (file, flag) in kinds.into_iter().map(open).collect::<Result<Vec<_>>>()? {
        setns(file, flag).with_context(|| format!("cannot enter the world's namespaces ({flag:?})"))?;
    }
    Ok(())
}

/// Starts a holder, gives it its users, and waits until init is there.
fn start(dir: &Path) -> Result<Namespaces> {
    let log = dir.join(LOG);
    let mut holder = Command::new(std::env::current_exe().context("where is this program?")?)
        .args(["dev", "--dir"])
        .arg(dir)
        .arg("hold")
        .env("PATH", path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).with_context(|| log.display().to_string())?)
        .process_group(0)
        .spawn()?;
    let (Some(mut ask), Some(tell)) = (holder.stdin.take(), holder.stdout.take()) else {
        bail!("the holder has no standard streams");
    };
    let mut lines = BufReader::new(tell).lines();
    let mut said = || -> Result<String> {
        match lines.next() {
            Some(line) => Ok(line?),
            None => bail!("{}", world::tail(&log, 5).trim_start_matches("error: ")),
        }
    };
    said()?;
    map_users(holder.id())?;
    writeln!(ask, "mapped")?;
    let line = said()?;
    let mut numbers = line.split(' ').map(str::parse::<i32>);
    let (Some(Ok(init)), Some(Ok(port))) = (numbers.next(), numbers.next()) else {
        bail!("the holder says {line:?}");
    };
    let namespaces = Namespaces {
        init: Process::of(init).context("the world's first process has ended already")?,
        port: u16::try_from(port)?,
    };
    kit::disk::replace(&dir.join(FILE), &serde_json::to_vec(&namespaces)?)?;
    Ok(namespaces)
}

/// This user is root inside; the many that `/etc/subuid` grants are the others, where they can be had.
fn map_users(holder: u32) -> Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let many = |tool: &str, file: &str, own: u32| -> Option<()> {
        let first = granted(file, uid)?;
        let words = [holder, 0, own, 1, 1, first, MANY - 1].map(|number| number.to_string());
        let done = Command::new(tool)
            .args(words)
            .env("PATH", path())
            .stderr(Stdio::null())
            .status();
        done.ok()?.success().then_some(())
    };
    let both = many("newuidmap", "/etc/subuid", uid).and_then(|()| many("newgidmap", "/etc/subgid", gid));
    if both.is_some() {
        return Ok(());
    }
    let proc = Path::new("/proc").join(holder.to_string());
    let write = |file: &str, text: String| {
        let path = proc.join(file);
        // Written already where the first of the two tools did its work.
        let is_set = fs::read_to_string(&path).is_ok_and(|text| !text.trim().is_empty());
        if is_set && file.ends_with("map") {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("cannot map this user: {}", path.display()))
    };
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {gid} 1\n"))
}

/// First of the numbers that a file grants to this user, where they are enough.
fn granted(file: &str, uid: u32) -> Option<u32> {
    let name = nix::unistd::User::from_uid(uid.into())
        .ok()?
        .map(|user| user.name);
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let ours = who == uid.to_string() || Some(who) == name.as_deref();
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (ours && count >= MANY - 1).then_some(first)
    })
}

/// `leeward dev hold`: makes the namespaces and carries the hub's port from the machine's network into them.
///
/// # Errors
/// Where the machine does not let a user have namespaces; says what to change.
pub fn hold(dir: &Path) -> Result<()> {
    let program = std::env::current_exe().context("where is this program?")?;
    let listener = listen()?;
    let port = listener.local_addr()?.port();
    if let Err(err) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID) {
        bail!("this user may not have namespaces of its own ({err}){}", remedy());
    }
    say("unshared")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let mut init = Command::new(program)
        .args(["dev", "--dir"])
        .arg(dir)
        .arg("init")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the first process of the namespaces")?;
    let mut ready = String::new();
    if let Some(stdout) = &mut init.stdout {
        BufReader::new(stdout).read_line(&mut ready)?;
    }
    if ready.is_empty() {
        bail!("the first process of the namespaces has ended");
    }
    let network = format!("/proc/{}/ns/net", init.id());
    setns(File::open(&network).context(network)?, CloneFlags::CLONE_NEWNET)?;
    say(&format!("{} {port}", init.id()))?;
    carry(listener, SocketAddr::from((net::CLOUD, port)), init)
}

/// What a machine's settings forbid, where that can be read.
fn remedy() -> String {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let settings = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    for (name, bad, good) in settings {
        if is(&format!("/proc/sys/{}", name.replace('.', "/")), bad) {
            return format!(
                ": {name} is {bad}; as root, `sysctl {name}={good}`, or run this command as root"
            );
        }
    }
    "; run this command as root".to_owned()
}

fn listen() -> Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    at(world::HUB_PORT).or_else(|_| at(0)).context("no port is free")
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Every connection to `listener`, made in the machine's network, goes on to `target` in ours, until init has ended.
///
/// All in this one thread: a process whose children are to be in another process namespace gets no second one.
fn carry(listener: TcpListener, target: SocketAddr, mut init: Child) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut child = signal(SignalKind::child())?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = child.recv() => match init.try_wait()? {
                    Some(_) => return Ok(()),
                    None => continue,
                },
            };
            let Ok((mut outer, _)) = accepted else {
                // Out of files, for a moment.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            tokio::spawn(async move {
                // A hub that is not there is told by the connection's end.
                if let Ok(mut inner) = tokio::net::TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    })
}

/// `leeward dev init`: process 1 of the namespaces. Makes their root, then buries what dies.
///
/// # Errors
/// What cannot be mounted, and why.
pub fn init() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .context("no mount and network namespaces")?;
    root::make()?;
    crate::run::run("ip", &["link", "set", "lo", "up"])?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    say("ready")?;
    loop {
        signals.wait()?;
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
    }
}
