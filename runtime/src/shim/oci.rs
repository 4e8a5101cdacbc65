//! The OCI runtimes that can make a container from a bundle.

use super::protocol::OciChoice;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A container as the runtime knows it.
#[derive(Debug)]
pub(crate) struct OciContainer<'a> {
    /// Unique below `root`.
    pub(crate) id: &'a str,
    /// Where the runtime keeps its state.
    pub(crate) root: &'a Path,
    /// Folder with `config.json`.
    pub(crate) bundle: &'a Path,
    /// Where the runtime writes why it failed.
    pub(crate) log: &'a Path,
}

/// Makes containers. Each call is a process of its own, so that the shim stays small and no fault in a runtime
/// reaches it; what a call leaves behind falls to the shim, which is a subreaper.
pub(crate) trait OciRuntime: std::fmt::Debug {
    /// A process that makes and starts the container and ends with 0 once it runs. The container gets this
    /// process's standard streams; its first process's number is written to `pid_file`.
    fn run(&self, container: &OciContainer<'_>, pid_file: &Path) -> Command;

    /// A process that runs `args` in the container and ends with their exit code; the number of the process
    /// inside is written to `pid_file`.
    fn exec(&self, container: &OciContainer<'_>, args: &[String], pid_file: &Path) -> Command;

    /// Forgets a container whose processes have ended; one that is unknown is no error.
    fn delete(&self, container: &OciContainer<'_>) -> io::Result<()>;
}

/// The runtime of a pod.
pub(crate) fn runtime(choice: &OciChoice) -> Box<dyn OciRuntime> {
    match choice {
        OciChoice::Embedded => Box::new(Libcontainer),
        OciChoice::CommandLine(program) => Box::new(CommandLine(program.clone())),
    }
}

/// This program once more, as `shim run` and `shim exec`: see [`super::helper`].
#[derive(Debug)]
struct Libcontainer;

/// This program, also where its file has been replaced by a newer one meanwhile.
pub(crate) fn myself(what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("leeward").arg("shim").arg(what);
    command
}

impl OciRuntime for Libcontainer {
    fn run(&self, container: &OciContainer<'_>, pid_file: &Path) -> Command {
        let mut command = myself("run");
        command
            .arg(container.root)
            .arg(container.id)
            .arg(container.log)
            .arg(pid_file)
            .arg(container.bundle);
        command
    }

    fn exec(&self, container: &OciContainer<'_>, args: &[String], pid_file: &Path) -> Command {
        let mut command = myself("exec");
        command
            .arg(container.root)
            .arg(container.id)
            .arg(container.log)
            .arg(pid_file)
            .arg(container.bundle)
            .args(args);
        command
    }

    fn delete(&self, container: &OciContainer<'_>) -> io::Result<()> {
        match fs::remove_dir_all(container.root.join(container.id)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// `runc` and those with its command line.
#[derive(Debug)]
struct CommandLine(PathBuf);

impl CommandLine {
    fn command(&self, container: &OciContainer<'_>) -> Command {
        let mut command = myself("call");
        command
            .arg(&self.0)
            .arg("--root")
            .arg(container.root)
            .arg("--log")
            .arg(container.log);
        command
    }
}

impl OciRuntime for CommandLine {
    fn run(&self, container: &OciContainer<'_>, pid_file: &Path) -> Command {
        let mut command = self.command(container);
        command
            .args(["run", "--detach", "--bundle"])
            .arg(container.bundle);
        command.arg("--pid-file").arg(pid_file).arg(container.id);
        command
    }

    fn exec(&self, container: &OciContainer<'_>, args: &[String], pid_file: &Path) -> Command {
        let mut command = self.command(container);
        command
            .args(["exec", "--pid-file"])
            .arg(pid_file)
            .arg(container.id)
            .args(args);
        command
    }

    fn delete(&self, container: &OciContainer<'_>) -> io::Result<()> {
        if !container.root.join(container.id).exists() {
            return Ok(());
        }
        let output = self
            .command(container)
            .args(["delete", "--force", container.id])
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

/// What a runtime's log says went wrong: its first error.
pub(crate) fn reason(log: &str) -> Option<String> {
    let of = |line: &str| {
        let text = line.split_once("level=error msg=").map_or(line, |(_, text)| text);
        text.trim().trim_matches('"').replace("\\\"", "\"")
    };
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines
        .iter()
        .find(|line| !line.contains("level=warn"))
        .map(|line| of(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_either_log() {
        let runc = "time=\"2026-01-01T00:00:00Z\" level=warning msg=\"odd\"\n\
                    time=\"2026-01-01T00:00:00Z\" level=error msg=\"exec: \\\"x\\\": not found\"\n";
        assert_eq!(reason(runc).as_deref(), Some("exec: \"x\": not found"));
        assert_eq!(
            reason("executable 'x' not found\nmore\n").as_deref(),
            Some("executable 'x' not found")
        );
        assert_eq!(reason("\n"), None);
    }
}
