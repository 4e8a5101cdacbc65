//! Short-lived processes of the shim, and the only callers of libcontainer.
//!
//! libcontainer clones without the C library's knowledge and goes on allocating in the child: safe only in a
//! process without other threads, which is why each call has one of its own.

use super::seccomp;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::wait::{WaitStatus, waitpid};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;

/// Exit code of a helper that could not do its work; a command inside a container may end with it as well.
const FAILED: u8 = 125;

/// `run ROOT ID LOG PID_FILE BUNDLE`: makes and starts a container.
pub(super) fn run(args: Vec<OsString>) -> u8 {
    let Ok([root, id, log, pid_file, bundle]) = <[OsString; 5]>::try_from(args) else {
        return FAILED;
    };
    in_log(log, || {
        let confined = Confined::by(&bundle)?;
        let container = ContainerBuilder::new(id.to_string_lossy().into_owned(), SyscallType::default())
            .with_root_path(root)
            .and_then(|builder| builder.with_pid_file(Some(pid_file)))
            .and_then(ContainerBuilder::validate_id)
            .map(|builder| builder.with_executor(confined))
            .and_then(|builder| {
                builder
                    .as_init(bundle)
                    .with_systemd(false)
                    .with_detach(true)
                    .as_sibling(false)
                    .build()
            });
        container.and_then(|mut container| container.start()).map(|()| 0)
    })
}

/// `exec ROOT ID LOG PID_FILE BUNDLE ARGS...`: runs a command in a container and ends with its exit code.
pub(super) fn exec(args: Vec<OsString>) -> u8 {
    let mut args = args.into_iter();
    let (Some(root), Some(id), Some(log), Some(pid_file), Some(bundle)) =
        (args.next(), args.next(), args.next(), args.next(), args.next())
    else {
        return FAILED;
    };
    let args = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    in_log(log, || {
        let confined = Confined::by(&bundle)?;
        let pid = ContainerBuilder::new(id.to_string_lossy().into_owned(), SyscallType::default())
            .with_root_path(root)
            .and_then(|builder| builder.with_pid_file(Some(pid_file)))
            .and_then(|builder| {
                builder
                    .with_executor(confined)
                    .as_tenant()
                    .with_detach(true)
                    .with_container_args(args)
                    .build()
            })?;
        Ok(match waitpid(nix::unistd::Pid::from_raw(pid.as_raw()), None) {
            Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(FAILED),
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + u8::try_from(signal as i32).unwrap_or(0),
            _ => FAILED,
        })
    })
}

/// Becomes the container's program, confined by the profile of its configuration: libcontainer skips a profile
/// without a word where it is built without a C library for it.
#[derive(Debug, Clone)]
struct Confined {
    refused: Option<Vec<String>>,
}

impl Confined {
    fn by(bundle: &OsStr) -> Result<Self, LibcontainerError> {
        let text =
            std::fs::read(Path::new(bundle).join("config.json")).map_err(LibcontainerError::OtherIO)?;
        let config = serde_json::from_slice(&text).map_err(|err| LibcontainerError::OtherIO(err.into()))?;
        Ok(Self {
            refused: seccomp::of_config(&config),
        })
    }
}

impl Executor for Confined {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(refused) = &self.refused {
            let failed = |why| ExecutorError::Other(format!("the seccomp profile cannot be set: {why}"));
            seccomp::confine(refused).map_err(failed)?;
        }
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

/// `call PROGRAM ARGS...`: becomes another program, with the signals that [`super::main`] has unblocked.
pub(super) fn call(args: Vec<OsString>) -> u8 {
    let Some((program, args)) = args.split_first() else {
        return FAILED;
    };
    let err = std::process::Command::new(program).args(args).exec();
    super::complain(format!("{} cannot be run: {err}", program.display()));
    FAILED
}

/// Does the work with libcontainer's complaints going to the log; its errors alone seldom name the cause.
fn in_log(log: OsString, work: impl FnOnce() -> Result<u8, LibcontainerError>) -> u8 {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(PathBuf::from(log));
    let Ok(file) = file else {
        return FAILED;
    };
    if let Ok(clone) = file.try_clone() {
        // Nobody else in this process sets one.
        let _ = tracing::subscriber::set_global_default(Complaints(Mutex::new(clone)));
    }
    match work() {
        Ok(code) => code,
        Err(err) => {
            let _ = writeln!(&file, "{}", kit::chain(&err));
            FAILED
        }
    }
}

/// Writes error events to a file, one a line.
#[derive(Debug)]
struct Complaints(Mutex<File>);

impl tracing::Subscriber for Complaints {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Ok(mut file) = self.0.lock() {
            // A helper has nowhere else to complain.
            let _ = writeln!(file, "{}{}", line.message, line.fields);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = if field.name() == "message" {
            &mut self.message
        } else {
            &mut self.fields
        };
        // Writing to memory cannot fail.
        let _ = match field.name() {
            "message" => write!(text, "{value:?}"),
            name => write!(text, " {name}={value:?}"),
        };
    }
}

/// `hold PID_FILE`: makes a process namespace whose first process only buries the dead.
pub(super) fn hold(args: Vec<OsString>) -> u8 {
    let [pid_file] = args.as_slice() else {
        return FAILED;
    };
    let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)
        .map_err(std::io::Error::from)
        .and_then(|()| super::oci::myself("bury").spawn())
        .and_then(|child| std::fs::write(pid_file, child.id().to_string()));
    if made.is_ok() { 0 } else { FAILED }
}

/// `bury`: the first process of a pod's process namespace; ends by SIGKILL alone.
pub(super) fn bury() -> u8 {
    let mut children = nix::sys::signal::SigSet::empty();
    children.add(nix::sys::signal::Signal::SIGCHLD);
    if children.thread_block().is_err() {
        return FAILED;
    }
    loop {
        while matches!(waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        if children.wait().is_err() {
            return FAILED;
        }
    }
}
