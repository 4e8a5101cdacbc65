//! What people and the hub may ask of the loop.

use super::Converger;
use crate::generations::GenerationsError;
use model::{Action, Admission, Because, ObjectKey, Severity, Step};
use runtime::Engine;
use tokio::sync::oneshot;

/// What people and the hub may ask of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take no new generation.
    Pause,
    /// Take them again.
    Resume,
    /// Replace the pods of one workload.
    Restart(ObjectKey),
    /// Which revisions to move to.
    Admit(Admission),
    /// A revision was refused before it got here; remember why.
    Refused {
        /// Its content, where it rendered.
        id: Option<model::GenerationId>,
        /// Which.
        revision: Box<model::Revision>,
        /// Why.
        reason: String,
    },
}

/// A command and where its answer goes.
pub type Request = (Command, oneshot::Sender<Result<(), String>>);

impl<E: Engine> Converger<E> {
    /// Does it.
    pub(super) async fn command(&mut self, command: Command) -> Result<(), GenerationsError> {
        match command {
            Command::Pause => {
                self.generations.pause(true)?;
                self.note(
                    Severity::Warning,
                    "Paused",
                    "new generations wait until the device is resumed",
                )
                .await;
            }
            Command::Resume => {
                self.generations.pause(false)?;
                self.note(Severity::Normal, "Resumed", "new generations are taken again")
                    .await;
                let offer = self.offers.borrow().clone();
                if let Some(prepared) = offer {
                    self.consider(&prepared).await;
                }
            }
            Command::Restart(key) => {
                let seen = self.engine.observe().await.unwrap_or_default();
                for pod in seen.pods.iter().filter(|pod| pod.owner == key) {
                    let action = Action::StopPod {
                        pod: pod.id.clone(),
                        grace_seconds: 30,
                    };
                    let step = Step {
                        action,
                        about: key.clone(),
                        because: Because::Changed,
                    };
                    self.steps.launch(step, &self.engine, self.clock.since_boot());
                }
                self.note(
                    Severity::Normal,
                    "Restarting",
                    format!("{key} is restarted by intent"),
                )
                .await;
            }
            Command::Admit(admission) => {
                if self.generations.admit(admission.clone())? {
                    let told = match &admission {
                        Admission::Any => "every new revision may be taken".to_owned(),
                        Admission::Only { revision: None } => "new revisions wait for a roll-out".to_owned(),
                        Admission::Only {
                            revision: Some(commit),
                        } => format!("a roll-out admits revision {commit}"),
                    };
                    self.note(Severity::Normal, "Admitted", told).await;
                    self.admission.send_replace(admission);
                }
            }
            Command::Refused { id, revision, reason } => {
                let before = self
                    .generations
                    .failed()
                    .map(|failed| (failed.revision.clone(), failed.reason.clone()));
                self.generations.refused(id, &revision, &reason)?;
                if before != Some((*revision.clone(), reason.clone())) {
                    self.note(Severity::Warning, "Refused", format!("{revision}: {reason}"))
                        .await;
                }
            }
        }
        Ok(())
    }
}
