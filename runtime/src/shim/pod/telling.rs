//! What the shim writes down and tells of the pod.

use super::{Pod, Stop};
use crate::shim::complain;
use crate::shim::container::{Container, State};
use crate::shim::journal;
use crate::shim::protocol::{Report, STATE};
use jiff::Timestamp;
use model::{PodPhase, Severity};
use std::io;

impl Pod {
    /// Adds an event to the journal.
    pub(super) fn tell(&mut self, severity: Severity, reason: &str, message: String) {
        self.journal.tell(journal::about(
            &self.name,
            Timestamp::now(),
            severity,
            reason,
            message,
        ));
    }

    /// Writes the state down and tells it, if it has changed.
    pub(super) fn tell_state(&mut self) {
        let state = &mut self.state;
        state.pod.containers = self.containers.iter().map(Container::observed).collect();
        state.pod.phase = phase(&self.containers, self.stop);
        state.pod.trouble = self
            .trouble
            .clone()
            .or_else(|| self.containers.iter().find_map(trouble));
        state.begun = state.begun || self.trouble.is_some() || begun(&self.containers);
        if self.told.as_ref() == Some(&self.state) {
            return;
        }
        if let Err(err) = self.save() {
            // The socket tells it all the same; the next change writes it.
            complain(format!("the state cannot be written: {err}"));
        }
        let report = Report::State(Box::new(self.state.clone()));
        self.clients.iter_mut().for_each(|client| client.send(&report));
        self.told = Some(self.state.clone());
    }

    /// What is over must outlive a power cut, so that a Job does not run twice. All else ends with the boot.
    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.state)?;
        let path = self.dir.join(STATE);
        if self.state.ended {
            return kit::disk::replace(&path, &text);
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text)?;
        kit::disk::swap(&fresh, &path)
    }
}

fn phase(containers: &[Container], stop: Option<Stop>) -> PodPhase {
    if containers.iter().all(Container::over) {
        let failed = stop == Some(Stop::Deadline) || containers.iter().any(|c| c.code() != Some(0));
        return if failed {
            PodPhase::Failed
        } else {
            PodPhase::Succeeded
        };
    }
    let has_run = |c: &&Container| match c.state {
        State::Running { .. } | State::Exited { .. } => true,
        _ => c.last_exit.is_some_and(|(_, reason)| reason != "StartError"),
    };
    match containers.iter().filter(|c| !c.init).any(|c| has_run(&c)) {
        true => PodPhase::Running,
        false => PodPhase::Pending,
    }
}

/// Whether each of the first containers has been started or has failed to.
fn begun(containers: &[Container]) -> bool {
    let tried = |c: &Container| {
        matches!(c.state, State::Running { .. } | State::Exited { .. }) || c.last_exit.is_some()
    };
    match containers.iter().find(|c| c.init) {
        Some(first) => tried(first),
        None => containers.iter().all(tried),
    }
}

fn trouble(container: &Container) -> Option<String> {
    if container.trouble.is_some() {
        return container.trouble.clone();
    }
    match (&container.state, container.last_exit) {
        (
            State::Waiting {
                reason: "CrashLoopBackOff",
                ..
            },
            Some((code, reason)),
        ) => Some(format!(
            "container {} ends again and again, last with code {code} ({reason}); see its log",
            container.name
        )),
        _ => None,
    }
}
